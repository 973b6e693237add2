"""ResultCache: an LRU cache with TTL that also shares computations in flight: equal photos are embedded once."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class CacheCounts:
    """Counts of `ResultCache.get`, by outcome."""

    hits: int = 0  # the value was cached
    shared: int = 0  # another thread was computing it
    misses: int = 0  # it was computed


class ResultCache(Generic[Value]):
    """An LRU cache bounded in number and age; safe to share between threads.

        cache: ResultCache[Embeddings] = ResultCache(max_entries=4096, ttl_s=3600)
        embeddings = cache.get(key, lambda: embed(photo))

    Args:
        max_entries: values kept; 0 keeps none, but still shares computations in flight.
        ttl_s: seconds that a value is kept.
        clock: returns seconds, monotonic.

    Attributes:
        counts: hits, shared computations and misses so far.
    """

    def __init__(self, *, max_entries: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = CacheCounts()
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._remembered: OrderedDict[bytes, tuple[float, Value]] = OrderedDict()
        self._in_flight: dict[bytes, Future[Value]] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes, compute: Callable[[], Value]) -> Value:
        """Return the value of `key`, computing it if it is not cached; concurrent calls share one computation.

        An error is raised to all callers that share it, and not cached. If the computation is cancelled, one of the
        other callers starts it again.

        Args:
            key: digest of everything that the value depends on.
            compute: called without the lock.
        """
        while True:
            with self._lock:
                entry = self._remembered.get(key)
                if entry is not None and entry[0] > self._clock():
                    self._remembered.move_to_end(key)
                    self.counts.hits += 1
                    return entry[1]
                if (shared := self._in_flight.get(key)) is not None:
                    self.counts.shared += 1
                else:
                    self.counts.misses += 1
                    self._in_flight[key] = Future()
            if shared is None:
                return self._compute(key, compute)
            try:
                return shared.result()
            except CancelledError:
                continue

    def _compute(self, key: bytes, compute: Callable[[], Value]) -> Value:
        mine = self._in_flight[key]
        try:
            value = compute()
        except BaseException as exc:
            with self._lock:
                del self._in_flight[key]
            mine.set_exception(exc)
            raise
        with self._lock:
            del self._in_flight[key]
            self._remembered[key] = (self._clock() + self._ttl_s, value)
            self._remembered.move_to_end(key)
            while len(self._remembered) > self._max_entries:
                self._remembered.popitem(last=False)
        mine.set_result(value)
        return value

    def __len__(self) -> int:
        with self._lock:
            return len(self._remembered)
