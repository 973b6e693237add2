"""Submits scheduled reindexes: any number of workers poll the schedule, and each slot gets one job.

Time is Redis's. After an outage, one job makes up for all missed slots. A slot that comes due while a reindex runs is
assigned to that reindex, unless that one puts nothing live (a dry run, `promote: never`, a cancelled one): then the
slot waits for its end. The slot's time is the job's idempotency key, so a scheduler that dies at any point submits
nothing twice and misses nothing.

Keys (prefix `lookalike:`):
    schedule    hash: the expression, the last slot taken and its job; no TTL: missed slots are found by it
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import redis

from shared.errors import JobGone, JobNotFound, ReindexRunning
from shared.jobs.contract import JobKind, JobStatus
from shared.jobs.records import PREFIX, Admission, Idempotency
from shared.jobs.reindex_contract import Promotion, ReindexRequest
from shared.jobs.store import JobStore
from shared.lua import load_script
from shared.redis_clock import RedisClock
from shared.schedule.cron import last_slot, next_slot

_SCHEDULE = PREFIX + "schedule"
_REQUEST_ID = "schedule"
# No limit: there is one reindex at a time, and the queue of other jobs does not delay it.
_ADMISSION = Admission(max_queued=1 << 53, max_queued_per_owner=1 << 53)

_TAKE = load_script(Path(__file__).with_name("take_slot.lua"))


@dataclass(frozen=True, slots=True)
class LastSlot:
    """The slot of the schedule that was taken last.

    Attributes:
        cron: the expression at that time.
        slot: its time, seconds since the epoch; before any was taken: the slot before the schedule began.
        job: id of the reindex that was submitted for it, or ran already; empty before any slot was taken.
    """

    cron: str
    slot: float
    job: str


class Schedule:
    """Submits reindexes by a cron expression.

    Args:
        client: bytes-returning client.
        jobs: where reindexes are submitted.
        clock: returns seconds since the epoch; None: Redis's clock, which all schedulers share.
    """

    def __init__(self, client: redis.Redis, jobs: JobStore, *, clock: Callable[[], float] | None = None) -> None:
        self._redis = client
        self._jobs = jobs
        self._clock = clock or RedisClock(client)
        self._take = client.register_script(_TAKE)

    def now(self) -> float:
        """Return the current time, seconds since the epoch."""
        return self._clock()

    def last(self) -> LastSlot | None:
        """Return the slot taken last; None if nothing was ever scheduled."""
        cron, slot, job = cast(list[bytes | None], self._redis.hmget(_SCHEDULE, ["cron", "slot", "job"]))
        return LastSlot(cron.decode(), float(slot), (job or b"").decode()) if cron and slot else None

    def run_due(self, cron: str) -> str | None:
        """Submit a reindex if a slot is due.

        Args:
            cron: the expression, normalised by `parse_cron`.

        Returns:
            id of the submitted job, or of the reindex that runs already; None if no slot is due, or another worker took
            it.
        """
        now, last = self.now(), self.last()
        due, following = last_slot(cron, now), next_slot(cron, now)
        if last is None or last.cron != cron:
            self._note(cron, due, "", following)  # slots before a schedule is set or changed are not made up for
        elif last.slot > following:
            self._note(cron, following, last.job, following)
        elif last.slot < due:
            job_id = self._submit(due)
            if job_id is not None and self._note(cron, due, job_id, following):
                return job_id
        return None

    def _note(self, cron: str, slot: float, job_id: str, following: float) -> bool:
        return bool(self._take(keys=[_SCHEDULE], args=[cron, repr(slot), job_id, repr(following)]))

    def _submit(self, slot: float) -> str | None:
        """Submit the reindex of a slot; returns what `run_due` does, or None while the slot has to wait."""
        # No client can send a key with a space in it.
        idempotency = Idempotency(f"{_REQUEST_ID} {slot:.0f}", _REQUEST_ID)
        try:
            job = self._jobs.create(
                JobKind.REINDEX,
                ReindexRequest(),
                None,
                admission=_ADMISSION,
                idempotency=idempotency,
                request_id=_REQUEST_ID,
            ).job
        except ReindexRunning as exc:
            return exc.job_id if self._does_the_work_of_a_slot(exc.job_id) else None
        except JobGone:  # it ran long ago
            return ""
        return job.id

    def _does_the_work_of_a_slot(self, job_id: str) -> bool:
        """Whether a reindex that runs may put a new version live; if not, the slot waits for its end."""
        try:
            job = self._jobs.get(job_id)
        except (JobGone, JobNotFound):
            return False  # it has ended meanwhile
        request = job.request
        assert isinstance(request, ReindexRequest)
        return job.status is not JobStatus.CANCELING and not request.dry_run and request.promote is not Promotion.NEVER
