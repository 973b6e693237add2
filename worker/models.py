"""Models in memory: each a bundle, and the batcher that takes photos for it. Knows no index."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shared.errors import InternalError
from shared.images import Pixels
from shared.telemetry import event
from shared.vision.bundle import ModelBundle
from shared.vision.embedder import Embeddings
from shared.vision.runtimes import open_embedder
from worker.batching import BatchLimits, MicroBatcher

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine uses the machine. The settings of the same names say what each is."""

    threads: int = 0
    streams: int = 0
    limits: BatchLimits = field(default_factory=BatchLimits)
    cache_entries: int = 4096
    cache_ttl_s: float = 3600.0


@dataclass(frozen=True, eq=False)
class Model:
    """A bundle in memory, and what takes photos for it."""

    bundle: ModelBundle
    batcher: "MicroBatcher[Pixels, Embeddings]"


def start_model(bundle: ModelBundle, options: EngineOptions, on_batch: Callable[[int], None]) -> Model:
    """Load a bundle and warm it up.

    Raises:
        BundleDamaged: the files do not fit what the manifest says.
    """
    embedder = open_embedder(bundle, threads=options.threads, streams=options.streams)
    size_px = bundle.manifest.preprocess.size_px
    for alone in (True, False):  # the first pass of each kind is the slowest
        embedder.embed(np.zeros((1, size_px, size_px, 3), dtype=np.uint8), alone=alone)

    def run(photos: Sequence[Pixels], alone: bool) -> list[Embeddings]:
        vectors, scores = embedder.embed(np.stack(photos), alone=alone)
        if not np.isfinite(vectors).all():
            raise InternalError("the model gave no finite embedding for this photo")
        return [Embeddings(vectors[i : i + 1], scores[i : i + 1]) for i in range(len(photos))]

    batcher = MicroBatcher(
        run,
        limits=replace(options.limits, max_batch=min(options.limits.max_batch, embedder.best_batch)),
        n_runners=embedder.n_streams,
        on_hang=_end_process,
        on_batch=on_batch,
    )
    return Model(bundle, batcher)


def _end_process() -> None:
    """A pass hangs and nothing can stop it: without this process its leases run out, and others take its jobs."""
    event(_LOG, "forward_pass_hangs", level=logging.CRITICAL)
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)
