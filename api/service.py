"""What the routes share: accept a job, wait for it within bounds, show it. Knows no route."""

import threading
from contextlib import suppress
from datetime import UTC, datetime

import redis
from celery import Celery
from flask import Flask, Response, current_app, g, jsonify

from api.uploads import PhotoReader
from shared.images import PreprocessSpec
from shared.job_store import JobStore
from shared.jobs import Job, JobKind, JobRequest
from shared.queues import broker_errors, make_celery, wake_worker
from shared.redis_client import connect, refuse_cluster
from shared.settings import Settings

_POLL_AFTER_S = 1
_REDIS_TIMEOUT_S = 2.0
_OTHER_CONNECTIONS = 256


class Service:
    """The API's connections and limits, one per process.

    Raises:
        CannotStart: Redis is of a kind that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        url = settings.required_redis_url
        client = connect(url, timeout_s=_REDIS_TIMEOUT_S, max_connections=settings.max_waiters + _OTHER_CONNECTIONS)
        refuse_cluster(client)
        self.store = JobStore(
            client,
            job_ttl_s=settings.job_ttl_s,
            result_ttl_s=settings.result_ttl_s,
        )
        self.reader = PhotoReader(n_threads=settings.decode_threads, max_pixels=settings.max_pixels)
        self.spec = PreprocessSpec()
        self._celery: Celery = make_celery(url, socket_timeout_s=_REDIS_TIMEOUT_S)
        self._waiters = threading.BoundedSemaphore(settings.max_waiters + 1)

    def accept(self, kind: JobKind, request: JobRequest, pixels: bytes | None) -> Job:
        """Create the record, then wake a worker; on failure nothing half-accepted stays behind.

        Raises:
            QueueFull, QueueUnavailable: come back later.
        """
        with broker_errors():
            job = self.store.create(
                kind,
                request,
                pixels,
                max_queued=self.settings.max_queued,
                request_id=g.request_id,
            )
        announced = False
        try:
            wake_worker(self._celery, job)
            announced = True
        finally:
            if not announced:
                with suppress(redis.RedisError):
                    self.store.abandon(job.id)
        return job

    def wait(self, job: Job, timeout_s: float) -> Job:
        """The job once it is terminal, or as it stands after `timeout_s` or when too many wait already."""
        if timeout_s <= 0 or job.status.terminal or not self._waiters.acquire(blocking=False):
            return job
        try:
            return self.store.wait(job.id, timeout_s)
        except redis.RedisError:
            return job  # it is accepted: answering 503 now would have the client send it again
        finally:
            self._waiters.release()


def install(app: Flask, service: Service) -> None:
    """Make the service reachable from the routes of `app`."""
    app.extensions["lookalike"] = service


def service() -> Service:
    """The service of the app that handles this request."""
    found: Service = current_app.extensions["lookalike"]
    return found


def show(job: Job, *, status: int = 200) -> Response:
    """A job as clients read it."""
    response = jsonify(
        {
            "id": job.id,
            "kind": job.kind,
            "status": job.status,
            "created_at": _timestamp(job.created_at),
            "started_at": _timestamp(job.started_at),
            "finished_at": _timestamp(job.finished_at),
            "expires_at": _timestamp(job.expires_at),
            "attempt": job.attempt,
            "progress": None,
            "result": job.result.model_dump(mode="json") if job.result else None,
            "error": job.error.model_dump(mode="json") if job.error else None,
            "links": {"self": location(job)},
        }
    )
    response.status_code = status
    if not job.status.terminal:
        response.headers["Retry-After"] = str(_POLL_AFTER_S)
    return response


def accepted(job: Job) -> Response:
    """202: the job will be done; ask at Location."""
    response = show(job, status=202)
    response.headers["Location"] = location(job)
    return response


def location(job: Job) -> str:
    """Where a job can be asked for."""
    return f"/v1/jobs/{job.id}"


def _timestamp(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
