"""Heartbeat: extends the leases of what this worker has in hand, and reports the worker itself."""

import logging
import os

import redis

from shared.errors import QueueUnavailable
from shared.jobs.dispatcher import broker_errors
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import WorkerReport
from shared.redis_client import queue_trouble
from shared.telemetry import event
from worker.jobs.leases import Leases
from worker.jobs.reaper import Reaper
from worker.jobs.stats import JobCounts
from worker.serving.engine import Engine

_LOG = logging.getLogger(__name__)


class Heartbeat:
    """What a worker does every two seconds for its jobs and its peers.

    Args:
        worker: its name.
        lease_s: how long an attempt is this worker's without a heartbeat.
        installation: that it serves, see `shared.artifacts.installation`; empty: not known.
        reaper: runs in the same round, where the worker could do jobs at all.
    """

    def __init__(
        self,
        worker: str,
        store: JobStore,
        registry: WorkerRegistry,
        engine: Engine,
        leases: Leases,
        counts: JobCounts,
        reaper: Reaper,
        *,
        lease_s: float,
        installation: str = "",
    ) -> None:
        self._worker = worker
        self._store = store
        self._registry = registry
        self._engine = engine
        self._leases = leases
        self._counts = counts
        self._reaper = reaper
        self._lease_s = lease_s
        self._installation = installation

    def beat(self) -> None:
        """One round; Redis being away is logged and tried again at the next."""
        try:
            with broker_errors():
                held = self._leases.held()
                wanted = self._store.extend(held, lease_s=self._lease_s)
                self._leases.drop(set(held) - wanted)
                if self._engine.can_embed:
                    self._reaper.reap()
                self._report(len(held))
        except QueueUnavailable as exc:
            event(_LOG, "redis_unreachable", level=logging.WARNING, reason=queue_trouble(exc.__cause__))

    def retire(self) -> None:
        """Withdraw the heartbeat."""
        try:
            self._registry.retire(self._worker)
        except redis.RedisError:
            pass  # Redis is gone too; the heartbeat goes stale by itself

    def _report(self, n_held: int) -> None:
        counts = self._counts
        done = {"by_kind": counts.by_kind(), "outcomes": counts.outcomes(), "stages": counts.stages()}
        self._registry.report(
            WorkerReport(
                name=self._worker,
                pid=os.getpid(),
                reported_at=self._registry.now(),
                state="ready" if self._engine.ready else "unready",
                held=n_held,
                device=self._engine.device,
                photos_per_s=self._engine.photos_per_s,
                index=self._engine.info(),
                problem=self._engine.problem,
                problem_code=self._engine.problem_code,
                installation=self._installation,
                stats=self._engine.stats().model_copy(update=done),
            )
        )
