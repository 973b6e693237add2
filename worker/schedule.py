"""Celery beat over the schedule in Redis: `celery -A worker.celery_app beat`, and a thread in every worker.

Any number of schedulers may look: a slot is taken once, in Redis and by Redis's clock. What would be in beat's file is
there too, so beat keeps none. Celery's own embedded beat (`worker -B`) is a child process that ends at its first error
while the worker goes on; the thread here tries again two seconds later.
"""

import logging
from collections.abc import Mapping
from typing import Any

import redis
from celery import Celery
from celery.beat import Scheduler

from shared.errors import JobGone, JobNotFound, QueueUnavailable
from shared.jobs.celery_config import TASKS, make_celery
from shared.jobs.contract import JobKind
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.store import JobStore
from shared.redis_address import running_redis_url
from shared.redis_client import connect
from shared.schedule.slots import Schedule
from shared.settings import Settings, load_settings
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_REDIS_TIMEOUT_S = 5.0


class ReindexSchedule:
    """Submits the reindexes of LOOKALIKE_REINDEX_CRON.

    Args:
        cron: five fields, in UTC; None: nothing is ever due.
    """

    def __init__(self, cron: str | None, client: redis.Redis, store: JobStore, dispatcher: Dispatcher) -> None:
        self.cron = cron
        self._store = store
        self._dispatcher = dispatcher
        self._slots = Schedule(client, store)

    def run_due(self) -> None:
        """Submit a reindex if a slot is due. Redis being away changes nothing: the slot stays due."""
        if self.cron is None:
            return
        try:
            if job_id := self._slots.run_due(self.cron):
                event(_LOG, "reindex_due", job_id=job_id)
                self._dispatcher.dispatch(self._store.get(job_id))
        except (redis.RedisError, QueueUnavailable, JobGone, JobNotFound) as exc:
            event(_LOG, "schedule_waits", level=logging.WARNING, reason=type(exc).__name__)


class ReindexScheduler(Scheduler):  # type: ignore[misc]
    """The scheduler of `celery -A worker.celery_app beat`."""

    def __init__(self, app: Celery, *args: Any, lazy: bool = False, **options: Any) -> None:
        self._reindexes: ReindexSchedule | None = None
        super().__init__(app, *args, lazy=lazy, **options)

    def setup_schedule(self) -> None:
        """Connect; nothing is read from a file."""
        settings = load_settings()
        url = running_redis_url(settings)
        client = connect(url, timeout_s=_REDIS_TIMEOUT_S)
        publishing = make_celery(url, socket_timeout_s=_REDIS_TIMEOUT_S)
        self._reindexes = reindex_schedule(settings, publishing, client)

    def tick(self, *_: Any, **__: Any) -> float:
        """Submit what is due; returns seconds until it should look again."""
        if self._reindexes is not None:
            self._reindexes.run_due()
        return float(self.max_interval)

    def get_schedule(self) -> Mapping[str, Any]:
        """What is scheduled, for whoever lists it."""
        cron = self._reindexes.cron if self._reindexes else None
        return {"reindex": self.Entry(name="reindex", task=TASKS[JobKind.REINDEX], app=self.app)} if cron else {}

    schedule = property(get_schedule)

    def sync(self) -> None:
        """Everything is in Redis already."""


def reindex_schedule(settings: Settings, app: Celery, client: redis.Redis) -> ReindexSchedule:
    """The schedule of an installation.

    Args:
        app: publishes the messages of reindexes.
    """
    store = JobStore(client, job_ttl_s=settings.job_ttl_s, result_ttl_s=settings.result_ttl_s)
    return ReindexSchedule(settings.reindex_cron, client, store, Dispatcher(app, client))
