"""All job state in Redis: create, claim, extend, finish, reap. Every transition is one script, so it is atomic.

The record is the truth and a Celery message only a wake-up call: whatever is delivered twice, late or never, a job
moves along `queued -> running -> terminal` by compare-and-set on its status and attempt. Knows nothing of Celery.

Keys (prefix `lookalike:`), each with a TTL unless a reason is given:
    job:{id}     hash, the record; `job_ttl_s` until terminal, then `result_ttl_s`
    pixels:{id}  the letterboxed photo; `job_ttl_s`, deleted when the job ends
    done:{id}    list of one element, pushed when the job ends; wakes waiters; `result_ttl_s`
    gone:{id}    remembers for a day longer that the job existed, so that its id answers 410, never 404
    queued       sorted set id -> when it was (re)queued; no TTL: it is the backlog itself
    running      sorted set id -> when its lease ends; no TTL: it is what the reaper reads
    workers      hash name -> heartbeat; no TTL: stale ones are removed by any worker's next heartbeat
    service_s    hash kind -> smoothed seconds of one job; no TTL: one number a kind
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import cast

import redis
from pydantic import ValidationError

from shared import job_scripts
from shared.errors import JobGone, JobNotFound, LookalikeError, QueueFull, WorkerLost
from shared.jobs import (
    Job,
    JobError,
    JobKind,
    JobRequest,
    JobResult,
    JobStatus,
    WorkerReport,
    parse_request,
    parse_result,
)

PREFIX = "lookalike:"
_GONE_S = 86_400
HEARTBEAT_STALE_S = 15.0
_WAIT_SLICE_S = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to run one attempt of a job."""

    job: Job
    pixels: bytes | None  # None: the request names a photo of the index, or the pixels expired


@dataclass(frozen=True, slots=True)
class ReapReport:
    """What one round of the reaper did; `wake` are the jobs that need a fresh message."""

    wake: list[Job]
    failed: list[str]


class JobStore:
    """The one place that knows how a job lies in Redis.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        job_ttl_s: how long an unfinished job and its photo are kept.
        result_ttl_s: how long a finished job is kept.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        job_ttl_s: int = 86_400,
        result_ttl_s: int = 3_600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = client
        self._job_ttl_s = job_ttl_s
        self._result_ttl_s = result_ttl_s
        self._clock = clock
        self._create = client.register_script(job_scripts.CREATE)
        self._claim = client.register_script(job_scripts.CLAIM)
        self._extend = client.register_script(job_scripts.EXTEND)
        self._finish = client.register_script(job_scripts.FINISH)
        self._abandon = client.register_script(job_scripts.ABANDON)
        self._requeue = client.register_script(job_scripts.REQUEUE)

    # --- the front door ---

    def create(
        self,
        kind: JobKind,
        request: JobRequest,
        pixels: bytes | None,
        *,
        max_queued: int,
        request_id: str = "",
    ) -> Job:
        """Write the record of a new job; the caller wakes a worker afterwards.

        Args:
            pixels: size_px * size_px * 3 bytes of RGB, or None when the request names a photo of the index.
            max_queued: queued jobs above which nothing more is taken.

        Raises:
            QueueFull: the backlog is at its limit; says when to come back.
        """
        now = self._clock()
        job = Job(
            id=secrets.token_hex(16),
            kind=kind,
            status=JobStatus.QUEUED,
            request=request,
            request_id=request_id,
            created_at=now,
        )
        record = {
            "kind": kind.value,
            "status": job.status.value,
            "request": request.model_dump_json(exclude_defaults=True),
            "request_id": request_id,
            "created_at": repr(now),
            "attempt": "0",
        }
        fields = [part for pair in record.items() for part in pair]
        depth = int(
            self._create(
                keys=self._keys(job.id),
                args=[max_queued, self._job_ttl_s, pixels or b"", repr(now), job.id, _GONE_S, *fields],
            )
        )
        if depth >= 0:
            raise QueueFull(
                f"{depth} jobs are waiting, the limit is {max_queued}; try again later",
                retry_after_s=self._drain_time_s(kind, depth),
            )
        return job

    def abandon(self, job_id: str) -> None:
        """Forget a job that was never announced; a no-op once a worker has it."""
        self._abandon(keys=self._keys(job_id), args=[job_id])

    def get(self, job_id: str) -> Job:
        """Read a job.

        Raises:
            JobNotFound: never existed, or so long ago that nothing remembers it.
            JobGone: finished and expired.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(PREFIX + "job:" + job_id)
            pipe.exists(PREFIX + "gone:" + job_id)
            record, gone = pipe.execute()
        if record:
            return _parse(job_id, record)
        if gone:
            raise JobGone("the job is finished and its result has expired")
        raise JobNotFound("no such job")

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """Read a job as soon as it is terminal, or as it is after `timeout_s`.

        Raises:
            JobNotFound, JobGone: as `get`.
        """
        deadline = time.monotonic() + timeout_s
        job = self.get(job_id)
        done = PREFIX + "done:" + job_id
        while not job.status.terminal and (left_s := deadline - time.monotonic()) > 0:
            # Moving the element onto its own list leaves it there for the other waiters.
            self._redis.blmove(done, done, min(left_s, _WAIT_SLICE_S), "LEFT", "LEFT")  # type: ignore[arg-type]
            job = self.get(job_id)
        return job

    def depth(self) -> int:
        """Jobs accepted and not yet claimed."""
        return int(self._redis.zcard(PREFIX + "queued"))

    # --- the workshop ---

    def claim(self, job_id: str, worker: str, *, lease_s: float) -> Claim | None:
        """Take a queued job, counting one attempt; None when somebody else has it or it has ended."""
        now = self._clock()
        answer = self._claim(keys=self._keys(job_id), args=[job_id, worker, repr(now), repr(now + lease_s)])
        if not answer:
            return None
        flat, pixels = answer
        record = dict(zip(flat[::2], flat[1::2], strict=True))
        return Claim(_parse(job_id, record), pixels)

    def extend(self, held: Iterable[tuple[str, int]], *, lease_s: float) -> set[str]:
        """Prolong the leases of (job id, attempt) pairs; returns the ids still held."""
        pairs = [str(part) for pair in held for part in pair]
        if not pairs:
            return set()
        answer = self._extend(keys=[PREFIX + "running", PREFIX + "job:"], args=[repr(self._clock() + lease_s), *pairs])
        return {job_id.decode() for job_id in answer}

    def succeed(self, job: Job, result: JobResult, *, service_s: float) -> bool:
        """Store the result of this attempt; False when the attempt no longer holds the job (a late write).

        Args:
            service_s: seconds of work, which the admission limit's Retry-After is computed from.
        """
        return self._end(job, JobStatus.SUCCEEDED, "result", result.model_dump_json(), service_s)

    def fail(self, job: Job, error: LookalikeError) -> bool:
        """Store why this attempt failed for good; False when the attempt no longer holds the job."""
        return self._end(job, JobStatus.FAILED, "error", _error(error), None)

    def reap(self, *, max_attempts: int, lost_after_s: float, oldest_message: str | None) -> ReapReport:
        """Move on what died: requeue jobs whose lease ran out, and name queued jobs whose message was lost.

        Messages are taken first in, first out: a job queued well before the one the oldest waiting message is for
        has no message any more.

        Args:
            max_attempts: a job claimed so often and never ended fails as `worker_lost`.
            lost_after_s: how much earlier counts as well before; a fetched message takes a moment to be claimed.
            oldest_message: job id in the oldest message no worker has fetched; None when there is none.
        """
        now = self._clock()
        report = ReapReport(wake=[], failed=[])
        for job in self._load(self._redis.zrangebyscore(PREFIX + "running", "-inf", now), "running"):
            if job.attempt >= max_attempts:
                lost = WorkerLost(f"its worker died in {job.attempt} of {max_attempts} attempts")
                if self._end(job, JobStatus.FAILED, "error", _error(lost), None, lease_must_be_over=True):
                    report.failed.append(job.id)
            elif self._requeue(keys=self._keys(job.id), args=[job.id, job.attempt, repr(now)]):
                report.wake.append(job)
        self._redis.zremrangebyscore(PREFIX + "queued", "-inf", now - self._job_ttl_s)  # their records have expired
        waiting_since = self._redis.zscore(PREFIX + "queued", oldest_message) if oldest_message else now
        if waiting_since is not None:
            horizon = waiting_since - lost_after_s
            overdue = self._redis.zrangebyscore(PREFIX + "queued", "-inf", horizon, start=0, num=1000)
            for job in self._load(overdue, "queued"):
                # A new time, so that one lost message is replaced once per `lost_after_s`, not every round.
                self._redis.zadd(PREFIX + "queued", {job.id: now}, xx=True)
                report.wake.append(job)
        return report

    # --- heartbeats ---

    def report(self, worker: WorkerReport) -> None:
        """Publish a heartbeat and drop those of workers long silent."""
        self._redis.hset(PREFIX + "workers", worker.name, worker.model_dump_json())
        stale = [w.name for w in self._reports() if w.reported_at < self._clock() - 10 * HEARTBEAT_STALE_S]
        if stale:
            self._redis.hdel(PREFIX + "workers", *stale)

    def forget_workers(self) -> None:
        """Drop every heartbeat: for whoever knows that no worker runs yet."""
        self._redis.delete(PREFIX + "workers")

    def retire(self, worker_name: str) -> None:
        """Withdraw the heartbeat of a worker that stops in good order."""
        self._redis.hdel(PREFIX + "workers", worker_name)

    def workers(self) -> list[WorkerReport]:
        """Workers heard of within the last 15 s, the most recent first."""
        fresh = [w for w in self._reports() if w.reported_at >= self._clock() - HEARTBEAT_STALE_S]
        return sorted(fresh, key=lambda w: -w.reported_at)

    # --- inside ---

    def _reports(self) -> list[WorkerReport]:
        reports = []
        for raw in self._redis.hvals(PREFIX + "workers"):
            with suppress(ValidationError):  # written by a version too different to be read
                reports.append(WorkerReport.model_validate_json(raw))
        return reports

    def _keys(self, job_id: str) -> list[str]:
        """KEYS of every job script, in the order the scripts count on."""
        return [
            f"{PREFIX}job:{job_id}",
            f"{PREFIX}pixels:{job_id}",
            f"{PREFIX}queued",
            f"{PREFIX}running",
            f"{PREFIX}done:{job_id}",
            f"{PREFIX}gone:{job_id}",
            f"{PREFIX}service_s",
        ]

    def _end(
        self,
        job: Job,
        status: JobStatus,
        field: str,
        payload: str,
        service_s: float | None,
        *,
        lease_must_be_over: bool = False,
    ) -> bool:
        service = "" if service_s is None else repr(service_s)
        guard = "1" if lease_must_be_over else ""
        args: list[str | int] = [job.id, job.attempt, status.value, field, payload, repr(self._clock())]
        args += [self._result_ttl_s, _GONE_S, job.kind.value, service, guard]
        return bool(self._finish(keys=self._keys(job.id), args=args))

    def _drain_time_s(self, kind: JobKind, depth: int) -> int:
        """Seconds until a tenth of the backlog is worked off, from measured service time and live workers."""
        service_s = float(self._redis.hget(PREFIX + "service_s", kind.value) or 0.05)
        return max(1, min(600, ceil(depth / 10 * service_s / max(1, len(self.workers())))))

    def _load(self, ids: object, zset: str) -> list[Job]:
        """Records of ids as ZRANGEBYSCORE gives them; ids without a record leave the sorted set."""
        jobs = []
        for job_id in (raw.decode() for raw in cast(list[bytes], ids)):
            record = cast(dict[bytes, bytes], self._redis.hgetall(PREFIX + "job:" + job_id))
            if not record:  # it outlived its TTL
                self._redis.zrem(PREFIX + zset, job_id)
                continue
            with suppress(ValueError, KeyError):  # a kind of job only a newer version knows: its workers will see to it
                jobs.append(_parse(job_id, record))
        return jobs


def _error(error: LookalikeError) -> str:
    return JobError(code=error.code, detail=str(error), retryable=error.retryable).model_dump_json()


def _parse(job_id: str, record: Mapping[bytes, bytes]) -> Job:
    text = {name.decode(): value.decode() for name, value in record.items()}
    kind = JobKind(text["kind"])
    return Job(
        id=job_id,
        kind=kind,
        status=JobStatus(text["status"]),
        request=parse_request(kind, text["request"]),
        request_id=text["request_id"],
        created_at=float(text["created_at"]),
        started_at=float(text["started_at"]) if "started_at" in text else None,
        finished_at=float(text["finished_at"]) if "finished_at" in text else None,
        expires_at=float(text["expires_at"]) if "expires_at" in text else None,
        attempt=int(text["attempt"]),
        result=parse_result(kind, text["result"]) if "result" in text else None,
        error=JobError.model_validate_json(text["error"]) if "error" in text else None,
    )
