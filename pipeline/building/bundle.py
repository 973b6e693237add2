"""Build a model bundle: fit the head, choose runtime and precision, calibrate, and measure the quality."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.building.embed import EmbeddedPhotos, report_unusable, run_over_photos
from pipeline.building.export import (
    Forward,
    calibration_sample,
    graph_files,
    judge,
    runner,
    with_head,
)
from pipeline.building.precisions import ReducedPrecision, reduced_precision, torch_features
from pipeline.building.trunks import trunk_graph
from pipeline.doctor.machine import graphics_cards
from pipeline.evaluation.evaluate import METRICS, Evaluation, describe_metrics
from pipeline.evaluation.words import measure_served
from pipeline.feedback.lessons import NO_LESSONS, Lessons
from pipeline.training.calibration.fusion import Labelled, Worded, fit_fusion
from pipeline.training.calibration.matching import fit_matching
from pipeline.training.head import Heads, fit_head
from pipeline.training.projection import fit_projection
from pipeline.training.split import split_listings
from pipeline.training.weights.loading import LoadedWeights, load_weights
from pipeline.training.words.encoder import Texts, fit_text, words_of
from pipeline.training.words.sentences import Sentences, load_sentence_encoder
from shared.array_types import FloatArray
from shared.artifacts.snapshots import answering_bundle
from shared.artifacts.store import ArtifactStore
from shared.attributes.schema import NO_ATTRIBUTES, AttributeSchema
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.catalogue.tables import Catalogue
from shared.model.backbones import EMBEDDING_DIM, INPUT_PX, LEVELS, NORMALISATION
from shared.model.bundle import (
    HISTORY,
    POOLED,
    PROJECTED,
    REFERENCES,
    TRAINING,
    BundleManifest,
    ModelBundle,
    Precision,
    Runtime,
    Split,
    bundle_store,
    open_bundle,
    write_bundle,
    write_bundle_directory,
)
from shared.model.embedder import Embeddings, normalised
from shared.model.references import reference_pixels, references_file
from shared.model.torch_library import has_gpu, missing_torch, require_torch
from shared.photos.images import Pixels, PreprocessSpec
from shared.progress import ReportProgress
from shared.settings import RuntimeChoice, Settings

OWN_HEAD_NOTICE = (
    "The 13-class head came with the weights file. Whether it was trained on photos of this catalogue is not known, "
    "so its accuracy here may flatter it."
)
CLOSED_FORM = "closed form"  # logistic head and projection over a trunk as it came
_LIBRARIES = ("torch", "torchvision", "openvino", "nncf", "numpy", "pillow")  # those that are installed are told


@dataclass(frozen=True)
class BundleInputs:
    """What a bundle is made from: a network with trained trunk, and the catalogue its head is or was fitted on.

    Attributes:
        loaded: the weights and where they come from.
        catalogue: name of the catalogue.
        categories: of the catalogue.
        photos: of the catalogue, in its order.
        split: listings to train, validate and test on; all empty if the head came with the weights.
        recipe: how the network was trained, for the manifest.
        attributes: of the listings; those that are texts are their words.
        paths: category path by listing id, as far as they are known.
        project: whether to fit a projection, which is kept if retrieval on validation photos gets better.
        history: one entry for each epoch, as the training loop reports it.
        notes: what was decided while it was trained.
        sentences: a sentence encoder beside the catalogue's words.
        lessons: from feedback; the network's head is trained on them already.
    """

    loaded: LoadedWeights
    catalogue: str
    categories: Categories
    photos: Sequence[CataloguePhoto]
    split: Split
    recipe: str
    project: bool
    attributes: AttributeSchema = NO_ATTRIBUTES
    paths: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    notes: Mapping[str, float | str] = field(default_factory=dict)
    sentences: Sentences | None = None
    lessons: Lessons = NO_LESSONS


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
class _Candidate:
    """The catalogue by one precision of the trunk, with the head and projection fitted to that precision."""

    heads: Heads
    pooled: FloatArray  # (n, width)
    embeddings: Embeddings
    references: FloatArray  # (N_PHOTOS, dim) embeddings of the reference photos
    notes: Mapping[str, float | str]

    @property
    def features(self) -> FloatArray:
        """(n, dim) of the last stage, L2 norm 1."""
        return normalised(self.pooled[:, : self.heads.head.weight.shape[1]])


@dataclass(frozen=True)
class _ServedModel:
    """The precision that was chosen, the gate's figures, and the files that the runtime loads."""

    chosen: _Candidate
    precision: Precision
    gate: dict[str, float | str]
    files: dict[str, bytes]


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
        catalogue=catalogue.name,
        categories=catalogue.categories,
        photos=catalogue.photos,
        split=split,
        recipe=CLOSED_FORM,
        project=not loaded.has_head,
        attributes=catalogue.attributes,
        paths=catalogue.paths,
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
    loaded, split = inputs.loaded, inputs.split
    runtime = _runtime(settings.runtime, report_progress)
    graph = None
    if runtime is Runtime.OPENVINO:
        graph = trunk_graph(loaded.backbone, NORMALISATION[loaded.backbone], loaded.trunk, spec.size_px)
    forward = torch_features(loaded, threads=settings.threads) if graph is None else runner(graph, settings.threads)
    photos, pooled, sample = _pool_features(inputs.photos, forward, spec, report_progress)
    references = forward(reference_pixels(spec.size_px))[0]
    chosen = _fit_candidate(inputs, photos, pooled, references)
    served, gate = None, dict[str, float | str]()
    if reduced := reduced_precision(graph, loaded, sample, settings, report_progress):
        served, gate = _apply_quality_gate(reduced, chosen, inputs, photos, spec, report_progress)
    if served is None:
        files = {} if graph is None else graph_files(with_head(graph, chosen.heads))
        served = _ServedModel(chosen, Precision.FLOAT32, gate, files)
    heads, notes = served.chosen.heads, served.chosen.notes
    if inputs.project:
        report_progress(f"projection: {notes['projection']}")
    embedded = EmbeddedPhotos(photos, served.chosen.embeddings)
    layer = POOLED if heads.projection is None else PROJECTED
    labelled = Labelled.of(photos, embedded.embeddings, layer)
    text = fit_text(
        inputs.lessons.taught(photos), labelled.embeddings.vectors, split, inputs.attributes,
        len(inputs.categories), inputs.paths, report_progress, inputs.sentences,
    )  # fmt: skip
    worded = Worded.of(text.encoder, photos, labelled) if text else None
    temperature, fusion = 1.0, None
    if split.listings:  # a head that came with the weights is not calibrated
        temperature, fusion = fit_fusion(labelled, split, worded, inputs.categories, report_progress)
    matching = fit_matching(labelled, photos, split, report_progress, inputs.lessons.same)
    described, reference_file = references_file(served.chosen.references)
    manifest = _manifest(inputs, spec).model_copy(
        update={
            "embedding_dim": heads.embedding_dim,
            "embedding_layer": layer,
            "runtime": runtime,
            "precision": served.precision,
            "gate": served.gate,
            "references": described,
            "temperature": temperature,
            "fusion": fusion,
            "text": text and text.encoder.facts,
            "matching": matching and matching.by_lead,
            "matching_by_doubt": matching and matching.by_doubt,
            "abstain_below": fusion.photo.abstain_below if fusion else 0.0,
            "abstain_below_by_level": fusion.photo.abstain_below_by_level if fusion else (),
        }
    )
    evaluation = measure_served(labelled, photos, manifest, split, inputs.categories, worded).evaluation
    manifest = manifest.model_copy(update={"metrics": evaluation.summary()})
    if manifest.notice:
        report_progress(f"notice: {manifest.notice}")
    report_progress(f"model bundle ({runtime}, {served.precision}): {describe_metrics(manifest.metrics)}")
    if text:
        notes = {**notes, **text.notes}
    extra_files = {METRICS: evaluation.model_dump_json(), TRAINING: json.dumps(notes, indent=1)}
    if inputs.history:
        extra_files[HISTORY] = json.dumps(inputs.history, indent=1)
    return BundleContents(
        manifest=manifest,
        tensors=loaded.tensors(heads),
        split=split,
        graph_files=served.files,
        extra_files={
            REFERENCES: reference_file,
            **(text.files if text else {}),
            **{name: content.encode() for name, content in extra_files.items()},
        },
        embedded=embedded,
        evaluation=evaluation,
        notes=notes,
    )


def _runtime(choice: RuntimeChoice, report_progress: ReportProgress) -> Runtime:
    if choice is RuntimeChoice.AUTO:
        if missing_torch() and (cards := graphics_cards()):
            report_progress(f"notice: {', '.join(cards)} is not used, because torch is not installed: `make torch`")
        return Runtime.TORCH if has_gpu() else Runtime.OPENVINO
    if choice is RuntimeChoice.TORCH:
        require_torch("LOOKALIKE_RUNTIME=torch")
    return Runtime(choice.value)


def _pool_features(
    catalogue: Sequence[CataloguePhoto], forward: Forward, spec: PreprocessSpec, report_progress: ReportProgress
) -> tuple[list[CataloguePhoto], FloatArray, list[Pixels]]:
    """Run the trunk over every photo.

    Returns:
        the photos that could be decoded; their pooled features (n, width); pixels of some of them, (S, S, 3) each, to
        calibrate int8 on.
    """
    wanted = calibration_sample(len(catalogue))
    sample: list[Pixels] = []
    n_seen = 0

    def run(pixels: Pixels) -> FloatArray:
        nonlocal n_seen
        sample.extend(photo for i, photo in enumerate(pixels, n_seen) if i in wanted)
        n_seen += len(pixels)
        return forward(pixels)[0]

    photos, batches, unusable = run_over_photos(catalogue, spec, run, desc="features")
    report_unusable(unusable, report_progress)
    return photos, np.concatenate(batches), sample


def _fit_candidate(
    inputs: BundleInputs, photos: list[CataloguePhoto], pooled: FloatArray, references: FloatArray
) -> _Candidate:
    """Fit the head and the projection, where they are missing, on pooled features.

    Args:
        photos: one a row.
        pooled: (n, width).
        references: (N_PHOTOS, width) pooled features of the reference photos.
    """
    notes = dict(inputs.notes)
    backbone, head = inputs.loaded.backbone, inputs.loaded.head
    if head is None:
        rows = [row for row, photo in enumerate(photos) if photo.listing_id in inputs.split.train]
        labels = [photos[row].category for row in rows]
        head = fit_head(pooled[rows, : EMBEDDING_DIM[backbone]], labels, len(inputs.categories))
    heads = Heads(head)
    if inputs.project:
        heads, decided = fit_projection(head, LEVELS[backbone], photos, pooled, inputs.split, inputs.lessons.pairs)
        notes |= decided
    embeddings, scores = heads.answer(pooled)
    expected = normalised(heads.answer(references)[0])
    return _Candidate(heads, pooled, Embeddings(normalised(embeddings), scores), expected, notes)


def _apply_quality_gate(
    reduced: ReducedPrecision,
    reference: _Candidate,
    inputs: BundleInputs,
    photos: list[CataloguePhoto],
    spec: PreprocessSpec,
    report_progress: ReportProgress,
) -> tuple[_ServedModel | None, dict[str, float | str]]:
    """Compare a reduced precision with float32 on the same photos.

    Returns:
        what is served in the reduced precision, None if it fails the gate; and the figures of the comparison.
    """
    if "verdict" in reduced.portability:
        report_progress(f"{reduced.precision}: {describe_metrics(reduced.portability)}")
        return None, reduced.portability
    _, batches, _ = run_over_photos(photos, spec, reduced.forward, desc=reduced.precision.value)
    references = reduced.forward(reference_pixels(spec.size_px))[0]
    candidate = _fit_candidate(inputs, photos, np.concatenate([batch[0] for batch in batches]), references)
    verdict = judge(candidate.features, reference.features, photos)
    gate = verdict.facts() | reduced.portability
    report_progress(f"{reduced.precision} against float32: {describe_metrics(gate)}")
    if not verdict.passed:
        return None, gate
    return _ServedModel(candidate, reduced.precision, gate, reduced.files(candidate.heads)), gate


def _manifest(inputs: BundleInputs, spec: PreprocessSpec) -> BundleManifest:
    loaded = inputs.loaded
    return BundleManifest(
        backbone=loaded.backbone,
        weights=loaded.source,
        weights_sha256="",
        embedding_dim=0,
        categories=inputs.categories.names,
        recipe=inputs.recipe,
        preprocess=spec,
        normalisation=NORMALISATION[loaded.backbone],
        catalogue=inputs.catalogue,
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
