"""Answers requests from the model and the index that are live. Knows nothing of Redis or Celery."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np

from shared.artifacts import Location
from shared.errors import PhotoExpired
from shared.index.answers import embed_result, search_result
from shared.index.milvus_server import MilvusServer
from shared.jobs.contract import (
    EmbedRequest,
    IndexInfo,
    PhotoRequest,
    PhotoResult,
    Priority,
    SearchRequest,
    WorkerStats,
)
from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings
from shared.photos.images import Pixels, PreprocessSpec
from worker.serving.loaded_model import EngineOptions
from worker.serving.model_manager import ArtifactNotReady, ModelManager, ReadChanges, ServingState
from worker.serving.result_cache import ResultCache

__all__ = ["ArtifactNotReady", "Engine"]

_CATALOGUE = "_reindex"  # who takes turns with the API keys


class Engine:
    """Answers requests from the current bundle and index of one installation.

    Args:
        storage: where bundles and indexes lie.
        read_changes: the live changes after an entry of their log; without it there are none.
        server: that has the vectors of versions that keep them in one.

    Attributes:
        live: what answers.
    """

    def __init__(
        self,
        storage: Location,
        options: EngineOptions | None = None,
        read_changes: ReadChanges = lambda after: (),
        server: MilvusServer | None = None,
    ) -> None:
        options = options or EngineOptions()
        self.live = ModelManager(storage, options, read_changes, server, self._count_batch)
        self._cache: ResultCache[Embeddings] = ResultCache(max_entries=options.cache_entries, ttl_s=options.cache_ttl_s)
        self._batch_sizes: Counter[int] = Counter()
        self._counting = threading.Lock()

    @property
    def ready(self) -> bool:
        return self.live.current is not None

    @property
    def can_embed(self) -> bool:
        """Whether a model is loaded, be it without an index of its own."""
        return self.live.can_embed

    @property
    def problem(self) -> str | None:
        """Why the promoted artifacts are not the ones in use."""
        return self.live.problem

    def refresh(self) -> None:
        """Follow what is promoted; what cannot be used is reported in `problem`, and the old keeps serving."""
        self.live.refresh()

    def close(self) -> None:
        """Finish what waits for the models."""
        self.live.close()

    def embed(
        self, bundle: ModelBundle, photo: Pixels, *, unwanted: Callable[[], bool] = lambda: False
    ) -> "Future[Embeddings]":
        """Queue one catalogue photo, behind everything that somebody waits for; blocks while much is queued.

        Args:
            bundle: of the model, from `promoted_bundle`, which need not be the one that answers searches.
        """
        return self.live.model(bundle.version).batcher.submit(
            photo, priority=Priority.BULK, owner=_CATALOGUE, unwanted=unwanted
        )

    def _count_batch(self, size: int) -> None:
        with self._counting:
            self._batch_sizes[size] += 1

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce that this thread will probably `run` a photo within the body, so that a batch may wait for it."""
        live = self.live.current
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
        live = self.live.answering(spec if pixels else None)
        submit = partial(live.batcher.submit, priority=priority, owner=owner, unwanted=unwanted)
        try:
            embeddings = self._embeddings(live, request, pixels, submit)
        except CancelledError:
            if unwanted() or self.live.keeps(live):
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
        live: ServingState,
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
        return live.model.device if (live := self.live.current) else ""

    @property
    def max_concurrency(self) -> int:
        """Photos the model works on at the same moment at most; 0 while there is none."""
        return live.model.max_concurrency if (live := self.live.current) else 0

    @property
    def photos_per_s(self) -> float | None:
        """What the model does here at most, if that was measured."""
        return live.model.tuning.photos_per_s if (live := self.live.current) and live.model.tuning else None

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
        return live.info() if (live := self.live.current) else None
