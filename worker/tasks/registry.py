"""The named tasks: one a kind of job, the token behind photo jobs, and webhook deliveries."""

import logging
from typing import Any

import redis
from celery import Celery
from celery.exceptions import Ignore
from celery.worker import state

from shared.errors import LookalikeError
from shared.jobs.celery_config import DELIVER_WEBHOOK, OLD_RUN_QUEUED, RUN_QUEUED, TASKS
from shared.redis_client import queue_trouble
from shared.telemetry import event
from shared.webhooks.queue import Delivery
from worker import process
from worker.consumer import hide_token
from worker.jobs.task_tracer import tell_unfinished

_LOG = logging.getLogger(__name__)
_AWAY = (redis.ConnectionError, redis.TimeoutError)


def run_job(self: Any, job_id: str) -> str:
    """Run one job; returns how it ended. Its result is in its record, `GET /v1/jobs/{id}` shows it.

    Raises:
        LookalikeError: the job failed; its record says so too.
        Ignore: it is not queued any more, or this attempt did not end it.
    """
    running = process.current()
    if body := running.tracer.body(self.request.id):
        return body()
    try:
        return running.runner.run_job(job_id)
    except Ignore as exc:
        if request := state.requests.get(self.request.id):
            tell_unfinished(request, exc)
        raise


def run_queued(self: Any) -> None:
    """Claim photo jobs whose turn it is, and run each as the task of its kind, until none is left."""
    hide_token(self.request.id)
    try:
        process.current().runner.run_queued()
    except _AWAY as exc:
        event(_LOG, "redis_unreachable", level=logging.WARNING, reason=queue_trouble(exc))
        raise


def deliver_webhook(job_id: str, attempt: int) -> str:
    """Post the end of a job to the URL that its client gave; returns what became of it."""
    running = process.current()
    outcome = running.webhooks.deliver(Delivery(job_id, attempt))
    if not process.asked_to_stop():
        running.webhook_publisher.publish_due()  # a thread is free: what is due need not wait for the next round
    return outcome


def register_tasks(app: Celery) -> None:
    """Register every task with an application."""
    # What a task may raise that is no bug, so that Celery logs no traceback.
    for kind, name in TASKS.items():
        app.task(name=name, bind=True, throws=(LookalikeError, *_AWAY), ignore_result=True, shared=False)(
            _documented(run_job, f"Run one `{kind}` job, by its id.")
        )
    for token in (RUN_QUEUED, OLD_RUN_QUEUED):
        # Its events would tell nothing: each job that it runs sends its own.
        app.task(name=token, bind=True, throws=_AWAY, send_events=False, ignore_result=True, shared=False)(
            _documented(run_queued, run_queued.__doc__ or "")
        )
    app.task(name=DELIVER_WEBHOOK, throws=_AWAY, ignore_result=True, shared=False)(deliver_webhook)


def _documented(task: Any, text: str) -> Any:
    """A function of its own, because Celery tells tasks apart by it."""

    def run(self: Any, *args: Any) -> Any:
        return task(self, *args)

    run.__doc__ = text
    return run
