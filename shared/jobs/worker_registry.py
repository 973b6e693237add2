"""Workers' heartbeats in Redis: which workers are alive, what they serve, and their counters.

Keys:
    lookalike:workers          hash name -> report; no TTL: every report deletes those of workers long silent
    lookalike:workers:written  empty, written to see whether workers could report; a minute
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

import redis
from pydantic import ValidationError

from shared.jobs.worker_report import WorkerReport
from shared.redis_clock import RedisClock

STALE_AFTER_S = 15.0
SHARED_REDIS = (
    "workers of several installations share this Redis, so that each answers from its own index what was sent to the "
    "others: give each a database of its own, such as redis://HOST:6379/1"
)
_KEY = "lookalike:workers"
_WRITTEN = "lookalike:workers:written"


class WorkerRegistry:
    """Publishes and reads the workers' heartbeats.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        clock: returns seconds since the epoch; None: Redis's own clock.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] | None = None) -> None:
        self._redis = client
        self._clock = clock or RedisClock(client)

    def now(self) -> float:
        """Return the time that reports are dated by, seconds since the epoch."""
        return self._clock()

    def report(self, worker: WorkerReport) -> None:
        """Publish a worker's heartbeat, and delete those further than ten times STALE_AFTER_S from now."""
        self._redis.hset(_KEY, worker.name, worker.model_dump_json())
        stale = [w.name for w in self._reports() if abs(w.reported_at - self._clock()) > 10 * STALE_AFTER_S]
        if stale:
            self._redis.hdel(_KEY, *stale)

    def retire(self, worker_name: str) -> None:
        """Delete the heartbeat of a worker that shuts down."""
        self._redis.hdel(_KEY, worker_name)

    def check_writable(self) -> None:
        """Write what means nothing, as a worker that wants to report does.

        Raises:
            redis.ResponseError: Redis takes no writes, because its disk is full, say; so no worker can report.
        """
        self._redis.set(_WRITTEN, b"", ex=60)

    def forget_all(self) -> None:
        """Delete every heartbeat; for a caller that has made sure that no worker runs yet."""
        self._redis.delete(_KEY)

    def live(self) -> list[WorkerReport]:
        """Return the heartbeats of the last STALE_AFTER_S seconds, the most recent first.

        One that is as far ahead is of before Redis's clock was set back, and tells nothing of whether its worker lives.
        """
        fresh = [w for w in self._reports() if abs(w.reported_at - self._clock()) <= STALE_AFTER_S]
        return sorted(fresh, key=lambda w: -w.reported_at)

    def _reports(self) -> list[WorkerReport]:
        reports = []
        for raw in self._redis.hvals(_KEY):
            with suppress(ValidationError):  # written by an incompatible version
                reports.append(WorkerReport.model_validate_json(raw))
        return reports


def of_other_installations(workers: Iterable[WorkerReport], installation: str) -> list[WorkerReport]:
    """The workers of other installations than this one, which are not to share its Redis."""
    return [one for one in workers if one.installation and one.installation != installation]


def most_served(workers: Iterable[WorkerReport]) -> tuple[str, str] | None:
    """Version of the index and fingerprint of the model that most workers serve, of as many the newest; None: none.

    It stays the same from one call to the next where workers of a fleet differ, as one does that cannot load the
    promoted model.
    """
    counts = Counter((one.index.version, one.index.model_fingerprint) for one in workers if one.index)
    return max(counts, key=lambda served: (counts[served], served), default=None)
