"""The life of a job over HTTP: cancel, retry, deadlines, priorities."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from api.uploads.bodies import PhotoReader
from shared.errors import InternalError, PhotoExpired, WorkerLost
from shared.jobs.contract import Job
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from tests.integration.api.test_api import EMBEDDED
from tests.integration.conftest import application, assert_problem, photo_form, settings

Headers = dict[str, str]


@pytest.fixture
def app(client: redis.Redis, valkey_url: str, reader: PhotoReader) -> Flask:
    return application(settings(valkey_url, max_queued=1000), reader)


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


def test_cancelling_works_when_the_queue_is_full(client: redis.Redis, valkey_url: str, reader: PhotoReader) -> None:
    http = application(settings(valkey_url, max_queued=2), reader).test_client()
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


def test_a_retry_is_refused_when_the_queue_is_full(
    client: redis.Redis, jobs: JobStore, valkey_url: str, reader: PhotoReader
) -> None:
    http = application(settings(valkey_url, max_queued=1), reader).test_client()
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
