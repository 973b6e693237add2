"""Lists of jobs, newest first, a page at a time."""

import re
from dataclasses import dataclass
from typing import cast

import redis

from shared.errors import InvalidRequest, RecordUnreadable
from shared.jobs.confirmation import ConfirmedEnds
from shared.jobs.contract import Job, JobKind, JobStatus
from shared.jobs.records import PREFIX, parse_record, record_key

CURSOR_PATTERN = r"^[0-9]{1,10}\.[0-9]{6}-[0-9a-f]{32}$"

# A page reads so many jobs at most: filters that match few give short pages, with a cursor to continue.
_LOOK_AT = 1000
_CHUNK = 200
_FIELDS = (
    "kind", "status", "request", "request_id", "owner", "submission", "created_at", "deadline_at", "started_at",
    "finished_at", "expires_at", "attempt", "progress", "error", "confirmed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of jobs, without their results, and the cursor of the next page; None at the end."""

    jobs: list[Job]
    cursor: str | None


class JobListing:
    """Lists jobs, newest first, page by page.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        n_replicas: replicas that must have the end of a job before it is listed as ended.
    """

    def __init__(self, client: redis.Redis, *, n_replicas: int = 0) -> None:
        self._redis = client
        self._ends = ConfirmedEnds(client, n_replicas)

    def page(
        self,
        *,
        owner: str | None,
        limit: int,
        status: JobStatus | None = None,
        kind: JobKind | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Read one page of jobs.

        Args:
            owner: of the jobs; None: all owners.
            limit: jobs on the page at most. A shorter page is not the last one; a page without a cursor is.
            status, kind: only such jobs; None: any.
            cursor: of the previous page; None: begin with the newest job.

        Raises:
            InvalidRequest: the cursor is malformed.
        """
        key = PREFIX + ("jobs" if owner is None else f"jobs:{owner}")
        below = _read(cursor) if cursor else None
        found: list[Job] = []
        for _ in range(_LOOK_AT // _CHUNK):
            ids = self._below(key, below)
            for job_id, created_at, job in self._load(ids):
                below = (created_at, job_id)
                if job and (status is None or job.status is status) and (kind is None or job.kind is kind):
                    found.append(job)
                    if len(found) == limit:
                        return self._page(found, status, _write(below))
            if len(ids) < _CHUNK:
                return self._page(found, status, None)
        return self._page(found, status, _write(below) if below else None)

    def _page(self, found: list[Job], status: JobStatus | None, cursor: str | None) -> JobPage:
        shown = self._ends.shown(found)
        return JobPage([job for job in shown if status is None or job.status is status], cursor)

    def _below(self, key: str, below: tuple[float, str] | None) -> list[tuple[bytes, float]]:
        """The next ids, newest first; those of the same microsecond by id, because a page may end among them."""
        start: float | str = below[0] if below else "+inf"
        offset, ids = 0, list[tuple[bytes, float]]()
        while len(ids) < _CHUNK:
            some = cast(
                list[tuple[bytes, float]],
                self._redis.zrevrangebyscore(key, start, "-inf", start=offset, num=_CHUNK, withscores=True),
            )
            ids += [(raw, at) for raw, at in some if below is None or (at, raw.decode()) < below]
            offset += len(some)
            if len(some) < _CHUNK:
                break
        return ids[:_CHUNK]

    def _load(self, ids: list[tuple[bytes, float]]) -> list[tuple[str, float, Job | None]]:
        with self._redis.pipeline(transaction=False) as pipe:
            for raw, _ in ids:
                pipe.hmget(record_key(raw.decode()), list(_FIELDS))
            records = pipe.execute()
        loaded = []
        for (raw, at), values in zip(ids, records, strict=True):
            record = {name.encode(): value for name, value in zip(_FIELDS, values, strict=True) if value is not None}
            try:
                job = parse_record(raw.decode(), record)
            except RecordUnreadable:  # expired meanwhile, or of a kind or state that only a newer version has
                job = None
            loaded.append((raw.decode(), at, job))
        return loaded


def _write(below: tuple[float, str]) -> str:
    return f"{below[0]:.6f}-{below[1]}"


def _read(cursor: str) -> tuple[float, str]:
    if not re.fullmatch(CURSOR_PATTERN, cursor):
        raise InvalidRequest("cursor: not one this service gave; begin without a cursor")
    at, job_id = cursor.split("-")
    return float(at), job_id
