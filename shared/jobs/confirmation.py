"""What may be shown of jobs' ends: where replicas of Redis are demanded, none that a failover could take back.

A primary shows an end at once, and its replicas get it afterwards. Were it read meanwhile and the primary lost, the job
would run again, and could end otherwise. So whoever shows jobs asks the replicas first. Who writes ends need not wait:
a job ends as it does without replicas, in one step, whoever dies.

An end is confirmed when enough replicas have it. The field `confirmed` of the record, 1, keeps that for later reads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import redis

from shared.jobs.contract import Job, JobStatus
from shared.jobs.records import PREFIX
from shared.lua import load_script

_WITHIN_MS = 1000
_AT_ONCE = 200  # ends of one script: Redis serves nobody else meanwhile
_CONFIRM = load_script(Path(__file__).parent / "lua" / "confirm.lua", flags=("allow-oom",))


class ConfirmedEnds:
    """Shows jobs as ended once enough replicas have their ends.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        n_replicas: that must have an end; 0: none, and nothing is asked.
    """

    def __init__(self, client: redis.Redis, n_replicas: int) -> None:
        self._redis = client
        self._n_replicas = n_replicas

    def shown(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs as they may be shown, those with unconfirmed ends as if unfinished.

        Waits for the replicas, a second at most, where an end is not known to be confirmed.
        """
        ended = [job for job in jobs if self._n_replicas and job.status.terminal and not job.confirmed]
        if not ended:
            return list(jobs)
        doubtful = {job.id for job in ended} - self._confirm(ended)
        return [_unended(job) if job.id in doubtful else job for job in jobs]

    def _confirm(self, ended: Sequence[Job]) -> set[str]:
        """Ids of those whose ends are confirmed now."""
        ends = [(job.id, repr(job.finished_at)) for job in ended]
        parts = [[part for end in ends[at : at + _AT_ONCE] for part in end] for at in range(0, len(ends), _AT_ONCE)]
        try:
            # By one connection, so to one primary: replicas answer for the one that has these ends.
            with self._redis.pipeline(transaction=False) as pipe:
                for part in parts:
                    pipe.eval(_CONFIRM, 1, PREFIX, "0", *part)  # writes: WAIT covers what its own connection wrote
                pipe.wait(self._n_replicas, _WITHIN_MS)
                *found, n_replicas = cast(list[object], pipe.execute())
            if cast(int, n_replicas) < self._n_replicas:
                return set()
            for part in parts:
                self._redis.eval(_CONFIRM, 1, PREFIX, "1", *part)
        except redis.ResponseError:  # it takes no writes: it is no primary any more, or has too few replicas for them
            return set()
        return {job_id.decode() for ids in cast(list[list[bytes]], found) for job_id in ids}


def _unended(job: Job) -> Job:
    status = JobStatus.RUNNING if job.started_at else JobStatus.QUEUED
    return job.model_copy(
        update={
            "status": JobStatus.CANCELING if job.status is JobStatus.CANCELED else status,
            "finished_at": None,
            "expires_at": None,
            "result_json": None,
            "error": None,
        }
    )
