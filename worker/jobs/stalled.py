"""Polls for stalled jobs: photo jobs that wait although their messages do not come."""

import logging
import os
import time
from collections.abc import Callable, Sequence

import redis

from shared.jobs.dispatcher import LOST_AFTER_S
from shared.jobs.store import JobStore
from shared.telemetry import event
from worker.jobs.leases import Leases
from worker.jobs.periodic import EVERY_S
from worker.jobs.runner import JobRunner

_LOG = logging.getLogger(__name__)
_DEAF_AFTER_S = 30.0
_DEAF_ROUNDS = 5


class StalledJobs:
    """Runs jobs without a message, one at a time: Redis is too full for messages, or this worker's consumer is dead.

    Args:
        queues: of the photo jobs that this worker runs.
        able: whether it may run any; while it lacks what they need or is about to end, its consumer reads no message,
            and nothing is wrong.
    """

    def __init__(
        self,
        runner: JobRunner,
        leases: Leases,
        store: JobStore,
        client: redis.Redis,
        queues: Sequence[str],
        *,
        able: Callable[[], bool],
    ) -> None:
        self._runner = runner
        self._able = able
        self._leases = leases
        self._store = store
        self._client = client
        self._queues = queues
        self._n_rounds_deaf = 0

    def poll(self) -> None:
        """One round.

        A dead consumer ends the process: messages lie in the queue, and for half a minute none has reached it.
        """
        asked_at = self._runner.asked_at
        idle_s = time.monotonic() - asked_at
        if idle_s < LOST_AFTER_S or not self._able():
            self._n_rounds_deaf = 0
            return
        until = time.monotonic() + EVERY_S
        try:
            if self._leases.hold_photos() or self._store.oldest_wait_s() < LOST_AFTER_S:
                return
            n_messages = sum(int(self._client.llen(queue)) for queue in self._queues)
            while time.monotonic() < until and self._runner.asked_at == asked_at and self._able():
                if not self._runner.run_waiting():
                    break
        except redis.RedisError:
            return  # nobody can work now
        # Several rounds, because after a pause of the whole process or of Redis the first messages are just arriving.
        if n_messages and idle_s > _DEAF_AFTER_S:
            self._n_rounds_deaf += 1
        if self._n_rounds_deaf > _DEAF_ROUNDS and self._runner.asked_at == asked_at:
            event(_LOG, "consumer_dead", level=logging.CRITICAL, idle_s=idle_s)
            logging.shutdown()
            os._exit(os.EX_SOFTWARE)
