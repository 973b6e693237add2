"""What a reindex needs of the job store besides what every job does: progress, and its shards as jobs of their own."""

from collections.abc import Collection
from contextlib import suppress
from typing import cast

import redis

from shared.errors import JobGone, JobNotFound, QueueUnavailable
from shared.jobs import scripts
from shared.jobs.contract import Job, JobKind, JobStatus, Priority, Submission
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import PREFIX, Admission, Idempotency
from shared.jobs.reindex_contract import Progress, ShardRequest
from shared.jobs.store import JobStore
from shared.tracing import carrier

# Underscored owners are ours, and their jobs are in no list.
SHARD_OWNER = "_reindex"
# How many shards wait is bounded by whoever makes them, not by what clients may have waiting.
_ADMISSION = Admission(max_queued=1 << 53, max_queued_per_owner=1 << 53)


class ReindexStore:
    """Reindexes and shards, as the worker that runs the reindex sees them.

    Args:
        dispatcher: publishes the message of each shard.
    """

    def __init__(self, client: redis.Redis, jobs: JobStore, dispatcher: Dispatcher) -> None:
        self._redis = client
        self._jobs = jobs
        self._dispatcher = dispatcher

    def report(self, job: Job, progress: Progress, *, furthest: int = 0) -> JobStatus | None:
        """Say how far an attempt is.

        Args:
            furthest: how much is done for good. A worker's death after more than ever before was done does not count
                as an attempt: a long job may outlive any number of workers.

        Returns:
            running, or canceling when somebody asked for that; None when the attempt no longer holds the job.
        """
        status = cast(
            bytes | None, self._jobs.run(scripts.PROGRESS, job.id, job.attempt, progress.model_dump_json(), furthest)
        )
        return JobStatus(status.decode()) if status else None

    def submit_shard(self, reindex: Job, request: ShardRequest, name: str) -> str:
        """Queue a shard and return its job's id.

        Args:
            name: tells it from every other shard of the reindex; while one of that name is in flight, it is that one.
        """
        with suppress(JobGone):  # it ended, and what became of it is forgotten
            job = self._create_shard(reindex, request, Idempotency(f"{reindex.id}/{name}", name))
            if not job.status.terminal:
                return job.id
        return self._create_shard(reindex, request, None).id

    def _create_shard(self, reindex: Job, request: ShardRequest, idempotency: Idempotency | None) -> Job:
        created = self._jobs.create(
            JobKind.SHARD,
            request,
            None,
            admission=_ADMISSION,
            submission=Submission(priority=Priority.BULK),
            owner=SHARD_OWNER,
            idempotency=idempotency,
            request_id=reindex.request_id,
            trace=carrier(),
        )
        if created.is_new:
            with suppress(QueueUnavailable):  # a worker's reaper publishes what is missing
                self._dispatcher.dispatch(created.job)
        return created.job

    def forget_shard(self, job_id: str) -> None:
        """Drop an ended shard's record: a large catalogue has too many to keep each for its time."""
        self._redis.delete(f"{PREFIX}job:{job_id}", f"{PREFIX}done:{job_id}")

    def ended(self, job_ids: Collection[str], timeout_s: float) -> dict[str, Job | None]:
        """Those that have ended, as soon as some have or after `timeout_s`; None for one that is forgotten."""
        if job_ids:
            self._redis.blpop([f"{PREFIX}done:{job_id}" for job_id in job_ids], timeout_s)
        found: dict[str, Job | None] = {}
        for job_id in job_ids:
            try:
                job = self._jobs.get(job_id)
            except (JobGone, JobNotFound):
                found[job_id] = None
            else:
                if job.status.terminal:
                    found[job_id] = job
        return found
