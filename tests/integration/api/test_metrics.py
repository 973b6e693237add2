"""/metrics: a Prometheus parser reads it, and the figures are those of queue, workers and this process"""

import json
import time
from collections.abc import Iterable

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from api.app import create_app
from shared.jobs.answers_contract import Timing
from shared.jobs.contract import (
    JobKind,
)
from shared.jobs.records import QueueName
from shared.jobs.store import JobStore
from shared.jobs.worker_report import STAGE_BOUNDS_S, IndexInfo, StageTimes, WorkerStats
from tests.integration.api.test_api import report
from tests.integration.conftest import photo_form, settings
from worker.jobs.stats import JobCounts


@pytest.fixture
def app(client: redis.Redis, valkey_url: str) -> Flask:
    return create_app(settings(valkey_url))


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    return app.test_client()


class Scrape:
    """One look at /metrics."""

    def __init__(self, http: FlaskClient) -> None:
        answer = http.get("/metrics")
        assert answer.status_code == 200
        assert answer.mimetype == "text/plain"
        families = list(text_string_to_metric_families(answer.text))
        assert len({family.name for family in families}) == len(families)
        assert all(family.documentation for family in families)
        self._samples: list[Sample] = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        [found] = [s.value for s in self._samples if s.name == name and s.labels == labels]
        return float(found)

    def all(self, name: str) -> list[Sample]:
        return [sample for sample in self._samples if sample.name == name]


def index(built_at: str) -> IndexInfo:
    return IndexInfo(
        version="v1", count=5, dimension=2, built_at=built_at, catalogue="c", backbone="resnet50", weights="w",
        model_fingerprint="f", model_version="m", metrics={},
    )  # fmt: skip


def test_the_queue_is_told_by_class_with_its_age(http: FlaskClient, jobs: JobStore) -> None:
    empty = Scrape(http)
    for name in QueueName:
        assert empty.value("lookalike_jobs_queued", **{"class": name}) == 0
    assert empty.value("lookalike_oldest_job_wait_seconds") == 0
    for priority in ("interactive", "bulk", "interactive"):
        http.post("/v1/jobs/embed", data=photo_form(priority=priority))
    time.sleep(0.05)
    jobs.claim("w", lease_s=15)
    jobs.claim("w", lease_s=15)
    told = Scrape(http)
    waiting = {s.labels["class"]: s.value for s in told.all("lookalike_jobs_queued")}
    assert (sum(waiting.values()), set(waiting)) == (1, set(QueueName))
    assert told.value("lookalike_jobs_running") == 2
    assert 0.05 <= told.value("lookalike_oldest_job_wait_seconds") < 5


def test_what_was_accepted_and_refused_is_counted_by_kind_and_code(http: FlaskClient) -> None:
    for _ in range(2):
        http.post("/v1/jobs/embed", json={"image_id": "p"})
    http.post("/v1/jobs/search", json={"image_id": "p"})
    http.post("/v1/jobs/search", json={"image_id": "p"})  # one too many
    http.post("/v1/jobs/search", data={})
    http.get("/nowhere")
    told = Scrape(http)
    assert told.value("lookalike_jobs_accepted_total", kind="embed") == 2
    assert told.value("lookalike_jobs_accepted_total", kind="search") == 1
    refused = {s.labels["code"]: s.value for s in told.all("lookalike_requests_refused_total")}
    assert refused == {"queue_full": 1, "image_missing": 1, "not_found": 1}


def cumulative(samples: Iterable[Sample]) -> list[float]:
    """The buckets of one histogram: bounds rise, counts never fall, and the last has no bound."""
    buckets = [(float(sample.labels["le"]), sample.value) for sample in samples]
    assert [bound for bound, _ in buckets] == sorted(bound for bound, _ in buckets)
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert buckets[-1][0] == float("inf")
    return counts


def counted() -> WorkerStats:
    """What a worker reports that did searches, a change and part of a reindex."""
    counts = JobCounts()
    for outcome in ("succeeded", "succeeded", "canceled", "late", "worker_lost"):
        counts.ended(JobKind.SEARCH, outcome)
    counts.ended(JobKind.PUT_IMAGE, "succeeded")
    counts.ended(JobKind.SHARD, "worker_lost")
    for ms in (1.0, 30.0, 30.0, 400_000.0):
        counts.took(JobKind.SEARCH, Timing(queued=ms, compute=1, total=ms + 1))
    counts.took(JobKind.PUT_IMAGE, Timing(queued=2, compute=6, total=8))
    counts.took(JobKind.REINDEX, Timing(queued=10, compute=600_000, total=600_010))
    return WorkerStats(
        by_kind=counts.by_kind(), outcomes=counts.outcomes(), stages=counts.stages(),
        batch_sizes={1: 3, 8: 2, 300: 1}, cache_hits=5, cache_shared=1, cache_misses=7,
    )  # fmt: skip


def test_a_worker_that_refuses_its_model_is_told_by_name_where_operators_look(
    http: FlaskClient, client: redis.Redis
) -> None:
    report(client, state="ready")
    said = "embeddings_differ: v1 gives other embeddings on CPU, 2 threads"
    report(client, name="other", state="unready", problem=said, problem_code="embeddings_differ")
    [told] = Scrape(http).all("lookalike_worker_problem")
    assert (told.labels, told.value) == ({"worker": "other", "code": "embeddings_differ"}, 1)
    assert said in http.get("/readyz").get_json()["problems"]
    shown = {worker["name"]: worker for worker in http.get("/v1/workers").get_json()["workers"]}
    assert (shown["other"]["problem"], shown["other"]["problem_code"]) == (said, "embeddings_differ")
    assert (shown["w"]["problem"], shown["w"]["problem_code"]) == (None, None)


def test_what_workers_report_becomes_counters_and_histograms(http: FlaskClient, client: redis.Redis) -> None:
    report(client, state="ready", index=index("2026-01-01T00:00:00+00:00"), stats=counted())
    told = Scrape(http)
    assert told.value("lookalike_workers_ready") == 1
    for kind, outcome, n in (
        ("search", "succeeded", 2),
        ("search", "late", 1),
        ("search", "worker_lost", 1),
        ("put_image", "succeeded", 1),
        ("shard", "worker_lost", 1),
    ):
        assert told.value("lookalike_attempts_total", worker="w", kind=kind, outcome=outcome) == n
    queued = {"worker": "w", "kind": "search", "stage": "queued"}
    buckets = [s for s in told.all("lookalike_job_seconds_bucket") if queued.items() <= s.labels.items()]
    assert len(buckets) == len(STAGE_BOUNDS_S) + 1
    assert cumulative(buckets)[-2:] == [3, 4]
    assert told.value("lookalike_job_seconds_count", **queued) == 4
    assert told.value("lookalike_job_seconds_sum", **queued) == pytest.approx(400.061)
    for kind, le, n in (("search", "0.005", 4), ("put_image", "0.005", 0), ("put_image", "0.01", 1)):
        assert told.value("lookalike_job_seconds_bucket", worker="w", kind=kind, stage="compute", le=le) == n
    assert told.value("lookalike_job_seconds_sum", worker="w", kind="reindex", stage="compute") == 600
    assert cumulative(told.all("lookalike_batch_photos_bucket"))[-2:] == [5, 6]
    assert told.value("lookalike_batch_photos_sum", worker="w") == 3 + 16 + 300
    for outcome, lookups in (("hit", 5), ("shared", 1), ("miss", 7)):
        assert told.value("lookalike_cache_lookups_total", worker="w", outcome=outcome) == lookups
    assert told.value("lookalike_index_photos", worker="w") == 5
    assert told.value("lookalike_index_age_seconds", worker="w") > 0


def test_a_worker_of_a_version_that_counts_no_kinds_is_told_of_without_them(
    http: FlaskClient, client: redis.Redis
) -> None:
    earlier = counted().model_copy(update={"by_kind": {}})
    report(client, state="ready", stats=earlier)
    told = Scrape(http)
    assert {s.labels["kind"] for s in told.all("lookalike_attempts_total")} == {"any"}
    assert told.value("lookalike_attempts_total", worker="w", kind="any", outcome="succeeded") == 3
    assert told.value("lookalike_job_seconds_count", worker="w", kind="any", stage="queued") == 5


def test_versions_that_know_no_kinds_find_what_they_look_for(client: redis.Redis) -> None:
    """All kinds together, and in the durations what callers wait for."""
    report(client, state="ready", stats=counted())
    [raw] = client.hvals("lookalike:workers")
    stats = json.loads(raw)["stats"]
    assert stats["outcomes"] == {"succeeded": 3, "canceled": 1, "late": 1, "worker_lost": 2}
    assert set(stats["stages"]) == {"queued", "compute", "total"}
    assert len(stats["stages"]["compute"]["counts"]) == len(STAGE_BOUNDS_S) + 1
    assert sum(stats["stages"]["compute"]["counts"]) == 5
    assert stats["stages"]["compute"]["sum_s"] == pytest.approx(0.010)


def test_kinds_are_labels_and_no_more_than_there_are(http: FlaskClient, client: redis.Redis) -> None:
    counts = JobCounts()
    for kind in JobKind:
        counts.ended(kind, "succeeded")
        counts.took(kind, Timing(queued=1, compute=1, total=2))
    report(client, state="ready", stats=WorkerStats(by_kind=counts.by_kind()))
    told = Scrape(http)
    for name in ("lookalike_attempts_total", "lookalike_job_seconds_count"):
        assert {s.labels["kind"] for s in told.all(name)} == set(JobKind)


def test_odd_reports_of_other_versions_do_not_break_the_scrape(http: FlaskClient, client: redis.Redis) -> None:
    client.hset("lookalike:workers", "newer", '{"shape": "unknown"}')
    report(
        client,
        name='we"ird\n\\',
        state="ready",
        index=index("yesterday"),
        stats=WorkerStats(stages={"x": StageTimes()}),
    )
    report(client, name="bare", state="unready", problem="no index")
    told = Scrape(http)
    assert told.value("lookalike_workers_ready") == 1
    assert told.value("lookalike_index_photos", worker='we"ird\n\\') == 5
    assert told.all("lookalike_index_age_seconds") == []


def test_metrics_without_redis_are_a_503() -> None:
    answer = create_app(settings("redis://127.0.0.1:1/0")).test_client().get("/metrics")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "queue_unavailable")
