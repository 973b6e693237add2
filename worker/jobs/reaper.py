"""Reaper: moves on what died. Every worker runs one; each step is a script, so any number of them do no harm."""

import logging
from contextlib import suppress

from shared.errors import JobGone, JobNotFound, RecordUnreadable
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.store import JobStore
from shared.telemetry import event

_LOG = logging.getLogger(__name__)


class Reaper:
    """Queues the jobs of dead workers again, expires those past their deadline, publishes messages that were lost.

    Args:
        max_attempts: a job whose worker died so often fails as `worker_lost`.
        lease_s: how long an attempt is a worker's without a heartbeat.
    """

    def __init__(self, store: JobStore, dispatcher: Dispatcher, *, max_attempts: int, lease_s: float) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._max_attempts = max_attempts
        self._lease_s = lease_s

    def reap(self) -> None:
        """One round.

        Raises:
            redis.RedisError, QueueUnavailable: Redis is away; the next round goes on.
        """
        report = self._store.reap(max_attempts=self._max_attempts, lease_s=self._lease_s)
        for job_id in report.requeued:
            event(_LOG, "job_requeued", level=logging.WARNING, job_id=job_id)
            with suppress(JobGone, JobNotFound, RecordUnreadable):  # workers of a newer version see to theirs
                self._dispatcher.dispatch(self._store.get(job_id))
        for job_id in report.failed:
            event(_LOG, "job_given_up", level=logging.ERROR, job_id=job_id)
        for job_id in report.expired:
            event(_LOG, "job_expired", job_id=job_id)
        if n_lost := self._dispatcher.republish_lost(self._store):
            event(_LOG, "messages_replaced", level=logging.WARNING, count=n_lost)
