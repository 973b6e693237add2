"""Progress of a long job: reports how far an attempt is, and learns that it should stop."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial

from shared.jobs.contract import Job, JobStatus
from shared.jobs.reindex_contract import Progress
from shared.jobs.reindex_jobs import ReindexStore
from shared.tracing import span
from worker.jobs.leases import Lease
from worker.jobs.retries import while_redis_is_away
from worker.jobs.runner import JobReleased

_TOLD_EVERY_S = 0.5


class ProgressReport:
    """How far one attempt is.

    Args:
        store: to write it to.
        job: that is attempted.
        lease: of the attempt.
        stopping: whether the worker is about to end.

    Attributes:
        timings_s: seconds that each stage took.
    """

    def __init__(self, store: ReindexStore, job: Job, lease: Lease, stopping: Callable[[], bool]) -> None:
        self.timings_s: dict[str, float] = {}
        self._store = store
        self._job = job
        self._lease = lease
        self._stopping = stopping
        self._told_at = 0.0
        self._paced: tuple[str, float, int] | None = None  # a stage, when its first units were done, and how many

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body."""
        started = time.perf_counter()
        try:
            with span(name):
                yield
        finally:
            self.timings_s[name] = round(time.perf_counter() - started, 3)

    def tell(self, stage: str, done: int = 0, total: int = 0, *, for_good: int | None = None) -> None:
        """Report how far it is.

        Args:
            stage: what is being done.
            done: units done in this stage.
            total: units in this stage; 0: not known.
            for_good: how many units are done for good, even if the worker dies; None: as many as are done.

        Raises:
            CancelledError: nobody wants it any more, or another attempt has taken over.
            JobReleased: the worker is about to end.
        """
        if self._stopping():
            raise JobReleased
        furthest = done if for_good is None else for_good
        progress = Progress(stage=stage, done=done, total=total, eta_s=self._eta_s(stage, done, total))
        status = while_redis_is_away(partial(self._store.report, self._job, progress, furthest=furthest))
        if status is not JobStatus.RUNNING:
            self._lease.wanted = False
            raise CancelledError("cancelled, or taken over")

    def tell_seldom(self, stage: str, done: int, total: int) -> None:
        """Report how far it is every half second, and at the end of a stage; nothing of it is done for good."""
        if done == total or time.monotonic() >= self._told_at + _TOLD_EVERY_S:
            self._told_at = time.monotonic()
            self.tell(stage, done, total, for_good=0)

    def _eta_s(self, stage: str, done: int, total: int) -> float | None:
        """Seconds, at the pace since the stage's first units were reported."""
        now = time.monotonic()
        if self._paced is None or self._paced[0] != stage:
            self._paced = (stage, now, done) if total else None
        if self._paced is None or done <= self._paced[2]:
            return None
        _, since, first = self._paced
        return round((total - done) * (now - since) / (done - first), 1)
