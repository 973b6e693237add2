"""Model and index in memory, swapped as one. Knows nothing of Redis or Celery."""

import hashlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from shared.errors import (
    ArtifactError,
    BundleMissing,
    FingerprintMismatch,
    IndexDamaged,
    IndexMissing,
    InternalError,
    LookalikeError,
    PhotoExpired,
    QueueUnavailable,
)
from shared.home import live_photo
from shared.images import Pixels, decode_photo
from shared.jobs import EmbedRequest, IndexInfo, PhotoRequest, PhotoResult, Priority, SearchRequest, WorkerStats
from shared.snapshots import index_store, read_index_manifest
from shared.store.changes import BEGINNING, Change, PutPhoto
from shared.telemetry import event
from shared.vision.answers import embed_result, search_result
from shared.vision.bundle import ModelBundle, bundle_store, open_bundle
from shared.vision.embedder import Embeddings
from shared.vision.index import IndexSnapshot, open_snapshot
from shared.vision.overlay import Overlay
from shared.vision.runtimes import open_embedder
from worker.batching import BatchLimits, MicroBatcher
from worker.cache import ResultCache

_LOG = logging.getLogger(__name__)
_CATALOGUE = "_reindex"  # who takes turns with the API keys


@dataclass(frozen=True)
class EngineOptions:
    """How an engine uses the machine. The settings of the same names say what each is."""

    threads: int = 0
    streams: int = 0
    limits: BatchLimits = field(default_factory=BatchLimits)
    cache_entries: int = 4096
    cache_ttl_s: float = 3600.0


@dataclass(frozen=True)
class _Model:
    """A bundle in memory, and what takes photos for it."""

    bundle: ModelBundle
    batcher: "MicroBatcher[Pixels, Embeddings]"


ReadChanges = Callable[[str], Iterable[Change]]


@dataclass(frozen=True)
class _Live:
    """One model and an index built by it; a job sees exactly one of these."""

    model: _Model
    index: Overlay

    @property
    def bundle(self) -> ModelBundle:
        return self.model.bundle

    @property
    def batcher(self) -> "MicroBatcher[Pixels, Embeddings]":
        return self.model.batcher


class Engine:
    """Answers requests from the current bundle and index of one installation.

    Args:
        home: where bundles and indexes lie.
        read_changes: the live changes after an entry of their log; without it there are none.

    Attributes:
        problem: why the promoted artifacts are not the ones in use, or None.
    """

    def __init__(
        self, home: Path, options: EngineOptions | None = None, read_changes: ReadChanges = lambda after: ()
    ) -> None:
        self._home = home
        self._bundles = bundle_store(home)
        self._indexes = index_store(home)
        self._options = options or EngineOptions()
        self._read_changes = read_changes
        self._changing = threading.Lock()
        self._live: _Live | None = None
        self._coming: _Model | None = None  # promoted, but not yet an index by it
        self._loading = threading.RLock()
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

    @property
    def can_embed(self) -> bool:
        """Whether a model is loaded, be it without an index of its own."""
        return self.ready or self._coming is not None

    def refresh(self) -> None:
        """Follow the CURRENT pointers; what cannot be used is reported in `problem`, and the old keeps serving."""
        try:
            # Forgotten until both pointers are read: what follows an unreadable one must be tried, whatever it is.
            tried, self._tried = self._tried, None
            if not self.can_embed:  # first, because a model without an index can make one
                self._model(self._promoted_version())
            self._tried = wanted = (self._bundles.current(), self._indexes.current())
            if self.ready and wanted == tried:
                return
            old, new = self._live, self._load()
            with self._loading:
                superseded = [model for model in (old.model if old else None, self._coming) if model]
                self._coming = None
            for model in superseded:
                if model is not new.model:
                    model.batcher.close()
        except (ArtifactError, QueueUnavailable, OSError) as exc:
            if isinstance(exc, QueueUnavailable):
                self._tried = None  # nothing is wrong with the artifacts
            if str(exc) != self.problem:
                event(_LOG, "artifacts_refused", level=logging.ERROR, kind=type(exc).__name__, reason=str(exc))
            self.problem = "the artifacts cannot be read from disk" if isinstance(exc, OSError) else str(exc)
        else:
            self.problem = None

    def _load(self) -> _Live:
        """Make the promoted model and index live; a model that is in memory already is not loaded again."""
        model = self._model(self._promoted_version())
        bundle = model.bundle
        snapshot = open_snapshot(self._indexes, fingerprint=bundle.manifest.fingerprint)
        dimension, expected = snapshot.manifest.dimension, bundle.manifest.embedding_dim
        if dimension != expected:
            raise IndexDamaged(f"{snapshot.version}: of dimension {dimension}, but the model gives {expected}")
        new = _Live(model, Overlay(snapshot, partial(self._embed_again, model)))
        new.index.apply(self._read_changes(new.index.applied_to))  # while the old one still follows the log
        with self._changing:
            new.index.apply(self._read_changes(new.index.applied_to))
            with self._loading:
                if not any(model is kept for kept in self._models()):
                    raise FingerprintMismatch(f"bundle {bundle.version} was replaced while its index was opened")
                self._live = new
        event(_LOG, "artifacts_loaded", bundle=bundle.version, index=snapshot.version, count=len(snapshot))
        return new

    def _promoted_version(self) -> str:
        version = self._bundles.current()
        if version is None:
            raise BundleMissing("no model bundle has been promoted yet; `lookalike index build` makes one")
        return version

    def _model(self, version: str) -> _Model:
        """A bundle in memory, loaded if need be and then kept until an index of it is there, or another is promoted."""
        with self._loading:
            for model in self._models():
                if model.bundle.version == version:
                    return model
            bundle = open_bundle(self._bundles, version)
            old, self._coming = self._coming, _Model(bundle, self._start(bundle))
            if old is not None:
                old.batcher.close()
            return self._coming

    def promoted(self) -> tuple[ModelBundle, IndexSnapshot | None]:
        """The promoted model, and the promoted index, whichever model that is of; for whoever makes the next one.

        Returns:
            None for an index that is not there or cannot be used.

        Raises:
            BundleMissing, BundleDamaged: there is no bundle, or it is not whole.
        """
        bundle = self._model(self._promoted_version()).bundle
        try:
            version, live = self._indexes.current(), self._live
            if version is None:
                return bundle, None
            if live is not None and live.index.snapshot.version == version:
                return bundle, live.index.snapshot
            fingerprint = read_index_manifest(self._indexes, version).fingerprint
            return bundle, open_snapshot(self._indexes, fingerprint=fingerprint, version=version)
        except (IndexMissing, IndexDamaged):
            return bundle, None

    def promoted_bundle(self, version: str) -> ModelBundle:
        """The bundle of that version, in memory.

        Raises:
            FingerprintMismatch: another is promoted now.
        """
        if (current := self._bundles.current()) != version:
            raise FingerprintMismatch(f"bundle {current} was promoted meanwhile, and {version} is wanted no longer")
        return self._model(version).bundle

    def embed(
        self, bundle: ModelBundle, photo: Pixels, *, unwanted: Callable[[], bool] = lambda: False
    ) -> "Future[Embeddings]":
        """Queue one catalogue photo, behind everything that somebody waits for; blocks while much is queued.

        Args:
            bundle: of the model, from `promoted_bundle`, which need not be the one that answers searches.
        """
        return self._model(bundle.version).batcher.submit(
            photo, priority=Priority.BULK, owner=_CATALOGUE, unwanted=unwanted
        )

    def _models(self) -> list[_Model]:
        return [model for model in (self._live.model if self._live else None, self._coming) if model is not None]

    @property
    def applied_to(self) -> str:
        """The last entry of the change log that searches see."""
        return live.index.applied_to if (live := self._live) else BEGINNING

    def apply(self, changes: Iterable[Change]) -> None:
        """Let searches see live changes; those they see already are passed over."""
        with self._changing:
            if self._live:
                self._live.index.apply(changes)

    def _embed_again(self, model: _Model, photo: PutPhoto) -> Embeddings | None:
        """This model's embedding of a photo put live under another; None when it cannot be had."""
        try:
            file = live_photo(self._home, photo.sha256).read_bytes()
            pixels = decode_photo(file, model.bundle.manifest.preprocess)
            return model.batcher.submit(pixels, priority=Priority.BULK).result()
        except CancelledError as exc:
            raise FingerprintMismatch(f"bundle {model.bundle.version} was replaced meanwhile") from exc
        except (OSError, LookalikeError) as exc:
            event(_LOG, "live_photo_unusable", level=logging.ERROR, sha256=photo.sha256, kind=type(exc).__name__)
            return None

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
        """Finish what waits for the models."""
        for model in self._models():
            model.batcher.close()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce that this thread will probably `run` a photo within the body, so that a batch may wait for it."""
        live = self._live
        with live.batcher.expecting() if live else nullcontext():
            yield

    def run(
        self,
        request: PhotoRequest,
        pixels: bytes | None,
        *,
        priority: Priority = Priority.INTERACTIVE,
        owner: str = "",
        unwanted: Callable[[], bool] = lambda: False,
    ) -> PhotoResult:
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
                return search_result(embeddings, request, live.index)
            case EmbedRequest():
                return embed_result(embeddings, request.encoding, live.bundle.manifest.fingerprint)

    def _embeddings(
        self,
        live: _Live,
        request: PhotoRequest,
        pixels: bytes | None,
        submit: "Callable[[Pixels], Future[Embeddings]]",
    ) -> Embeddings:
        if request.image_id is not None:
            return live.index.stored(request.image_id)
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
        model, index = live.bundle.manifest, live.index.manifest
        return IndexInfo(
            version=live.index.version,
            count=index.count,
            changed=live.index.n_changed,
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
