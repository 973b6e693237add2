"""Claims jobs and runs them: the loop behind a token, the body of every task, and how an attempt is written down."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from celery.exceptions import Ignore

from shared.artifacts.store import WorkInterrupted
from shared.errors import InternalError, JobCanceled, JobGone, JobNotFound, LookalikeError, StoreUnavailable
from shared.jobs.answers_contract import Timing
from shared.jobs.contract import (
    ImageChangeResult,
    Job,
    JobKind,
    JobResult,
    JobStatus,
    PhotoRequest,
    PhotoResult,
    Priority,
)
from shared.jobs.records import Claim, QuarantineWaits, QueueName
from shared.jobs.store import JobStore
from shared.telemetry import event
from shared.tracing import past_span, span
from worker.jobs.bulk_share import BulkShare
from worker.jobs.leases import Lease, Leases
from worker.jobs.read_write_lock import ReadWriteLock
from worker.jobs.retries import while_redis_is_away
from worker.jobs.stats import JobCounts
from worker.jobs.task_tracer import PlainTracer, Released, Tracer, Unwanted
from worker.jobs.worker_dispatcher import NoDispatcher, WorkerDispatcher
from worker.serving.engine import ArtifactNotReady, Engine

_LOG = logging.getLogger(__name__)
_ELSEWHERE_S = 0.25  # a job for another worker is held so long before it is released
_LOOK_EVERY_S = 0.25  # for jobs that can be done without the model that is being fetched


class JobReleased(WorkInterrupted):
    """A handler stops early, because the worker ends: the job goes back to its queue."""


Handler = Callable[[Claim, Lease], JobResult]


@dataclass(frozen=True)
class _Ended:
    """How an attempt ended.

    Attributes:
        outcome: for counters and logs: succeeded, an error's code, canceled, late, released, unwanted.
        status: the job has now; None: this attempt did not end it.
        error: the job's.
    """

    outcome: str
    status: JobStatus | None
    error: LookalikeError | None = None


class JobRunner:
    """Runs jobs of an installation in this process; safe to call from many threads.

    Args:
        handlers: what runs jobs other than those of photos, by kind. A handler returns the result, or raises
            CancelledError when the lease is unwanted, JobReleased when it stops early.
        only: the one photo queue to claim from, beside quarantined jobs; None: interactive and bulk.
        most_bulk: how many bulk jobs may run at once where `only` is None, so that an interactive one never waits for a
            thread; None: any number.
        dispatcher: how this worker learns of work and tells others of it.
        tracer: what runs each attempt; a worker runs it as a Celery task.

    Attributes:
        counts: how the attempts ended, and how long they took.
        asked_at: when a message last asked for work, on the monotonic clock.
    """

    def __init__(
        self,
        store: JobStore,
        engine: Engine,
        leases: Leases,
        *,
        worker: str,
        lease_s: float,
        handlers: Mapping[JobKind, Handler] | None = None,
        only: QueueName | None = None,
        most_bulk: Callable[[], int] | None = None,
        dispatcher: WorkerDispatcher | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.counts = JobCounts()
        self.asked_at = time.monotonic()
        self._store = store
        self._engine = engine
        self._leases = leases
        self._worker = worker
        self._lease_s = lease_s
        self._handlers = handlers or {}
        self._only = only
        self._bulk = BulkShare(most_bulk or (lambda: sys.maxsize))
        self._dispatcher = dispatcher or NoDispatcher()
        self._tracer = tracer or PlainTracer()
        self._looking = threading.Lock()
        # Readers run jobs beside one another; a quarantined job is run alone.
        self._lock = ReadWriteLock()

    def run_queued(self) -> None:
        """Run queued photo jobs, one after another, until none is queued nor comes within a while.

        This is what a token asks for.
        """
        first, passed_on = True, False
        while True:
            self.asked_at = time.monotonic()
            if self.run_waiting(relay=first):
                if self._dispatcher.stopping:
                    break
            elif self._engine.lacking.specs:
                if self._dispatcher.stopping:
                    break
                if not passed_on:  # this thread was notified of a job that it leaves to others
                    self._dispatcher.pass_on()
                    passed_on = True
                self._wait_for_model()
            elif not self._dispatcher.wait_for_work(but_bulk=self._bulk.used_up):
                break  # a thread that was notified looks once more before it stops
            first = False

    def _wait_for_model(self) -> None:
        """Wait for the model that is being fetched; of all threads one looks now and then for jobs that need it not."""
        with self._looking:
            if not self._dispatcher.stopping:
                self._engine.lacking.wait(_LOOK_EVERY_S)

    def run_waiting(self, *, relay: bool = False) -> bool:
        """Run one photo job to its end, if one waits; returns whether there was one.

        An error from Redis passes through: the lease runs out and the reaper moves the job on.

        Args:
            relay: notify another thread if more wait.
        """
        quarantined = False
        while True:
            try:
                with self._lock.write() if quarantined else self._lock.read(), self._engine.expecting():
                    if self._claim_and_run(QueueName.QUARANTINE if quarantined else self._only, relay=relay):
                        return True
                    if not quarantined:
                        return False
                    quarantined = False  # another worker had it; the token was for somebody
            except QuarantineWaits:
                quarantined = True

    def run_job(self, job_id: str) -> str:
        """Run the one job that a message names; the body of its task, which returns how it ended.

        Raises:
            LookalikeError: the job failed; its record says so too.
            Ignore: the job is not queued, or this attempt did not end it.
        """
        try:
            kind = self._store.get(job_id).kind
        except (JobNotFound, JobGone):
            raise Ignore("gone") from None
        # Before it is claimed: a shard that waits for a quarantined job to end holds no lease, and dies with no worker.
        with self._lock.read() if kind is JobKind.SHARD else nullcontext():
            with span("claim"):
                claim = self._store.claim_job(job_id, self._worker, lease_s=self._lease_s)
            if claim is None:
                raise self._not_queued(job_id)
            return self._attempt(claim)

    def _not_queued(self, job_id: str) -> Ignore:
        """Why there is nothing to do for a message: the job was cancelled or expired, or the message came twice."""
        try:
            status = self._store.get(job_id).status
        except (JobGone, JobNotFound):
            return Ignore("gone")
        return Unwanted(status) if status in (JobStatus.CANCELED, JobStatus.EXPIRED) else Ignore("not queued")

    def _claim_and_run(self, queue: QueueName | None, *, relay: bool) -> bool:
        """Returns whether there was a job."""
        counted = queue is None and self._bulk.begin()
        if queue is None and not counted:
            queue = QueueName.INTERACTIVE
        began_ns = time.time_ns()
        lacking = self._engine.lacking.specs
        try:
            claim = self._store.claim(self._worker, lease_s=self._lease_s, only=queue, lacking=lacking)
            claimed_ns = time.time_ns()
            if counted and (claim is None or claim.job.submission.priority is not Priority.BULK):
                self._bulk.end()
                counted = False
            if claim is None:
                return False
            if relay and self._store.depth():
                # Who submits sends few tokens: each that is received brings the next, until all threads work.
                self._dispatcher.dispatch(claim.job)

            def attempt(claim: Claim = claim) -> str:
                past_span("claim", began_ns, claimed_ns)  # which job's span it belongs to was not known before
                return self._attempt(claim)

            self._tracer.run(claim.job, attempt)
            return True
        finally:
            if counted:
                self._bulk.end()

    def _attempt(self, claim: Claim) -> str:
        """Run a claimed job and write down how it ended; raises as `run_job`."""
        job, started = claim.job, time.perf_counter()
        with self._leases.holding(job) as lease:
            ended = self._run(claim, lease)
        self.counts.ended(job.kind, ended.outcome)
        names = {"released": "job_released", "late": "late_write_dropped"}
        why: dict[str, Any] = {"reason": str(ended.error)} if ended.status is JobStatus.FAILED else {}
        event(
            _LOG,
            names.get(ended.outcome, "job_finished"),
            job_id=job.id,
            request_id=job.request_id,
            kind=job.kind,
            attempt=job.attempt,
            outcome=ended.outcome,
            seconds=time.perf_counter() - started,
            **why,
        )
        if ended.status is JobStatus.CANCELED:
            raise Unwanted(ended.outcome)
        if ended.status is None:
            raise Released(ended.outcome)
        if ended.error is not None:
            raise ended.error
        return ended.outcome

    def _run(self, claim: Claim, lease: Lease) -> _Ended:
        job, claimed_at, started = claim.job, self._store.now(), time.perf_counter()
        lacking = self._engine.lacking
        known = job.spec in lacking.specs
        error: LookalikeError | None = None
        try:
            result = self._result(claim, lease)
        except JobReleased:
            self._release(job)
            return _Ended("released", None)
        except ArtifactNotReady:
            if known or job.spec not in lacking.specs:
                # The next claim may not pass it over, and every thread here would take this one and none behind it.
                time.sleep(_ELSEWHERE_S)
            self._release(job)
            return _Ended("released", None)
        except CancelledError:
            if lease.wanted:  # the worker ends: left to the reaper
                return _Ended("late", None)
            # Written if it was cancelled; refused if the lease is lost.
            error, outcome = JobCanceled("cancelled"), "unwanted"
        except LookalikeError as exc:
            error, outcome = exc, exc.code
        except redis.RedisError:
            raise  # as when it cannot be claimed: the lease runs out, and the reaper moves the job on
        except Exception:  # whatever a photo makes the model do must end in the record
            _LOG.exception("event=job_crashed job_id=%s", job.id)
            error = InternalError("the job crashed; the service's log says why")
            outcome = error.code
        if error is not None:
            with span("finish"):
                status = while_redis_is_away(partial(self._store.fail, job, error))
        else:
            timing = _timing(job, claimed_at, self._store.now(), time.perf_counter() - started)
            self.counts.took(job.kind, timing)
            if isinstance(result, PhotoResult | ImageChangeResult):
                result = result.model_copy(update={"timing_ms": timing})
            # Nothing is written twice: if the answer to a write was lost, the next one is refused as late.
            with span("finish"):
                status = while_redis_is_away(partial(self._store.succeed, job, result))
            outcome = JobStatus.SUCCEEDED.value
        if status is None:
            return _Ended("late", None)
        return _Ended(status.value if status is JobStatus.CANCELED else outcome, status, error)

    def _release(self, job: Job) -> None:
        self._store.release(job)
        self._dispatcher.dispatch(job)

    def _result(self, claim: Claim, lease: Lease) -> JobResult:
        job = claim.job
        if isinstance(job.request, PhotoRequest):
            return self._engine.run(
                job.request,
                claim.pixels,
                spec=job.spec,
                priority=job.submission.priority,
                owner=job.owner,
                unwanted=lease.unwanted,
            )
        try:
            return self._handlers[job.kind](claim, lease)
        except StoreUnavailable as exc:
            if job.kind is JobKind.REINDEX:
                raise  # it has waited for the store where that cost nothing
            raise ArtifactNotReady from exc


def _timing(job: Job, claimed_at: float, ended_at: float, compute_s: float) -> Timing:
    return Timing(
        queued=max(0.0, round((claimed_at - job.created_at) * 1e3, 1)),
        compute=round(compute_s * 1e3, 1),
        total=max(0.0, round((ended_at - job.created_at) * 1e3, 1)),
    )
