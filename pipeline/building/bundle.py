"""Build a model bundle: have the network fitted and its precision chosen, calibrate, and measure the quality."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.building.embed import EmbeddedPhotos
from pipeline.building.inputs import BundleInputs
from pipeline.building.served_model import choose_precision, choose_runtime
from pipeline.evaluation.evaluate import METRICS, Evaluation, describe_metrics
from pipeline.evaluation.words import measure_served
from pipeline.training.calibration.fusion import Labelled, Worded, fit_fusion
from pipeline.training.calibration.matching import FittedMatching, fit_matching
from pipeline.training.split import split_listings
from pipeline.training.weights.loading import load_weights
from pipeline.training.words.encoder import FittedText, Texts, fit_text, words_of
from pipeline.training.words.sentences import Sentences, load_sentence_encoder
from shared.artifacts.snapshots import answering_bundle
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.tables import Catalogue
from shared.model.backbones import INPUT_PX, NORMALISATION
from shared.model.bundle import (
    HISTORY,
    POOLED,
    PROJECTED,
    REFERENCES,
    TRAINING,
    BundleManifest,
    ModelBundle,
    Split,
    bundle_store,
    open_bundle,
    write_bundle,
    write_bundle_directory,
)
from shared.model.fusion import Fusion
from shared.model.references import references_file
from shared.photos.images import PreprocessSpec
from shared.progress import ReportProgress
from shared.settings import Settings

OWN_HEAD_NOTICE = (
    "The 13-class head came with the weights file. Whether it was trained on photos of this catalogue is not known, "
    "so its accuracy here may flatter it."
)
CLOSED_FORM = "closed form"  # logistic head and projection over a trunk as it came
_LIBRARIES = ("torch", "torchvision", "openvino", "nncf", "numpy", "pillow")  # those that are installed are told


@dataclass(frozen=True)
class BundleContents:
    """Everything that is written into a bundle, and the catalogue's embeddings by it.

    Attributes:
        tensors: of the network, by name.
        graph_files: what the runtime loads, by file name; empty for torch.
        extra_files: evaluation, notes and history, by file name.
        embedded: the catalogue's photos with their embeddings.
        notes: what was decided while it was trained and fitted.
    """

    manifest: BundleManifest
    tensors: dict[str, npt.NDArray[np.generic]]
    split: Split
    graph_files: dict[str, bytes]
    extra_files: dict[str, bytes]
    embedded: EmbeddedPhotos
    evaluation: Evaluation
    notes: Mapping[str, float | str]

    def write(self, store: ArtifactStore) -> str:
        """Write the bundle as a new version, not promoted, and return its name."""
        return write_bundle(store, self.manifest, self.tensors, **self._files())

    def write_directory(self, directory: Path) -> None:
        """Write the bundle as a directory of its own, which can be copied to another machine."""
        write_bundle_directory(directory, self.manifest, self.tensors, **self._files())

    def _files(self) -> Any:
        return {"split": self.split, "graph_files": self.graph_files, "extra_files": self.extra_files}


@dataclass(frozen=True)
class _Answers:
    """How answers are made of embeddings and scores: the words, and what is calibrated."""

    text: FittedText | None
    worded: Worded | None
    temperature: float
    fusion: Fusion | None
    matching: FittedMatching | None

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        photo = self.fusion and self.fusion.photo
        return {
            "temperature": self.temperature,
            "fusion": self.fusion,
            "text": self.text and self.text.encoder.facts,
            "matching": self.matching and self.matching.by_lead,
            "matching_by_doubt": self.matching and self.matching.by_doubt,
            "abstain_below": photo.abstain_below if photo else 0.0,
            "abstain_below_by_level": photo.abstain_below_by_level if photo else (),
        }


def build_bundle(
    settings: Settings, catalogue: Catalogue, report_progress: ReportProgress
) -> tuple[ModelBundle, EmbeddedPhotos]:
    """Load pretrained weights, fit head and projection on the catalogue in closed form, write and promote the bundle.

    Args:
        settings: backbone, weights file, runtime, precision and storage.
        catalogue: photos and labels to fit on.
        report_progress: receives one line for each step.

    Returns:
        the bundle, and the catalogue's embeddings by it, which were needed for fitting and measuring anyway.

    Raises:
        WeightsUnusable: the weights or the sentence encoder cannot be had.
        CatalogueUnusable: not one photo can be decoded.
    """
    loaded = load_weights(
        settings.backbone,
        settings.weights,
        download_timeout_s=settings.download_timeout_s,
        categories=catalogue.categories,
    )
    report_progress(f"weights: {loaded.source}")
    split = Split() if loaded.has_head else split_listings(catalogue.photos)
    inputs = BundleInputs(
        loaded=loaded,
        catalogue=catalogue,
        split=split,
        recipe=CLOSED_FORM,
        project=not loaded.has_head,
        sentences=wanted_sentences(settings, catalogue, report_progress),
    )
    contents = assemble_bundle(inputs, PreprocessSpec(size_px=INPUT_PX[loaded.backbone]), settings, report_progress)
    store = bundle_store(settings.storage)
    version = contents.write(store)
    store.promote(version)
    # Until the new one has an index, searches are answered by the bundle of the live index.
    store.prune(settings.keep_snapshots, protect=[answering_bundle(settings.storage) or version])
    return open_bundle(store, version), contents.embedded


def wanted_sentences(settings: Settings, catalogue: Catalogue, report_progress: ReportProgress) -> Sentences | None:
    """Load the sentence encoder that is asked for, which is best done before anything takes long.

    Raises:
        WeightsUnusable: it cannot be had.
    """
    if settings.text_encoder is None:
        return None
    titles = list(Texts.of(catalogue.photos, words_of(catalogue.attributes)).titles.values())
    if not titles:
        report_progress(f"sentence encoder: none, the listings of {catalogue.name} have no words")
        return None
    return load_sentence_encoder(settings.text_encoder, settings.precision, titles, report_progress)


def assemble_bundle(
    inputs: BundleInputs, spec: PreprocessSpec, settings: Settings, report_progress: ReportProgress
) -> BundleContents:
    """Compute pooled features of every photo, fit what is missing, choose the precision, calibrate and measure.

    Args:
        inputs: the network and the catalogue.
        spec: how photos are preprocessed.
        settings: runtime, precision and threads.
        report_progress: receives one line for each step.

    Raises:
        CatalogueUnusable: not one photo can be decoded.
    """
    split, categories = inputs.split, inputs.catalogue.categories
    runtime = choose_runtime(settings.runtime, report_progress)
    photos, served = choose_precision(inputs, spec, runtime, settings, report_progress)
    heads, notes = served.chosen.heads, served.chosen.notes
    if inputs.project:
        report_progress(f"projection: {notes['projection']}")
    embedded = EmbeddedPhotos(photos, served.chosen.embeddings)
    layer = POOLED if heads.projection is None else PROJECTED
    labelled = Labelled.of(photos, embedded.embeddings, layer)
    answers = _fit_answers(inputs, photos, labelled, report_progress)
    described, reference_file = references_file(served.chosen.references)
    manifest = _manifest(inputs, spec).model_copy(
        update={
            "embedding_dim": heads.embedding_dim,
            "embedding_layer": layer,
            "runtime": runtime,
            "precision": served.precision,
            "gate": served.gate,
            "references": described,
            **answers.facts(),
        }
    )
    evaluation = measure_served(labelled, photos, manifest, split, categories, answers.worded).evaluation
    manifest = manifest.model_copy(update={"metrics": evaluation.summary()})
    if manifest.notice:
        report_progress(f"notice: {manifest.notice}")
    report_progress(f"model bundle ({runtime}, {served.precision}): {describe_metrics(manifest.metrics)}")
    text_files: Mapping[str, bytes] = {}
    if answers.text:
        notes = {**notes, **answers.text.notes}
        text_files = answers.text.files
    extra_files = {METRICS: evaluation.model_dump_json(), TRAINING: json.dumps(notes, indent=1)}
    if inputs.history:
        extra_files[HISTORY] = json.dumps(inputs.history, indent=1)
    encoded = {name: content.encode() for name, content in extra_files.items()}
    return BundleContents(
        manifest=manifest,
        tensors=inputs.loaded.tensors(heads),
        split=split,
        graph_files=served.files,
        extra_files={REFERENCES: reference_file, **text_files, **encoded},
        embedded=embedded,
        evaluation=evaluation,
        notes=notes,
    )


def _fit_answers(
    inputs: BundleInputs, photos: list[CataloguePhoto], labelled: Labelled, report_progress: ReportProgress
) -> _Answers:
    """Fit what makes answers of embeddings and scores, on the embeddings that are served."""
    catalogue, split = inputs.catalogue, inputs.split
    text = fit_text(
        inputs.lessons.taught(photos), labelled.embeddings.vectors, split, catalogue.attributes,
        len(catalogue.categories), catalogue.paths, report_progress, inputs.sentences,
    )  # fmt: skip
    worded = Worded.of(text.encoder, photos, labelled) if text else None
    temperature, fusion = 1.0, None
    if split.listings:  # a head that came with the weights is not calibrated
        temperature, fusion = fit_fusion(labelled, split, worded, catalogue.categories, report_progress)
    matching = fit_matching(labelled, photos, split, report_progress, inputs.lessons.same)
    return _Answers(text, worded, temperature, fusion, matching)


def _manifest(inputs: BundleInputs, spec: PreprocessSpec) -> BundleManifest:
    loaded = inputs.loaded
    return BundleManifest(
        backbone=loaded.backbone,
        weights=loaded.source,
        weights_sha256="",
        embedding_dim=0,
        categories=inputs.catalogue.categories.names,
        recipe=inputs.recipe,
        preprocess=spec,
        normalisation=NORMALISATION[loaded.backbone],
        catalogue=inputs.catalogue.name,
        head_came_with_weights=not inputs.split.listings,
        notice=loaded.notice if inputs.split.listings else OWN_HEAD_NOTICE,
        libraries=_versions(),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = library_version(name)
    return versions
