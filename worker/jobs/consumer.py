"""Threads for the lines that no message tells of: reindexes and their shards. Knows nothing of either."""

import logging
import threading
from collections.abc import Callable

import redis

from shared.jobs.records import QueueName
from shared.jobs.reindex_jobs import ReindexStore

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0  # well within the two seconds after which a client gives up an answer
_PAUSE_S = 1.0


class QueueConsumer(threading.Thread):
    """Runs the jobs of one line, one at a time, until stopped.

    Args:
        run: runs one job of the line and tells whether there was one.
        able: whether there is what such jobs need.
    """

    def __init__(
        self,
        line: QueueName,
        store: ReindexStore,
        run: Callable[[QueueName], bool],
        *,
        able: Callable[[], bool],
        stop: threading.Event,
    ) -> None:
        super().__init__(name=line.value, daemon=True)
        self._line = line
        self._store = store
        self._run_one = run
        self._able = able
        self._asked_to_stop = stop

    def run(self) -> None:
        while not self._asked_to_stop.is_set():
            try:
                if not self._able():
                    self._asked_to_stop.wait(_PAUSE_S)
                elif not self._run_one(self._line):
                    self._store.wait_for_work(self._line, _LOOK_EVERY_S)
            except redis.RedisError:
                self._asked_to_stop.wait(_PAUSE_S)
            except Exception:  # a worker whose threads died would hold up every reindex
                _LOG.exception("event=line_failed line=%s", self._line)
                self._asked_to_stop.wait(_PAUSE_S)
