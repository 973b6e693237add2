"""ModelManager: keeps the promoted model and index in memory, and swaps both at once when others are promoted."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import partial

from shared.artifacts import Location
from shared.artifacts.home import live_photo
from shared.artifacts.snapshots import bundle_of, read_index_manifest
from shared.changes.log import PutPhoto, entry_order
from shared.errors import (
    ArtifactError,
    EmbeddingsDiffer,
    FingerprintMismatch,
    IndexDamaged,
    IndexMissing,
    IndexUnavailable,
    LookalikeError,
    ModelNotCompiled,
    PhotoExpired,
    QueueUnavailable,
    StoreUnavailable,
)
from shared.index.delta.index import DeltaIndex
from shared.index.milvus.server import MilvusServer
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.contract import Priority
from shared.model.bundle import ModelBundle, open_bundle, read_manifest
from shared.model.embedder import Embeddings
from shared.photos.images import PreprocessSpec, decode_photo
from shared.telemetry import event
from worker.serving.followed_log import FollowedLog, ReadChanges
from worker.serving.loaded_model import EngineOptions, Model, start_model
from worker.serving.promoted import Pointers, PromotedArtifacts
from worker.serving.serving_state import ServingState

_LOG = logging.getLogger(__name__)
_COMPILED_AGAIN_S = 30.0  # after which a model that could not be compiled is tried again
_OUTLIVED_S = 60.0  # a replaced model is kept so long after the last photo that was preprocessed for it


class ArtifactNotReady(Exception):
    """A job needs a model or an index that this machine is still fetching; another worker may have it already."""


class ModelManager:
    """Loads the promoted model and index of one installation and follows later promotions; thread-safe.

    Args:
        storage: of bundles and indexes.
        options: how models use the machine.
        read_changes: returns the entries of the change log after a given one.
        server: Milvus, for versions whose vectors are there; None: all are in files.
        on_batch: called with the size of each batch that a model runs.

    Attributes:
        log: the change log as the current index shows it.
        current: the serving state; None before anything is loaded.
        problem: why the promoted artifacts are not the ones in use, for operators; None: they are.
        problem_code: code of the error behind `problem`; None: there is no problem, or no error.
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
        self._server = server
        self._on_batch = on_batch
        self.log = FollowedLog(read_changes)
        self.current: ServingState | None = None
        self._coming: Model | None = None  # loaded, but no index by it is in use yet
        self._outlived: ServingState | None = None  # replaced, but photos that were preprocessed for it still arrive
        self._outlived_until = 0.0
        self._following = threading.Lock()
        self._loading = threading.RLock()
        self._tried: Pointers | None = None
        self._try_again_at = math.inf
        self._refused: dict[str, str] = {}  # bundles that do not fit this processor, and why
        self.problem: str | None = None
        self.problem_code: str | None = None

    @property
    def can_embed(self) -> bool:
        """Whether a model is loaded, with or without an index."""
        return self.current is not None or self._coming is not None

    @property
    def has_fetched(self) -> bool:
        """Whether nothing of what is promoted is left to fetch; false while the object store does not answer."""
        return self._promoted.is_here(self._tried)

    def refresh(self) -> None:
        """Load what is promoted now; on failure the old state keeps serving and `problem` says why."""
        self._promoted.fetch(self._tried, self._say_while_unready)  # before the lock is taken
        with self._following:
            try:
                if (problem := self._follow()) != self.problem:
                    self.problem, self.problem_code = problem, None
                if live := self.current:
                    live.index.snapshot.check(live=live.index.version == self._indexes.current())
            except (ArtifactError, StoreUnavailable, QueueUnavailable, OSError) as exc:
                if isinstance(exc, QueueUnavailable | IndexUnavailable | StoreUnavailable | OSError):
                    self._tried = None  # nothing is wrong with the artifacts
                if isinstance(exc, ModelNotCompiled):
                    self._try_again_at = time.monotonic() + _COMPILED_AGAIN_S
                problem = "the artifacts cannot be read from disk" if isinstance(exc, OSError) else str(exc)
                if problem != self.problem:
                    event(_LOG, "artifacts_refused", level=logging.ERROR, kind=type(exc).__name__, reason=str(exc))
                self.problem = problem
                self.problem_code = ArtifactError.code if isinstance(exc, OSError) else exc.code

    def _say_while_unready(self, what: str) -> None:
        if self.current is None:
            self.problem, self.problem_code = what, None

    def _follow(self) -> str | None:
        """Load what the pointers name; returns what an operator still has to do, or None."""
        if self._outlived and time.monotonic() > self._outlived_until:
            with self._exchanging():
                self._outlived = None
        # Reset until both pointers are read: if one is unreadable, the next refresh must try again in any case.
        tried, self._tried = self._tried, None
        if not self.can_embed:  # the model first, because a model without an index can build one
            self.model(self._promoted.answering())
        self._tried = wanted = self._promoted.pointers()
        if self.current and wanted == tried and time.monotonic() < self._try_again_at:
            return self.problem
        self._try_again_at = math.inf
        live = self._load()
        if live.bundle.version == wanted[0]:
            return None
        return (
            f"bundle {wanted[0]} is promoted and has no index yet; run `lookalike reindex`, "
            f"until then bundle {live.bundle.version} and its index answer"
        )

    def _load(self) -> ServingState:
        """Load the live index and its model, reusing a model in memory, and make them the serving state."""
        old, index = self.current, self._indexes.current()
        model = self.model(version := self._promoted.answering())
        if old and (old.model, old.index.version) == (model, index):
            return old
        new = ServingState(model, self._overlay(model, index))
        with self.log.replacing(new.index), self._exchanging():
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
        """Open a version of the index, with a delta index on top, for a model."""
        manifest = model.bundle.manifest
        snapshot = open_snapshot(self._indexes, fingerprint=manifest.fingerprint, version=version, server=self._server)
        if snapshot.manifest.dimension != manifest.embedding_dim:
            raise IndexDamaged(
                f"{snapshot.version}: of dimension {snapshot.manifest.dimension}, "
                f"but the model gives {manifest.embedding_dim}"
            )
        embed = partial(self._embed_again, model)
        return DeltaIndex(snapshot, embed, model.text_encoder.of_listing if model.text_encoder else None)

    def model(self, version: str) -> Model:
        """Return a model in memory, loading it if need be; it is kept until its index is in use or another is promoted.

        Args:
            version: of the bundle.

        Raises:
            BundleMissing, BundleDamaged: as `open_bundle`.
            EmbeddingsDiffer: on this machine it gives other embeddings than where it was built.
        """
        with self._exchanging():
            for model in self.models():
                if model.bundle.version == version:
                    return model
            self._coming = self._started(version)
            return self._coming

    def _started(self, version: str) -> Model:
        if reason := self._refused.get(version):  # what a processor computes does not change: nothing is loaded again
            raise EmbeddingsDiffer(reason)
        try:
            return start_model(open_bundle(self._bundles, version), self._options, self._on_batch)
        except EmbeddingsDiffer as exc:
            self._refused[version] = str(exc)
            raise

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Hold the lock on the set of models; those that the body removes from it are closed afterwards."""
        with self._loading:
            before = self.models()
            yield
            gone = [model for model in before if model not in self.models()]
        for model in gone:
            model.batcher.close()

    def answering(self, spec: PreprocessSpec | None) -> ServingState:
        """Return the serving state for a photo that was preprocessed by `spec`: the current one, or a replaced one.

        So a photo that was queued while another model was promoted is answered by the model it was accepted for.

        Args:
            spec: of the photo; None: there are no pixels, or they are by the current spec.

        Raises:
            IndexMissing: nothing is loaded.
            PhotoExpired: no model that was ever live here has that spec.
            ArtifactNotReady: a model that may have it is still being fetched.
        """
        if self.current is None:
            raise IndexMissing(self.problem or "nothing is loaded yet")
        self.log.catch_up()
        if spec not in (None, self.current.spec):
            if not self.has_fetched:
                raise ArtifactNotReady
            self.refresh()  # the API may have noticed a promotion first
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
                self.log.apply_to(outlived.index)
            return outlived

    def _last_live(self, spec: PreprocessSpec) -> ServingState:
        """Load the index that was live last among those whose model has that spec, with the model."""
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
        """Open the promoted model and the promoted index, of whichever model, for a reindex.

        Returns:
            the bundle, loaded in memory, and the index; None if there is none, or it is damaged.

        Raises:
            BundleMissing, BundleDamaged: as `open_bundle`.
            EmbeddingsDiffer: as `model`.
            IndexUnavailable: Milvus, with the vectors of the promoted index, does not answer.
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
        """Load a bundle for a shard of a reindex, if it is still promoted.

        Args:
            version: of the bundle.

        Raises:
            FingerprintMismatch: another is promoted now.
            EmbeddingsDiffer: as `model`.
        """
        if (current := self._bundles.current()) != version:
            raise FingerprintMismatch(f"bundle {current} was promoted meanwhile, and {version} is wanted no longer")
        self._bundles.path(version)  # fetch before the lock is taken
        return self.model(version).bundle

    def keeps(self, live: ServingState) -> bool:
        """Tell whether a serving state still takes photos: it is the current one, or the replaced one that is kept."""
        return live in (self.current, self._outlived)

    def models(self) -> list[Model]:
        """Return all models in memory."""
        answering = [live.model for live in (self.current, self._outlived) if live]
        return [*answering, *([self._coming] if self._coming else [])]

    def follow_lost_log(self, end: str, applied_to: str) -> None:
        """Make searches see what a change log has that has lost entries, so that all workers see the same.

        Args:
            end: of the log.
            applied_to: that searches saw before the end was asked for.
        """
        with self._following:
            old = self.current
            if old is None or entry_order(applied_to) <= entry_order(
                max(end, old.index.manifest.compacted_through, key=entry_order)
            ):
                return  # a log that was emptied since the index was built has no more of it than that
            index = self._overlay(old.model, old.index.version)
            self.log.apply_to(index)
            if entry_order(index.applied_to) >= entry_order(applied_to):
                return  # it is all there: the end was asked of a Redis that is no primary any more
            with self.log.replacing(index), self._exchanging():
                self.current = ServingState(old.model, index)
        event(
            _LOG,
            "changes_lost",
            level=logging.ERROR,
            reason="Redis was emptied or is of a backup: live changes since then are gone, put those photos again",
            before=old.index.n_changed,
            now=index.n_changed,
        )

    def _embed_again(self, model: Model, photo: PutPhoto) -> Embeddings | None:
        """Embed a photo that was put live under another model; None if its file is missing or unusable."""
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
        """Run the queued photos of all models, then stop their batchers."""
        for model in self.models():
            model.batcher.close()
