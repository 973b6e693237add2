"""Prometheus metrics: what the queue holds and what the workers report of themselves."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.job_store import JobStore
from shared.jobs import WorkerReport

_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Snapshot(Collector):
    """One look at Redis, as metric families."""

    def __init__(self, queued: int, workers: Iterable[WorkerReport]) -> None:
        self._queued = queued
        self._workers = list(workers)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("lookalike_jobs_queued", "Jobs accepted and not yet claimed", value=self._queued)
        ready = sum(worker.state == "ready" for worker in self._workers)
        yield GaugeMetricFamily("lookalike_workers_ready", "Workers with a loaded model and index", value=ready)
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


def render(store: JobStore) -> bytes:
    """The text a Prometheus server scrapes.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    registry = CollectorRegistry()
    registry.register(_Snapshot(store.depth(), store.workers()))
    return generate_latest(registry)
