"""API keys over HTTP: who gets in, what they may do, and that nobody hears of another's things"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import redis
import requests
from flask import Flask
from werkzeug.test import TestResponse

from api.app import create_app
from api.http.auth import PUBLIC
from api.uploads.bodies import PhotoReader
from shared.api_keys import KeyRing, Scope
from shared.errors import InternalError
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from tests import ROOT
from tests.integration.api.test_api import EMBEDDED
from tests.integration.conftest import application, assert_problem, photo_form, settings

BOTH = {Scope.SUBMIT, Scope.READ}


@pytest.fixture
def ring(client: redis.Redis) -> KeyRing:
    return KeyRing(client)


@pytest.fixture
def app(client: redis.Redis, valkey_url: str, reader: PhotoReader) -> Flask:
    return application(settings(valkey_url, max_queued=100), reader)


class Caller:
    """Who sends one key with everything."""

    def __init__(self, app: Flask, ring: KeyRing, scopes: set[Scope] | None = None, **limits: int) -> None:
        self._http = app.test_client()
        self.key, self.token = ring.create("test", scopes or BOTH, **limits)
        app.extensions["lookalike"].authenticator._keys_valid_until = 0.0  # do not wait for the second to pass

    def get(self, path: str) -> TestResponse:
        return self._http.get(path, headers={"Authorization": f"Bearer {self.token}", "X-Request-ID": "r"})

    def post(self, path: str, **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}", "X-Request-ID": "r", **more.pop("headers", {})}
        return self._http.post(path, headers=headers, **more)

    def submit(self, **headers: str) -> str:
        answer = self.post("/v1/jobs/embed", json={"image_id": "p"}, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.get_json()["id"])


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """(endpoint, method, path) of everything there is, with ids that could be ones."""
    for rule in app.url_map.iter_rules():
        values = dict.fromkeys(rule.arguments, "0" * 32)
        _, path = rule.build(values, append_unknown=False) or ("", "")
        for method in rule.methods or ():
            yield rule.endpoint, method, path


# --- who gets in ---


def test_without_keys_everything_is_open(app: Flask) -> None:
    http = app.test_client()
    for _, method, path in routes(app):
        answer = http.open(path, method=method)
        assert answer.status_code not in (401, 403), path
    assert http.post("/v1/jobs/embed", data=photo_form()).status_code == 202


def test_with_a_key_every_route_but_the_public_ones_needs_it(app: Flask, ring: KeyRing) -> None:
    caller = Caller(app, ring, {Scope.ADMIN})
    http = app.test_client()
    closed = set()
    for endpoint, method, path in routes(app):
        answer = http.open(path, method=method)
        if endpoint in PUBLIC:
            assert answer.status_code != 401, path
            continue
        closed.add(endpoint)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="lookalike"'), path
        if method != "HEAD":
            assert_problem(answer, 401, "api_key_required")
        with_key = http.open(path, method=method, headers={"Authorization": f"Bearer {caller.token}"})
        assert with_key.status_code not in (401, 403), path
    assert {"jobs.submit_search", "index.get_index", "ops.metrics", "legacy.similar_images"} <= closed
    for public in ("/", "/livez", "/readyz", "/healthcheck"):
        assert http.get(public).status_code in (200, 503)


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", "Basic bGs6bGs=", "Basic !!", "Token {token}", "{token}", "Bearer {token}x",
        "Bearer x{token}",
        "Bearer {id}", "Bearer lk_{id}_", "Bearer lk_{id}_{zeros}", "Bearer lk_0000000000000000_{secret}",
        "Bearer {upper}", "Bearer {token} {token}", "Bearer {token},Bearer {token}", "Bearer a=b", "Bearer \xe9\xff",
        "Bearer {sha256}", "Bearer " + "x" * 8000, "Bearer {token}\t\x7f", 'Bearer token="{token}"',
    ],
)  # fmt: skip
def test_a_bad_token_of_any_shape_is_401(app: Flask, ring: KeyRing, header: str) -> None:
    caller = Caller(app, ring)
    sent = header.format(
        token=caller.token, id=caller.key.id, zeros="A" * 43, secret=caller.token.split("_", 2)[2],
        upper=caller.token.upper(), sha256=caller.key.sha256,
    )  # fmt: skip
    answer = app.test_client().get("/v1/jobs", headers={"Authorization": sent})
    assert_problem(answer, 401, answer.get_json()["code"])
    assert answer.get_json()["code"] in ("api_key_required", "api_key_invalid")
    assert caller.token not in answer.text


def test_the_scheme_is_case_insensitive(app: Flask, ring: KeyRing) -> None:
    token = Caller(app, ring).token
    assert app.test_client().get("/v1/jobs", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_a_revoked_key_is_refused_within_two_seconds(app: Flask, ring: KeyRing) -> None:
    caller, other = Caller(app, ring), Caller(app, ring)
    assert caller.get("/v1/jobs").status_code == 200
    ring.revoke(caller.key.id)
    began = time.monotonic()
    while caller.get("/v1/jobs").status_code == 200:
        assert time.monotonic() - began < 2
        time.sleep(0.05)
    assert_problem(caller.get("/v1/jobs"), 401, "api_key_invalid")
    assert other.get("/v1/jobs").status_code == 200


def test_a_new_key_closes_a_running_service_within_two_seconds(app: Flask, ring: KeyRing) -> None:
    http = app.test_client()
    assert http.get("/v1/jobs").status_code == 200
    ring.create("first", BOTH)
    began = time.monotonic()
    while http.get("/v1/jobs").status_code == 200:
        assert time.monotonic() - began < 2
        time.sleep(0.05)


def test_no_key_is_let_in_while_redis_is_away(client: redis.Redis, ring: KeyRing) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        app = create_app(settings("redis://127.0.0.1:1/0", host=host))
        answer = app.test_client().get("/v1/jobs", headers={"Authorization": f"Bearer {Caller(app, ring).token}"})
        assert_problem(answer, 503, "queue_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert_problem(app.test_client().get("/v1/jobs"), 503, "queue_unavailable")


def test_a_service_in_the_open_stays_closed_when_its_last_key_is_revoked(
    client: redis.Redis, ring: KeyRing, valkey_url: str, reader: PhotoReader
) -> None:
    app = application(settings(valkey_url, host="0.0.0.0"), reader)
    assert_problem(app.test_client().get("/v1/jobs"), 401, "api_key_required")
    caller = Caller(app, ring)
    assert caller.get("/v1/jobs").status_code == 200
    ring.revoke(caller.key.id)
    app.extensions["lookalike"].authenticator._keys_valid_until = 0.0
    assert_problem(caller.get("/v1/jobs"), 401, "api_key_invalid")
    assert_problem(app.test_client().get("/v1/jobs"), 401, "api_key_required")


# --- what they may do ---


def test_each_scope_allows_its_own(app: Flask, ring: KeyRing) -> None:
    submitter, reader, admin = (Caller(app, ring, {scope}) for scope in (Scope.SUBMIT, Scope.READ, Scope.ADMIN))
    job_id = submitter.submit()
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}", "/v1/index", "/metrics", f"/v1/batches/{job_id}"):
        assert "read" in assert_problem(submitter.get(path), 403, "scope_missing")
        assert reader.get(path).status_code != 403
        assert admin.get(path).status_code != 403
    for path in ("/v1/jobs/search", "/v1/batches", f"/v1/jobs/{job_id}/cancel", f"/v1/jobs/{job_id}/retry",
                 "/predict/similar_images", f"/v1/batches/{job_id}/cancel"):  # fmt: skip
        assert "submit" in assert_problem(reader.post(path, data={}), 403, "scope_missing")
        assert submitter.post(path, data={}).status_code != 403
        assert admin.post(path, data={}).status_code != 403


def test_a_key_with_submit_reads_the_answer_it_waits_for(app: Flask, ring: KeyRing, jobs: JobStore) -> None:
    caller = Caller(app, ring, {Scope.SUBMIT})
    caller.submit(**{"Idempotency-Key": "k"})
    taken = jobs.claim("w", lease_s=15)
    assert taken
    jobs.succeed(taken.job, EMBEDDED)
    again = caller.post("/v1/jobs/embed", json={"image_id": "p"}, headers={"Idempotency-Key": "k", "Prefer": "wait=1"})
    assert (again.status_code, again.get_json()["status"]) == (200, "succeeded")


def without_request_id(answer: TestResponse) -> tuple[int, bytes, dict[str, str]]:
    return answer.status_code, answer.data, dict(answer.headers)


def test_someone_elses_things_answer_like_unknown_ones(
    app: Flask, ring: KeyRing, jobs: JobStore, client: redis.Redis
) -> None:
    mine, other, admin = Caller(app, ring), Caller(app, ring), Caller(app, ring, {Scope.ADMIN})
    states = {"queued": mine.submit(), "failed": mine.submit(), "gone": mine.submit()}
    for state in ("failed", "gone"):
        mine.post(f"/v1/jobs/{states['queued']}/cancel")
        taken = jobs.claim("w", lease_s=15)
        assert taken
        states[state] = taken.job.id
        jobs.fail(taken.job, InternalError("it crashed"))
    states["queued"] = mine.submit()
    client.delete(f"{PREFIX}job:{states['gone']}")
    assert mine.get(f"/v1/jobs/{states['gone']}").status_code == 410
    for job_id in states.values():
        for ask, path in (
            (other.get, "{}"),
            (other.get, "{}?wait=1"),
            (other.post, "{}/cancel"),
            (other.post, "{}/retry"),
        ):
            found = ask("/v1/jobs/" + path.format(job_id))
            unknown = ask("/v1/jobs/" + path.format("0" * 32))
            assert found.status_code == 404
            assert without_request_id(found) == without_request_id(unknown)
    batch = mine.post("/v1/batches", data=photo_form()).get_json()["id"]
    for ask, path in ((other.get, "{}"), (other.post, "{}/cancel")):
        found, unknown = ask("/v1/batches/" + path.format(batch)), ask("/v1/batches/" + path.format("0" * 32))
        assert found.status_code == 404
        assert without_request_id(found) == without_request_id(unknown)
    assert mine.get(f"/v1/batches/{batch}").get_json()["counts"]["queued"] == 1
    assert mine.get(f"/v1/jobs/{states['queued']}").get_json()["status"] == "queued"
    assert other.get("/v1/jobs").get_json() == {"jobs": [], "next_cursor": None}
    assert len(mine.get("/v1/jobs").get_json()["jobs"]) == len(admin.get("/v1/jobs").get_json()["jobs"]) == 4
    assert admin.get(f"/v1/jobs/{states['gone']}").status_code == 410
    assert admin.get(f"/v1/batches/{batch}").status_code == 200


def test_an_idempotency_key_belongs_to_its_api_key(app: Flask, ring: KeyRing) -> None:
    mine, other = Caller(app, ring), Caller(app, ring)
    first = mine.submit(**{"Idempotency-Key": "k"})
    assert other.submit(**{"Idempotency-Key": "k"}) != first
    assert mine.submit(**{"Idempotency-Key": "k"}) == first


def test_what_administrators_do_to_others_is_audited(app: Flask, ring: KeyRing, jobs: JobStore) -> None:
    mine, admin = Caller(app, ring), Caller(app, ring, {Scope.ADMIN})
    failed, queued = mine.submit(), mine.submit()
    taken = jobs.claim("w", lease_s=15)
    assert taken
    assert taken.job.id == failed
    jobs.fail(taken.job, InternalError("it crashed"))
    batch = mine.post("/v1/batches", data=photo_form()).get_json()["id"]
    mine.post(f"/v1/jobs/{mine.submit()}/cancel")
    admin.post(f"/v1/jobs/{admin.submit()}/cancel")
    assert ring.audit() == []  # each did that to their own
    assert admin.post(f"/v1/jobs/{queued}/cancel").status_code == 200
    again = admin.post(f"/v1/jobs/{failed}/retry").get_json()["id"]
    admin.post(f"/v1/batches/{batch}/cancel")
    admin.post(f"/v1/jobs/{queued}/cancel")  # refused: not an action
    entries = [(entry.actor, entry.action, entry.subject) for entry in ring.audit()]
    assert entries[::-1] == [
        (admin.key.id, "jobs.cancel", queued),
        (admin.key.id, "jobs.retry", failed),
        (admin.key.id, "batches.cancel", batch),
    ]
    assert jobs.get(again).owner == mine.key.id
    assert mine.get(f"/v1/jobs/{again}").status_code == 200


# --- how much ---


def test_a_key_over_its_rate_is_429_and_others_are_not(app: Flask, ring: KeyRing) -> None:
    slow, other = Caller(app, ring, requests_per_minute=3), Caller(app, ring)
    assert [slow.get("/v1/jobs").status_code for _ in range(3)] == [200] * 3
    answer = slow.get("/v1/jobs")
    assert "3" in assert_problem(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert slow.post("/v1/jobs/embed", json={"image_id": "p"}).status_code == 429
    assert [other.get("/v1/jobs").status_code for _ in range(5)] == [200] * 5
    assert app.test_client().get("/livez").status_code == 200


def test_a_key_is_not_limited_for_an_hour_after_the_clock_of_redis_was_set_back_by_one(
    app: Flask, ring: KeyRing, client: redis.Redis
) -> None:
    caller = Caller(app, ring, requests_per_minute=3)
    assert [caller.get("/v1/jobs").status_code for _ in range(4)] == [200] * 3 + [429]
    [window] = client.keys("lookalike:rate*")
    client.pexpire(window, client.pttl(window) + 3_600_000)
    assert [caller.get("/v1/jobs").status_code for _ in range(4)] == [200] * 3 + [429]


def test_the_rate_is_one_for_all_processes_and_has_a_default(
    client: redis.Redis, ring: KeyRing, valkey_url: str, reader: PhotoReader
) -> None:
    apps = [application(settings(valkey_url, requests_per_minute=4), reader) for _ in range(2)]
    caller, generous = Caller(apps[0], ring), Caller(apps[0], ring, requests_per_minute=100)
    answers = [
        app.test_client().get("/v1/jobs", headers={"Authorization": f"Bearer {caller.token}"}).status_code
        for app in apps * 3
    ]
    assert answers == [200] * 4 + [429] * 2
    assert [generous.get("/v1/jobs").status_code for _ in range(6)] == [200] * 6


def test_a_key_may_fill_its_share_of_the_queue_and_no_more(
    client: redis.Redis, ring: KeyRing, valkey_url: str, reader: PhotoReader
) -> None:
    app = application(settings(valkey_url, max_queued=100, max_queued_per_key=2), reader)
    greedy, other = Caller(app, ring), Caller(app, ring)
    first = greedy.submit()
    greedy.submit()
    answer = greedy.post("/v1/jobs/embed", json={"image_id": "p"})
    assert_problem(answer, 429, "queue_share_full")
    assert int(answer.headers["Retry-After"]) >= 1
    assert_problem(greedy.post("/v1/batches", data=photo_form()), 429, "queue_share_full")
    other.submit()
    greedy.post(f"/v1/jobs/{first}/cancel")
    greedy.submit()


# --- what lies in Redis ---


def everything_in(client: redis.Redis) -> str:
    """Each key and what lies under it."""
    read: dict[bytes, Callable[[bytes], object]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    keys = cast(Iterator[bytes], client.scan_iter())
    return "\n".join(f"{key!r} {read[cast(bytes, client.type(key))](key)!r}" for key in keys)


def test_no_secret_is_kept_anywhere(
    app: Flask, ring: KeyRing, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caller, admin = Caller(app, ring, requests_per_minute=9), Caller(app, ring, {Scope.ADMIN})
    job_id = caller.submit(**{"Idempotency-Key": "k"})
    caller.post("/v1/batches", data=photo_form(), headers={"Idempotency-Key": "l"})
    admin.post(f"/v1/jobs/{job_id}/cancel")
    assert caller.get("/v1/nowhere").status_code == 404
    kept = everything_in(client)
    assert caller.key.id in kept
    assert caller.key.sha256 in kept
    for secret in (caller.token, admin.token):
        assert secret.split("_", 2)[2] not in kept
        assert secret not in caplog.text


# --- the process ---


def serve(url: str, port: int, **more: str) -> "subprocess.Popen[str]":
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}
    given = {"redis_url": url, "port": str(port), "probe_every_s": "0", **more}
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"],
        env={**ours, **{f"LOOKALIKE_{name.upper()}": value for name, value in given.items()}},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_open_address_needs_a_key_before_anything_is_served(
    client: redis.Redis, ring: KeyRing, valkey_url: str, unused_port: int
) -> None:
    refused = serve(valkey_url, unused_port, host="0.0.0.0")
    _, said = refused.communicate(timeout=30)
    assert refused.returncode != 0
    assert "Traceback" not in said
    for needed in ("LOOKALIKE_HOST=0.0.0.0", "keys create", "127.0.0.1", "LOOKALIKE_PUBLISHED_ELSEWHERE"):
        assert needed in said
    _, token = ring.create("first", BOTH)
    served = serve(valkey_url, unused_port, host="0.0.0.0")
    try:
        url, deadline = f"http://127.0.0.1:{unused_port}", time.monotonic() + 30
        while True:
            try:
                assert requests.get(f"{url}/livez", timeout=5).ok
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert requests.get(f"{url}/v1/jobs", timeout=5).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert requests.get(f"{url}/v1/jobs", headers=headers, timeout=5).json()["jobs"] == []
        job = requests.post(f"{url}/v1/jobs/embed", json={"image_id": "p"}, headers=headers, timeout=5).json()
        bare = requests.Request("POST", url + job["links"]["cancel"], headers=headers).prepare()
        del bare.headers["Content-Length"]  # as curl -X POST sends it
        assert json.loads(requests.Session().send(bare, timeout=5).text)["status"] == "canceled"
    finally:
        served.terminate()
        served.communicate(timeout=30)
