"""Live quality as it is told: over HTTP, to Prometheus, on the command line and to the Python client."""

import json
import time

import pytest
import redis
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from lookalike.models import QualityReport
from pipeline.cli.main import main
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import IndexInfo, WorkerReport
from shared.quality.contract import FEATURES
from shared.quality.store import QualityStore
from tests.conftest import Clock
from tests.integration.conftest import assert_problem
from tests.integration.pipeline.test_cli_status import INDEX
from tests.unit.shared.test_quality_checks import search

LIVE = {"version": INDEX.version, "fingerprint": INDEX.model_fingerprint}
DAY_S = 86_400.0


@pytest.fixture
def quality(client: redis.Redis) -> QualityStore:
    WorkerRegistry(client).report(WorkerReport(name="w", pid=1, reported_at=time.time(), state="ready", index=INDEX))
    return QualityStore(client)


def metrics(http: FlaskClient) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_nothing_is_known_of_a_service_that_was_not_asked(http: FlaskClient) -> None:
    report = http.get("/v1/quality").get_json()
    assert (report["checks"], report["live_version"], report["figures"]["n_searches"]) == ([], None, 0)
    assert report["figures"]["recall_at_10"] is None
    assert QualityReport.model_validate(report).figures.n_searches == 0
    assert metrics(http)["lookalike_shadowed_searches_total"] == {(): 0}


def test_what_was_shadowed_is_told_the_same_everywhere(
    http: FlaskClient, quality: QualityStore, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    shifted = tuple(-3.0 if name == "bars" else 0.1 for name in FEATURES)
    for number in range(60):
        unsure = number % 3 == 0
        category, n_damaged = "Sofas" if unsure else "Lamps", int(number == 7)
        quality.add(
            search(
                **LIVE,
                recall=0.9,
                best_score=0.5,
                certain=not unsure,
                category=category,
                n_damaged=n_damaged,
                deviations=shifted,
            )
        )
    told = http.get("/v1/quality?since=24h").get_json()
    figures = told["figures"]
    assert (figures["n_searches"], figures["recall_at_10"], figures["best_score"]) == (60, 0.9, 0.5)
    assert figures["not_sure"] == pytest.approx(1 / 3, abs=1e-4)
    assert list(figures["categories"]) == ["Lamps", "Sofas"]
    assert figures["stages"]["model"] == {"mean_ms": 10.0, "p95_ms": 10.0}
    assert (figures["rows_audited"], figures["rows_damaged"]) == (60 * 32, 1)
    assert {one["name"]: one["state"] for one in told["checks"]} == {
        "recall": "fine", "damage": "alarm", "drift": "alarm",
    }  # fmt: skip
    assert told["drift"]["bars"] == -3
    assert [one["version"] for one in told["versions"]] == [INDEX.version]
    assert QualityReport.model_validate(told).checks[2].detail == told["checks"][2]["detail"]

    found = metrics(http)
    assert found["lookalike_quality_alarm"] == {("recall",): 0, ("damage",): 1, ("drift",): 1}
    assert found["lookalike_quality_drift"][("bars",)] == -3
    assert found["lookalike_shadowed_category_total"] == {("Lamps",): 40, ("Sofas",): 20}
    assert found["lookalike_shadowed_recall_total"][()] == pytest.approx(54)
    assert found["lookalike_audited_rows_total"] == {("whole",): 60 * 32 - 1, ("damaged",): 1}
    assert found["lookalike_shadowed_seconds_count"] == {("model",): 60, ("search",): 60}

    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    typed = run("--since", "24h", code=3).output
    for words in ("drift     alarm", "bars by -3.00", "damage    alarm", "Lamps 67%", "recall@10"):
        assert words in typed
    as_json = json.loads(run("--json", code=3).stdout)
    assert as_json["figures"] == figures
    assert run("--since", "1w", "--json", code=3).stdout
    for wrong in ("9d", "7"):
        assert "a time of up to 8d is needed" in run("--since", wrong, code=2).stderr


def test_where_workers_serve_different_indexes_the_checks_are_of_the_one_that_most_serve(
    http: FlaskClient, quality: QualityStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    registry, other = WorkerRegistry(client), INDEX.model_copy(update={"version": "z", "model_fingerprint": "9" * 64})

    def report(name: str, index: IndexInfo) -> None:
        registry.report(WorkerReport(name=name, pid=1, reported_at=time.time(), state="ready", index=index))

    def checked() -> set[str]:
        found = http.get("/v1/quality").get_json()
        assert metrics(http)["lookalike_quality_alarm"][("damage",)] == int(found["checks"][1]["state"] == "alarm")
        return {found["live_version"], json.loads(run("--json", code=3).stdout)["live_version"]}

    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    quality.add(search(**LIVE, n_damaged=1))
    report("w2", INDEX)
    report("w3", other)  # heard of last, as any of them is now and then
    assert checked() == {INDEX.version}
    report("w", other)
    report("w2", INDEX)
    assert http.get("/v1/quality").get_json()["live_version"] == "z"


def run(*arguments: str, code: int) -> Result:
    result = CliRunner().invoke(main, ["quality", *arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("since", ["", "7", "9d", "2w", "7d&since=1d", "7d&x=1"])
def test_a_time_that_is_none_is_refused(http: FlaskClient, since: str) -> None:
    assert_problem(http.get(f"/v1/quality?since={since}"), 422, "invalid_request")


def test_days_and_versions_are_told_apart_and_a_week_is_kept(client: redis.Redis, clock: Clock) -> None:
    quality = QualityStore(client, clock=clock)
    for day in range(10):
        clock.now = 1_000_000 + day * DAY_S
        quality.add(search(version="old" if day < 8 else "new", recall=0.9 if day < 8 else 1.0))
    week = quality.report(7 * DAY_S, None)
    assert len(week.days) == week.figures.n_searches == 8
    assert [(one.version, one.figures.n_searches) for one in week.versions] == [("old", 6), ("new", 2)]
    assert [one.figures.recall_at_10 for one in week.days] == [0.9] * 6 + [1.0] * 2
    assert quality.report(3600, None).figures.n_searches == 1
    assert quality.total()["n"] == 10
    assert client.zcard("lookalike:quality:hours") == 8
