"""Prometheus metrics: what the queue holds, what the workers report of themselves, what this process refused."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.jobs.records import Backlog
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import most_served
from shared.jobs.worker_report import STAGE_BOUNDS_S, KindStats, StageTimes, WorkerReport, WorkerStats
from shared.quality.contract import CheckState
from shared.quality.store import STAGES, LiveQuality, QualityStore

_ANY_KIND = "any"
_MOST_CATEGORIES = 50  # told of, the most frequent; an installation may have 2,000
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ApiCounters:
    """What one API process counts itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = Counter(
            "lookalike_requests_refused", "Requests answered with a problem", ["code"], registry=self.registry
        )
        self.accepted = Counter("lookalike_jobs_accepted", "Jobs accepted", ["kind"], registry=self.registry)


class Snapshot(Collector):
    """One look at Redis, as metric families."""

    def __init__(self, backlog: Backlog, workers: Iterable[WorkerReport]) -> None:
        self._backlog = backlog
        self._workers = list(workers)

    def collect(self) -> Iterator[Metric]:
        yield from self._queue()
        ready = sum(worker.state == "ready" for worker in self._workers)
        yield GaugeMetricFamily("lookalike_workers_ready", "Workers with a loaded model and index", value=ready)
        problems = GaugeMetricFamily(
            "lookalike_worker_problem", "1: an error keeps the worker from what is promoted", labels=["worker", "code"]
        )
        for worker in self._workers:
            if worker.problem_code:
                problems.add_metric([worker.name, worker.problem_code], 1)
        yield problems
        yield from self._index()
        yield from self._attempts()
        yield from self._model()

    def _queue(self) -> Iterator[Metric]:
        queued = GaugeMetricFamily("lookalike_jobs_queued", "Jobs accepted and not yet claimed", labels=["class"])
        for line, count in self._backlog.queued.items():
            queued.add_metric([line], count)
        yield queued
        yield GaugeMetricFamily("lookalike_jobs_running", "Jobs a worker holds", value=self._backlog.running)
        yield GaugeMetricFamily(
            "lookalike_oldest_job_wait_seconds", "Age of the job that waits longest", value=self._backlog.oldest_wait_s
        )

    def _index(self) -> Iterator[Metric]:
        age = GaugeMetricFamily("lookalike_index_age_seconds", "Time since the index was built", labels=["worker"])
        photos = GaugeMetricFamily("lookalike_index_photos", "Photos in the index", labels=["worker"])
        for worker in self._workers:
            if worker.index:
                with suppress(ValueError):  # an index of a version that wrote it otherwise
                    built_at = datetime.fromisoformat(worker.index.built_at).timestamp()
                    age.add_metric([worker.name], max(0.0, time.time() - built_at))
                photos.add_metric([worker.name], worker.index.count)
        yield age
        yield photos

    def _attempts(self) -> Iterator[Metric]:
        attempts = CounterMetricFamily(
            "lookalike_attempts", "Attempts at jobs by how they ended", labels=["worker", "kind", "outcome"]
        )
        stages = HistogramMetricFamily(
            "lookalike_job_seconds", "Time in a stage of the jobs that succeeded", labels=["worker", "kind", "stage"]
        )
        for worker in self._workers:
            for kind, stats in _by_kind(worker.stats).items():
                for outcome, count in stats.outcomes.items():
                    attempts.add_metric([worker.name, kind, outcome], count)
                for stage, times in stats.stages.items():
                    stages.add_metric([worker.name, kind, stage], _buckets(times), sum_value=times.sum_s)
        yield attempts
        yield stages

    def _model(self) -> Iterator[Metric]:
        batches = HistogramMetricFamily("lookalike_batch_photos", "Photos of one forward pass", labels=["worker"])
        lookups = CounterMetricFamily(
            "lookalike_cache_lookups", "Photos by how their embedding was had", labels=["worker", "outcome"]
        )
        for worker in self._workers:
            sizes = worker.stats.batch_sizes
            below = [
                (str(bound), sum(count for size, count in sizes.items() if size <= bound)) for bound in _BATCH_BUCKETS
            ]
            buckets = [*below, ("+Inf", sum(sizes.values()))]
            total = sum(size * count for size, count in sizes.items())
            batches.add_metric([worker.name], buckets, sum_value=total)
            lookups.add_metric([worker.name, "hit"], worker.stats.cache_hits)
            lookups.add_metric([worker.name, "shared"], worker.stats.cache_shared)
            lookups.add_metric([worker.name, "miss"], worker.stats.cache_misses)
        yield batches
        yield lookups


class Quality(Collector):
    """Live quality, as metric families."""

    def __init__(self, quality: LiveQuality) -> None:
        self._quality = quality

    def collect(self) -> Iterator[Metric]:
        totals = self._quality.totals
        yield CounterMetricFamily(
            "lookalike_shadowed_searches", "Searches that were compared with exact search", value=totals["n"]
        )
        yield CounterMetricFamily("lookalike_shadowed_recall", "Sum of their recall at 10", value=totals.recalled)
        yield CounterMetricFamily(
            "lookalike_shadowed_best_score", "Sum of their best neighbours' scores", value=totals.scores
        )
        yield CounterMetricFamily(
            "lookalike_shadowed_not_sure", "Those whose category was not sure enough", value=totals["unsure"]
        )
        mix = CounterMetricFamily("lookalike_shadowed_category", "Those answered with a category", labels=["category"])
        for name, count in totals.categories(_MOST_CATEGORIES):
            mix.add_metric([name], count)
        yield mix
        stages = HistogramMetricFamily("lookalike_shadowed_seconds", "Time in a stage of them", labels=["stage"])
        for stage in STAGES:
            times = totals.stage(stage)
            stages.add_metric([stage], _buckets(times), sum_value=times.sum_s)
        yield stages
        rows = CounterMetricFamily(
            "lookalike_audited_rows", "Rows of the index that were checked for damage", labels=["outcome"]
        )
        rows.add_metric(["whole"], totals["audited"] - totals["damaged"])
        rows.add_metric(["damaged"], totals["damaged"])
        yield rows
        drift = GaugeMetricFamily(
            "lookalike_quality_drift", "How far queries lie from the index's reference, in spreads", labels=["feature"]
        )
        for feature, shift in self._quality.drift.items():
            drift.add_metric([feature], shift)
        yield drift
        alarms = GaugeMetricFamily(
            "lookalike_quality_alarm", "1: the last shadowed searches do not pass the check", labels=["check"]
        )
        for check in self._quality.checks:
            alarms.add_metric([check.name], check.state == CheckState.ALARM)
        yield alarms


def _by_kind(stats: WorkerStats) -> Mapping[str, KindStats]:
    """What a worker reported, by kind of job; workers of earlier versions report all kinds as one."""
    return stats.by_kind or {_ANY_KIND: KindStats(outcomes=stats.outcomes, stages=stats.stages)}


def _buckets(times: StageTimes) -> list[tuple[str, float]]:
    """Jobs that took no longer than each bound, and last all of them."""
    below = [float(sum(times.counts[: i + 1])) for i in range(len(STAGE_BOUNDS_S))]
    return [*zip(map(str, STAGE_BOUNDS_S), below, strict=True), ("+Inf", float(sum(times.counts)))]


def render(store: JobStore, workers: list[WorkerReport], quality: QualityStore, counters: ApiCounters) -> bytes:
    """The text a Prometheus server scrapes.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    registry = CollectorRegistry()
    registry.register(Snapshot(store.backlog(), workers))
    registry.register(Quality(quality.live(most_served(workers))))
    return generate_latest(registry) + generate_latest(counters.registry)
