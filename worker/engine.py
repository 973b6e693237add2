"""Model and index in memory, swapped as one. Knows nothing of Redis or Celery."""

import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from shared.errors import (
    ArtifactError,
    FingerprintMismatch,
    IndexDamaged,
    IndexMissing,
    IndexUnavailable,
    LookalikeError,
    PhotoExpired,
    QueueUnavailable,
    StoreUnavailable,
)
from shared.home import live_photo
from shared.images import Pixels, PreprocessSpec, decode_photo
from shared.jobs import EmbedRequest, IndexInfo, PhotoRequest, PhotoResult, Priority, SearchRequest, WorkerStats
from shared.snapshots import bundle_of, read_index_manifest
from shared.storage import Location
from shared.store.changes import BEGINNING, Change, PutPhoto
from shared.telemetry import event
from shared.vision.answers import embed_result, search_result
from shared.vision.bundle import ModelBundle, open_bundle, read_manifest
from shared.vision.embedder import Embeddings
from shared.vision.index import open_snapshot
from shared.vision.milvus_server import MilvusServer
from shared.vision.overlay import Overlay
from shared.vision.vector_index import VectorIndex
from worker.batching import MicroBatcher
from worker.cache import ResultCache
from worker.models import EngineOptions, Model, start_model
from worker.promoted import Pointers, Promoted

_LOG = logging.getLogger(__name__)
_CATALOGUE = "_reindex"  # who takes turns with the API keys
_OUTLIVED_S = 60.0  # a model that answered before stays so long after the last photo that was made for it


ReadChanges = Callable[[str], Iterable[Change]]


@dataclass(frozen=True)
class _Live:
    """One model and an index built by it; a job sees exactly one of these."""

    model: Model
    index: Overlay

    @property
    def bundle(self) -> ModelBundle:
        return self.model.bundle

    @property
    def batcher(self) -> "MicroBatcher[Pixels, Embeddings]":
        return self.model.batcher

    @property
    def spec(self) -> PreprocessSpec:
        return self.bundle.manifest.preprocess


class NotHereYet(Exception):
    """What a job takes lies in the object store, and has yet to come to this machine; another may have it."""


class Engine:
    """Answers requests from the current bundle and index of one installation.

    Args:
        storage: where bundles and indexes lie.
        read_changes: the live changes after an entry of their log; without it there are none.
        server: that has the vectors of versions that keep them in one.

    Attributes:
        problem: why the promoted artifacts are not the ones in use, or None.
    """

    def __init__(
        self,
        storage: Location,
        options: EngineOptions | None = None,
        read_changes: ReadChanges = lambda after: (),
        server: MilvusServer | None = None,
    ) -> None:
        self._storage = storage
        self._promoted = Promoted(storage)
        self._bundles, self._indexes = self._promoted.bundles, self._promoted.indexes
        self._server = server
        self._options = options or EngineOptions()
        self._read_changes = read_changes
        self._changing = threading.Lock()
        self._live: _Live | None = None
        self._coming: Model | None = None  # promoted, but not yet an index by it
        self._outlived: _Live | None = None  # answered before, and photos that were made for it still come
        self._outlived_until = 0.0
        self._following = threading.Lock()
        self._loading = threading.RLock()
        self._tried: Pointers | None = None
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
        """Follow what is promoted; what cannot be used is reported in `problem`, and the old keeps serving."""
        self._promoted.fetch(self._tried, self._say_while_unready)  # while nobody waits for it
        with self._following:
            try:
                self.problem = self._follow()
                if live := self._live:
                    live.index.snapshot.check(live=live.index.version == self._indexes.current())
            except (ArtifactError, StoreUnavailable, QueueUnavailable, OSError) as exc:
                if isinstance(exc, QueueUnavailable | IndexUnavailable | StoreUnavailable):
                    self._tried = None  # nothing is wrong with the artifacts
                if str(exc) != self.problem:
                    event(_LOG, "artifacts_refused", level=logging.ERROR, kind=type(exc).__name__, reason=str(exc))
                self.problem = "the artifacts cannot be read from disk" if isinstance(exc, OSError) else str(exc)

    def _say_while_unready(self, what: str) -> None:
        if not self.ready:
            self.problem = what

    def _follow(self) -> str | None:
        """Bring what answers after the pointers; returns what an operator has to do yet."""
        if self._outlived and time.monotonic() > self._outlived_until:
            with self._exchanging():
                self._outlived = None
        # Forgotten until both pointers are read: what follows an unreadable one must be tried, whatever it is.
        tried, self._tried = self._tried, None
        if not self.can_embed:  # first, because a model without an index can make one
            self._model(self._promoted.answering())
        self._tried = wanted = self._promoted.pointers()
        if self.ready and wanted == tried:
            return self.problem
        live = self._load()
        if live.bundle.version == wanted[0]:
            return None
        return (
            f"bundle {wanted[0]} is promoted and has no index yet; run `lookalike reindex`, "
            f"until then bundle {live.bundle.version} and its index answer"
        )

    def _load(self) -> _Live:
        """Make the live index and its model answer; a model that is in memory already is not loaded again."""
        old, index = self._live, self._indexes.current()
        model = self._model(version := self._promoted.answering())
        if old and (old.model, old.index.version) == (model, index):
            return old
        new = _Live(model, self._overlay(model, index))
        new.index.apply(self._read_changes(new.index.applied_to))  # while the old one still follows the log
        with self._changing:
            new.index.apply(self._read_changes(new.index.applied_to))
            with self._exchanging():
                if model not in self._models():
                    raise FingerprintMismatch(f"bundle {version} was replaced while its index was opened")
                self._live = new
                if old and old.spec != new.spec:
                    self._outlived, self._outlived_until = old, time.monotonic() + _OUTLIVED_S
                if self._coming and (self._coming is model or self._coming.bundle.version != self._promoted.bundle()):
                    self._coming = None
        event(_LOG, "artifacts_loaded", bundle=version, index=new.index.version, count=len(new.index.snapshot))
        return new

    def _overlay(self, model: Model, version: str | None) -> Overlay:
        """A version of the index, to be searched with a model."""
        manifest = model.bundle.manifest
        snapshot = open_snapshot(self._indexes, fingerprint=manifest.fingerprint, version=version, server=self._server)
        if snapshot.manifest.dimension != manifest.embedding_dim:
            raise IndexDamaged(
                f"{snapshot.version}: of dimension {snapshot.manifest.dimension}, "
                f"but the model gives {manifest.embedding_dim}"
            )
        return Overlay(snapshot, partial(self._embed_again, model))

    def _model(self, version: str) -> Model:
        """A bundle in memory, loaded if need be and then kept until an index of it is there, or another is promoted."""
        with self._exchanging():
            for model in self._models():
                if model.bundle.version == version:
                    return model
            self._coming = self._started(version)
            return self._coming

    def _started(self, version: str) -> Model:
        return start_model(open_bundle(self._bundles, version), self._options, self._count_batch)

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Nobody else exchanges models meanwhile; those the body lets go of are closed."""
        with self._loading:
            before = self._models()
            yield
            gone = [model for model in before if model not in self._models()]
        for model in gone:
            model.batcher.close()

    def _answering(self, spec: PreprocessSpec | None) -> _Live:
        """What answers a photo made square by `spec`: what is live, or was when the photo was accepted.

        So a photo that waited while another model was promoted gets the answer of the one it was accepted for.

        Raises:
            IndexMissing: nothing is loaded.
            PhotoExpired: no model that ever answered here has that spec.
            NotHereYet: one may have that is being fetched.
        """
        if self._live is None:
            raise IndexMissing(self.problem or "nothing is loaded yet")
        if spec not in (None, self._live.spec):
            if not self._promoted.is_here(self._tried):
                raise NotHereYet
            self.refresh()  # who made the photo may have heard of a promotion first
        live = self._live
        if spec is None or spec == live.spec:
            return live
        with self._following:
            if self._outlived is None or self._outlived.spec != spec:
                try:
                    outlived = self._last_live(spec)
                except StoreUnavailable as exc:
                    raise NotHereYet from exc
                with self._exchanging():
                    self._outlived = outlived
            outlived, self._outlived_until = self._outlived, time.monotonic() + _OUTLIVED_S
            with suppress(QueueUnavailable):
                outlived.index.apply(self._read_changes(outlived.index.applied_to))
            return outlived

    def _last_live(self, spec: PreprocessSpec) -> _Live:
        """The index that was live last of those whose model has that spec, and the model."""
        promotions = self._indexes.history()
        for promotion in reversed(promotions):
            try:
                version = bundle_of(self._storage, read_index_manifest(self._indexes, promotion.version).fingerprint)
                if version and read_manifest(self._bundles, version).preprocess == spec:
                    if promotion == promotions[-1] and not self._indexes.is_here(promotion.version):
                        raise NotHereYet  # `refresh` is about to fetch it
                    model = next((one for one in self._models() if one.bundle.version == version), None)
                    model = model or self._started(version)
                    return _Live(model, self._overlay(model, promotion.version))
            except ArtifactError:
                continue
        raise PhotoExpired(f"the photo was made for a model that is gone ({spec}); send it again")

    def promoted(self) -> tuple[ModelBundle, VectorIndex | None]:
        """The promoted model, and the promoted index, whichever model that is of; for whoever makes the next one.

        Returns:
            None for an index that is not there or cannot be used.

        Raises:
            BundleMissing, BundleDamaged: there is no bundle, or it is not whole.
            IndexUnavailable: the server of the promoted index does not answer.
        """
        bundle = self._model(self._promoted.bundle()).bundle
        try:
            version, live = self._indexes.current(), self._live
            if version is None:
                return bundle, None
            if live is not None and live.index.snapshot.version == version:
                return bundle, live.index.snapshot
            fingerprint = read_index_manifest(self._indexes, version).fingerprint
            return bundle, open_snapshot(self._indexes, fingerprint=fingerprint, version=version, server=self._server)
        except (IndexMissing, IndexDamaged):
            return bundle, None

    def promoted_bundle(self, version: str) -> ModelBundle:
        """The bundle of that version, in memory.

        Raises:
            FingerprintMismatch: another is promoted now.
        """
        if (current := self._bundles.current()) != version:
            raise FingerprintMismatch(f"bundle {current} was promoted meanwhile, and {version} is wanted no longer")
        self._bundles.path(version)  # fetched while nobody waits for the lock
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

    def _models(self) -> list[Model]:
        answering = [live.model for live in (self._live, self._outlived) if live]
        return [*answering, *([self._coming] if self._coming else [])]

    @property
    def applied_to(self) -> str:
        """The last entry of the change log that searches see."""
        return live.index.applied_to if (live := self._live) else BEGINNING

    def apply(self, changes: Iterable[Change]) -> None:
        """Let searches see live changes; those they see already are passed over."""
        with self._changing:
            if self._live:
                self._live.index.apply(changes)

    def _embed_again(self, model: Model, photo: PutPhoto) -> Embeddings | None:
        """This model's embedding of a photo put live under another; None when it cannot be had."""
        try:
            file = live_photo(self._storage, photo.sha256).read_bytes()
            pixels = decode_photo(file, model.bundle.manifest.preprocess)
            return model.batcher.submit(pixels, priority=Priority.BULK).result()
        except CancelledError as exc:
            raise FingerprintMismatch(f"bundle {model.bundle.version} was replaced meanwhile") from exc
        except (OSError, LookalikeError) as exc:
            event(_LOG, "live_photo_unusable", level=logging.ERROR, sha256=photo.sha256, kind=type(exc).__name__)
            return None

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
        spec: PreprocessSpec | None = None,
        priority: Priority = Priority.INTERACTIVE,
        owner: str = "",
        unwanted: Callable[[], bool] = lambda: False,
    ) -> PhotoResult:
        """Answer one request.

        Args:
            pixels: `spec.n_bytes` of RGB; None when the request names a photo of the index.
            spec: by which they were made; None: by that of the live model.
            owner: whose request it is; owners take turns at the model.
            unwanted: asked just before the photo's forward pass; true ends it there.

        Raises:
            CancelledError: the result is unwanted, or the engine is closed.
            ImageNotFound: the index has no photo of the id in the request.
            PhotoExpired: neither pixels nor an id, or the photo was made for a model that is gone.
        """
        live = self._answering(spec if pixels else None)
        submit = partial(live.batcher.submit, priority=priority, owner=owner, unwanted=unwanted)
        try:
            embeddings = self._embeddings(live, request, pixels, submit)
        except CancelledError:
            if unwanted() or live in (self._live, self._outlived):
                raise
            # Another model was promoted just now, and the old one takes no more.
            return self.run(request, pixels, spec=spec, priority=priority, owner=owner, unwanted=unwanted)
        match request:
            case SearchRequest():
                return search_result(embeddings, request, live.index, live.bundle.manifest)
            case EmbedRequest():
                return embed_result(embeddings, request.encoding, live.bundle.manifest)

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
        size_px = live.spec.size_px
        photo: Pixels = np.frombuffer(pixels, dtype=np.uint8).reshape(size_px, size_px, 3)
        key = hashlib.blake2b(pixels, digest_size=16, key=live.bundle.manifest.fingerprint[:32].encode()).digest()
        return self._cache.get(key, lambda: submit(photo).result())

    @property
    def device(self) -> str:
        """What the model runs on, for people; empty while none does."""
        return live.model.device if (live := self._live) else ""

    @property
    def at_once(self) -> int:
        """Photos the model works on at the same moment at most; 0 while there is none."""
        return live.model.at_once if (live := self._live) else 0

    @property
    def photos_per_s(self) -> float | None:
        """What the model does here at most, if that was measured."""
        return live.model.tuning.photos_per_s if (live := self._live) and live.model.tuning else None

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
            recipe=model.recipe,
            runtime=model.runtime,
            precision=model.precision,
            preprocess=model.preprocess,
            temperature=model.temperature,
            abstain_below=model.abstain_below,
            notice=model.notice,
        )
