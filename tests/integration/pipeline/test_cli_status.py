"""`lookalike status | workers` as an operator types them, beside a real Valkey."""

import json
import re
import time
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from shared.jobs.contract import JobKind, SearchRequest
from shared.jobs.reindex_contract import ReindexRequest
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import IndexInfo, WorkerReport
from tests.integration.conftest import PLENTY

INDEX = IndexInfo(
    version="20260101T000000000000Z-00000000", count=1234, changed=5, dimension=92, built_at="2026-01-01T00:00:00Z",
    catalogue="shop", backbone="resnet50", weights="w", model_fingerprint="f" * 64, model_version="m", metrics={},
    runtime="openvino", precision="int8",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, client: redis.Redis, valkey_url: str) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)


def run(*arguments: str, code: int) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: str, code: int) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def report(client: redis.Redis, name: str, **changes: Any) -> None:
    given = {"name": name, "pid": 1, "reported_at": time.time(), "state": "ready", "index": INDEX, **changes}
    WorkerRegistry(client).report(WorkerReport(**given))


def test_without_a_worker_both_say_so_and_end_with_3() -> None:
    assert run_json("workers", code=3) == {"workers": []}
    assert "no worker has reported" in run("workers", code=3).output
    found = run_json("status", code=3)
    assert (found["workers"], found["index"], found["schedule"]) == ([], None, None)
    assert "no worker reports" in run("status", code=3).output


def test_workers_are_listed_with_what_they_run_and_what_is_wrong(client: redis.Redis) -> None:
    report(client, "able", held=2, device="AVX-512 processor", photos_per_s=41.6)
    report(client, "ill", state="unready", index=None, problem="the index is damaged")
    found = {worker["name"]: worker for worker in run_json("workers", code=0)["workers"]}
    assert (found["able"]["runtime"], found["able"]["index_version"], found["able"]["held"]) == (
        "openvino", INDEX.version, 2,
    )  # fmt: skip
    assert found["ill"]["problem"] == "the index is damaged"
    lines = run("workers", code=0).output.splitlines()
    assert lines[0].split()[:2] == ["worker", "state"]
    assert re.search(r"able +ready +AVX-512 processor openvino int8 +42 +2 ", run("workers", code=0).output)
    assert "  problem: the index is damaged" in lines
    report(client, "able", state="unready")
    run("workers", code=3)


def test_status_shows_what_waits_and_what_is_served(client: redis.Redis) -> None:
    jobs = JobStore(client)
    for _ in range(3):
        jobs.create(JobKind.SEARCH, SearchRequest(), b"p", admission=PLENTY)
    reindex = jobs.create(JobKind.REINDEX, ReindexRequest(), None, admission=PLENTY).job
    report(client, "able")
    found = run_json("status", code=0)
    assert sum(found["queue"]["queued"].values()) == 4
    assert [job["id"] for job in found["reindexes"]] == [reindex.id]
    assert found["index"]["count"] == 1234
    text = run("status", code=0).output
    assert "1234 photos of shop, 5 put or deleted since" in text
    assert "resnet50 openvino int8" in text
    assert reindex.id in text


def test_without_redis_they_end_with_1_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", "redis://127.0.0.1:1/0")
    for verb in ("status", "workers"):
        assert run_json(verb, code=1)["error"]["code"] == "queue_unavailable"
