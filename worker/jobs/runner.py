"""Claim, call, finish. Knows nothing of models: it asks the engine."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import redis

from shared.errors import InternalError, JobCanceled, LookalikeError, StoreUnavailable
from shared.jobs.contract import (
    ImageChangeResult,
    Job,
    JobKind,
    JobResult,
    JobStatus,
    PhotoRequest,
    PhotoResult,
    Timing,
)
from shared.jobs.records import Claim, QuarantineWaits, QueueName
from shared.jobs.store import JobStore
from shared.telemetry import event
from worker.jobs.stats import JobCounts
from worker.serving.engine import ArtifactNotReady, Engine

_LOG = logging.getLogger(__name__)

# How long what must be written is tried to be written while Redis is away, and how often.
_RETRY_WITHIN_S = 30.0
_RETRY_EVERY_S = 0.5
_ELSEWHERE_S = 0.25

T = TypeVar("T")


@dataclass
class Lease:
    """One attempt in hand."""

    kind: JobKind
    wanted: bool = True

    def unwanted(self) -> bool:
        return not self.wanted


class Leases:
    """The attempts this process is working on, for the heartbeat to extend."""

    def __init__(self) -> None:
        # By attempt: a job lost and claimed again by this very process is in hand twice for a while.
        self._held: dict[tuple[str, int], Lease] = {}
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, job: Job) -> Iterator[Lease]:
        """Keep the job's lease alive for as long as the body runs."""
        held, lease = (job.id, job.attempt), Lease(job.kind)
        with self._lock:
            self._held[held] = lease
        try:
            yield lease
        finally:
            with self._lock:
                del self._held[held]

    def held(self) -> list[tuple[str, int]]:
        """(job id, attempt) of everything in hand."""
        with self._lock:
            return list(self._held)

    def hold_photos(self) -> bool:
        """Whether somebody's photos are in hand, and not only parts of a reindex."""
        with self._lock:
            return any(lease.kind not in (JobKind.REINDEX, JobKind.SHARD) for lease in self._held.values())

    def drop(self, attempts: set[tuple[str, int]]) -> None:
        """Tell those who work on (job id, attempt) pairs that nobody wants the results."""
        with self._lock:
            for attempt in attempts & self._held.keys():
                self._held[attempt].wanted = False


class ReadWriteLock:
    """Many may be inside together, or one alone; who wants to be alone is let in before more of the others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_inside = 0
        self._n_wanting_alone = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._n_wanting_alone)
            self._n_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._n_wanting_alone += 1
            self._changed.wait_for(lambda: not self._alone and not self._n_inside)
            self._n_wanting_alone -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class JobReleased(Exception):
    """The worker is about to stop, and another shall go on with the job."""


Handler = Callable[[Claim, Lease], JobResult]


class JobRunner:
    """Runs the jobs whose turn it is; safe to call from many threads.

    Args:
        handlers: what runs jobs other than those of photos, by kind. A handler gives the result, or raises
            CancelledError when the lease is unwanted, HandedBack when it stops early.
        only: the one line whose jobs messages have it run, beside suspects; None: interactive and bulk.
        stopping: asked after each job; once true, a message that was obeyed is done with.
        wake: tells others of a job that this worker cannot do yet, or that more wait behind it.
        await_more: called where nothing waits; true when there may be more by now, false when it does not look so.

    Attributes:
        counts: how the attempts ended, and how long they took.
        woken_at: when a message was last obeyed, on the monotonic clock.
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
        stopping: Callable[[], bool] = lambda: False,
        wake: Callable[[Job], None] = lambda job: None,
        await_more: Callable[[], bool] = lambda: False,
    ) -> None:
        self.counts = JobCounts()
        self.woken_at = time.monotonic()
        self._store = store
        self._engine = engine
        self._leases = leases
        self._worker = worker
        self._lease_s = lease_s
        self._handlers = handlers or {}
        self._only = only
        self._stopping = stopping
        self._wake = wake
        self._await_more = await_more
        self._lock = ReadWriteLock()

    def run_next(self) -> None:
        """What a message asks for: to run what waits until nothing does, nor comes within a while."""
        first = True
        while True:
            self.woken_at = time.monotonic()
            if self.run_waiting(relay=first):
                if self._stopping():
                    break
            elif not self._await_more():  # one that was called looks once more, also when it is to stop
                break
            first = False

    def run_waiting(self, *, relay: bool = False) -> bool:
        """Run one job to its end, if one waits; returns whether there was one.

        An error from Redis passes through: the lease runs out and the reaper moves the job on.

        Args:
            relay: wake another if more wait.
        """
        suspects = False
        while True:
            try:
                with self._lock.alone() if suspects else self._lock.shared(), self._engine.expecting():
                    if self._claim_and_run(QueueName.QUARANTINE if suspects else self._only, relay=relay):
                        return True
                    if not suspects:
                        return False
                    suspects = False  # another worker had it; the message was for somebody
            except QuarantineWaits:
                suspects = True

    def run_line(self, line: QueueName) -> bool:
        """Run one job of a line that no message tells of, if one waits; returns whether there was one."""
        with self._lock.shared() if line is QueueName.SHARD else nullcontext():
            return self._claim_and_run(line)

    def _claim_and_run(self, line: QueueName | None, *, relay: bool = False) -> bool:
        """Returns whether there was a job."""
        claim = self._store.claim(self._worker, lease_s=self._lease_s, only=line)
        if claim is None:
            return False
        if relay and self._store.depth():
            # Who submits sends few messages: each that is obeyed brings the next, until every thread everywhere works.
            self._wake(claim.job)
        with self._leases.holding(claim.job) as lease:
            self._run(claim, lease)
        return True

    def _run(self, claim: Claim, lease: Lease) -> None:
        job, claimed_at, started = claim.job, time.time(), time.perf_counter()
        written: JobStatus | None
        try:
            result = self._result(claim, lease)
        except JobReleased:
            written, outcome = None, "handed_back"
            self._store.release(job)
        except ArtifactNotReady:
            written, outcome = None, "handed_back"
            time.sleep(_ELSEWHERE_S)  # first, or every thread here would take this one again and none what is behind it
            self._store.release(job)
            self._wake(job)
        except CancelledError:
            # Written if it was cancelled; refused if the lease is lost; left to the reaper if the worker stops.
            unwanted = partial(self._store.fail, job, JobCanceled("cancelled"))
            written = self._write(unwanted) if not lease.wanted else None
            outcome = "unwanted"
        except LookalikeError as error:
            written, outcome = self._write(partial(self._store.fail, job, error)), error.code
        except redis.RedisError:
            raise  # as when it cannot be claimed: the lease runs out, and the reaper moves the job on
        except Exception:  # whatever a photo makes the model do must end in the record
            _LOG.exception("event=job_crashed job_id=%s", job.id)
            crash = InternalError("the job crashed; the service's log says why")
            written = self._write(partial(self._store.fail, job, crash))
            outcome = InternalError.code
        else:
            timing = _timing(job, claimed_at, time.perf_counter() - started)
            if isinstance(result, PhotoResult | ImageChangeResult):
                result = result.model_copy(update={"timing_ms": timing})
                self.counts.took(timing)
            written = self._write(partial(self._store.succeed, job, result))
            outcome = JobStatus.SUCCEEDED.value
        if outcome != "handed_back" and (written is None or written is JobStatus.CANCELED):
            outcome = written.value if written else "late"
        self.counts.ended(outcome)
        event(
            _LOG,
            "job_finished" if written else "job_handed_back" if outcome == "handed_back" else "late_write_dropped",
            job_id=job.id,
            request_id=job.request_id,
            kind=job.kind,
            attempt=job.attempt,
            outcome=outcome,
            seconds=time.perf_counter() - started,
        )

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

    def _write(self, end: Callable[[], JobStatus | None]) -> JobStatus | None:
        """Write how an attempt ended: a dropped connection must not cost an attempt.

        Nothing is written twice: if the answer to a write was lost, the next one is refused as late.
        """
        return while_redis_is_away(end)


def while_redis_is_away(call: Callable[[], T]) -> T:
    """Make a call to Redis, again for half a minute while it does not answer."""
    return _while_away(call, redis.RedisError)


def while_store_is_away(call: Callable[[], T]) -> T:
    """Make a call to the object store, likewise."""
    return _while_away(call, StoreUnavailable)


def _while_away(call: Callable[[], T], error: type[Exception]) -> T:
    give_up_at = time.monotonic() + _RETRY_WITHIN_S
    while True:
        try:
            return call()
        except error:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_RETRY_EVERY_S)


def _timing(job: Job, claimed_at: float, compute_s: float) -> Timing:
    return Timing(
        queued=round((claimed_at - job.created_at) * 1e3, 1),
        compute=round(compute_s * 1e3, 1),
        total=round((time.time() - job.created_at) * 1e3, 1),
    )
