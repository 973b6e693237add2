"""Dispatch: how a job that was written to Redis reaches a worker. The record stays the truth; messages may be lost.

Photo jobs are bound late: a message is a token, and the worker that receives it claims the job whose turn it is. A
thread that has run out of work stays at hand for a while; it is notified in Redis and needs no message. Reindexes and
shards have a message each, which names the job.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from shared.errors import JobGone, JobNotFound, QueueUnavailable, RecordUnreadable
from shared.jobs.celery_config import NAMED_QUEUES, QUEUES, RUN_QUEUED, TASKS, task_id
from shared.jobs.contract import Job, JobStatus, Priority
from shared.jobs.idle import IdleThreads
from shared.jobs.records import PREFIX, UNREAD_ENOUGH, QueueName
from shared.jobs.store import JobStore
from shared.redis_client import queue_trouble

_RETRY_AFTER_S = 5

# A job that has waited so long may be short of its message. Workers take turns at looking.
LOST_AFTER_S = 5.0
_REPUBLISHING = PREFIX + "replacing-messages"
_REPUBLISH_EVERY_MS = 1500


class Dispatcher:
    """Has workers begin with jobs that were written.

    Args:
        celery: from `make_celery`, or a worker's own application.
        client: of the same Redis.
    """

    def __init__(self, celery: Celery, client: redis.Redis) -> None:
        self._celery = celery
        self._client = client
        self._idle = IdleThreads(client)

    def dispatch(self, job: Job, *, nobody_idle: bool = False) -> None:
        """Have some worker begin with a job: publish its message, or notify a thread that is at hand.

        Args:
            nobody_idle: it is known that no thread is at hand.

        Raises:
            QueueUnavailable: the broker did not take it.
        """
        if queue := NAMED_QUEUES.get(job.kind):
            with broker_errors():
                self._celery.send_task(
                    TASKS[job.kind],
                    (job.id,),
                    task_id=task_id(job.id, job.attempt + 1),
                    queue=queue,
                    headers=job.trace or None,
                )
        else:
            self.send_token(job.submission.priority, nobody_idle=nobody_idle)

    def send_token(self, priority: Priority = Priority.INTERACTIVE, *, nobody_idle: bool = False) -> None:
        """Have some worker claim photo jobs: notify a thread that is at hand, or else publish a token.

        A thread that begins works until nothing waits. So where tokens enough lie unread every worker is busy, and
        whoever reads one of them will find the new job too: one more would only be one more to carry.

        Args:
            priority: of the job there is; a worker that takes all may claim another first.
            nobody_idle: as `dispatch`.

        Raises:
            QueueUnavailable: as `dispatch`.
        """
        with broker_errors():
            at_hand = not nobody_idle and self._idle.call(priority)
            if not at_hand and self._unread(QUEUES[priority]) < UNREAD_ENOUGH:
                self._celery.send_task(RUN_QUEUED, queue=QUEUES[priority])

    def republish_lost(self, store: JobStore) -> int:
        """Publish the messages that waiting jobs are short of, and return how many.

        A message is lost when its worker dies between fetching it and claiming a job, a notification when the thread
        dies as it waits. One too many does no harm: its worker finds nothing to claim.
        """
        named = {kind: store.waiting(QueueName(kind.value), for_s=LOST_AFTER_S) for kind in NAMED_QUEUES}
        if store.oldest_wait_s() < LOST_AFTER_S and not any(named.values()):
            return 0
        if not self._client.set(_REPUBLISHING, "1", nx=True, px=_REPUBLISH_EVERY_MS):
            return 0
        n_sent = 0
        if store.oldest_wait_s() >= LOST_AFTER_S:
            queued = store.backlog().queued
            waiting = {
                Priority.INTERACTIVE: queued[QueueName.INTERACTIVE] + queued[QueueName.QUARANTINE],
                Priority.BULK: queued[QueueName.BULK],
            }
            for priority, n_waiting in waiting.items():
                for _ in range(min(n_waiting, UNREAD_ENOUGH) - self._unread(QUEUES[priority])):
                    self.send_token(priority)
                    n_sent += 1
        for kind, job_ids in named.items():
            # Fewer messages than jobs: some are lost, and nobody knows which. A job is claimed once all the same.
            if job_ids and self._unread(NAMED_QUEUES[kind]) < len(job_ids):
                n_sent += sum(self._republish(store, job_id) for job_id in job_ids[:UNREAD_ENOUGH])
        return n_sent

    def _republish(self, store: JobStore, job_id: str) -> bool:
        try:
            job = store.get(job_id)
        except (JobGone, JobNotFound, RecordUnreadable):  # workers of a newer version publish theirs
            return False
        if job.status is not JobStatus.QUEUED:
            return False
        self.dispatch(job)
        return True

    def _unread(self, queue: str) -> int:
        return int(self._client.llen(queue))


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn whatever Redis or kombu raise while they cannot be used into QueueUnavailable."""
    try:
        yield
    except (redis.RedisError, OperationalError, OSError) as exc:
        raised = exc.__cause__ if isinstance(exc, OperationalError) else exc
        raise QueueUnavailable(f"{queue_trouble(raised)}; nothing was accepted", retry_after_s=_RETRY_AFTER_S) from exc
