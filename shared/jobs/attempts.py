"""What workers do to job records: claim, extend, end, release, reap. Each is one Lua script, so it is atomic.

`shared.jobs.store` has the keys, and what the API does to the same records.
"""

import math
from collections.abc import Callable, Iterable
from typing import cast

import redis

from shared.errors import LookalikeError, WorkerLost
from shared.jobs import scripts
from shared.jobs.contract import DeleteImageRequest, Job, JobError, JobResult, JobStatus, PutImageRequest
from shared.jobs.records import PREFIX, Claim, QuarantineWaits, QueueName, ReapReport, parse_record, spec_text
from shared.photos.preprocessing import PreprocessSpec
from shared.redis_clock import RedisClock

_GONE_S = 86_400
_REAP_AT_MOST = 500
_EXPIRE_AT_MOST = 200  # whoever submits a job waits for it


class Attempts:
    """The attempts at jobs, as workers make them.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        job_ttl_s: seconds that an unfinished job and its photo are kept; the latest deadline.
        result_ttl_s: seconds that a finished job is kept.
        clock: returns seconds since the epoch; None: Redis's own clock.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        job_ttl_s: int = 86_400,
        result_ttl_s: int = 3_600,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._redis = client
        self._job_ttl_s = job_ttl_s
        self._result_ttl_s = result_ttl_s
        self._gone_s = max(_GONE_S, job_ttl_s)  # an idempotency key must not outlive the trace of its job
        self._clock = clock or RedisClock(client)
        self._scripts: dict[str, Callable[..., object]] = {}

    def claim(
        self,
        worker: str,
        *,
        lease_s: float,
        only: QueueName | None = None,
        lacking: Iterable[PreprocessSpec] = (),
    ) -> Claim | None:
        """Claim the next job, counting one attempt; None if there is none.

        Args:
            worker: name of the claiming worker.
            lease_s: seconds until the job is requeued unless `extend` prolongs the lease.
            only: the queue to claim from; None: the interactive and the bulk one. From the quarantine queue, claim only
                while holding no other job.
            lacking: pass over jobs whose photo was made by one of these; they keep their places.

        Raises:
            QuarantineWaits: a quarantined job is next: call again with `QueueName.QUARANTINE`. Only if `only` is None.
        """
        answer: list[object] | None = [b"again"]
        while answer == [b"again"]:
            end = repr(self._clock() + lease_s)
            passed_over = map(spec_text, lacking)
            answer = cast(list[object] | None, self.run(scripts.CLAIM, worker, end, only or "", *passed_over))
        if not answer:
            return None
        if answer == [b"suspect"]:
            raise QuarantineWaits
        return _claim_of(answer)

    def claim_job(self, job_id: str, worker: str, *, lease_s: float) -> Claim | None:
        """Take one certain job as `claim` does; None unless it is queued, within its deadline and no suspect."""
        answer = self.run(scripts.CLAIM_JOB, job_id, worker, repr(self._clock() + lease_s))
        return _claim_of(answer) if answer else None

    def extend(self, held: Iterable[tuple[str, int]], *, lease_s: float) -> set[tuple[str, int]]:
        """Extend the leases of (job id, attempt) pairs; returns those still held and not cancelled."""
        pairs = [str(part) for pair in held for part in pair]
        if not pairs:
            return set()
        answer = cast(list[bytes], self.run(scripts.EXTEND, repr(self._clock() + lease_s), *pairs))
        return {(job_id.decode(), int(attempt)) for job_id, attempt in zip(answer[::2], answer[1::2], strict=True)}

    def succeed(self, job: Job, result: JobResult) -> JobStatus | None:
        """Store the result of this attempt.

        Returns:
            The status the job has now: canceled if it was cancelled meanwhile. None if the attempt no longer holds the
            job (a late write, which is ignored), or the change that it made to an image is not in the log.
        """
        request = job.request
        change: tuple[str | int, ...] = ()
        if isinstance(request, PutImageRequest | DeleteImageRequest):
            change = (request.image_id, request.sequence)
        return self._end(job, JobStatus.SUCCEEDED, "result", result.model_dump_json(), *change)

    def fail(self, job: Job, error: LookalikeError) -> JobStatus | None:
        """Store the error with which this attempt failed; the job is not retried. Returns as `succeed`."""
        return self._end(job, JobStatus.FAILED, "error", _error(error))

    def release(self, job: Job) -> None:
        """Requeue a job whose worker is about to stop, without counting the attempt."""
        self.run(scripts.RELEASE, job.id, job.attempt)

    def reap(self, *, max_attempts: int, lease_s: float = math.inf) -> ReapReport:
        """Requeue jobs whose lease ran out, and expire those past their deadline.

        Args:
            max_attempts: a job that was claimed so often and has not ended fails as `worker_lost`.
            lease_s: that workers claim for. A lease that ends later than twice that is of before Redis's clock was set
                back, and ends after `lease_s` unless its worker extends it.
        """
        lost = _error(WorkerLost(f"its worker died in each of {max_attempts} attempts"))
        answer = cast(
            list[list[bytes]], self.run(scripts.REAP, max_attempts, lost, _REAP_AT_MOST, repr(float(lease_s)))
        )
        return ReapReport(*([job_id.decode() for job_id in ids] for ids in answer))

    def expire_overdue(self) -> bool:
        """Expire some jobs whose deadline has passed, as `reap` does while any worker lives; returns whether it did."""
        overdue = cast(
            list[bytes], self._redis.zrangebyscore(PREFIX + "deadlines", "-inf", self.now(), 0, _EXPIRE_AT_MOST)
        )
        if overdue:
            self.run(scripts.EXPIRE, *overdue)
        return bool(overdue)

    def now(self) -> float:
        """The current time, rounded to microseconds as in the cursors of lists."""
        return round(self._clock(), 6)

    def run(self, script: str, *arguments: str | int | bytes, now: float | None = None) -> object:
        """Run one of the Lua scripts of `shared.jobs.scripts`; `arguments` follow the time and the two TTLs in ARGV."""
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._redis.register_script(script)
        at = repr(self.now() if now is None else now)
        return registered(keys=[PREFIX], args=[at, self._result_ttl_s, self._gone_s, *arguments])

    def _end(self, job: Job, status: JobStatus, field: str, payload: str, *change: str | int) -> JobStatus | None:
        ended = cast(bytes | None, self.run(scripts.FINISH, job.id, job.attempt, status.value, field, payload, *change))
        return JobStatus(ended.decode()) if ended else None


def _claim_of(answer: object) -> Claim:
    job_id, flat, pixels = cast(tuple[bytes, list[bytes], bytes | None], answer)
    return Claim(parse_record(job_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True))), pixels)


def _error(error: LookalikeError) -> str:
    return JobError(code=error.code, detail=str(error), retryable=error.retryable).model_dump_json()
