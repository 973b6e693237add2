"""ResultCache: the same photo asked again costs no forward pass, and asked twice at once costs one.

Knows nothing of photos or models: keys are bytes, values are what computing them gave.
"""

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
    """How often a value was asked for, by what it cost."""

    hits: int = 0  # remembered
    shared: int = 0  # being computed for somebody else
    misses: int = 0  # computed


class ResultCache(Generic[Value]):
    """Least recently used values, bounded in number and age.

    Args:
        max_entries: values remembered; 0 remembers none, but still shares what is in flight.
        ttl_s: how long a value is remembered.
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
        """The value of `key`, computed once at a time; an error is raised to all who share it, and forgotten.

        A computation that was cancelled is nobody's answer: one of those who shared it begins again.
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
