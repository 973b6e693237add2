"""Claim, call, finish. Knows nothing of models: it asks the engine."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import InternalError, LookalikeError
from shared.job_store import JobStore
from shared.jobs import Job, JobResult, Timing
from shared.telemetry import event
from worker.engine import Engine

_LOG = logging.getLogger(__name__)


class Leases:
    """The attempts this process is working on, for the heartbeat to extend."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, job: Job) -> Iterator[None]:
        """Keep the job's lease alive for as long as the body runs."""
        with self._lock:
            self._held[job.id] = job.attempt
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(job.id, None)

    def held(self) -> list[tuple[str, int]]:
        """(job id, attempt) of everything in hand."""
        with self._lock:
            return list(self._held.items())


class JobRunner:
    """Runs jobs by id; safe to call from many threads."""

    def __init__(self, store: JobStore, engine: Engine, leases: Leases, *, worker: str, lease_s: float) -> None:
        self._store = store
        self._engine = engine
        self._leases = leases
        self._worker = worker
        self._lease_s = lease_s

    def run(self, job_id: str) -> None:
        """Run one job to its end, unless somebody else has it or it has ended.

        An error from Redis passes through: the lease runs out and the reaper moves the job on.
        """
        with self._engine.expecting():
            self._claim_and_run(job_id)

    def _claim_and_run(self, job_id: str) -> None:
        claimed_at = time.time()
        claim = self._store.claim(job_id, self._worker, lease_s=self._lease_s)
        if claim is None:
            return
        job = claim.job
        with self._leases.holding(job):
            started = time.perf_counter()
            try:
                result = self._engine.run(job.request, claim.pixels)
            except LookalikeError as error:
                written = self._store.fail(job, error)
                outcome = error.code
            except Exception:  # whatever a photo makes the model do must end in the record
                _LOG.exception("event=job_crashed job_id=%s", job.id)
                written = self._store.fail(job, InternalError("the job crashed; the service's log says why"))
                outcome = InternalError.code
            else:
                compute_s = time.perf_counter() - started
                timed = _timed(result, job, claimed_at, compute_s)
                written = self._store.succeed(job, timed, service_s=compute_s)
                outcome = "succeeded"
        event(
            _LOG,
            "job_finished" if written else "late_write_dropped",
            job_id=job.id,
            request_id=job.request_id,
            kind=job.kind,
            attempt=job.attempt,
            outcome=outcome,
            seconds=time.perf_counter() - started,
        )


def _timed(result: JobResult, job: Job, claimed_at: float, compute_s: float) -> JobResult:
    timing = Timing(
        queued=round((claimed_at - job.created_at) * 1e3, 1),
        compute=round(compute_s * 1e3, 1),
        total=round((time.time() - job.created_at) * 1e3, 1),
    )
    return result.model_copy(update={"timing_ms": timing})
