"""`lookalike keys | jobs | audit` as an operator types them, against a real Valkey and with none there"""

import json
import re
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from shared.api_keys import KeyRing, verify
from shared.errors import InternalError
from shared.jobs.celery_config import QUEUES
from shared.jobs.contract import DeleteImageRequest, EmbedRequest, Job, JobKind, Priority, SearchRequest
from shared.jobs.store import JobStore
from tests.integration.conftest import PLENTY


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, client: redis.Redis, valkey_url: str) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: str, code: int = 0) -> Any:
    """Exactly one JSON object on standard output."""
    return json.loads(run(*arguments, "--json", code=code).stdout)


def submit(jobs: JobStore, kind: JobKind = JobKind.EMBED, owner: str = "") -> Job:
    request = EmbedRequest() if kind is JobKind.EMBED else SearchRequest()
    return jobs.create(kind, request, b"p", admission=PLENTY, owner=owner)[0]


def fail_next(jobs: JobStore) -> Job:
    taken = jobs.claim("w", lease_s=15)
    assert taken
    jobs.fail(taken.job, InternalError("it crashed"))
    return taken.job


def test_a_key_is_made_shown_once_listed_and_revoked(client: redis.Redis) -> None:
    made = run_json("keys", "create", "--name", "shop", "--scopes", "submit, read", "--requests-per-minute", "60")
    assert (made["name"], made["scopes"]) == ("shop", ["read", "submit"])
    ring = KeyRing(client)
    assert verify(made["key"], ring.all()).requests_per_minute == 60
    [listed] = run_json("keys", "list")["keys"]
    assert (listed["id"], listed["name"], sorted(listed["scopes"])) == (made["id"], "shop", ["read", "submit"])
    for text in (run("keys", "list").output, json.dumps(listed)):
        assert made["key"] not in text
        assert "sha256" not in text
    assert run_json("keys", "revoke", made["id"]) == {"revoked": made["id"]}
    [revoked] = run_json("keys", "list")["keys"]
    assert revoked["revoked_at"]
    assert run_json("keys", "reset", "--yes") == {"forgotten": 1}
    assert run_json("keys", "list") == {"keys": []}
    assert "open" in run("keys", "list").output
    assert run_json("keys", "revoke", made["id"], code=1)["error"]["code"] == "invalid_request"
    assert [entry["action"] for entry in run_json("audit")["entries"]] == ["keys.reset", "keys.revoke", "keys.create"]


def test_without_json_the_token_alone_is_printed(client: redis.Redis) -> None:
    token = run("keys", "create", "--name", "é").stdout.strip()
    assert re.fullmatch(r"lk_[0-9a-f]{16}_[\w-]{43}", token)
    assert verify(token, KeyRing(client).all()).name == "é"


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create"),
        ("keys", "create", "--name", ""),
        ("keys", "create", "--name", "x" * 101),
        ("keys", "create", "--name", "a", "--scopes", "submit,root"),
        ("keys", "create", "--name", "a", "--scopes", ""),
        ("keys", "create", "--name", "a", "--requests-per-minute", "-1"),
        ("keys", "revoke"),
        ("jobs", "list", "--status", "lost"),
        ("jobs", "list", "--kind", "photo"),
        ("jobs", "list", "--limit", "0"),
        ("audit", "--limit", "0"),
        ("jobs", "burn"),
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(client: redis.Redis, arguments: tuple[str, ...]) -> None:
    assert "Traceback" not in run(*arguments, code=2).output
    assert client.keys("*") == []


def test_jobs_of_every_key_are_listed_newest_first_and_by_status(jobs: JobStore) -> None:
    failed = submit(jobs, owner="a")
    fail_next(jobs)
    waiting = [submit(jobs, JobKind.SEARCH, owner) for owner in ("a", "b", "")]
    everything = run_json("jobs", "list")["jobs"]
    assert [job["id"] for job in everything] == [job.id for job in (*waiting[::-1], failed)]
    assert [job["owner"] for job in everything] == ["", "b", "a", "a"]
    assert [job["id"] for job in run_json("jobs", "list", "--status", "failed")["jobs"]] == [failed.id]
    assert [job["id"] for job in run_json("jobs", "list", "--kind", "search", "--limit", "2")["jobs"]] == [
        waiting[2].id, waiting[1].id,
    ]  # fmt: skip
    longest = jobs.create(JobKind.DELETE_IMAGE, DeleteImageRequest(image_id="p"), b"", admission=PLENTY)[0]
    assert run("jobs", "list", "--limit", "1").output.split()[:3] == [longest.id, "delete_image", "queued"]
    assert "internal_error: it crashed" in run("jobs", "list", "--status", "failed").output
    assert "no such jobs" in run("jobs", "list", "--status", "canceled").output


def test_a_list_longer_than_a_page_is_whole(jobs: JobStore) -> None:
    for _ in range(260):
        submit(jobs)
    assert len({job["id"] for job in run_json("jobs", "list", "--limit", "1000")["jobs"]}) == 260


def test_a_job_is_shown_cancelled_and_retried(jobs: JobStore, client: redis.Redis) -> None:
    first, second = submit(jobs), submit(jobs, owner="a")
    assert run_json("jobs", "cancel", second.id)["status"] == "canceled"
    assert run_json("jobs", "cancel", second.id, code=1)["error"]["code"] == "job_finished"
    assert run_json("jobs", "retry", first.id, code=1)["error"]["code"] == "job_not_retryable"
    fail_next(jobs)
    shown = run_json("jobs", "show", first.id)
    assert (shown["status"], shown["error"]["code"], shown["attempt"]) == ("failed", "internal_error", 1)
    again = run_json("jobs", "retry", first.id)
    assert (again["status"], again["owner"]) == ("queued", "")
    assert again["id"] != first.id
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 1  # a worker is woken
    assert [(e["action"], e["subject"]) for e in run_json("audit")["entries"]] == [
        ("jobs.retry", first.id), ("jobs.cancel", second.id),
    ]  # fmt: skip
    assert all(entry["actor"].startswith("cli") for entry in run_json("audit")["entries"])
    assert len(run_json("audit", "--limit", "1")["entries"]) == 1


@pytest.mark.parametrize("verb", ["show", "cancel", "retry"])
@pytest.mark.parametrize("job_id", ["0" * 32, "nonsense"])
def test_an_unknown_job_ends_with_1_and_says_so(verb: str, job_id: str) -> None:
    assert run_json("jobs", verb, job_id, code=1)["error"]["code"] == "job_not_found"
    result = run("jobs", verb, job_id, code=1)
    assert (result.stdout, result.stderr) == ("", "error: no such job\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create", "--name", "a"),
        ("keys", "list"),
        ("keys", "revoke", "x"),
        ("jobs", "list"),
        ("jobs", "show", "0" * 32),
        ("jobs", "cancel", "0" * 32),
        ("jobs", "retry", "0" * 32),
        ("audit",),
    ],
)
def test_without_redis_every_verb_ends_with_1_and_says_why(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", "redis://127.0.0.1:1/0")
    error = run_json(*arguments, code=1)["error"]
    assert error["code"] == "queue_unavailable"
    assert "Redis" in error["detail"]
    assert "Traceback" not in run(*arguments, code=1).output
    monkeypatch.delenv("LOOKALIKE_REDIS_URL")
    assert "LOOKALIKE_REDIS_URL" in run_json(*arguments, code=1)["error"]["detail"]


def test_a_redis_that_refuses_is_told_from_one_that_does_not_answer(
    client: redis.Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.config_set("min-replicas-to-write", "1")  # it has none
    try:
        refused = run_json("keys", "create", "--name", "shop", code=1)["error"]
    finally:
        client.config_set("min-replicas-to-write", "0")
    assert (refused["code"], "cannot be written" in refused["detail"]) == ("queue_unavailable", True)
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url.replace("redis://", "redis://nobody:wrong@"))
    assert "another user or password" in run("keys", "list", code=1).stderr
