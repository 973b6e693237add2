"""Runs a claimed job as the Celery task of its kind, so that Celery's signals, inspection and events see it.

A photo job reaches its worker without a message of its own: a token says that there is work, and the claim picks the
job. From here on it is a task like any other: `task_prerun`, `task_success`, `task_failure` and `task_postrun` fire
with the job's id, `inspect active` lists it, and, where events are on, Flower shows its name, id, runtime and outcome.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from celery import Celery
from celery.app.trace import trace_task
from celery.exceptions import Ignore
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

from shared.errors import LookalikeError
from shared.jobs.celery_config import TASKS, queue_of, task_id
from shared.jobs.contract import Job


class Released(Ignore):  # type: ignore[misc]
    """The attempt ends without an outcome: the job goes back to its queue, or another attempt has taken over."""


class Unwanted(Ignore):  # type: ignore[misc]
    """The job was cancelled or had expired before this attempt ended."""


def tell_unfinished(request: Request, error: BaseException) -> None:
    """Send the event of a task that ended neither well nor badly: Celery itself sends none."""
    if isinstance(error, Unwanted):
        request.send_event("task-revoked", terminated=False, signum=None, expired=False)
    elif isinstance(error, Released):
        request.send_event("task-rejected", requeue=True)


class Tracer(Protocol):
    """What runs the body of an attempt."""

    def run(self, job: Job, body: Callable[[], str]) -> None:
        """Run `body`, which returns the outcome, or raises the job's error, `Released` or `Unwanted`.

        Raises:
            redis.RedisError: Redis was away for so long that nothing could be written.
        """


class PlainTracer:
    """Runs the body and nothing else; for use without Celery."""

    def run(self, job: Job, body: Callable[[], str]) -> None:
        """Run `body`; the job's own error is in its record by then."""
        try:
            body()
        except (LookalikeError, Ignore):
            return


class TaskTracer:
    """Runs attempts as tasks of a Celery application; safe to call from many threads.

    Args:
        app: with a task for every kind of job, each of which calls `body`.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._bodies = threading.local()
        # Set once the worker is there: its name, and what it sends events with.
        self.hostname = ""
        self.eventer: Callable[[], object | None] = lambda: None

    def run(self, job: Job, body: Callable[[], str]) -> None:
        """Run `body` within the task of the job's kind."""
        name, run_id = TASKS[job.kind], task_id(job.id, job.attempt)
        request = self._request(job, name, run_id)
        request.send_event(
            "task-received",
            name=name,
            args=repr((job.id,)),
            kwargs="{}",
            root_id=run_id,
            parent_id=None,
            retries=job.attempt - 1,
            eta=None,
            expires=None,
        )
        request.on_accepted(os.getpid(), time.monotonic())
        self._bodies.current = (run_id, body)
        try:
            value, info, runtime, text = trace_task(
                request.task, run_id, (job.id,), {}, request.request_dict, hostname=self.hostname, app=self._app
            )
        except BaseException:  # the process is about to end
            state.task_ready(request)
            raise
        finally:
            self._bodies.current = None
        if info is None:
            request.on_success((0, text, runtime))
            return
        # Celery has wrapped what was raised.
        tell_unfinished(request, getattr(value.exception, "exc", value.exception))
        request.on_success((1, value, runtime))

    def body(self, run_id: str) -> Callable[[], str] | None:
        """What the task of that id, which runs in this thread, is there to do; None if it came by a message."""
        current: tuple[str, Callable[[], str]] | None = getattr(self._bodies, "current", None)
        return current[1] if current and current[0] == run_id else None

    def _request(self, job: Job, name: str, run_id: str) -> Request:
        """What Celery makes of a message, made of a claim."""
        queue = queue_of(job.kind, job.submission.priority)
        headers = {
            "lang": "py",
            "task": name,
            "id": run_id,
            "root_id": run_id,
            "parent_id": None,
            "retries": job.attempt - 1,
            "argsrepr": repr((job.id,)),
            "kwargsrepr": "{}",
            "ignore_result": True,
            **job.trace,
        }
        delivery = {"exchange": "", "routing_key": queue}
        message = Message(delivery_info=delivery, properties={}, headers=headers)  # type: ignore[no-untyped-call]
        return Request(
            message,
            app=self._app,
            hostname=self.hostname,
            eventer=self.eventer(),
            task=self._app.tasks[name],
            headers=headers,
            body=((job.id,), {}, {}),
            decoded=True,
        )
