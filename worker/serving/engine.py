"""Engine: runs embed and search requests on the live model and index."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np

from shared.artifacts import Location
from shared.catalogue.categories import Categories, categories_named
from shared.errors import PhotoExpired
from shared.index.answers import Asked, embed_result, encoded_text, own_listings
from shared.index.milvus.server import MilvusServer
from shared.index.reranking import reranked_result
from shared.jobs.answers_contract import BoxProposal
from shared.jobs.contract import EmbedRequest, PhotoRequest, PhotoResult, Priority, SearchRequest
from shared.jobs.worker_report import IndexInfo, WorkerStats
from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings, joined
from shared.model.proposals import propose_boxes
from shared.photos.images import Pixels, PreprocessSpec
from shared.tracing import span
from worker.serving.followed_log import ReadChanges
from worker.serving.lacking import Lacking
from worker.serving.loaded_model import EngineOptions
from worker.serving.model_manager import ArtifactNotReady, ModelManager
from worker.serving.promoted_reranker import PromotedReranker
from worker.serving.result_cache import ResultCache
from worker.serving.serving_state import ServingState
from worker.serving.shadow import Answered

__all__ = ["ArtifactNotReady", "Engine"]

_CATALOGUE = "_reindex"  # owner of a reindex's photos in the batcher's round robin


class Engine:
    """Runs embed and search requests on the promoted model and index of one installation; thread-safe.

        engine = Engine(settings.storage)
        engine.refresh()
        result = engine.run(SearchRequest(k=4), pixels.tobytes())

    Args:
        storage: of bundles and indexes.
        options: how models use the machine; None: the defaults.
        read_changes: returns the entries of the change log after a given one; by default none.
        server: Milvus, for versions whose vectors are there; None: all are in files.

    Attributes:
        live: the model manager.
        lacking: specs of photos that came for a model which is still being fetched.
        on_answered: called with each search for photos that were sent; must return at once.
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
        self.lacking = Lacking()
        self.on_answered: Callable[[Answered], object] = lambda answered: None
        self._reranker = PromotedReranker(storage)
        self._batch_sizes: Counter[int] = Counter()
        self._counting = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether a model and an index are loaded, so that searches can be answered."""
        return self.live.current is not None

    @property
    def categories(self) -> Categories:
        """Categories that the model tells apart.

        Raises:
            IndexMissing: nothing is loaded.
        """
        return categories_named(self.live.answering(None).bundle.manifest.categories)

    @property
    def takes_all(self) -> bool:
        """Whether it is ready, and photos of every spec that came can be answered or refused."""
        return self.ready and not self.lacking.specs

    @property
    def can_embed(self) -> bool:
        """Whether a model is loaded, with or without an index."""
        return self.live.can_embed

    @property
    def problem(self) -> str | None:
        """Why the promoted artifacts are not the ones in use, for operators; None: they are."""
        return self.live.problem

    @property
    def problem_code(self) -> str | None:
        """Code of the error behind `problem`; None: there is no problem, or no error."""
        return self.live.problem_code

    def refresh(self) -> None:
        """Load what is promoted now; on failure the old state keeps serving and `problem` says why."""
        self.live.refresh()
        self._reranker.refresh()
        if self.lacking.specs and self.live.has_fetched:
            self.lacking.clear()

    def close(self) -> None:
        """Run the queued photos of all models, then stop their batchers."""
        self.live.close()

    def embed(
        self, bundle: ModelBundle, photo: Pixels, *, unwanted: Callable[[], bool] = lambda: False
    ) -> "Future[Embeddings]":
        """Queue one catalogue photo of a reindex, with bulk priority; blocks while the batcher's queue is full.

        Args:
            bundle: of the model, from `ModelManager.promoted_bundle`; it need not be the one that searches use.
            photo: (S, S, 3) uint8 RGB.
            unwanted: called just before the forward pass; if true, the photo is dropped and the future cancelled.

        Returns:
            a future of vectors (1, dim) and scores (1, n_categories).
        """
        return self.live.model(bundle.version).batcher.submit(
            photo, priority=Priority.BULK, owner=_CATALOGUE, unwanted=unwanted
        )

    def _count_batch(self, size: int) -> None:
        with self._counting:
            self._batch_sizes[size] += 1

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce that this thread will probably call `run` in the body, so that a batch may wait for its photo."""
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
        """Run one embed or search request; blocks until its forward pass is done.

        Args:
            request: options, and for photos of the index the id of one or of their listing.
            pixels: `spec.n_bytes` bytes of RGB for each photo of the query; None if the request names photos of the
                index.
            spec: by which the pixels were made; None: by the live model's.
            priority: interactive photos go before bulk ones.
            owner: id of the API key; photos are taken from owners in round robin.
            unwanted: called just before the forward pass; if true, the photo is dropped.

        Raises:
            CancelledError: the result is unwanted, or the engine is closed.
            ImageNotFound: the index has no photo, or no listing, of the id in the request.
            InvalidRequest: the model knows no words, or none of those that stand alone.
            IndexMissing: nothing is loaded.
            PhotoExpired: there are neither pixels nor an id, or the photo was preprocessed for a model that is gone.
            ArtifactNotReady: the model that the photo was preprocessed for is still being fetched.
        """
        try:
            live = self.live.answering(spec if pixels else None)
        except ArtifactNotReady:
            self.lacking.add(spec or PreprocessSpec())
            raise
        began = time.perf_counter()
        submit = partial(live.batcher.submit_all, priority=priority, owner=owner, unwanted=unwanted)
        try:
            with span("model"):
                asked = Asked(
                    self._embeddings(live, request, pixels, submit), encoded_text(request, live.model.text_encoder)
                )
        except CancelledError:
            if unwanted() or self.live.keeps(live):
                raise
            # Another model was promoted just now, and the batcher of the old one is closed.
            return self.run(request, pixels, spec=spec, priority=priority, owner=owner, unwanted=unwanted)
        model, embedded = live.bundle.manifest, time.perf_counter()
        with span("search"):
            match request:
                case SearchRequest():
                    reranker = self._reranker.of(model.fingerprint)
                    found = reranked_result(asked, request, live.index, model, reranker)
                    if pixels is not None and asked.embeddings is not None:
                        times = (embedded - began, time.perf_counter() - embedded)
                        self.on_answered(Answered(live, asked.vector, _photos(pixels, live.spec), found, *times))
                    return found
                case EmbedRequest():
                    voters = asked.voters(live.index, model, own_listings(request, live.index))
                    evidence = asked.evidence(voters, model)
                    result = embed_result(asked, request.encoding, evidence, model)
                    if request.photo_size is not None and pixels is not None:
                        boxes = _proposed(live, _photos(pixels, live.spec)[0], request.photo_size)
                        return result.model_copy(update={"boxes": boxes})
                    return result

    def _embeddings(
        self,
        live: ServingState,
        request: PhotoRequest,
        pixels: bytes | None,
        submit: "Callable[[list[Pixels]], list[Future[Embeddings]]]",
    ) -> Embeddings | None:
        """The photos of the query, one row; of several the mean; None: it has words alone."""
        if request.without_photo:
            return None
        if request.image_id is not None:
            return live.index.stored(request.image_id)
        if request.listing_id is not None:
            return joined([live.index.stored_listing(request.listing_id)])
        if pixels is None:
            raise PhotoExpired("the photo waited longer than it is kept; send it again")
        photos: list[Pixels] = list(_photos(pixels, live.spec))
        key = hashlib.sha256(pixels)  # processors have instructions for it
        key.update(live.bundle.manifest.fingerprint.encode())
        return self._cache.get(key.digest(), lambda: joined([future.result() for future in submit(photos)]))

    @property
    def device(self) -> str:
        """The device that the model runs on, for people; empty while none is loaded."""
        return live.model.device if (live := self.live.current) else ""

    @property
    def max_concurrency(self) -> int:
        """Photos in forward passes at the same time, at most, be it without an index; 0 while no model is loaded."""
        models = self.live.models()
        return models[0].max_concurrency if models else 0

    @property
    def photos_per_s(self) -> float | None:
        """Highest throughput of the model on this machine, photos per second; None if it was not measured."""
        return live.model.tuning.photos_per_s if (live := self.live.current) and live.model.tuning else None

    def stats(self) -> WorkerStats:
        """Return the counters of batches and cache since the process started."""
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
        """Describe the model and index being served; None before anything is loaded."""
        return live.info() if (live := self.live.current) else None


def _photos(pixels: bytes, spec: PreprocessSpec) -> Pixels:
    """(n, S, S, 3) uint8."""
    return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, spec.size_px, spec.size_px, 3)


def _proposed(live: ServingState, photo: Pixels, size: tuple[int, int]) -> list[BoxProposal]:
    """Parts of a photo (S, S, 3), whose upright width and height are `size`, that may each show a thing."""
    proposals = propose_boxes(live.model.feature_maps(photo), photo, live.spec.fit, *size)
    return [BoxProposal(box=box, score=score) for box, score in proposals]
