"""Heartbeats: which workers live, what they serve, how they do.

One key, `lookalike:workers`, a hash name -> report; no TTL: any worker's next report drops those long silent.
"""

import time
from collections.abc import Callable
from contextlib import suppress

import redis
from pydantic import ValidationError

from shared.jobs.contract import WorkerReport

STALE_AFTER_S = 15.0
_KEY = "lookalike:workers"


class WorkerRegistry:
    """Who reported lately.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = client
        self._clock = clock

    def report(self, worker: WorkerReport) -> None:
        """Publish a heartbeat and drop those of workers long silent."""
        self._redis.hset(_KEY, worker.name, worker.model_dump_json())
        stale = [w.name for w in self._reports() if w.reported_at < self._clock() - 10 * STALE_AFTER_S]
        if stale:
            self._redis.hdel(_KEY, *stale)

    def retire(self, worker_name: str) -> None:
        """Withdraw the heartbeat of a worker that stops in good order."""
        self._redis.hdel(_KEY, worker_name)

    def forget_all(self) -> None:
        """Drop every heartbeat: for whoever knows that no worker runs yet."""
        self._redis.delete(_KEY)

    def live(self) -> list[WorkerReport]:
        """Workers heard of within the last 15 s, the most recent first."""
        fresh = [w for w in self._reports() if w.reported_at >= self._clock() - STALE_AFTER_S]
        return sorted(fresh, key=lambda w: -w.reported_at)

    def _reports(self) -> list[WorkerReport]:
        reports = []
        for raw in self._redis.hvals(_KEY):
            with suppress(ValidationError):  # written by a version too different to be read
                reports.append(WorkerReport.model_validate_json(raw))
        return reports
