"""What a worker counts of its jobs, for the heartbeat to carry to /metrics."""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict

from shared.jobs.contract import STAGE_BOUNDS_S, StageTimes, Timing


class JobCounts:
    """Attempts by outcome and stages by duration; safe to call from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(STAGE_BOUNDS_S) + 1))
        self._sums_s: defaultdict[str, float] = defaultdict(float)

    def ended(self, outcome: str) -> None:
        """Count one attempt."""
        with self._lock:
            self._outcomes[outcome] += 1

    def took(self, timing: Timing) -> None:
        """Count the stages of one job that succeeded."""
        with self._lock:
            for stage, took_ms in timing.model_dump().items():
                self._counts[stage][bisect_left(STAGE_BOUNDS_S, took_ms / 1e3)] += 1
                self._sums_s[stage] += took_ms / 1e3

    def outcomes(self) -> dict[str, int]:
        """Attempts by outcome."""
        with self._lock:
            return dict(self._outcomes)

    def stages(self) -> dict[str, StageTimes]:
        """Durations by stage."""
        with self._lock:
            return {
                stage: StageTimes(counts=list(counts), sum_s=self._sums_s[stage])
                for stage, counts in self._counts.items()
            }
