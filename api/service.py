"""What the routes share: accept a job, wait for it within bounds, show it. Knows no route."""

import hashlib
import logging
import re
import threading
from contextlib import suppress
from math import ceil

import redis
from flask import Flask, Response, current_app, g, request
from pydantic import BaseModel

from api.health_probe import HealthProbe
from api.http.auth import Authenticator, caller
from api.http.options import preferred_wait_s
from api.routes.metrics import ApiCounters
from api.uploads.bodies import Photo, PhotoReader
from api.uploads.preprocessing import ServingPreprocessing
from shared.changes.log import ChangeLog
from shared.errors import InvalidRequest, JobFinished, JobNotFound, QueueUnavailable
from shared.jobs.batches import BatchStore
from shared.jobs.celery_config import make_celery
from shared.jobs.contract import Job, JobKind, JobRequest, JobStatus, Submission
from shared.jobs.dispatcher import Dispatcher, broker_errors
from shared.jobs.listing import JobListing
from shared.jobs.records import Admission, Created, Idempotency, Place
from shared.jobs.store import JobStore
from shared.jobs.view import location, view
from shared.jobs.worker_registry import WorkerRegistry
from shared.photos.images import PreprocessSpec
from shared.redis_client import connect, refuse_cluster
from shared.settings import Settings
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_POLL_AFTER_S = 1
_POLL_AFTER_AT_MOST_S = 30
_REDIS_TIMEOUT_S = 2.0
_OTHER_CONNECTIONS = 256
_RETRY_AFTER_S = 5
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


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
        self.store = JobStore(client, job_ttl_s=settings.job_ttl_s, result_ttl_s=settings.result_ttl_s)
        self.listing = JobListing(client)
        self.batches = BatchStore(client, ttl_s=settings.job_ttl_s + settings.result_ttl_s)
        self.changes = ChangeLog(client)
        self.registry = WorkerRegistry(client)
        self.counters = ApiCounters()
        self.authenticator = Authenticator(settings, client)
        self.reader = PhotoReader(n_threads=settings.decode_threads, max_pixels=settings.max_pixels)
        self._spec = ServingPreprocessing(settings.storage)
        self.health_probe = HealthProbe(
            self.store, self.registry, every_s=settings.probe_every_s, spec=self._spec.look, dispatch=self._dispatch
        )
        self._dispatcher = Dispatcher(make_celery(url, socket_timeout_s=_REDIS_TIMEOUT_S), client)
        self._waiters = threading.BoundedSemaphore(settings.max_waiters + 1)

    @property
    def spec(self) -> PreprocessSpec:
        """How photos are made square for the model that answers now."""
        return self._spec.look()

    @property
    def admission(self) -> Admission:
        """How much the current caller may have waiting."""
        share = self.settings.max_queued_per_key if caller().owner else self.settings.max_queued
        return Admission(max_queued=self.settings.max_queued, max_queued_per_owner=share)

    def accept(
        self,
        kind: JobKind,
        request: JobRequest,
        photo: Photo | None,
        *,
        submission: Submission | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Create the record, and have a worker begin.

        Raises:
            QueueFull, QueueShareFull, QueueUnavailable: come back later.
            IdempotencyConflict: the key was used for another request.
            WebhookRefused: its URL is not one the operator allows.
        """
        submission = submission or Submission()
        self.check(submission)
        idempotency = None
        if idempotency_key is not None:
            # Each time a change is asked for it is given another sequence number, and it is the same request.
            said = [kind.value, request.model_dump_json(exclude={"sequence"}), submission.model_dump_json()]
            idempotency = Idempotency(idempotency_key, digest_of(*said, photo.sha256 if photo else ""))
        with broker_errors():
            created = self.store.create(
                kind,
                request,
                photo.pixels if photo else None,
                admission=self.admission,
                spec=photo.spec if photo else None,
                submission=submission,
                owner=caller().owner,
                idempotency=idempotency,
                request_id=g.request_id,
                call_idle=self._at_once,
            )
        return self._accepted(created, again=idempotency is not None)

    def check(self, submission: Submission) -> None:
        """Raises WebhookRefused when the job's end may not be told to its URL."""
        if submission.webhook_url:
            self.settings.webhook_policy.check(submission.webhook_url)

    def retry(self, job: Job, *, idempotency_key: str | None = None) -> Job:
        """Submit a failed job again; raises as `JobStore.retry`."""
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(idempotency_key, digest_of("retry", job.id))
        with broker_errors():
            created = self.store.retry(
                job.id,
                admission=self.admission,
                idempotency=idempotency,
                request_id=g.request_id,
                call_idle=self._at_once,
            )
        return self._accepted(created, again=idempotency is not None)

    @property
    def _at_once(self) -> bool:
        """Whether a job may begin as soon as it is written, rather than when replicas have it."""
        return not self.settings.redis_replicas

    def _accepted(self, created: Created, *, again: bool) -> Job:
        """A job that will be done; raises as `_replicate`."""
        job = created.job
        with broker_errors():
            self._replicate(job, is_new=created.is_new, again=again)
        if created.is_new:
            self.counters.accepted.labels(job.kind.value).inc()
            if not created.called:
                self._dispatch(job, nobody_idle=self._at_once)
        return job

    def _replicate(self, job: Job, *, is_new: bool, again: bool) -> None:
        """Have a job outlive the Redis it was written to, where that is asked for.

        Args:
            again: the request has a name: whoever repeats it gets this very job, so that it may go on.

        Raises:
            QueueUnavailable: too few replicas have it.
        """
        n_replicas = self.settings.redis_replicas
        if not n_replicas or self.store.replicated(n_replicas):
            return
        if is_new and again:
            self._dispatch(job)
        elif is_new:
            with suppress(JobFinished):
                self.store.cancel(job.id)
        raise QueueUnavailable(
            f"Redis has too few replicas to keep the job safe, {n_replicas} are needed; nothing was accepted",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _dispatch(self, job: Job, *, nobody_idle: bool = False) -> None:
        try:
            self._dispatcher.dispatch(job, nobody_idle=nobody_idle)
        except QueueUnavailable:
            # The record stands, so the job is accepted; workers publish again what they miss.
            event(_LOG, "message_not_sent", level=logging.WARNING)

    def find(self, job_id: str) -> Job:
        """A job the caller may see.

        Raises:
            JobNotFound, JobGone: as `JobStore.get`; somebody else's job is not found.
        """
        if not re.fullmatch(r"[0-9a-f]{32}", job_id):
            raise JobNotFound("no such job")
        return self.store.get(job_id, owner=caller().reads)

    def place(self, job: Job) -> Place | None:
        """Where a job stands in the queue; None when it does not wait, or nobody can say."""
        if job.status is not JobStatus.QUEUED:
            return None
        try:
            return self.store.place(job)
        except redis.RedisError:
            return None  # the job is known, and that is what was asked

    def wait(self, job: Job, timeout_s: float) -> Job:
        """The job once it is terminal, or as it stands after `timeout_s` or when too many wait already."""
        if timeout_s <= 0 or job.status.terminal or not self._waiters.acquire(blocking=False):
            return job
        try:
            return self.store.wait(job, timeout_s)
        except redis.RedisError:
            return job  # it is accepted: answering 503 now would have the client send it again
        finally:
            self._waiters.release()

    def audit(self, action: str, subject: str) -> None:
        """Remember what an administrator did to somebody else's things."""
        event(_LOG, "audit", actor=caller().name, action=action, subject=subject)
        self.authenticator.ring.record(caller().name, action, subject)


def install(app: Flask, service: Service) -> None:
    """Make the service reachable from the routes of `app`."""
    app.extensions["lookalike"] = service


def service() -> Service:
    """The service of the app that handles this request."""
    found: Service = current_app.extensions["lookalike"]
    return found


def idempotency_key() -> str | None:
    """The request's Idempotency-Key.

    Raises:
        InvalidRequest: it is empty, too long or unprintable.
    """
    given = request.headers.get("Idempotency-Key")
    if given is not None and not _IDEMPOTENCY_KEY.fullmatch(given):
        raise InvalidRequest("Idempotency-Key: 1 to 255 visible ASCII characters are needed; a UUID is a good choice")
    return given


def digest_of(*parts: str | bytes) -> str:
    """A digest that tells any two lists of parts apart."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8) + raw)
    return digest.hexdigest()


def answer(body: BaseModel, *, status: int = 200) -> Response:
    """A model as JSON."""
    return Response(body.model_dump_json(), status, content_type="application/json")


def show(job: Job, *, status: int = 200) -> Response:
    """The answer that is a job."""
    place = service().place(job)
    response = answer(view(job, place), status=status)
    if not job.status.terminal:
        eta_s = ceil(place.eta_s or 0) if place else 0
        response.headers["Retry-After"] = str(min(max(_POLL_AFTER_S, eta_s), _POLL_AFTER_AT_MOST_S))
    return response


def submitted(job: Job) -> Response:
    """The answer to a submit: 202, or 200 with the finished job when the client waits and it ends in time."""
    wait_s = preferred_wait_s()
    if wait_s is None:
        return accepted(job)
    job = service().wait(job, wait_s)
    response = show(job) if job.status.terminal else accepted(job)
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    response.headers["Location"] = location(job.id)
    return response


def accepted(job: Job) -> Response:
    """202: the job will be done; ask at Location."""
    response = show(job, status=202)
    response.headers["Location"] = location(job.id)
    return response
