"""How Celery is configured here: names of tasks and queues, and settings that every process must agree on."""

from contextlib import suppress

from celery import Celery
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.entity import Queue

from shared.jobs.contract import JobKind, Priority
from shared.redis_client import broker_at

# One task a kind of job. Its only argument is the job's id.
TASKS = {kind: f"lookalike.{kind}" for kind in JobKind} | {JobKind.SHARD: "lookalike.embed_shard"}
DELIVER_WEBHOOK = "lookalike.deliver_webhook"
# The token: it names no job. Its worker claims the jobs whose turn it is, and runs each as the task of its kind.
RUN_QUEUED = "lookalike.run_queued"

# Named as the class of jobs that the tokens are about: `create.lua` counts them.
QUEUES = {priority: priority.value for priority in Priority}
# Jobs whose messages name them; they are rare, and each is claimed by id.
# The name begins as that of a queue that users of Redis with an ACL of an earlier version may read.
_DUPLICATES = "bulk.duplicates"
NAMED_QUEUES = {JobKind.REINDEX: "reindex", JobKind.SHARD: "shards", JobKind.DUPLICATES: _DUPLICATES}
WEBHOOKS = "webhooks"
ALL_QUEUES = (*QUEUES.values(), *NAMED_QUEUES.values(), WEBHOOKS)

# What processes of version 0.1 send: tokens of another name, on other queues. Read for one version more.
OLD_RUN_QUEUED = "lookalike.run_next"
OLD_QUEUES = {Priority.INTERACTIVE: "lookalike.wake", Priority.BULK: "lookalike.wake.bulk"}

# Every process must agree on it: a message unacknowledged for so long is delivered again.
_VISIBILITY_TIMEOUT_S = 120

# A consumer that has lost Redis looks for it so often. Celery's own pauses grow to 30 s.
_RECONNECT_EVERY_S = 2


class _Connection(Connection):
    """A connection that is looked for at a steady pace, however long it has been away, and leaves no socket open."""

    def ensure_connection(self, *args: object, **kwargs: object) -> Connection:
        pace = {"interval_start": _RECONNECT_EVERY_S, "interval_step": 0, "interval_max": _RECONNECT_EVERY_S}
        super().ensure_connection(*args, **(pace | kwargs))  # type: ignore[no-untyped-call]
        return self

    def _do_close_self(self) -> None:
        """Close every channel: of a lost connection kombu stops at the first, which fails, and keeps the others."""
        for channel in [*(getattr(self._transport, "channels", None) or ())]:
            for _ in range(2):  # the first may fail at what it was reading, and the next has nothing left to read
                with suppress(Exception):
                    channel.close()
        super()._do_close_self()  # type: ignore[no-untyped-call]


class _AMQP(AMQP):  # type: ignore[misc]
    Connection = _Connection


AMQP_CLASS = _AMQP


def queue_of(kind: JobKind, priority: Priority) -> str:
    """The Celery queue on which messages for a job of that kind and priority are published."""
    return NAMED_QUEUES.get(kind) or QUEUES[priority]


def task_id(job_id: str, attempt: int) -> str:
    """The Celery task id of an attempt: the job's id, with the attempt from the second on.

    A task id that is used twice mixes two runs in Flower, and Celery keeps the first one's result.

    Args:
        attempt: 1 is the first.
    """
    return job_id if attempt <= 1 else f"{job_id}.{attempt}"


def job_id_of(task_id: str) -> str:
    """The job behind a Celery task id."""
    return task_id.partition(".")[0]


def celery_settings(redis_url: str, *, socket_timeout_s: float | None = None) -> dict[str, object]:
    """Celery's settings for one installation.

    Args:
        redis_url: as in LOOKALIKE_REDIS_URL; Sentinel and TLS included.
        socket_timeout_s: for processes that only publish: how long a hung Redis may hold them up. Workers leave
            it None, because a consumer's connection waits for messages.
    """
    broker = broker_at(redis_url, socket_timeout_s=socket_timeout_s)
    return {
        "broker_url": broker.url,
        "broker_use_ssl": broker.tls,
        "task_queues": [_queue(name) for name in ALL_QUEUES],
        "task_default_queue": QUEUES[Priority.INTERACTIVE],
        "task_routes": {
            **{TASKS[kind]: {"queue": queue} for kind, queue in NAMED_QUEUES.items()},
            DELIVER_WEBHOOK: {"queue": WEBHOOKS},
        },
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        # The record is the truth. Acknowledging early leaves recovery to one mechanism, the reaper.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_publish_retry": False,
        # `worker.consumer` decides when a queue is read.
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": True,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A Redis that is full, or has just become a replica, refuses what a consumer writes; it will be well again.
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            # Lost messages are published again long before; looking for them every second took much of a worker's time.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            **broker.transport_options,
        },
    }


def _queue(name: str) -> Queue:
    return Queue(name, routing_key=name)  # type: ignore[no-untyped-call]


def make_celery(redis_url: str, *, socket_timeout_s: float | None = None) -> Celery:
    """A Celery application that publishes to `redis_url`; workers run `worker.celery_app`.

    Args:
        socket_timeout_s: as `celery_settings`.
    """
    app = Celery("lookalike", amqp=_AMQP, set_as_current=False)
    app.conf.update(celery_settings(redis_url, socket_timeout_s=socket_timeout_s))
    return app
