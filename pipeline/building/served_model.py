"""Chooses in which runtime and precision a bundle serves, with head and projection fitted to that; embeds photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.building.embed import report_unusable, run_over_photos
from pipeline.building.export import Forward, calibration_sample, graph_files, judge, runner, with_head
from pipeline.building.inputs import BundleInputs
from pipeline.building.precisions import ReducedPrecision, reduced_precision, torch_features
from pipeline.building.trunks import trunk_graph
from pipeline.doctor.machine import graphics_cards
from pipeline.evaluation.evaluate import describe_metrics
from pipeline.training.head import Heads, fit_head
from pipeline.training.projection import fit_projection
from shared.array_types import FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.model.backbones import EMBEDDING_DIM, LEVELS, NORMALISATION
from shared.model.bundle import Precision, Runtime
from shared.model.embedder import Embeddings, normalised
from shared.model.references import reference_pixels
from shared.model.torch_library import has_gpu, missing_torch, require_torch
from shared.photos.images import Pixels, PreprocessSpec
from shared.progress import ReportProgress
from shared.settings import RuntimeChoice, Settings


@dataclass(frozen=True)
class Candidate:
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
class ServedModel:
    """The precision that was chosen, the gate's figures, and the files that the runtime loads."""

    chosen: Candidate
    precision: Precision
    gate: dict[str, float | str]
    files: dict[str, bytes]


def choose_runtime(choice: RuntimeChoice, report_progress: ReportProgress) -> Runtime:
    """The runtime that is asked for, or what this machine has a use for.

    Raises:
        TorchMissing: it is asked for and not installed.
    """
    if choice is RuntimeChoice.AUTO:
        if missing_torch() and (cards := graphics_cards()):
            report_progress(f"notice: {', '.join(cards)} is not used, because torch is not installed: `make torch`")
        return Runtime.TORCH if has_gpu() else Runtime.OPENVINO
    if choice is RuntimeChoice.TORCH:
        require_torch("LOOKALIKE_RUNTIME=torch")
    return Runtime(choice.value)


def choose_precision(
    inputs: BundleInputs,
    spec: PreprocessSpec,
    runtime: Runtime,
    settings: Settings,
    report_progress: ReportProgress,
) -> tuple[list[CataloguePhoto], ServedModel]:
    """Embed the catalogue in float32, and in a reduced precision where one is asked for and passes the gate.

    Returns:
        the photos that could be decoded, and what is served.
    """
    loaded, graph = inputs.loaded, None
    if runtime is Runtime.OPENVINO:
        graph = trunk_graph(loaded.backbone, NORMALISATION[loaded.backbone], loaded.trunk, spec.size_px)
    forward = torch_features(loaded, threads=settings.threads) if graph is None else runner(graph, settings.threads)
    photos, pooled, sample = _pool_features(inputs.catalogue.photos, forward, spec, report_progress)
    full = _fit_candidate(inputs, photos, pooled, forward(reference_pixels(spec.size_px))[0])
    gate: dict[str, float | str] = {}
    if reduced := reduced_precision(graph, loaded, sample, settings, report_progress):
        served, gate = _apply_quality_gate(reduced, full, inputs, photos, spec, report_progress)
        if served:
            return photos, served
    files = {} if graph is None else graph_files(with_head(graph, full.heads))
    return photos, ServedModel(full, Precision.FLOAT32, gate, files)


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
) -> Candidate:
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
        head = fit_head(pooled[rows, : EMBEDDING_DIM[backbone]], labels, len(inputs.catalogue.categories))
    heads = Heads(head)
    if inputs.project:
        heads, decided = fit_projection(head, LEVELS[backbone], photos, pooled, inputs.split, inputs.lessons.pairs)
        notes |= decided
    embeddings, scores = heads.answer(pooled)
    expected = normalised(heads.answer(references)[0])
    return Candidate(heads, pooled, Embeddings(normalised(embeddings), scores), expected, notes)


def _apply_quality_gate(
    reduced: ReducedPrecision,
    reference: Candidate,
    inputs: BundleInputs,
    photos: list[CataloguePhoto],
    spec: PreprocessSpec,
    report_progress: ReportProgress,
) -> tuple[ServedModel | None, dict[str, float | str]]:
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
    return ServedModel(candidate, reduced.precision, gate, reduced.files(candidate.heads)), gate
