"""All job state in Redis: create, claim, extend, finish, cancel, reap. Every transition is one script, so it is atomic.

The record is the truth and a Celery message only says that there is work: whatever is delivered twice, late or never,
a worker that is woken claims the job whose turn it is, and a job moves along `queued -> running -> terminal` by
compare-and-set on its status and attempt. Knows nothing of Celery.

Whose turn it is: owners (API keys) take turns, each served in the order of its own jobs; interactive jobs go before
bulk ones but for every eighth claim; the last attempt of a job whose workers died is made alone (`suspect`). Reindexes
and their shards stand in lines of their own.

Keys (prefix `lookalike:`), each with a TTL unless a reason is given:
    job:{id}             hash, the record; kept for `result_ttl_s` after its end
    pixels:{id}          the decoded photo; `job_ttl_s`, deleted when the job ends; of a failed job kept for a retry
    done:{id}            list of one element, pushed when the job ends; wakes waiters; `result_ttl_s`
    gone:{id}            the owner, a day or `job_ttl_s` longer than the record, so that the id answers 410, never 404
    idempotency:{digest} hash: digest of the request it was first used for, and the job; as long as an unfinished job
    jobs, jobs:{owner}   sorted sets id -> created; dead ids are dropped at random looks by later jobs
    queued               sorted set id -> when it was (re)queued; no TTL: it is the backlog itself
    line:{class}:{owner} sorted set id -> created; no TTL: the same backlog, in the order it is served
    turns:{class}        sorted set owner -> the turn it was served last; no TTL: owners with jobs in line
    turn                 claims made so far; no TTL: one number
    running              sorted set id -> when its lease ends; no TTL: it is what the reaper reads
    deadlines            sorted set id -> when it expires; no TTL: it is what the reaper reads
    retained             sorted set id -> when the photo of a failed job goes; no TTL: at most 200
    webhooks             sorted set id -> when its webhook is due; no TTL: `shared.webhooks.queue` empties it
    reindex              id of the last reindex, so that there is one at a time; as long as an unfinished job
    wake:{class}         list with an element for each reindex or shard queued, at most 100; emptied by those who wait
    pace                 hash: seconds between two ends while work waits; no TTL: two numbers
    replicated           nothing, written to see it arrive at the replicas; a minute
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import cast

import redis

from shared.errors import (
    IdempotencyConflict,
    JobFinished,
    JobGone,
    JobNotFound,
    LookalikeError,
    NotRetryable,
    QueueFull,
    QueueShareFull,
    ReindexRunning,
    WorkerLost,
)
from shared.jobs import scripts
from shared.jobs.contract import (
    Job,
    JobError,
    JobKind,
    JobRequest,
    JobResult,
    JobStatus,
    Submission,
    brings_photo,
)
from shared.jobs.records import (
    PREFIX,
    Admission,
    Backlog,
    Claim,
    Created,
    Idempotency,
    Place,
    QuarantineWaits,
    QueueName,
    ReapReport,
    parse_record,
    record_of,
)
from shared.photos.preprocessing import PreprocessSpec

CONFLICT = "this Idempotency-Key was used for another request; use a new one"
_GONE_S = 86_400
_WAIT_SLICE_S = 1.0
_REAP_AT_MOST = 500
_FIRST_PACE_S = 0.05
_LONGEST_RETRY_AFTER_S = 600


class JobStore:
    """The one place that knows how a job lies in Redis.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        job_ttl_s: how long an unfinished job and its photo are kept; the latest deadline.
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
        self._gone_s = max(_GONE_S, job_ttl_s)  # an idempotency key never outlives what is known of its job
        self._clock = clock
        self._scripts: dict[str, Callable[..., object]] = {}

    # --- the front door ---

    def create(
        self,
        kind: JobKind,
        request: JobRequest,
        pixels: bytes | None,
        *,
        admission: Admission,
        spec: PreprocessSpec | None = None,
        submission: Submission | None = None,
        owner: str = "",
        idempotency: Idempotency | None = None,
        request_id: str = "",
        call_idle: bool = False,
    ) -> Created:
        """Write the record of a new job; unless it was `called`, the caller wakes a worker afterwards.

        Args:
            pixels: RGB, and behind it the file to keep of a photo put live; None: the request names one of the index.
            spec: how the photo was made square, if not as by default; a model of another must not see it.
            owner: those whose name begins with an underscore are ours, and their jobs are in no list.
            call_idle: have a worker that is at hand begin at once.

        Raises:
            QueueFull, QueueShareFull: too much waits; says when to come back.
            ReindexRunning: of reindexes there is one at a time.
            IdempotencyConflict: the key was used for another request.
            JobGone: the key's job is finished and has expired.
        """
        now = self._now()
        submission = submission or Submission()
        asked_s = submission.deadline_s
        job = Job(
            id=secrets.token_hex(16),
            kind=kind,
            status=JobStatus.QUEUED,
            request=request,
            request_id=request_id,
            owner=owner,
            submission=submission,
            created_at=now,
            deadline_at=now + (self._job_ttl_s if asked_s is None else min(asked_s, self._job_ttl_s)),
            spec=spec or PreprocessSpec(),
        )
        record = record_of(job)
        outcome, said = cast(
            tuple[bytes, bytes],
            self.run(
                scripts.CREATE,
                job.id,
                admission.max_queued,
                admission.max_queued_per_owner,
                self._job_ttl_s,
                pixels or b"",
                idempotency_name(owner, idempotency) if idempotency else "",
                idempotency.digest if idempotency else "",
                owner,
                record["line"],
                record["deadline_at"],
                int(call_idle),
                *(part for pair in record.items() for part in pair),
                now=now,
            ),
        )
        match outcome:
            case b"known":
                return Created(self.get(said.decode()), is_new=False, called=False)
            case b"conflict":
                raise IdempotencyConflict(CONFLICT)
            case b"busy":
                running = said.decode()
                raise ReindexRunning(f"reindex {running} is running; wait for it, or cancel it", job_id=running)
            case b"full":
                raise QueueFull(
                    f"{int(said)} jobs are waiting, the limit is {admission.max_queued}; try again later",
                    retry_after_s=self._retry_after_s(int(said)),
                )
            case b"share":
                raise QueueShareFull(
                    f"{int(said)} of your jobs are waiting, your share is {admission.max_queued_per_owner}; "
                    "try again later",
                    retry_after_s=self._retry_after_s(int(said)),
                )
        return Created(job, is_new=True, called=said == b"called")

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """Read a job.

        Args:
            owner: a job of anybody else is unknown; None may read every job.

        Raises:
            JobNotFound: never existed, or so long ago that nothing remembers it.
            JobGone: finished and expired.
        """
        return self._job(job_id, cast(dict[bytes, bytes], self._redis.hgetall(PREFIX + "job:" + job_id)), owner)

    def _job(self, job_id: str, record: Mapping[bytes, bytes], owner: str | None) -> Job:
        """What `get` makes of a record."""
        whose = record.get(b"owner", b"") if record else cast(bytes | None, self._redis.get(PREFIX + "gone:" + job_id))
        if whose is None or (owner is not None and whose.decode() != owner):
            raise JobNotFound("no such job")
        if not record:
            raise JobGone("the job is finished and its result has expired")
        job = parse_record(job_id, record)
        if not job.status.terminal and job.deadline_at <= self._clock():
            self.run(scripts.EXPIRE, job_id)
            return parse_record(job_id, cast(dict[bytes, bytes], self._redis.hgetall(PREFIX + "job:" + job_id)))
        return job

    def wait(self, job: Job, timeout_s: float) -> Job:
        """Read a job again as soon as it is terminal, or as it is after `timeout_s`.

        Raises:
            JobNotFound, JobGone: as `get`.
        """
        deadline = time.monotonic() + timeout_s
        done = PREFIX + "done:" + job.id
        while not job.status.terminal and (left_s := deadline - time.monotonic()) > 0:
            with self._redis.pipeline(transaction=False) as pipe:
                # Moving the element onto its own list leaves it there for the other waiters.
                pipe.blmove(done, done, min(left_s, _WAIT_SLICE_S), "LEFT", "LEFT")  # type: ignore[arg-type]
                pipe.hgetall(PREFIX + "job:" + job.id)  # answered when that is
                job = self._job(job.id, cast(dict[bytes, bytes], pipe.execute()[1]), None)
        return job

    def cancel(self, job_id: str) -> Job:
        """End a queued job at once, and tell the worker of a running one that nobody wants its result.

        Raises:
            JobNotFound, JobGone: as `get`.
            JobFinished: it has ended otherwise.
        """
        status = self.run(scripts.CANCEL, job_id)
        job = self.get(job_id)
        if status == b"ended":
            raise JobFinished(f"the job has {job.status} already")
        return job

    def retry(
        self,
        job_id: str,
        *,
        admission: Admission,
        idempotency: Idempotency | None = None,
        request_id: str = "",
        call_idle: bool = False,
    ) -> Created:
        """Submit a failed job again, as a new job of the same owner; returns as `create`.

        Raises:
            NotRetryable: it has not failed, or its photo is gone.
            QueueFull, QueueShareFull, IdempotencyConflict: as `create`.
        """
        failed = self.get(job_id)
        pixels = cast(bytes | None, self._redis.get(PREFIX + "pixels:" + job_id))
        if failed.status is not JobStatus.FAILED:
            raise NotRetryable(f"the job is {failed.status}; only failed jobs can be tried again")
        if pixels is None and brings_photo(failed.request):
            raise NotRetryable("the job's photo is no longer kept; send it again")
        return self.create(
            failed.kind,
            failed.request,
            pixels,
            admission=admission,
            spec=failed.spec,
            submission=failed.submission,
            owner=failed.owner,
            idempotency=idempotency,
            request_id=request_id,
            call_idle=call_idle,
        )

    def depth(self) -> int:
        """Jobs accepted and not yet claimed."""
        return int(self._redis.zcard(PREFIX + "queued"))

    def oldest_wait_s(self) -> float:
        """How long the job that waits longest has waited; 0 when none does."""
        oldest = cast(list[tuple[bytes, float]], self._redis.zrange(PREFIX + "queued", 0, 0, withscores=True))
        return max(0.0, self._clock() - oldest[0][1]) if oldest else 0.0

    def waiting(self, queue: QueueName, *, for_s: float, limit: int = 100) -> list[str]:
        """Ids of the unclaimed jobs of a queue that were created at least `for_s` seconds ago, the oldest first."""
        owners = cast(list[bytes], self._redis.zrange(f"{PREFIX}turns:{queue}", 0, -1))
        found: list[tuple[bytes, float]] = []
        for owner in owners:
            name = f"{PREFIX}line:{queue}:{owner.decode()}"
            old = self._redis.zrangebyscore(name, "-inf", self._clock() - for_s, 0, limit, withscores=True)
            found += cast(list[tuple[bytes, float]], old)
        return [job_id.decode() for job_id, _ in sorted(found, key=lambda pair: pair[1])][:limit]

    def backlog(self) -> Backlog:
        """How much is waiting and in hand."""
        counts = cast(list[int], self.run(scripts.BACKLOG))
        return Backlog(
            queued=dict(zip(QueueName, counts, strict=True)),
            running=int(self._redis.zcard(PREFIX + "running")),
            oldest_wait_s=self.oldest_wait_s(),
        )

    def place(self, job: Job) -> Place | None:
        """Where a job stands in the queue; None when it does not wait."""
        ahead, interval_s = cast(tuple[int, bytes], self.run(scripts.PLACE, job.id))
        if ahead < 0:
            return None
        return Place(ahead=ahead, eta_s=round((ahead + 1) * float(interval_s), 2) if interval_s else None)

    # --- the workshop ---

    def claim(self, worker: str, *, lease_s: float, only: QueueName | None = None) -> Claim | None:
        """Take the job whose turn it is, counting one attempt; None when nothing waits.

        Args:
            only: the one line to take from, instead of those of interactive and bulk jobs. From that of suspects only
                a caller takes who has nothing else in hand.

        Raises:
            SuspectWaits: call again with `QueueName.QUARANTINE`. Not for the lines of reindexes and shards.
        """
        answer: list[object] | None = [b"again"]
        while answer == [b"again"]:
            end = repr(self._clock() + lease_s)
            answer = cast(list[object] | None, self.run(scripts.CLAIM, worker, end, only or ""))
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
        """Prolong the leases of (job id, attempt) pairs; returns those whose result is still wanted."""
        pairs = [str(part) for pair in held for part in pair]
        if not pairs:
            return set()
        answer = cast(list[bytes], self.run(scripts.EXTEND, repr(self._clock() + lease_s), *pairs))
        return {(job_id.decode(), int(attempt)) for job_id, attempt in zip(answer[::2], answer[1::2], strict=True)}

    def succeed(self, job: Job, result: JobResult) -> JobStatus | None:
        """Store the result of this attempt.

        Returns:
            The status the job has now: canceled when somebody asked for that meanwhile. None when the attempt no
            longer holds the job (a late write).
        """
        return self._end(job, JobStatus.SUCCEEDED, "result", result.model_dump_json())

    def fail(self, job: Job, error: LookalikeError) -> JobStatus | None:
        """Store why this attempt failed for good; returns as `succeed`."""
        return self._end(job, JobStatus.FAILED, "error", _error(error))

    def release(self, job: Job) -> None:
        """Hand back a job whose worker is about to stop; another goes on at once, and no attempt is counted."""
        self.run(scripts.RELEASE, job.id, job.attempt)

    def reap(self, *, max_attempts: int) -> ReapReport:
        """Move on what died: requeue jobs whose lease ran out, expire those past their deadline.

        Args:
            max_attempts: a job claimed so often and never ended fails as `worker_lost`.
        """
        lost = _error(WorkerLost(f"its worker died in each of {max_attempts} attempts"))
        answer = cast(list[list[bytes]], self.run(scripts.REAP, max_attempts, lost, _REAP_AT_MOST))
        return ReapReport(*([job_id.decode() for job_id in ids] for ids in answer))

    def replicated(self, n_replicas: int, *, within_s: float = 1.0) -> bool:
        """Whether so many replicas of the server have everything written so far; waits for them."""
        # WAIT is about the writes of its own connection, and those in question may have gone over another.
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(PREFIX + "replicated", "", ex=60)
            pipe.wait(n_replicas, int(1e3 * within_s))
            return int(pipe.execute()[1]) >= n_replicas

    # --- inside ---

    def _now(self) -> float:
        """To the microsecond, as cursors of lists are written."""
        return round(self._clock(), 6)

    def run(self, script: str, *arguments: str | int | bytes, now: float | None = None) -> object:
        """Make one transition of `scripts`."""
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._redis.register_script(script)
        at = repr(self._now() if now is None else now)
        return registered(keys=[PREFIX], args=[at, self._result_ttl_s, self._gone_s, *arguments])

    def _end(self, job: Job, status: JobStatus, field: str, payload: str) -> JobStatus | None:
        ended = cast(bytes | None, self.run(scripts.FINISH, job.id, job.attempt, status.value, field, payload))
        return JobStatus(ended.decode()) if ended else None

    def _retry_after_s(self, depth: int) -> int:
        """Seconds until a tenth of what waits is worked off, at the pace measured."""
        measured = cast(bytes | None, self._redis.hget(PREFIX + "pace", "interval_s"))
        interval_s = float(measured) if measured else _FIRST_PACE_S
        return max(1, min(_LONGEST_RETRY_AFTER_S, ceil(depth / 10 * interval_s)))


def idempotency_name(owner: str, idempotency: Idempotency) -> str:
    """The Redis key that remembers what an owner's idempotency key was first used for."""
    digest = hashlib.sha256(f"{owner}\0{idempotency.key}".encode()).hexdigest()
    return f"{PREFIX}idempotency:{digest}"


def _claim_of(answer: object) -> Claim:
    job_id, flat, pixels = cast(tuple[bytes, list[bytes], bytes | None], answer)
    return Claim(parse_record(job_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True))), pixels)


def _error(error: LookalikeError) -> str:
    return JobError(code=error.code, detail=str(error), retryable=error.retryable).model_dump_json()
