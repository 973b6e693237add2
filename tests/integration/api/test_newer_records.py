"""While a newer version is rolled out, this one reads what that one has written, and shows what it understands of it"""

import json
import time
from io import BytesIO
from typing import Any, cast

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from shared.api_keys import KeyRing, Scope
from shared.changes.log import ChangeLog
from shared.errors import WorkerLost
from shared.jobs.contract import (
    DeleteImageRequest,
    EmbedRequest,
    ImageChangeResult,
    Job,
    JobKind,
    JobRequest,
    JobResult,
    PutImageRequest,
    SearchRequest,
    Submission,
)
from shared.jobs.records import PREFIX, QueueName
from shared.jobs.reindex_contract import Progress, ReindexCounts, ReindexMode, ReindexRequest, ReindexResult
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import IndexInfo, WorkerReport
from shared.photos.preprocessing import PreprocessSpec
from tests.integration.api.test_api import EMBEDDED, FOUND
from tests.integration.conftest import PHOTO, PLENTY, assert_problem, photo_form, settings
from tests.support.newer import with_unknown_fields
from tests.support.versions import REPORT

CHANGED = ImageChangeResult(image_id="p1", change_id="1-0")
REINDEXED = ReindexResult(mode=ReindexMode.ALL, counts=ReindexCounts(seen=3), report=REPORT)
ENDED: dict[JobKind, tuple[JobRequest, JobResult]] = {
    JobKind.SEARCH: (SearchRequest(image_id="p1", k=7), FOUND),
    JobKind.EMBED: (EmbedRequest(image_id="p1"), EMBEDDED),
    JobKind.PUT_IMAGE: (PutImageRequest(image_id="p1", listing_id="l", category=FOUND.category.name), CHANGED),
    JobKind.DELETE_IMAGE: (DeleteImageRequest(image_id="p1"), CHANGED),
    JobKind.REINDEX: (ReindexRequest(mode=ReindexMode.ALL), REINDEXED),
}
# What only a newer version knows, in a field of a record.
STRANGE = [("kind", "video"), ("status", "paused")]


def created(jobs: JobStore, kind: JobKind = JobKind.EMBED) -> Job:
    request, _ = ENDED[kind]
    return jobs.create(kind, request, None, admission=PLENTY, submission=Submission(deadline_s=60)).job


def claimed(jobs: JobStore, kind: JobKind = JobKind.EMBED) -> Job:
    claim = jobs.claim("w", lease_s=15, only=QueueName.REINDEX if kind is JobKind.REINDEX else None)
    assert claim
    return claim.job


def succeeded(jobs: JobStore, kind: JobKind = JobKind.EMBED) -> str:
    created(jobs, kind)
    job = claimed(jobs, kind)
    end(jobs, job, ENDED[kind][1])
    return job.id


def end(jobs: JobStore, job: Job, result: JobResult) -> None:
    """End a job well, with its change in the log if it makes one."""
    if isinstance(job.request, PutImageRequest | DeleteImageRequest):
        ChangeLog(jobs._redis).append(job, job.request.image_id, job.request.sequence, None)
    assert jobs.succeed(job, result)


def make_newer(client: redis.Redis, job_id: str) -> None:
    """Give a job's record, and every object in it, a field that this version does not know."""
    key = f"{PREFIX}job:{job_id}"
    for name in ("request", "submission", "spec", "progress", "result", "error"):
        if (text := client.hget(key, name)) is not None:
            client.hset(key, name, with_unknown_fields(text))
    client.hset(key, "of_a_newer_version", "[")


def shown(http: FlaskClient, job_id: str) -> dict[str, Any]:
    answer = http.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.get_json()
    return body


def listed(http: FlaskClient, query: str = "") -> list[str]:
    """Ids, through all pages."""
    ids, cursor = list[str](), ""
    while True:
        answer = http.get(f"/v1/jobs?limit=2{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.get_json()
        ids += [job["id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            return ids
        cursor = f"&cursor={page['next_cursor']}"


# --- fields that are not known ---


@pytest.mark.parametrize("kind", ENDED)
def test_a_result_with_unknown_fields_is_passed_on_as_it_is(
    http: FlaskClient, jobs: JobStore, client: redis.Redis, kind: JobKind
) -> None:
    job_id = succeeded(jobs, kind)
    before = shown(http, job_id)
    assert before["result"] == json.loads(ENDED[kind][1].model_dump_json())
    make_newer(client, job_id)
    expected = json.loads(with_unknown_fields(json.dumps(before["result"])))
    assert shown(http, job_id) == {**before, "result": expected}
    assert listed(http) == [job_id]


def test_an_error_and_a_progress_with_unknown_fields_are_answered_without_them(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    failed = created(jobs)
    jobs.fail(claimed(jobs), WorkerLost("its worker died"))
    running = created(jobs, JobKind.REINDEX)
    claimed(jobs, JobKind.REINDEX)
    progress = Progress(stage="embedding", done=1, total=2)
    client.hset(f"{PREFIX}job:{running.id}", "progress", progress.model_dump_json())
    before = [shown(http, job.id) for job in (failed, running)]
    for job in (failed, running):
        make_newer(client, job.id)
    assert [shown(http, job.id) for job in (failed, running)] == before
    assert before[0]["error"]["code"] == "worker_lost"
    assert before[1]["progress"]["stage"] == "embedding"
    assert listed(http) == [running.id, failed.id]
    assert http.post(f"/v1/jobs/{failed.id}/retry").status_code == 202


@pytest.mark.parametrize("kind", ENDED)
def test_a_worker_runs_a_job_with_unknown_fields(jobs: JobStore, client: redis.Redis, kind: JobKind) -> None:
    job = created(jobs, kind)
    make_newer(client, job.id)
    claim = claimed(jobs, kind)
    assert (claim.id, claim.request, claim.submission) == (job.id, job.request, job.submission)
    end(jobs, claim, ENDED[kind][1])


def test_a_submit_that_is_repeated_finds_its_job_though_that_has_unknown_fields(
    http: FlaskClient, client: redis.Redis
) -> None:
    def submit() -> str:
        answer = http.post("/v1/jobs/embed", json={"image_id": "p1"}, headers={"Idempotency-Key": "once"})
        assert answer.status_code == 202, answer.text
        return str(answer.get_json()["id"])

    first = submit()
    make_newer(client, first)
    assert submit() == first


def test_a_batch_with_unknown_fields_is_answered_without_them(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    batch = batch_of_two(http)
    make_newer(client, batch["items"][0]["job_id"])
    newer = with_unknown_fields(client.get(f"{PREFIX}batch:{batch['id']}") or "")
    client.set(f"{PREFIX}batch:{batch['id']}", newer)
    assert http.get(batch["links"]["self"]).get_json() == batch


def test_what_a_newer_worker_reports_besides_is_ignored(http: FlaskClient, client: redis.Redis) -> None:
    index = IndexInfo(
        version="v", count=1, dimension=1, built_at="b", catalogue="c", backbone="b", weights="w",
        model_fingerprint="f", model_version="m", metrics={}, preprocess=PreprocessSpec(size_px=256),
    )  # fmt: skip
    registry = WorkerRegistry(client)
    registry.report(WorkerReport(name="w", pid=1, reported_at=time.time(), state="ready", index=index))
    before = [http.get(path).get_json() for path in ("/v1/index", "/v1/workers")]
    client.hset(f"{PREFIX}workers", "w", with_unknown_fields(client.hget(f"{PREFIX}workers", "w") or ""))
    assert [http.get(path).get_json() for path in ("/v1/index", "/v1/workers")] == before
    assert before[0]["preprocess"]["size_px"] == 256


def test_an_api_key_with_unknown_fields_lets_its_owner_in_and_can_be_revoked(
    client: redis.Redis, valkey_url: str
) -> None:
    ring = KeyRing(client)
    key, token = ring.create("ours", {Scope.ADMIN})
    client.hset(f"{PREFIX}keys", key.id, with_unknown_fields(client.hget(f"{PREFIX}keys", key.id) or ""))

    def ask() -> TestResponse:  # of a process that remembers nothing
        http = create_app(settings(valkey_url)).test_client()
        return http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})

    assert ask().status_code == 200
    ring.revoke(key.id)
    assert_problem(ask(), 401, "api_key_invalid")


def test_a_scope_of_a_newer_version_locks_nobody_out_and_opens_nothing(client: redis.Redis, valkey_url: str) -> None:
    ring = KeyRing(client)
    tokens = {}
    for name, scopes in (("ours", ["read"]), ("both", ["read", "rate"]), ("newer", ["rate"])):
        key, tokens[name] = ring.create(name, {Scope.READ})
        record = json.loads(client.hget(f"{PREFIX}keys", key.id) or "")
        client.hset(f"{PREFIX}keys", key.id, json.dumps(record | {"scopes": scopes}))
    http = create_app(settings(valkey_url)).test_client()
    answers = {
        name: http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"}) for name, token in tokens.items()
    }
    assert {name: answer.status_code for name, answer in answers.items()} == {"ours": 200, "both": 200, "newer": 403}
    assert_problem(http.get("/v1/jobs"), 401, "api_key_required")


def test_an_entry_of_the_change_log_with_unknown_fields_is_read(jobs: JobStore, client: redis.Redis) -> None:
    log = ChangeLog(client)
    created(jobs, JobKind.DELETE_IMAGE)
    entry = log.append(claimed(jobs), "p1", 5, None)
    assert entry
    [(_, fields)] = cast(list[tuple[bytes, dict[Any, Any]]], client.xrange(f"{PREFIX}changes"))
    client.xadd(f"{PREFIX}changes", {**fields, "of_a_newer_version": "1"})
    client.hset(f"{PREFIX}changed", "p1", f"{entry} 5 - of-a-newer-version")
    assert [(change.image_id, change.sequence, change.photo) for change in log.read()] == 2 * [("p1", 5, None)]
    newest = log.newest("p1")
    assert newest
    assert (newest.entry_id, newest.sha256) == (entry, None)
    assert log.photos() == set()


# --- kinds and states that are not known ---


@pytest.mark.parametrize(("field", "value"), STRANGE)
def test_a_list_leaves_out_what_it_does_not_know_and_shows_the_rest(
    http: FlaskClient, jobs: JobStore, client: redis.Redis, field: str, value: str
) -> None:
    ids = [created(jobs).id for _ in range(7)]
    for strange in (ids.pop(5), ids.pop(3), ids.pop(0)):
        client.hset(f"{PREFIX}job:{strange}", field, value)
    assert listed(http) == ids[::-1]
    assert listed(http, "&kind=embed&status=queued") == ids[::-1]


@pytest.mark.parametrize(("field", "value"), STRANGE)
def test_a_job_that_cannot_be_read_is_no_crash_and_nothing_is_done_to_it(
    http: FlaskClient, jobs: JobStore, client: redis.Redis, field: str, value: str
) -> None:
    key = f"{PREFIX}job:{created(jobs).id}"
    client.hset(key, field, value)
    record = client.hgetall(key)
    path = f"/v1/jobs/{key.rpartition(':')[2]}"
    for answer in (http.get(path), http.get(f"{path}?wait=1"), http.post(f"{path}/cancel"), http.post(f"{path}/retry")):
        assert "newer version" in assert_problem(answer, 503, "queue_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert client.hgetall(key) == record


@pytest.mark.parametrize(("field", "value"), STRANGE)
def test_a_batch_with_a_job_that_cannot_be_read_is_not_said_to_have_ended(
    http: FlaskClient, client: redis.Redis, field: str, value: str
) -> None:
    batch = batch_of_two(http)
    client.hset(f"{PREFIX}job:{batch['items'][1]['job_id']}", field, value)
    assert_problem(http.get(batch["links"]["self"]), 503, "queue_unavailable")


def test_a_batch_of_an_unknown_kind_is_no_crash(http: FlaskClient, client: redis.Redis) -> None:
    batch = batch_of_two(http)
    key = f"{PREFIX}batch:{batch['id']}"
    client.set(key, json.dumps({**json.loads(client.get(key) or ""), "kind": "video"}))
    assert_problem(http.get(batch["links"]["self"]), 503, "queue_unavailable")


def batch_of_two(http: FlaskClient) -> dict[str, Any]:
    parts = {"image": [(BytesIO(PHOTO), "a.jpg"), (BytesIO(PHOTO), "b.jpg")]}
    answer = http.post("/v1/batches", data=parts)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.get_json()
    return body


# --- what clients send ---


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("post", "/v1/jobs/search", {"data": photo_form(colour="red")}),
        ("post", "/v1/jobs/search?colour=red", {"data": photo_form()}),
        ("post", "/v1/jobs/search", {"json": {"image_id": "p1", "colour": "red"}}),
        ("post", "/v1/jobs/embed", {"data": photo_form(colour="red")}),
        ("post", "/v1/jobs/embed", {"json": {"image_id": "p1", "colour": "red"}}),
        ("post", "/v1/jobs/reindex", {"json": {"colour": "red"}}),
        ("post", "/v1/batches", {"data": photo_form(colour="red")}),
        ("put", "/v1/images/p1", {"data": photo_form(listing_id="l", category=FOUND.category.name, colour="red")}),
        ("delete", "/v1/images/p1?colour=red", {}),
        ("get", "/v1/images/p1?colour=red", {}),
        ("get", "/v1/jobs?colour=red", {}),
        ("post", "/v1/index/rollback?colour=red", {}),
    ],
    ids=lambda part: None if isinstance(part, dict) else part,
)
def test_an_unknown_option_is_refused_by_every_call(
    http: FlaskClient, method: str, path: str, sent: dict[str, Any]
) -> None:
    answer = http.open(path, method=method.upper(), **sent)
    assert "colour: unknown option" in assert_problem(answer, 422, "invalid_request")
