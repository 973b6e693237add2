"""What answers: a model and an index in memory, swapped as one after what is promoted. Answers nothing itself."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from shared.artifacts import Location
from shared.artifacts.home import live_photo
from shared.artifacts.snapshots import bundle_of, read_index_manifest
from shared.changes.log import BEGINNING, Change, PutPhoto
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
from shared.index.delta import DeltaIndex
from shared.index.milvus_server import MilvusServer
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.contract import IndexInfo, Priority
from shared.model.bundle import ModelBundle, open_bundle, read_manifest
from shared.model.embedder import Embeddings
from shared.photos.images import Pixels, PreprocessSpec, decode_photo
from shared.telemetry import event
from worker.serving.loaded_model import EngineOptions, Model, start_model
from worker.serving.micro_batcher import MicroBatcher
from worker.serving.promoted import Pointers, PromotedArtifacts

_LOG = logging.getLogger(__name__)
_OUTLIVED_S = 60.0  # a model that answered before stays so long after the last photo that was made for it

ReadChanges = Callable[[str], Iterable[Change]]


@dataclass(frozen=True)
class ServingState:
    """One model and an index built by it; a job sees exactly one of these."""

    model: Model
    index: DeltaIndex

    @property
    def bundle(self) -> ModelBundle:
        return self.model.bundle

    @property
    def batcher(self) -> "MicroBatcher[Pixels, Embeddings]":
        return self.model.batcher

    @property
    def spec(self) -> PreprocessSpec:
        return self.bundle.manifest.preprocess

    def info(self) -> IndexInfo:
        """What is being served."""
        model, index = self.bundle.manifest, self.index.manifest
        return IndexInfo(
            version=self.index.version,
            count=index.count,
            changed=self.index.n_changed,
            dimension=index.dimension,
            built_at=index.built_at,
            catalogue=index.catalogue,
            backbone=model.backbone,
            weights=model.weights,
            model_fingerprint=model.fingerprint,
            model_version=self.bundle.version,
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


class ArtifactNotReady(Exception):
    """What a job takes lies in the object store, and has yet to come to this machine; another may have it."""


class ModelManager:
    """The model and the index that answer for one installation, brought after what is promoted there.

    Args:
        storage: where bundles and indexes lie.
        read_changes: the live changes after an entry of their log.
        server: that has the vectors of versions that keep them in one.
        on_batch: told the size of each batch that a model runs.

    Attributes:
        current: what answers now; None before anything is loaded.
        problem: why the promoted artifacts are not the ones in use, or None.
    """

    def __init__(
        self,
        storage: Location,
        options: EngineOptions,
        read_changes: ReadChanges,
        server: MilvusServer | None,
        on_batch: Callable[[int], None],
    ) -> None:
        self._storage = storage
        self._promoted = PromotedArtifacts(storage)
        self._bundles, self._indexes = self._promoted.bundles, self._promoted.indexes
        self._options = options
        self._read_changes = read_changes
        self._server = server
        self._on_batch = on_batch
        self._changing = threading.Lock()
        self.current: ServingState | None = None
        self._coming: Model | None = None  # promoted, but not yet an index by it
        self._outlived: ServingState | None = None  # answered before, and photos that were made for it still come
        self._outlived_until = 0.0
        self._following = threading.Lock()
        self._loading = threading.RLock()
        self._tried: Pointers | None = None
        self.problem: str | None = None

    @property
    def can_embed(self) -> bool:
        """Whether a model is loaded, be it without an index of its own."""
        return self.current is not None or self._coming is not None

    def refresh(self) -> None:
        """Follow what is promoted; what cannot be used is reported in `problem`, and the old keeps serving."""
        self._promoted.fetch(self._tried, self._say_while_unready)  # while nobody waits for it
        with self._following:
            try:
                self.problem = self._follow()
                if live := self.current:
                    live.index.snapshot.check(live=live.index.version == self._indexes.current())
            except (ArtifactError, StoreUnavailable, QueueUnavailable, OSError) as exc:
                if isinstance(exc, QueueUnavailable | IndexUnavailable | StoreUnavailable):
                    self._tried = None  # nothing is wrong with the artifacts
                if str(exc) != self.problem:
                    event(_LOG, "artifacts_refused", level=logging.ERROR, kind=type(exc).__name__, reason=str(exc))
                self.problem = "the artifacts cannot be read from disk" if isinstance(exc, OSError) else str(exc)

    def _say_while_unready(self, what: str) -> None:
        if self.current is None:
            self.problem = what

    def _follow(self) -> str | None:
        """Bring what answers after the pointers; returns what an operator has to do yet."""
        if self._outlived and time.monotonic() > self._outlived_until:
            with self._exchanging():
                self._outlived = None
        # Forgotten until both pointers are read: what follows an unreadable one must be tried, whatever it is.
        tried, self._tried = self._tried, None
        if not self.can_embed:  # first, because a model without an index can make one
            self.model(self._promoted.answering())
        self._tried = wanted = self._promoted.pointers()
        if self.current and wanted == tried:
            return self.problem
        live = self._load()
        if live.bundle.version == wanted[0]:
            return None
        return (
            f"bundle {wanted[0]} is promoted and has no index yet; run `lookalike reindex`, "
            f"until then bundle {live.bundle.version} and its index answer"
        )

    def _load(self) -> ServingState:
        """Make the live index and its model answer; a model that is in memory already is not loaded again."""
        old, index = self.current, self._indexes.current()
        model = self.model(version := self._promoted.answering())
        if old and (old.model, old.index.version) == (model, index):
            return old
        new = ServingState(model, self._overlay(model, index))
        new.index.apply(self._read_changes(new.index.applied_to))  # while the old one still follows the log
        with self._changing:
            new.index.apply(self._read_changes(new.index.applied_to))
            with self._exchanging():
                if model not in self.models():
                    raise FingerprintMismatch(f"bundle {version} was replaced while its index was opened")
                self.current = new
                if old and old.spec != new.spec:
                    self._outlived, self._outlived_until = old, time.monotonic() + _OUTLIVED_S
                if self._coming and (self._coming is model or self._coming.bundle.version != self._promoted.bundle()):
                    self._coming = None
        event(_LOG, "artifacts_loaded", bundle=version, index=new.index.version, count=len(new.index.snapshot))
        return new

    def _overlay(self, model: Model, version: str | None) -> DeltaIndex:
        """A version of the index, to be searched with a model."""
        manifest = model.bundle.manifest
        snapshot = open_snapshot(self._indexes, fingerprint=manifest.fingerprint, version=version, server=self._server)
        if snapshot.manifest.dimension != manifest.embedding_dim:
            raise IndexDamaged(
                f"{snapshot.version}: of dimension {snapshot.manifest.dimension}, "
                f"but the model gives {manifest.embedding_dim}"
            )
        return DeltaIndex(snapshot, partial(self._embed_again, model))

    def model(self, version: str) -> Model:
        """A bundle in memory, loaded if need be and then kept until an index of it is there, or another is promoted."""
        with self._exchanging():
            for model in self.models():
                if model.bundle.version == version:
                    return model
            self._coming = self._started(version)
            return self._coming

    def _started(self, version: str) -> Model:
        return start_model(open_bundle(self._bundles, version), self._options, self._on_batch)

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Nobody else exchanges models meanwhile; those the body lets go of are closed."""
        with self._loading:
            before = self.models()
            yield
            gone = [model for model in before if model not in self.models()]
        for model in gone:
            model.batcher.close()

    def answering(self, spec: PreprocessSpec | None) -> ServingState:
        """What answers a photo made square by `spec`: what is live, or was when the photo was accepted.

        So a photo that waited while another model was promoted gets the answer of the one it was accepted for.

        Raises:
            IndexMissing: nothing is loaded.
            PhotoExpired: no model that ever answered here has that spec.
            NotHereYet: one may have that is being fetched.
        """
        if self.current is None:
            raise IndexMissing(self.problem or "nothing is loaded yet")
        if spec not in (None, self.current.spec):
            if not self._promoted.is_here(self._tried):
                raise ArtifactNotReady
            self.refresh()  # who made the photo may have heard of a promotion first
        live = self.current
        if spec is None or spec == live.spec:
            return live
        with self._following:
            if self._outlived is None or self._outlived.spec != spec:
                try:
                    outlived = self._last_live(spec)
                except StoreUnavailable as exc:
                    raise ArtifactNotReady from exc
                with self._exchanging():
                    self._outlived = outlived
            outlived, self._outlived_until = self._outlived, time.monotonic() + _OUTLIVED_S
            with suppress(QueueUnavailable):
                outlived.index.apply(self._read_changes(outlived.index.applied_to))
            return outlived

    def _last_live(self, spec: PreprocessSpec) -> ServingState:
        """The index that was live last of those whose model has that spec, and the model."""
        promotions = self._indexes.history()
        for promotion in reversed(promotions):
            try:
                version = bundle_of(self._storage, read_index_manifest(self._indexes, promotion.version).fingerprint)
                if version and read_manifest(self._bundles, version).preprocess == spec:
                    if promotion == promotions[-1] and not self._indexes.is_here(promotion.version):
                        raise ArtifactNotReady  # `refresh` is about to fetch it
                    model = next((one for one in self.models() if one.bundle.version == version), None)
                    model = model or self._started(version)
                    return ServingState(model, self._overlay(model, promotion.version))
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
        bundle = self.model(self._promoted.bundle()).bundle
        try:
            version, live = self._indexes.current(), self.current
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
        return self.model(version).bundle

    def keeps(self, live: ServingState) -> bool:
        """Whether it still takes photos: it answers, or did when photos that still come were made."""
        return live in (self.current, self._outlived)

    def models(self) -> list[Model]:
        """All that are in memory."""
        answering = [live.model for live in (self.current, self._outlived) if live]
        return [*answering, *([self._coming] if self._coming else [])]

    @property
    def applied_to(self) -> str:
        """The last entry of the change log that searches see."""
        return live.index.applied_to if (live := self.current) else BEGINNING

    def apply(self, changes: Iterable[Change]) -> None:
        """Let searches see live changes; those they see already are passed over."""
        with self._changing:
            if self.current:
                self.current.index.apply(changes)

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

    def close(self) -> None:
        """Finish what waits for the models."""
        for model in self.models():
            model.batcher.close()
