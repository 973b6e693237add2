"""Shadows a sample of the searches that a worker answers: compares each with exact search, after it was answered."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Full, Queue

import numpy as np

from shared.array_types import FloatArray
from shared.catalogue.hierarchy import split_path
from shared.index.recall import recall_of
from shared.index.traffic import NEIGHBOURS, pixel_features, residual_of
from shared.jobs.answers_contract import SearchResult
from shared.jobs.contract import SearchRequest
from shared.photos.images import Pixels
from shared.quality.contract import FEATURES, ShadowedSearch
from shared.quality.store import QualityStore
from shared.telemetry import event
from worker.serving.serving_state import ServingState

_LOG = logging.getLogger(__name__)
_MOST_WAITING = 8
_LOOK_EVERY_S = 1.0
_LEAST_BUDGET = 0.01  # of a core's time
_AUDITED_ROWS = 32
_REMEMBERED = 1024
_TEN = SearchRequest(k=NEIGHBOURS)


@dataclass(frozen=True)
class Answered:
    """A search that was answered.

    Attributes:
        live: model and index that answered it.
        vector: (dim,) float32, L2 norm 1, of its photos.
        photos: (n, S, S, 3) uint8, as they came.
        result: the answer.
        model_s, search_s: seconds until the photo was embedded, and from then to the answer.
    """

    live: ServingState
    vector: FloatArray
    photos: Pixels
    result: SearchResult
    model_s: float
    search_s: float


class ShadowSearches(threading.Thread):
    """Compares a share of the answered searches with exact search, on its own thread and beside no more than a few.

    A search waits for none of it: what comes while the thread is behind is left out. The thread works for a share of
    the time only, 1 % unless more searches than that are to be shadowed.

    Args:
        store: where the figures go.
        share: of searches, 0..1.
        draw: a number in [0, 1), by which they are chosen.
    """

    def __init__(self, store: QualityStore, *, share: float, draw: Callable[[], float] = random.random) -> None:
        super().__init__(name="shadow", daemon=True)
        self._store = store
        self._share = share
        self._pause = 1 / max(share, _LEAST_BUDGET) - 1  # for each second of work
        self._draw = draw
        self._rng = np.random.default_rng()
        self._waiting: Queue[Answered] = Queue(_MOST_WAITING)
        self._seen: dict[int, None] = {}  # photos shadowed lately: one sent again and again is not traffic
        self._failing = ""
        self._stopping = threading.Event()

    def offer(self, answered: Answered) -> None:
        """Shadow a search, if it is drawn and the thread is not behind; returns at once."""
        if self._draw() < self._share:
            try:
                self._waiting.put_nowait(answered)
            except Full:
                pass  # the budget is spent

    def stop(self) -> None:
        """End the thread after the search it is at."""
        self._stopping.set()
        self.join(timeout=2 * _LOOK_EVERY_S)

    def run(self) -> None:
        """Shadow what was offered, until the thread is stopped."""
        while not self._stopping.is_set():
            try:
                answered = self._waiting.get(timeout=_LOOK_EVERY_S)
            except Empty:
                continue
            began = time.perf_counter()
            try:
                self.shadow(answered)
                self._failing = ""
            except Exception as exc:  # whatever is wrong here, searches are answered
                if type(exc).__name__ != self._failing:  # Redis or Milvus may be away for long
                    self._failing = type(exc).__name__
                    event(_LOG, "shadow_failed", level=logging.WARNING, kind=self._failing, reason=str(exc))
            self._stopping.wait(self._pause * (time.perf_counter() - began))

    def shadow(self, answered: Answered) -> ShadowedSearch | None:
        """Compare one search with exact search, audit some rows, and store what was found.

        Returns:
            what was stored; None: the photo was shadowed lately.

        Raises:
            LookalikeError, redis.RedisError: index or Redis cannot be asked.
        """
        if self._repeated(answered.photos):
            return None
        index, query, photos = answered.live.index, answered.vector, answered.photos
        found = index.search(query, _TEN)
        reference = index.snapshot.reference
        deviations: tuple[float | None, ...] = (None,) * len(FEATURES)
        if reference and found and len(photos) == 1:  # the mean of several photos lies to its neighbours in its own way
            residual = residual_of(query, index.vectors([neighbour.row for neighbour in found]))
            deviations = reference.deviations(pixel_features(photos[0], answered.live.spec.fill), residual)
        audit = index.snapshot.audit(_AUDITED_ROWS, self._rng)
        category = answered.result.category
        search = ShadowedSearch(
            version=index.version,
            fingerprint=index.manifest.fingerprint,
            recall=recall_of(index, query, found, self._rng),
            best_score=found[0].score if found else 0.0,
            certain=category.certain,
            category=split_path(category.name)[0],
            model_s=answered.model_s,
            search_s=answered.search_s,
            n_audited=audit.n_rows,
            n_damaged=audit.n_damaged,
            deviations=deviations,
        )
        self._store.add(search)
        return search

    def _repeated(self, photos: Pixels) -> bool:
        key = hash(photos.tobytes())
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return False
