"""What all routes share: accept jobs, find them, and wait for them."""

import hashlib
import logging
import re
import threading
from contextlib import suppress
from functools import partial

import redis
from flask import Flask, current_app, g

from api.health_probe import HealthProbe
from api.http.auth import Authenticator, caller
from api.routes.metrics import ApiCounters
from api.uploads.bodies import Photo, PhotoReader
from api.uploads.preprocessing import ServingPreprocessing
from shared.attributes.filters import bind_filter
from shared.attributes.schema import AttributeSchema
from shared.catalogue.categories import Categories
from shared.changes.log import ChangeLog
from shared.duplicates.verdicts import VerdictStore
from shared.errors import AcceptanceUnknown, InvalidRequest, JobFinished, JobNotFound, QueueUnavailable
from shared.feedback.contract import FeedbackRequest, Impression
from shared.feedback.store import FeedbackStore
from shared.jobs.acceptance import acceptance_unknown
from shared.jobs.batches import BatchStore
from shared.jobs.celery_config import make_celery
from shared.jobs.contract import (
    NO_WORDS,
    Job,
    JobKind,
    JobRequest,
    JobStatus,
    PhotoRequest,
    PutImageRequest,
    SearchRequest,
    Submission,
)
from shared.jobs.dispatcher import Dispatcher, broker_errors
from shared.jobs.listing import JobListing
from shared.jobs.records import Admission, Created, Idempotency, Place, record_key
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.photos.images import PreprocessSpec
from shared.quality.store import QualityStore
from shared.redis_client import connect, refuse_unusable
from shared.settings import Settings
from shared.telemetry import event
from shared.tracing import carrier

_LOG = logging.getLogger(__name__)
_REDIS_TIMEOUT_S = 2.0
_OTHER_CONNECTIONS = 256  # to Redis, besides those of requests that wait for a job
_RETRY_AFTER_S = 5


class Service:
    """The API's connections and limits; one per process.

    Args:
        settings: of the service.

    Raises:
        CannotStart: Redis is a cluster or too old, which cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        url = settings.required_redis_url
        client = connect(url, timeout_s=_REDIS_TIMEOUT_S, max_connections=settings.max_waiters + _OTHER_CONNECTIONS)
        refuse_unusable(client)
        self.redis = client
        store = partial(JobStore, client, job_ttl_s=settings.job_ttl_s, result_ttl_s=settings.result_ttl_s)
        self.store = store(n_replicas=settings.redis_replicas)
        self.listing = JobListing(client, n_replicas=settings.redis_replicas)
        self.batches = BatchStore(client, ttl_s=settings.job_ttl_s + settings.result_ttl_s)
        self.changes = ChangeLog(client)
        self.verdicts = VerdictStore(client)
        self.feedback = FeedbackStore(client)
        self.registry = WorkerRegistry(client)
        self.quality = QualityStore(client)
        self.counters = ApiCounters()
        self.authenticator = Authenticator(settings, client)
        self.reader = PhotoReader(n_threads=settings.decode_threads, max_pixels=settings.max_pixels)
        self._preprocessing = ServingPreprocessing(settings.storage)
        self.health_probe = HealthProbe(
            store(),  # its jobs are shown to nobody
            self.registry,
            every_s=settings.probe_every_s,
            spec=self._preprocessing.current,
            dispatch=self._dispatch,
        )
        self._dispatcher = Dispatcher(make_celery(url, socket_timeout_s=_REDIS_TIMEOUT_S), client)
        self._waiters = threading.BoundedSemaphore(settings.max_waiters + 1)

    @property
    def categories(self) -> Categories:
        """Categories that the model that serves tells apart; raises as `spec`."""
        return self._preprocessing.categories()

    @property
    def attributes(self) -> AttributeSchema:
        """Attributes of the live index; raises as `spec`."""
        return self._preprocessing.attributes()

    @property
    def words(self) -> tuple[str, ...]:
        """Attributes that are a listing's words; none: the model that serves knows no words. Raises as `spec`."""
        return self._preprocessing.words()

    @property
    def spec(self) -> PreprocessSpec:
        """Preprocessing of the model that serves now.

        Raises:
            StoreUnavailable: it could not be read yet.
        """
        return self._preprocessing.current()

    @property
    def admission(self) -> Admission:
        """How many jobs the current caller may have in the queue."""
        per_owner = self.settings.max_queued_per_key if caller().owner else self.settings.max_queued
        return Admission(max_queued=self.settings.max_queued, max_queued_per_owner=per_owner)

    def accept(
        self,
        kind: JobKind,
        request: JobRequest,
        photo: Photo | None,
        *,
        submission: Submission | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Accept a job: write its record and notify a worker.

        Args:
            kind: what the job does.
            request: options of that kind.
            photo: the job's photo, decoded; None where the job is about none or about one of the index.
            submission: options of every job.
            idempotency_key: the same key and request give the same job.

        Returns:
            The new job, or the earlier one with the same idempotency key.

        Raises:
            QueueFull, QueueShareFull, QueueUnavailable: nothing was accepted; try again later.
            AcceptanceUnknown: Redis broke off as the job was written.
            IdempotencyConflict: the key was used for another request.
            InvalidRequest, WebhookRefused: as of `check`.
        """
        submission = submission or Submission()
        self.check(request, submission)
        idempotency = None
        if idempotency_key is not None:
            # A repeated change of an image has a new sequence number, and is still the same request.
            parts = [kind.value, request.model_dump_json(exclude={"sequence"}), submission.model_dump_json()]
            idempotency = Idempotency(idempotency_key, digest_of(*parts, photo.sha256 if photo else ""))
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
                call_idle=self._starts_unreplicated,
                trace=carrier(),
            )
        return self._finish_acceptance(created, repeatable=idempotency is not None)

    def check(self, request: JobRequest, submission: Submission) -> None:
        """Check options against what is served, and those of every job against the operator's limits.

        Raises:
            InvalidRequest: the model has no such category, or the index no such attribute of that type.
            WebhookRefused: the operator does not allow the webhook's URL.
        """
        if isinstance(request, SearchRequest | PutImageRequest) and request.category is not None:
            self.categories.position(request.category)
        if isinstance(request, SearchRequest):
            if request.filter is not None:
                bind_filter(request.filter, self.attributes, self.categories)
            self.attributes.require_included(request.include)
            self.attributes.require_countable(request.facets)
        if isinstance(request, PhotoRequest) and request.text is not None and not self.words:
            raise InvalidRequest(NO_WORDS)
        if submission.webhook_url:
            self.settings.webhook_policy.check(submission.webhook_url)

    def retry(self, job: Job, *, idempotency_key: str | None = None) -> Job:
        """Submit a failed job again.

        Args:
            job: the failed one.
            idempotency_key: the same key and job give the same new job.

        Returns:
            The new job.

        Raises:
            LookalikeError: as of `JobStore.retry`.
        """
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(idempotency_key, digest_of("retry", job.id))
        with broker_errors():
            created = self.store.retry(
                job.id,
                admission=self.admission,
                idempotency=idempotency,
                request_id=g.request_id,
                call_idle=self._starts_unreplicated,
                trace=carrier(),
            )
        return self._finish_acceptance(created, repeatable=idempotency is not None)

    @property
    def _starts_unreplicated(self) -> bool:
        """Whether a job may start as soon as it is written, rather than when replicas of Redis have it."""
        return not self.settings.redis_replicas

    def _finish_acceptance(self, created: Created, *, repeatable: bool) -> Job:
        """Replicate the record of a job and notify a worker.

        Raises:
            QueueUnavailable, AcceptanceUnknown: as of `_replicate`.
        """
        job = created.job
        with acceptance_unknown(job.id):
            self._replicate(job, is_new=created.is_new, repeatable=repeatable)
        if created.is_new:
            self.counters.accepted.labels(job.kind.value).inc()
            if not created.called:
                self._dispatch(job, nobody_idle=self._starts_unreplicated)
        return job

    def _replicate(self, job: Job, *, is_new: bool, repeatable: bool) -> None:
        """Wait until enough replicas of Redis have the job, if the settings ask for replicas.

        A new job that too few replicas have is cancelled, or if the client can repeat the request, goes on.

        Args:
            job: the job.
            is_new: false if it was accepted earlier with the same idempotency key.
            repeatable: the request has an idempotency key: repeating it gives this same job.

        Raises:
            QueueUnavailable: too few replicas have it, and it was cancelled.
            AcceptanceUnknown: too few replicas have it, and it goes on.
        """
        n_replicas = self.settings.redis_replicas
        if not n_replicas or self.store.replicated(n_replicas, record_key(job.id)):
            return
        too_few = f"Redis has too few replicas to keep the job safe, {n_replicas} are needed"
        if is_new and not repeatable:
            with suppress(JobFinished, JobNotFound):  # it is not known to a primary that has just taken over
                self.store.cancel(job.id)
            raise QueueUnavailable(f"{too_few}; nothing was accepted", retry_after_s=_RETRY_AFTER_S)
        if is_new:
            self._dispatch(job)
        raise AcceptanceUnknown(
            f"{too_few}; it goes on, and may be lost: repeat the request", retry_after_s=_RETRY_AFTER_S, job_id=job.id
        )

    def give_feedback(self, impression: Impression, request: FeedbackRequest) -> None:
        """Store an event of feedback, as safely as a job.

        Args:
            impression: what its search showed.
            request: the event.

        Raises:
            FeedbackFull: there is no room; nothing was stored.
            QueueUnavailable: too few replicas of Redis have it. To send it again does no harm.
        """
        n_replicas = self.settings.redis_replicas
        if not self.feedback.give(impression, request, limit=self.settings.max_feedback, n_replicas=n_replicas):
            raise QueueUnavailable(
                f"Redis has too few replicas to keep the feedback safe, {n_replicas} are needed; send it again",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _dispatch(self, job: Job, *, nobody_idle: bool = False) -> None:
        try:
            self._dispatcher.dispatch(job, nobody_idle=nobody_idle)
        except QueueUnavailable:
            # The record stands, so the job is accepted; workers publish again what they miss.
            event(_LOG, "message_not_sent", level=logging.WARNING)

    def find(self, job_id: str) -> Job:
        """Find a job that the caller may see.

        Args:
            job_id: as in the path of the request.

        Raises:
            JobNotFound: there is no such job, or it belongs to another API key.
            JobGone: it has ended and its result is no longer kept.
        """
        if not re.fullmatch(r"[0-9a-f]{32}", job_id):
            raise JobNotFound("no such job")
        return self.store.get(job_id, owner=caller().reads)

    def place(self, job: Job) -> Place | None:
        """The place of a job in the queue; None if it is not queued, or Redis does not answer."""
        if job.status is not JobStatus.QUEUED:
            return None
        try:
            return self.store.place(job)
        except redis.RedisError:
            return None  # the caller asked for the job, which is known

    def wait(self, job: Job, timeout_s: float) -> Job:
        """Wait for a job to end.

        Args:
            job: the job.
            timeout_s: seconds to wait at most.

        Returns:
            The finished job; or its present state after `timeout_s`, or at once if too many requests wait already.
        """
        if timeout_s <= 0 or job.status.terminal or not self._waiters.acquire(blocking=False):
            return job
        try:
            return self.store.wait(job, timeout_s)
        except redis.RedisError:
            return job  # it is accepted: after a 503 the client would send it again
        finally:
            self._waiters.release()

    def audit(self, action: str, subject: str) -> None:
        """Write an entry to the audit log: the current caller changed what belongs to others.

        Args:
            action: what was done, such as `index.promote`.
            subject: name or id of what it was done to.
        """
        event(_LOG, "audit", actor=caller().name, action=action, subject=subject)
        self.authenticator.ring.record(caller().name, action, subject)


def install(app: Flask, service: Service) -> None:
    """Attach the service to `app`, for `service()`."""
    app.extensions["lookalike"] = service


def service() -> Service:
    """The service of the application that handles the current request."""
    found: Service = current_app.extensions["lookalike"]
    return found


def digest_of(*parts: str | bytes) -> str:
    """SHA-256 of a list of parts, in hexadecimal; the parts' lengths count, so that no two lists are joined alike."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8) + raw)
    return digest.hexdigest()
