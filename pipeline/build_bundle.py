"""Weights and catalogue -> model bundle: head fitted, runtime chosen, precision gated, quality measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as library_version

import numpy as np
import torch

from pipeline.embed import Embedded, run_over_photos, say_unusable
from pipeline.evaluate import describe_metrics, evaluate
from pipeline.export import (
    Forward,
    Graph,
    calibration_sample,
    features_graph,
    graph_files,
    int8_graph,
    judge,
    runner,
    with_head,
)
from pipeline.train import fit_head, held_out_listings
from pipeline.weights import LoadedWeights, load_weights
from shared.catalogue import CataloguePhoto
from shared.images import Pixels, PreprocessSpec
from shared.indexing.catalogue import Catalogue
from shared.settings import PrecisionChoice, RuntimeChoice, Settings
from shared.vision.bundle import (
    BundleManifest,
    ModelBundle,
    Precision,
    Runtime,
    bundle_store,
    open_bundle,
    write_bundle,
)
from shared.vision.embedder import Embeddings, FloatArray, normalised
from shared.vision.network import EMBEDDING_DIM, NORMALISATION, Network

OWN_HEAD_NOTICE = (
    "The 13-class head came with the weights file. Whether it was trained on photos of this catalogue is not known, "
    "so its accuracy here may flatter it."
)
_LIBRARIES = ("torch", "torchvision", "openvino", "nncf", "numpy", "pillow")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """What the bundle will be run as, and the catalogue under it."""

    embedded: Embedded
    precision: Precision = Precision.FLOAT32
    gate: dict[str, float | str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def build_bundle(settings: Settings, catalogue: Catalogue, say: Say) -> tuple[ModelBundle, Embedded]:
    """Load a trunk, fit the head on the catalogue's labels, choose how it is run, write and promote the bundle.

    Returns:
        the bundle, and the catalogue under it: fitting and measuring need every photo's embedding anyway.
    """
    loaded = load_weights(settings.backbone, settings.weights, download_timeout_s=settings.download_timeout_s)
    say(f"weights: {loaded.source}")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    spec = PreprocessSpec()
    runtime = _runtime(settings.runtime)
    graph = features_graph(loaded.network, spec.size_px) if runtime is Runtime.OPENVINO else None
    forward = _torch_features(loaded.network) if graph is None else runner(graph)
    photos, features, sample = _features(catalogue, forward, spec, say)
    listings = frozenset(photo.listing_id for photo in catalogue.photos)
    held_out = listings if loaded.has_head else held_out_listings(photos)
    network = loaded.network.cpu()
    if not loaded.has_head:
        _fit(network, photos, features, held_out)
    with torch.inference_mode():
        scores = network.head(torch.from_numpy(features)).numpy()
    served = Served(Embedded(photos, Embeddings(normalised(features), scores)))
    if graph is not None:
        served = _choose_precision(with_head(graph, network), served.embedded, sample, settings, spec, say)
    manifest = _describe(loaded, catalogue, spec).model_copy(
        update={
            "runtime": runtime,
            "precision": served.precision,
            "gate": served.gate,
            "metrics": evaluate(photos, served.embedded.embeddings, held_out),
        }
    )
    store = bundle_store(settings.home)
    version = write_bundle(
        store,
        manifest,
        network.tensors(),
        held_out=frozenset() if loaded.has_head else held_out,
        fitted_on=frozenset() if loaded.has_head else listings,
        graph_files=served.files,
    )
    store.promote(version)
    store.prune(settings.keep_snapshots)
    if manifest.notice:
        say(f"notice: {manifest.notice}")
    say(f"model bundle {version} ({runtime}, {served.precision}): {describe_metrics(manifest.metrics)}")
    return open_bundle(store, version), served.embedded


def _runtime(choice: RuntimeChoice) -> Runtime:
    if choice is RuntimeChoice.AUTO:
        return Runtime.TORCH if torch.cuda.is_available() else Runtime.OPENVINO
    return Runtime(choice.value)


def _features(
    catalogue: Catalogue, forward: Forward, spec: PreprocessSpec, say: Say
) -> tuple[list[CataloguePhoto], FloatArray, list[Pixels]]:
    """Decodable photos, their pooled features (n, dim) in float32, and the pixels of some to calibrate on."""
    wanted = calibration_sample(len(catalogue.photos))
    sample: list[Pixels] = []
    n_seen = 0

    def run(pixels: Pixels) -> FloatArray:
        nonlocal n_seen
        sample.extend(photo for i, photo in enumerate(pixels, n_seen) if i in wanted)
        n_seen += len(pixels)
        return forward(pixels)[0]

    photos, batches, unusable = run_over_photos(catalogue.photos, spec, run, desc="features")
    say_unusable(unusable, say)
    return photos, np.concatenate(batches), sample


def _torch_features(network: Network) -> Forward:
    """The reference runtime, on the GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = network.features.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(pixels: Pixels) -> list[FloatArray]:
        with torch.inference_mode():
            return [features(torch.from_numpy(pixels).to(device)).cpu().numpy()]

    return forward


def _fit(network: Network, photos: list[CataloguePhoto], features: FloatArray, held_out: frozenset[str]) -> None:
    seen = [i for i, photo in enumerate(photos) if photo.listing_id not in held_out]
    head = fit_head(features[seen], [photos[i].category for i in seen])
    network.head.load_state_dict({"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)})


def _choose_precision(
    graph: Graph, reference: Embedded, sample: list[Pixels], settings: Settings, spec: PreprocessSpec, say: Say
) -> Served:
    """int8 where it passes the gate against float32 on the same photos, else float32 and why."""
    if settings.precision is PrecisionChoice.FLOAT32:
        return Served(reference, files=graph_files(graph))
    say(f"quantising to int8 with {len(sample)} photos of the catalogue")
    quantised = int8_graph(graph, sample)
    _, batches, _ = run_over_photos(reference.photos, spec, runner(quantised), desc="int8")
    pooled, scores = (np.concatenate(part) for part in zip(*batches, strict=True))
    candidate = Embeddings(normalised(pooled), scores)
    verdict = judge(candidate, reference.embeddings, reference.photos)
    say(f"int8 against float32: {describe_metrics(verdict.facts())}")
    if not verdict.passed:
        return Served(reference, gate=verdict.facts(), files=graph_files(graph))
    return Served(Embedded(reference.photos, candidate), Precision.INT8, verdict.facts(), graph_files(quantised))


def _describe(loaded: LoadedWeights, catalogue: Catalogue, spec: PreprocessSpec) -> BundleManifest:
    return BundleManifest(
        backbone=loaded.backbone,
        weights=loaded.source,
        weights_sha256="",
        embedding_dim=EMBEDDING_DIM[loaded.backbone],
        preprocess=spec,
        normalisation=NORMALISATION[loaded.backbone],
        catalogue=catalogue.name,
        head_came_with_weights=loaded.has_head,
        notice=OWN_HEAD_NOTICE if loaded.has_head else loaded.notice,
        libraries={name: library_version(name) for name in _LIBRARIES},
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
