"""The Celery app, its queues, and how a worker is woken. A message says that there is work, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.exceptions import OperationalError

from shared.errors import QueueUnavailable
from shared.jobs.contract import Priority
from shared.jobs.idle import IdleThreads
from shared.jobs.records import PREFIX, QueueName
from shared.jobs.store import JobStore
from shared.redis_client import broker_at

RUN_NEXT = "lookalike.run_next"
QUEUE = "lookalike.wake"
# Apart, so that workers which take only one kind of job are woken for no other.
QUEUES = {Priority.INTERACTIVE: QUEUE, Priority.BULK: f"{QUEUE}.bulk"}

# Every process must agree on it: a message unacknowledged for so long is delivered again.
_VISIBILITY_TIMEOUT_S = 120
_RETRY_AFTER_S = 5

# A consumer that has lost Redis looks for it so often. Celery's own pauses grow to 30 s.
_RECONNECT_EVERY_S = 2

# A job that has waited so long may be short of its message. Workers take turns at looking.
LOST_AFTER_S = 5.0
_REPLACING = PREFIX + "replacing-messages"
_REPLACE_EVERY_MS = 1500

# Several, so that a worker that has just come finds one for each of its threads.
_UNREAD_ENOUGH = 16


class _Connection(Connection):
    """A connection that is looked for at a steady pace, however long it has been away."""

    def ensure_connection(self, *args: object, **kwargs: object) -> Connection:
        pace = {"interval_start": _RECONNECT_EVERY_S, "interval_step": 0, "interval_max": _RECONNECT_EVERY_S}
        super().ensure_connection(*args, **(pace | kwargs))  # type: ignore[no-untyped-call]
        return self


class _AMQP(AMQP):  # type: ignore[misc]
    Connection = _Connection


def make_celery(redis_url: str, *, socket_timeout_s: float | None = None) -> Celery:
    """A Celery app on `redis_url`.

    Args:
        socket_timeout_s: for processes that only publish: how long a hung Redis may hold them up. Workers leave
            it None, because a consumer's connection waits for messages.
    """
    broker = broker_at(redis_url, socket_timeout_s=socket_timeout_s)
    app = Celery("lookalike", broker=broker.url, amqp=_AMQP, set_as_current=False)
    app.conf.update(
        broker_use_ssl=broker.tls,
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        # The record is the truth. Acknowledging early leaves recovery to one mechanism, the reaper.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_publish_retry=False,
        # A message in the hands of a worker whose threads are all busy would wake nobody.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis that is full, or has just become a replica, refuses what a consumer writes; it will be well again.
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            # Lost messages are replaced long before; looking for them every second took much of a worker's own time.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            **broker.transport_options,
        },
    )
    return app


class Dispatcher:
    """Has workers look for work.

    Args:
        celery: from `make_celery`.
        client: of the same Redis.
    """

    def __init__(self, celery: Celery, client: redis.Redis) -> None:
        self._celery = celery
        self._client = client
        self._idle = IdleThreads(client)

    def wake(self, priority: Priority = Priority.INTERACTIVE, *, nobody_idle: bool = False) -> None:
        """Have some worker take what waits: one that is idle but at hand, or whoever reads a message.

        A worker that was woken works until nothing waits. So where messages enough lie unread every worker is busy, and
        whoever reads one of them will find the new job too: one more message would only be one more to carry.

        Args:
            priority: of the job there is; a worker that takes all may claim another first.
            nobody_idle: it is known that no worker is at hand.

        Raises:
            QueueUnavailable: the broker did not take it.
        """
        with broker_errors():
            at_hand = not nobody_idle and self._idle.call(priority)
            if not at_hand and self._unread(priority) < _UNREAD_ENOUGH:
                self._celery.send_task(RUN_NEXT, queue=QUEUES[priority])

    def republish_lost(self, store: JobStore) -> int:
        """Send the messages that waiting jobs are short of, and return how many.

        A message is lost when its worker dies between fetching it and claiming a job, a word when it dies as it waits.
        One too many does no harm: its worker finds nothing to claim.
        """
        if store.oldest_wait_s() < LOST_AFTER_S or not self._client.set(_REPLACING, "1", nx=True, px=_REPLACE_EVERY_MS):
            return 0
        queued = store.backlog().queued
        waiting = {
            Priority.INTERACTIVE: queued[QueueName.INTERACTIVE] + queued[QueueName.QUARANTINE],
            Priority.BULK: queued[QueueName.BULK],
        }
        n_sent = 0
        for priority, n_waiting in waiting.items():
            for _ in range(min(n_waiting, _UNREAD_ENOUGH) - self._unread(priority)):
                self.wake(priority)
                n_sent += 1
        return n_sent

    def _unread(self, priority: Priority) -> int:
        return int(self._client.llen(QUEUES[priority]))


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn whatever Redis or kombu raise while they cannot be used into QueueUnavailable."""
    try:
        yield
    except (redis.RedisError, OperationalError, OSError) as exc:
        raise QueueUnavailable(
            "the job queue cannot be reached; nothing was accepted", retry_after_s=_RETRY_AFTER_S
        ) from exc
