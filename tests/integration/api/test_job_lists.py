"""Lists of jobs over HTTP, and how often and how safely one is accepted: idempotency, replicas."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from shared.errors import InternalError
from shared.jobs import scripts
from shared.jobs.celery_config import QUEUES
from shared.jobs.contract import Priority
from shared.jobs.records import PREFIX
from shared.jobs.reindex_contract import Progress
from shared.jobs.store import JobStore
from tests.integration.api.test_api import EMBEDDED
from tests.integration.api.test_jobs import app, claim, http, submit, submitted
from tests.integration.conftest import PHOTO, assert_problem, eventually, photo_form, settings

__all__ = ["app", "http"]


# --- lists ---


def pages(http: FlaskClient, query: str, cursor: str = "") -> list[dict[str, object]]:
    """Everything a list holds, page by page."""
    found: list[dict[str, object]] = []
    for _ in range(100):
        body = http.get(f"/v1/jobs?{query}{cursor}").get_json()
        found += body["jobs"]
        if body["next_cursor"] is None:
            return found
        cursor = f"&cursor={body['next_cursor']}"
    raise AssertionError("the pages have no end")


def test_a_list_has_every_job_once_newest_first_and_without_results(http: FlaskClient, jobs: JobStore) -> None:
    ids = [submitted(http) for _ in range(11)]
    jobs.succeed(claim(jobs), EMBEDDED)
    assert [job["id"] for job in pages(http, "limit=3")] == ids[::-1]
    assert [job["id"] for job in pages(http, "limit=11")] == ids[::-1]
    typed = http.get("/v1/jobs?limit=3", headers={"Content-Type": "application/json"})  # as some clients always send
    assert len(typed.get_json()["jobs"]) == 3
    body = http.get("/v1/jobs").get_json()
    assert (len(body["jobs"]), body["next_cursor"]) == (11, None)
    assert all("result" not in job and job["links"]["self"] for job in body["jobs"])
    assert http.get("/v1/jobs?status=expired").get_json() == {"jobs": [], "next_cursor": None}


def test_a_list_tells_how_far_a_running_job_is(http: FlaskClient, jobs: JobStore) -> None:
    submitted(http)
    running = claim(jobs)
    progress = Progress(stage="embedding", done=3, total=9)
    jobs.run(scripts.PROGRESS, running.id, running.attempt, progress.model_dump_json(), 0)
    [listed] = http.get("/v1/jobs").get_json()["jobs"]
    assert listed["progress"] == http.get(f"/v1/jobs/{running.id}").get_json()["progress"] == progress.model_dump()


def test_jobs_that_come_while_a_list_is_read_do_not_shift_it(http: FlaskClient) -> None:
    ids = [submitted(http) for _ in range(6)]
    first = http.get("/v1/jobs?limit=3").get_json()
    submitted(http)
    rest = pages(http, "limit=3", f"&cursor={first['next_cursor']}")
    assert [job["id"] for job in [*first["jobs"], *rest]] == ids[::-1]


def test_a_list_can_be_of_one_status_and_kind(http: FlaskClient, jobs: JobStore) -> None:
    for number in range(12):
        submitted(http, path=f"/v1/jobs/{'embed' if number % 2 else 'search'}")
    failed = [claim(jobs), claim(jobs)]
    for job in failed:
        jobs.fail(job, InternalError("it crashed"))
    assert {job["id"] for job in pages(http, "status=failed&limit=1")} == {job.id for job in failed}
    assert [job["error"]["code"] for job in pages(http, "status=failed")] == ["internal_error"] * 2  # type: ignore[index]
    assert len(pages(http, "status=queued&limit=3")) == 10
    assert {job["kind"] for job in pages(http, "kind=embed&status=queued&limit=2")} == {"embed"}
    assert len(pages(http, "kind=embed")) == 6


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("status=done", "status"),
        ("kind=photo", "kind"),
        ("cursor=x", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=bmFuOmE", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=" + "A" * 5000, "cursor"),
        ("owner=somebody", "owner"),
        ("limit=3&limit=4", "limit"),
    ],
)
def test_a_list_query_that_means_nothing_is_422_and_named(http: FlaskClient, query: str, named: str) -> None:
    assert named in assert_problem(http.get(f"/v1/jobs?{query}"), 422, "invalid_request")


# --- idempotency ---


def test_one_key_sent_50_times_at_once_makes_one_job(app: Flask, jobs: JobStore, client: redis.Redis) -> None:
    def send(_: int) -> TestResponse:
        return submit(app.test_client(), headers={"Idempotency-Key": "k1"})

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(send, range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.get_json()["id"] for answer in answers}) == 1
    assert (jobs.depth(), client.llen(QUEUES[Priority.INTERACTIVE])) == (1, 1)


def keyed(http: FlaskClient, path: str, key: str = "k", photo: bytes = PHOTO, **options: str) -> TestResponse:
    return http.post(path, data=photo_form(photo, **options), headers={"Idempotency-Key": key})


def test_the_same_key_and_request_is_the_same_job_in_every_state(http: FlaskClient, jobs: JobStore) -> None:
    first = keyed(http, "/v1/jobs/embed").get_json()["id"]
    held = claim(jobs)
    assert keyed(http, "/v1/jobs/embed").get_json()["status"] == "running"
    jobs.succeed(held, EMBEDDED)
    again = keyed(http, "/v1/jobs/embed").get_json()
    assert (again["id"], again["status"], again["result"]["scores"]) == (first, "succeeded", EMBEDDED.scores)
    assert jobs.depth() == 0


def test_the_same_key_after_an_expiry_is_never_run_again(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    late = submit(http, headers={"Idempotency-Key": "late"}, deadline_s=0.05).get_json()["id"]
    time.sleep(0.1)
    answer = submit(http, headers={"Idempotency-Key": "late"}, deadline_s=0.05).get_json()
    assert (answer["id"], answer["status"]) == (late, "expired")
    job_id = keyed(http, "/v1/jobs/embed").get_json()["id"]
    jobs.succeed(claim(jobs), EMBEDDED)
    client.delete(f"{PREFIX}job:{job_id}")  # as its TTL will
    assert_problem(keyed(http, "/v1/jobs/embed"), 410, "job_gone")
    assert jobs.depth() == 0


def test_the_same_key_for_another_request_is_422(http: FlaskClient, jobs: JobStore) -> None:
    assert keyed(http, "/v1/jobs/search", k="4").status_code == 202
    assert keyed(http, "/v1/jobs/search").status_code == 202  # 4 is what it is anyway
    for answer in (
        keyed(http, "/v1/jobs/search", k="5"),
        keyed(http, "/v1/jobs/search", priority="bulk"),
        keyed(http, "/v1/jobs/search", deadline_s="60"),
        keyed(http, "/v1/jobs/embed"),
        keyed(http, "/v1/batches"),
        http.post("/v1/jobs/search", json={"image_id": "p"}, headers={"Idempotency-Key": "k"}),
    ):
        assert_problem(answer, 422, "idempotency_conflict")
    assert jobs.depth() == 1
    assert keyed(http, "/v1/jobs/search", key="other", k="5").status_code == 202


def test_a_key_of_a_refused_request_is_still_free(http: FlaskClient) -> None:
    assert keyed(http, "/v1/jobs/embed", photo=b"no photo").status_code == 415
    assert keyed(http, "/v1/jobs/search", k="0").status_code == 422
    assert keyed(http, "/v1/jobs/embed").status_code == 202


def test_a_known_key_is_answered_though_the_queue_is_full(client: redis.Redis, valkey_url: str) -> None:
    http = create_app(settings(valkey_url, max_queued=1)).test_client()
    first = submit(http, headers={"Idempotency-Key": "k"}).get_json()["id"]
    assert_problem(submit(http, headers={"Idempotency-Key": "l"}), 429, "queue_full")
    assert submit(http, headers={"Idempotency-Key": "k"}).get_json()["id"] == first


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\tb", "\x7f"])
@pytest.mark.parametrize("path", ["/v1/jobs/search", "/v1/batches", f"/v1/jobs/{'0' * 32}/retry"])
def test_a_bad_idempotency_key_is_422(http: FlaskClient, path: str, key: str) -> None:
    assert "Idempotency-Key" in assert_problem(keyed(http, path, key=key), 422, "invalid_request")


def test_the_longest_idempotency_key_is_taken(http: FlaskClient) -> None:
    assert keyed(http, "/v1/jobs/embed", key="x" * 255).status_code == 202


# --- replicas ---


def test_a_job_that_no_replica_has_is_not_accepted(client: redis.Redis, valkey_url: str, jobs: JobStore) -> None:
    http = create_app(settings(valkey_url, redis_replicas=1)).test_client()
    answer = submit(http)
    assert "too few replicas" in assert_problem(answer, 503, "queue_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert jobs.depth() == 0
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 0


def test_a_job_that_a_replica_has_is_accepted_and_one_that_came_too_early_under_its_key(
    client: redis.Redis, valkey_url: str, jobs: JobStore, request: pytest.FixtureRequest
) -> None:
    http = create_app(settings(valkey_url, redis_replicas=1)).test_client()
    headers = {"Idempotency-Key": "k"}
    early = submit(http, headers=headers)
    assert (early.status_code, early.get_json()["code"]) == (503, "acceptance_unknown")
    server = request.getfixturevalue("replica")
    deadline = time.monotonic() + 20
    while (answer := submit(http, headers=headers)).status_code == 503 and time.monotonic() < deadline:
        pass
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == early.get_json()["job"]
    assert jobs.depth() == 1
    with redis.Redis(port=server.port) as replica:
        assert replica.exists(PREFIX + "job:" + answer.get_json()["id"])


@pytest.mark.parametrize(
    ("replicas", "wait", "code"), [(1, "", "queue_unavailable"), (0, "wait=20", "acceptance_unknown")]
)
def test_a_job_that_a_failover_loses_during_its_submit_is_no_404(
    client: redis.Redis, valkey_url: str, jobs: JobStore, replicas: int, wait: str, code: str
) -> None:
    http = create_app(settings(valkey_url, redis_replicas=replicas)).test_client()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(submit, http, headers={"Prefer": wait} if wait else {})
        eventually(jobs.depth)
        client.flushdb()  # what a primary that takes over without the job holds of it
        answer = sent.result(30)
    assert (answer.status_code, answer.get_json()["code"]) == (503, code)
