"""BulkShare: keeps some of a worker's threads free of bulk jobs."""

import threading
from collections.abc import Callable


class BulkShare:
    """Counts bulk jobs, so that an interactive one that comes finds a thread at once; safe to call from many threads.

    Args:
        most: how many may run at once, at least 1.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._n_running = 0

    @property
    def used_up(self) -> bool:
        """Whether so many run that no other may begin."""
        return self._n_running >= max(1, self._most())

    def begin(self) -> bool:
        """Count one more, if there may be one more; who is told true calls `end` after it, or at once if it is none."""
        with self._lock:
            if self.used_up:
                return False
            self._n_running += 1
            return True

    def end(self) -> None:
        """Count one less."""
        with self._lock:
            self._n_running -= 1
