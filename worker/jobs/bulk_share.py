"""BulkShare: keeps some of a worker's threads free of bulk jobs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BulkShare:
    """Counts bulk jobs, so that an interactive one that comes finds a thread at once; safe to call from many threads.

    Args:
        most: how many may run at once, at least 1.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._n_running = 0
        self._counted = threading.local()

    @property
    def used_up(self) -> bool:
        """Whether so many run that no other may begin."""
        return self._n_running >= max(1, self._most())

    @contextmanager
    def claiming(self) -> Iterator[bool]:
        """Claim and run a job in the body; yields whether it may be a bulk job."""
        with self._lock:
            self._counted.here = not self.used_up
            self._n_running += self._counted.here
        try:
            yield self._counted.here
        finally:
            self.release()

    def release(self) -> None:
        """This thread runs no bulk job, or no longer; within `claiming`."""
        with self._lock:
            self._n_running -= getattr(self._counted, "here", False)
            self._counted.here = False
