"""All job state in Redis: create, claim, extend, finish, cancel, reap. Every transition is one script, so it is atomic.

The record in Redis is authoritative, and a Celery message only notifies a worker that there is work: it may arrive
twice, late or never. A notified worker claims the next job of the queues, whichever that is, and a job moves along
`queued -> running -> terminal` by compare-and-set on its status and attempt.

Order of claims: round robin over owners (API keys), first in first out within one; interactive jobs before bulk ones,
but for every eighth claim; the last attempt of a job whose workers died is made while its worker holds no other job
(quarantine; `suspect` in keys). Reindexes and their shards have queues of their own.

Keys (prefix `lookalike:`), each with a TTL unless a reason is given:
    job:{id}             hash, the record; kept for `result_ttl_s` after its end; see also `shared.jobs.confirmation`
    pixels:{id}          the decoded photos; `job_ttl_s`, deleted when the job ends; of a failed job kept for a retry
    done:{id}            list of one element, pushed when the job ends; unblocks waiters; `result_ttl_s`
    gone:{id}            the owner, a day or `job_ttl_s` longer than the record, so that the id answers 410, never 404
    idempotency:{digest} hash: digest of the request it was first used for, and the job; as long as an unfinished job
    jobs, jobs:{owner}   sorted sets id -> created; later jobs delete expired ids, sampled at random
    queued               sorted set id -> when it was (re)queued; no TTL: it is the backlog itself
    line:{class}:{owner} sorted set id -> created; no TTL: the queues, one per class and owner, in the order of claims
    turns:{class}        sorted set owner -> number of its last claim, for the round robin; no TTL: owners in the queue
    turn                 claims made so far; no TTL: one number
    running              sorted set id -> when its lease ends; no TTL: read by the reaper
    deadlines            sorted set id -> when it expires; no TTL: read by the reaper
    retained             sorted set id -> when the photo of a failed job is deleted; no TTL: at most 200
    webhooks             sorted set id -> when its webhook is due; no TTL: `shared.webhooks.queue` empties it
    reindex              id of the last reindex, so that there is one at a time; as long as an unfinished job
    wake:{class}         list with an element for each reindex or the like queued, at most 100; for workers
    pace                 hash: seconds between two ends while jobs are queued; no TTL: two numbers
    replicated           empty, written to see whether it arrives at the replicas; a minute
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
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
)
from shared.jobs import scripts
from shared.jobs.acceptance import acceptance_unknown, answered
from shared.jobs.attempts import Attempts
from shared.jobs.confirmation import ConfirmedEnds
from shared.jobs.contract import (
    Job,
    JobKind,
    JobRequest,
    JobStatus,
    Submission,
    brings_photo,
)
from shared.jobs.records import (
    PREFIX,
    Admission,
    Backlog,
    Created,
    Idempotency,
    Place,
    QueueName,
    parse_record,
    record_key,
    record_of,
)
from shared.photos.preprocessing import PreprocessSpec

CONFLICT = "this Idempotency-Key was used for another request; use a new one"
_WAIT_SLICE_S = 1.0
# Records of one round trip, and jobs of one script: Redis serves nobody else meanwhile, and a process of greenlets runs
# no other one while it parses them.
_CHUNK = 200
_FIRST_PACE_S = 0.05
_LONGEST_RETRY_AFTER_S = 600


class JobStore(Attempts):
    """Creates, claims, finishes and reads jobs in Redis, for API and workers.

        jobs = JobStore(connect(settings.required_redis_url))
        created = jobs.create(JobKind.SEARCH, SearchRequest(k=4), pixels, admission=Admission(10_000, 5_000))
        job = jobs.wait(created.job, timeout_s=30)

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        job_ttl_s: seconds that an unfinished job and its photo are kept; the latest deadline.
        result_ttl_s: seconds that a finished job is kept.
        clock: returns seconds since the epoch; None: Redis's own clock.
        n_replicas: replicas that must have the end of a job before it is shown as ended; 0 where nobody is shown it.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        job_ttl_s: int = 86_400,
        result_ttl_s: int = 3_600,
        clock: Callable[[], float] | None = None,
        n_replicas: int = 0,
    ) -> None:
        super().__init__(client, job_ttl_s=job_ttl_s, result_ttl_s=result_ttl_s, clock=clock)
        self._ends = ConfirmedEnds(client, n_replicas)

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
        trace: Mapping[str, str] | None = None,
    ) -> Created:
        """Accept a new job and queue it; unless the result is `called`, the caller dispatches a message afterwards.

        Args:
            pixels: RGB of each photo, followed by the file to keep of one put live; None: the request names some of the
                index.
            spec: by which the pixels were made; None: the default. Only a model with the same spec may embed them.
            owner: id of the API key; jobs of internal owners, which begin with an underscore, are in no list.
            call_idle: notify an idle worker in the same transaction; with messages enough unread, none is needed.
            trace: trace context that its attempts continue, from `shared.tracing.carrier`.

        Raises:
            QueueFull, QueueShareFull: the backlog is at its limit; `retry_after_s` says when to try again.
            ReindexRunning: another reindex is running.
            IdempotencyConflict: the key was used for another request.
            JobGone: the key's job is finished and has expired.
            AcceptanceUnknown: Redis broke off; after any other error of Redis's nothing was accepted.
        """
        now = self.now()
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
            trace=dict(trace or {}),
        )
        record = record_of(job)
        write = partial(
            self.run,
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
        )
        outcome, detail = self._written(write, job.id)
        if outcome == b"known":
            known = detail.decode()
            with acceptance_unknown(known):
                return Created(self.get(known), is_new=False, called=False)
        if refusal := self._refusal(outcome, detail, admission):
            raise refusal
        return Created(job, is_new=True, called=detail == b"called")

    def _refusal(self, outcome: bytes, detail: bytes, admission: Admission) -> LookalikeError | None:
        """Why the script did not write a job; None if it did."""
        match outcome:
            case b"conflict":
                return IdempotencyConflict(CONFLICT)
            case b"busy":
                running = detail.decode()
                return ReindexRunning(f"reindex {running} is running; wait for it, or cancel it", job_id=running)
            case b"full":
                return QueueFull(
                    f"{int(detail)} jobs are waiting, the limit is {admission.max_queued}; try again later",
                    retry_after_s=self._retry_after_s(int(detail)),
                )
            case b"share":
                return QueueShareFull(
                    f"{int(detail)} of your jobs are waiting, your share is {admission.max_queued_per_owner}; "
                    "try again later",
                    retry_after_s=self._retry_after_s(int(detail)),
                )
        return None

    def _written(self, write: Callable[[], object], job_id: str) -> tuple[bytes, bytes]:
        """Run the script that writes a job; where there is no room, make some and run it again."""
        try:
            answer = cast(tuple[bytes, bytes], answered(write, job_id))
            if answer[0] not in (b"full", b"share") or not self.expire_overdue():
                return answer
        except redis.exceptions.OutOfMemoryError:
            if not self.expire_overdue():
                raise
        return cast(tuple[bytes, bytes], answered(write, job_id))

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """Read a job.

        Args:
            owner: whose job it must be; None: anybody's.

        Raises:
            JobNotFound: it never existed, is another owner's, or expired so long ago that its trace is gone.
            JobGone: it is finished and has expired.
            RecordUnreadable: it was written by a newer version.
        """
        return self._job(job_id, cast(dict[bytes, bytes], self._redis.hgetall(record_key(job_id))), owner)

    def _job(self, job_id: str, record: Mapping[bytes, bytes], owner: str | None) -> Job:
        """Parse a record as `get` does, expiring the job if its deadline has passed."""
        whose = record.get(b"owner", b"") if record else cast(bytes | None, self._redis.get(PREFIX + "gone:" + job_id))
        if whose is None or (owner is not None and whose.decode() != owner):
            raise JobNotFound("no such job")
        if not record:
            raise JobGone("the job is finished and its result has expired")
        job = parse_record(job_id, record)
        return self._ends.shown([self._expired([job])[job_id] if self._is_overdue(job) else job])[0]

    def get_all(self, job_ids: Sequence[str]) -> list[Job | None]:
        """Read many jobs, 200 a round trip; in their order, None for each whose record is not there.

        Raises:
            RecordUnreadable: as `get`.
        """
        jobs: list[Job | None] = []
        for some in _chunks(job_ids):
            records = zip(some, self._records(some), strict=True)
            found = [parse_record(job_id, record) if record else None for job_id, record in records]
            if overdue := [job for job in found if job and self._is_overdue(job)]:
                ended = self._expired(overdue)
                found = [job and ended.get(job.id, job) for job in found]
            jobs += found
        shown = {job.id: job for job in self._ends.shown([job for job in jobs if job])}
        return [job and shown[job.id] for job in jobs]

    def _is_overdue(self, job: Job) -> bool:
        return not job.status.terminal and job.deadline_at <= self._clock()

    def _expired(self, overdue: Sequence[Job]) -> dict[str, Job]:
        """Expire jobs whose deadline has passed; returns them as they are then, by id."""
        ids = [job.id for job in overdue]
        self.run(scripts.EXPIRE, *ids)
        return {job_id: parse_record(job_id, record) for job_id, record in zip(ids, self._records(ids), strict=True)}

    def _records(self, job_ids: Sequence[str]) -> list[dict[bytes, bytes]]:
        """The records of jobs; empty where there is none."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(record_key(job_id))
            return cast(list[dict[bytes, bytes]], pipe.execute())

    def wait(self, job: Job, timeout_s: float) -> Job:
        """Wait until a job is terminal, for `timeout_s` at most; returns it as it is then.

        Raises:
            JobNotFound, JobGone: as `get`.
        """
        deadline = time.monotonic() + timeout_s
        done = PREFIX + "done:" + job.id
        while not job.status.terminal and (left_s := deadline - time.monotonic()) > 0:
            with self._redis.pipeline(transaction=False) as pipe:
                # Moving the element onto its own list leaves it there for the other waiters.
                pipe.blmove(done, done, min(left_s, _WAIT_SLICE_S), "LEFT", "LEFT")  # type: ignore[arg-type]
                pipe.hgetall(record_key(job.id))  # answered when that is
                job = self._job(job.id, cast(dict[bytes, bytes], pipe.execute()[1]), None)
        return job

    def cancel(self, job_id: str) -> Job:
        """Cancel a job: a queued one ends at once, a running one when its worker next extends the lease.

        Returns:
            The job; unfinished too where its end is not to be shown yet.

        Raises:
            JobNotFound, JobGone: as `get`.
            JobFinished: it has ended already.
        """
        [status] = cast(list[bytes], self.run(scripts.CANCEL, job_id))
        job = self.get(job_id)
        if status == b"ended" and job.status.terminal:
            raise JobFinished(f"the job has {job.status} already")
        return job

    def cancel_all(self, job_ids: Sequence[str]) -> None:
        """Cancel many jobs as `cancel` does, 200 a round trip; those that have ended, or are gone, are passed over."""
        for some in _chunks(job_ids):
            self.run(scripts.CANCEL, *some)

    def retry(
        self,
        job_id: str,
        *,
        admission: Admission,
        idempotency: Idempotency | None = None,
        request_id: str = "",
        call_idle: bool = False,
        trace: Mapping[str, str] | None = None,
    ) -> Created:
        """Submit a failed job again, as a new job of the same owner; returns as `create`.

        Raises:
            NotRetryable: it has not failed, or its photo has expired.
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
            trace=trace,
        )

    def depth(self) -> int:
        """Count the queued jobs."""
        return int(self._redis.zcard(PREFIX + "queued"))

    def oldest_wait_s(self) -> float:
        """Seconds that the oldest queued job has waited; 0 if none does."""
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
        """Count the queued and the running jobs."""
        counts = cast(list[int], self.run(scripts.BACKLOG))
        return Backlog(
            queued=dict(zip(QueueName, counts, strict=True)),
            running=int(self._redis.zcard(PREFIX + "running")),
            oldest_wait_s=self.oldest_wait_s(),
        )

    def place(self, job: Job) -> Place | None:
        """Estimate a job's position in the queue; None if it is not queued."""
        ahead, interval_s = cast(tuple[int, bytes], self.run(scripts.PLACE, job.id))
        if ahead < 0:
            return None
        return Place(ahead=ahead, eta_s=round((ahead + 1) * float(interval_s), 2) if interval_s else None)

    def replicated(self, n_replicas: int, *keys: str, within_s: float = 1.0) -> bool:
        """Wait, for `within_s` seconds at most, until `n_replicas` replicas have all writes so far; returns whether.

        Args:
            keys: that must be there, or it is false: they were written over another connection, and a failover may have
                come in between. A primary that was taken for dead goes on for a moment where it is still connected to.
        """
        # WAIT covers the writes of its own connection only, and the relevant ones may have gone over another: so write.
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(PREFIX + "replicated", "", ex=60)
            pipe.exists(*keys, PREFIX + "replicated")
            pipe.wait(n_replicas, int(1e3 * within_s))
            _, n_there, n_have = pipe.execute()
        return int(n_have) >= n_replicas and int(n_there) == len(keys) + 1

    def _retry_after_s(self, depth: int) -> int:
        """Seconds until a tenth of the queued jobs is done, at the measured pace."""
        measured = cast(bytes | None, self._redis.hget(PREFIX + "pace", "interval_s"))
        interval_s = float(measured) if measured else _FIRST_PACE_S
        return max(1, min(_LONGEST_RETRY_AFTER_S, ceil(depth / 10 * interval_s)))


def _chunks(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (job_ids[start : start + _CHUNK] for start in range(0, len(job_ids), _CHUNK))


def idempotency_name(owner: str, idempotency: Idempotency) -> str:
    """Return the Redis key of an owner's idempotency key."""
    digest = hashlib.sha256(f"{owner}\0{idempotency.key}".encode()).hexdigest()
    return f"{PREFIX}idempotency:{digest}"
