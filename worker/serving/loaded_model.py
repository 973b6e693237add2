"""Loads a bundle into memory, with the micro-batcher that runs photos through it."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shared.array_types import FloatArray
from shared.errors import InternalError
from shared.model.bundle import ModelBundle
from shared.model.embedder import Cores, Embedder, Embeddings
from shared.model.references import has_references, verify_embeddings
from shared.model.runtimes import open_embedder
from shared.photos.images import Pixels
from shared.telemetry import event
from shared.text.encoder import TextEncoder
from worker.serving.micro_batcher import BatchLimits, MicroBatcher
from worker.serving.tuning import Tuning, open_tuned

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine uses the machine. Fields are the settings of the same names, which `shared.settings` describes.

    Attributes:
        tunings: directory of the tuning results of this machine; None: use defaults instead of measuring.
        limits: of the batchers, except for their `max_batch`, which is the field above or the tuned one.
    """

    threads: int = 0
    streams: int = 0
    max_batch: int = 0
    tunings: Path | None = None
    limits: BatchLimits = field(default_factory=BatchLimits)
    cache_entries: int = 4096
    cache_ttl_s: float = 3600.0


@dataclass(frozen=True, eq=False)
class Model:
    """A bundle in memory, ready to embed photos.

    Attributes:
        bundle: that was loaded.
        batcher: runs photos (S, S, 3) uint8 through the network; each output is the embeddings of one photo.
        max_concurrency: photos in forward passes at the same time, at most.
        device: that it runs on, for people.
        tuning: measured streams and batch size; None: defaults.
        text_encoder: encodes words; None: the model knows none.
        feature_maps: computes those of one photo, see `Embedder.feature_maps`; it does not wait for the batcher.
    """

    bundle: ModelBundle
    batcher: "MicroBatcher[Pixels, Embeddings]"
    max_concurrency: int = 1
    device: str = ""
    tuning: Tuning | None = None
    text_encoder: TextEncoder | None = None
    feature_maps: Callable[[Pixels], list[FloatArray]] = lambda photo: []


def start_model(bundle: ModelBundle, options: EngineOptions, on_batch: Callable[[int], None]) -> Model:
    """Load a bundle, tune it to the machine, warm it up and verify its embeddings.

    Args:
        bundle: to load.
        options: how to use the machine.
        on_batch: called with the size of each batch.

    Raises:
        BundleDamaged: the files do not fit the manifest.
        EmbeddingsDiffer: on this machine the model gives other embeddings than where it was built.
    """

    def open_with(streams: int) -> Embedder:
        return open_embedder(bundle, threads=options.threads, streams=streams)

    tuning = None
    if options.tunings is None or (options.streams and options.max_batch):  # nothing to choose
        embedder = open_with(options.streams)
    else:
        wishes = {"threads": options.threads, "streams": options.streams, "batch": options.max_batch}
        embedder, tuning = open_tuned(open_with, options.tunings, **wishes)
    max_batch = tuning.batch if tuning else options.max_batch or embedder.best_batch
    size_px = bundle.manifest.preprocess.size_px
    for cores in (Cores.ALL, Cores.STREAM):  # the first pass of each kind is the slowest
        embedder.embed(np.zeros((1, size_px, size_px, 3), dtype=np.uint8), cores)
    verify_embeddings(bundle, embedder)
    if not has_references(bundle.manifest):
        event(_LOG, "embeddings_unverified", level=logging.WARNING, bundle=bundle.version)

    def run(photos: Sequence[Pixels], cores: Cores) -> list[Embeddings]:
        vectors, scores = embedder.embed(np.stack(photos), cores)
        if not np.isfinite(vectors).all():
            raise InternalError("the model gave no finite embedding for this photo")
        return [Embeddings(vectors[i : i + 1], scores[i : i + 1]) for i in range(len(photos))]

    concurrency = max_batch * embedder.n_streams
    # Room for what two shards have waiting, and for the photos of clients beside them.
    max_waiting = max(options.limits.max_waiting, 4 * concurrency)
    batcher = MicroBatcher(
        run,
        limits=replace(options.limits, max_batch=max_batch, max_waiting=max_waiting),
        n_runners=embedder.n_streams,
        n_bulk_runners=embedder.n_streams if embedder.gives_way else 0,
        on_hang=_end_process,
        on_batch=on_batch,
    )
    return Model(bundle, batcher, concurrency, embedder.device, tuning, bundle.text_encoder(), embedder.feature_maps)


def _end_process() -> None:
    """End the process, because a hung pass cannot be stopped: its leases then run out, and others take its jobs."""
    event(_LOG, "forward_pass_hangs", level=logging.CRITICAL)
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)
