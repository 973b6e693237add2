"""FollowedLog: what searches of this process see of the change log, and reading it where nobody has of late."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from shared.changes.log import BEGINNING, Change
from shared.errors import QueueUnavailable
from shared.index.delta.index import DeltaIndex

_LOG = logging.getLogger(__name__)
STALE_S = 1.5  # after which a search reads the log itself; who follows it looks every second
_CATCH_UP_S = 10.0  # how long a search waits for a Redis that does not answer: less than its lease
_AWAY_S = 0.1  # between two tries

ReadChanges = Callable[[str], Iterable[Change]]


class FollowedLog:
    """The change log as one index after another shows it; thread-safe.

    Args:
        read: returns the entries of the change log after a given one.
    """

    def __init__(self, read: ReadChanges) -> None:
        self._read = read
        self._index: DeltaIndex | None = None
        self._changing = threading.Lock()
        self._catching_up = threading.Lock()
        self._look_by = 0.0  # when the log is to have been read again at the latest, so that searches see it

    @property
    def applied_to(self) -> str:
        """Id of the last entry that searches see."""
        return index.applied_to if (index := self._index) else BEGINNING

    def apply(self, changes: Iterable[Change]) -> None:
        """Make entries visible to searches; entries that were applied before are skipped.

        Args:
            changes: those after `applied_to`, read just before or during the call.
        """
        began = time.monotonic()
        with self._changing:
            if self._index:
                self._index.apply(changes)
        self._look_by = max(self._look_by, began + STALE_S)

    def apply_to(self, index: DeltaIndex) -> None:
        """Give an index all entries that it has not.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        index.apply(self._read(index.applied_to))

    @contextmanager
    def replacing(self, index: DeltaIndex) -> Iterator[None]:
        """Give an index all entries and follow the log with it from now on, unless the body raises.

        Until the body ends no entry is applied to the index before: searches find each change in one of the two.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        self.apply_to(index)  # most of them, while the index before still follows the log
        with self._changing:
            began = time.monotonic()
            self.apply_to(index)
            yield
            self._index = index
            self._look_by = max(self._look_by, began + STALE_S)

    def catch_up(self) -> None:
        """Read the log where nobody has of late: who follows it waits for a Redis that has died, or all stood still.

        While Redis does not answer this waits, for `_CATCH_UP_S` at most: no search could end meanwhile, and the first
        that does is to know what the log had before. After that a search goes on with what there is.
        """
        give_up_at = time.monotonic() + _CATCH_UP_S
        while (now := time.monotonic()) >= self._look_by:
            if now >= give_up_at or not self._catching_up.acquire(timeout=give_up_at - now):
                return
            try:
                if time.monotonic() >= self._look_by:
                    self.apply(self._read(self.applied_to))
            except QueueUnavailable:
                time.sleep(_AWAY_S)
            except Exception:  # the log's follower tries again
                self._look_by = time.monotonic() + STALE_S
                _LOG.exception("event=change_not_applied")
            finally:
                self._catching_up.release()
