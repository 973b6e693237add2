"""Counts what became of a worker's jobs and how long they took, for the heartbeat to carry to /metrics."""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict

from shared.jobs.answers_contract import Timing
from shared.jobs.celery_config import NAMED_QUEUES
from shared.jobs.contract import (
    JobKind,
)
from shared.jobs.worker_report import STAGE_BOUNDS_S, KindStats, StageTimes


class JobCounts:
    """Attempts by outcome and stages by duration, for each kind of job; safe to call from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_kind: defaultdict[JobKind, _KindCounts] = defaultdict(_KindCounts)

    def ended(self, kind: JobKind, outcome: str) -> None:
        """Count one attempt."""
        with self._lock:
            self._by_kind[kind].outcomes[outcome] += 1

    def took(self, kind: JobKind, timing: Timing) -> None:
        """Count the stages of one job that succeeded."""
        with self._lock:
            self._by_kind[kind].took(timing)

    def by_kind(self) -> dict[str, KindStats]:
        """Everything that was counted, by kind of job."""
        with self._lock:
            return {
                kind.value: KindStats(outcomes=dict(counted.outcomes), stages=counted.stages())
                for kind, counted in self._by_kind.items()
            }

    def outcomes(self) -> dict[str, int]:
        """Attempts by outcome, of all kinds together."""
        with self._lock:
            return dict(self._total(*self._by_kind).outcomes)

    def stages(self) -> dict[str, StageTimes]:
        """Durations by stage, of all kinds that callers wait for together: the others would hide how long they wait."""
        with self._lock:
            return self._total(*(kind for kind in self._by_kind if kind not in NAMED_QUEUES)).stages()

    def _total(self, *kinds: JobKind) -> "_KindCounts":
        total = _KindCounts()
        for kind in kinds:
            total.add(self._by_kind[kind])
        return total


class _KindCounts:
    """What is counted of one kind."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(STAGE_BOUNDS_S) + 1))
        self._sums_s: defaultdict[str, float] = defaultdict(float)

    def took(self, timing: Timing) -> None:
        for stage, took_ms in timing.model_dump().items():
            self._counts[stage][bisect_left(STAGE_BOUNDS_S, took_ms / 1e3)] += 1
            self._sums_s[stage] += took_ms / 1e3

    def add(self, other: "_KindCounts") -> None:
        self.outcomes.update(other.outcomes)
        for stage, counts in other._counts.items():
            self._counts[stage] = [mine + theirs for mine, theirs in zip(self._counts[stage], counts, strict=True)]
            self._sums_s[stage] += other._sums_s[stage]

    def stages(self) -> dict[str, StageTimes]:
        return {
            stage: StageTimes(counts=list(counts), sum_s=self._sums_s[stage]) for stage, counts in self._counts.items()
        }
