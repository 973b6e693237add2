"""Model and index in memory, swapped as one. Knows nothing of Redis or Celery."""

import hashlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from shared.errors import ArtifactError, IndexMissing, InternalError, PhotoExpired
from shared.images import Pixels
from shared.jobs import EmbedRequest, IndexInfo, JobRequest, JobResult, Priority, SearchRequest, WorkerStats
from shared.telemetry import event
from shared.vision.answers import embed_result, search_result
from shared.vision.bundle import ModelBundle, bundle_store, open_bundle
from shared.vision.embedder import Embeddings
from shared.vision.index import IndexSnapshot, index_store, open_snapshot
from shared.vision.runtimes import open_embedder
from worker.batching import BatchLimits, MicroBatcher
from worker.cache import ResultCache

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine uses the machine. The settings of the same names say what each is."""

    threads: int = 0
    streams: int = 0
    limits: BatchLimits = field(default_factory=BatchLimits)
    cache_entries: int = 4096
    cache_ttl_s: float = 3600.0


@dataclass(frozen=True)
class _Live:
    """One model and an index built by it; a job sees exactly one of these."""

    bundle: ModelBundle
    batcher: "MicroBatcher[Pixels, Embeddings]"
    snapshot: IndexSnapshot


class Engine:
    """Answers requests from the current bundle and index of one installation.

    Args:
        home: where bundles and indexes lie.

    Attributes:
        problem: why the promoted artifacts are not the ones in use, or None.
    """

    def __init__(self, home: Path, options: EngineOptions | None = None) -> None:
        self._bundles = bundle_store(home)
        self._indexes = index_store(home)
        self._options = options or EngineOptions()
        self._live: _Live | None = None
        self._tried: tuple[str | None, str | None] | None = None
        self._cache: ResultCache[Embeddings] = ResultCache(
            max_entries=self._options.cache_entries, ttl_s=self._options.cache_ttl_s
        )
        self._batch_sizes: Counter[int] = Counter()
        self._counting = threading.Lock()
        self.problem: str | None = None

    @property
    def ready(self) -> bool:
        return self._live is not None

    def refresh(self) -> None:
        """Follow the CURRENT pointers; what cannot be used is reported in `problem`, and the old keeps serving."""
        try:
            wanted = (self._bundles.current(), self._indexes.current())
            if self.ready and wanted == self._tried:
                return
            self._tried = wanted
            old, self._live = self._live, self._load()
            if old is not None and old.batcher is not self._live.batcher:
                old.batcher.close()
        except (ArtifactError, OSError) as exc:
            if str(exc) != self.problem:
                event(_LOG, "artifacts_refused", level=logging.ERROR, kind=type(exc).__name__, reason=str(exc))
            self.problem = str(exc) if isinstance(exc, ArtifactError) else "the artifacts cannot be read from disk"
        else:
            self.problem = None

    def _load(self) -> _Live:
        """The promoted model and index; a model that is live already is not loaded again."""
        bundle = open_bundle(self._bundles)
        old = self._live
        kept = old is not None and old.bundle.version == bundle.version
        batcher = old.batcher if old and kept else self._start(bundle)
        try:
            snapshot = open_snapshot(self._indexes, fingerprint=bundle.manifest.fingerprint)
        except ArtifactError:
            if not kept:
                batcher.close()
            raise
        event(_LOG, "artifacts_loaded", bundle=bundle.version, index=snapshot.version, count=len(snapshot))
        return _Live(bundle, batcher, snapshot)

    def _start(self, bundle: ModelBundle) -> "MicroBatcher[Pixels, Embeddings]":
        embedder = open_embedder(bundle, threads=self._options.threads, streams=self._options.streams)
        size_px = bundle.manifest.preprocess.size_px
        for alone in (True, False):  # the first pass of each kind is the slowest
            embedder.embed(np.zeros((1, size_px, size_px, 3), dtype=np.uint8), alone=alone)

        def run(photos: Sequence[Pixels], alone: bool) -> list[Embeddings]:
            vectors, scores = embedder.embed(np.stack(photos), alone=alone)
            if not np.isfinite(vectors).all():
                raise InternalError("the model gave no finite embedding for this photo")
            return [Embeddings(vectors[i : i + 1], scores[i : i + 1]) for i in range(len(photos))]

        limits = self._options.limits
        return MicroBatcher(
            run,
            limits=replace(limits, max_batch=min(limits.max_batch, embedder.best_batch)),
            n_runners=embedder.n_streams,
            on_hang=_end_process,
            on_batch=self._count_batch,
        )

    def _count_batch(self, size: int) -> None:
        with self._counting:
            self._batch_sizes[size] += 1

    def close(self) -> None:
        """Finish what waits for the model."""
        if self._live is not None:
            self._live.batcher.close()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce that this thread will probably `run` a photo within the body, so that a batch may wait for it."""
        live = self._live
        with live.batcher.expecting() if live else nullcontext():
            yield

    def run(
        self,
        request: JobRequest,
        pixels: bytes | None,
        *,
        priority: Priority = Priority.INTERACTIVE,
        owner: str = "",
        unwanted: Callable[[], bool] = lambda: False,
    ) -> JobResult:
        """Answer one request.

        Args:
            pixels: size_px * size_px * 3 bytes; None when the request names a photo of the index.
            owner: whose request it is; owners take turns at the model.
            unwanted: asked just before the photo's forward pass; true ends it there.

        Raises:
            CancelledError: the result is unwanted, or the engine is closed.
            ImageNotFound: the index has no photo of the id in the request.
            PhotoExpired: neither pixels nor an id.
        """
        live = self._live
        if live is None:
            raise IndexMissing(self.problem or "nothing is loaded yet")
        submit = partial(live.batcher.submit, priority=priority, owner=owner, unwanted=unwanted)
        try:
            embeddings = self._embeddings(live, request, pixels, submit)
        except CancelledError:
            if unwanted() or self._live is live:
                raise
            # Another model was promoted just now, and the old one takes no more.
            return self.run(request, pixels, priority=priority, owner=owner, unwanted=unwanted)
        match request:
            case SearchRequest():
                return search_result(embeddings, request, live.snapshot)
            case EmbedRequest():
                return embed_result(embeddings, request.encoding, live.bundle.manifest.fingerprint)

    def _embeddings(
        self,
        live: _Live,
        request: JobRequest,
        pixels: bytes | None,
        submit: "Callable[[Pixels], Future[Embeddings]]",
    ) -> Embeddings:
        if request.image_id is not None:
            return live.snapshot.stored(request.image_id)
        if pixels is None:
            raise PhotoExpired("the photo waited longer than it is kept; send it again")
        size_px = live.bundle.manifest.preprocess.size_px
        photo: Pixels = np.frombuffer(pixels, dtype=np.uint8).reshape(size_px, size_px, 3)
        key = hashlib.blake2b(pixels, digest_size=16, key=live.bundle.manifest.fingerprint[:32].encode()).digest()
        return self._cache.get(key, lambda: submit(photo).result())

    def stats(self) -> WorkerStats:
        """What was done since the process began."""
        counts = self._cache.counts
        with self._counting:
            batch_sizes = dict(self._batch_sizes)
        return WorkerStats(
            batch_sizes=batch_sizes,
            cache_hits=counts.hits,
            cache_shared=counts.shared,
            cache_misses=counts.misses,
        )

    def info(self) -> IndexInfo | None:
        """What is being served, or None before anything is loaded."""
        if (live := self._live) is None:
            return None
        model, index = live.bundle.manifest, live.snapshot.manifest
        return IndexInfo(
            version=live.snapshot.version,
            count=index.count,
            dimension=index.dimension,
            built_at=index.built_at,
            catalogue=index.catalogue,
            backbone=model.backbone,
            weights=model.weights,
            model_fingerprint=model.fingerprint,
            model_version=live.bundle.version,
            metrics=model.metrics,
            metrics_catalogue=model.catalogue,
            runtime=model.runtime,
            precision=model.precision,
            notice=model.notice,
        )


def _end_process() -> None:
    """A pass hangs and nothing can stop it: without this process its leases run out, and others take its jobs."""
    event(_LOG, "forward_pass_hangs", level=logging.CRITICAL)
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)
