"""Leases: the attempts that this process works on, for the heartbeat to extend."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.jobs.celery_config import NAMED_QUEUES
from shared.jobs.contract import Job, JobKind


@dataclass
class Lease:
    """The right to one attempt of a job.

    Attributes:
        wanted: false once the job was cancelled, expired, or given to another worker.
    """

    kind: JobKind
    wanted: bool = True

    def unwanted(self) -> bool:
        """Whether nobody wants the result of this attempt any more."""
        return not self.wanted


class Leases:
    """All leases of this process; safe to call from many threads."""

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
        """Whether a client's photo is in hand, and not only parts of a reindex or the like."""
        with self._lock:
            return any(lease.kind not in NAMED_QUEUES for lease in self._held.values())

    def drop(self, attempts: set[tuple[str, int]]) -> None:
        """Tell those who work on (job id, attempt) pairs that nobody wants the results."""
        with self._lock:
            for attempt in attempts & self._held.keys():
                self._held[attempt].wanted = False
