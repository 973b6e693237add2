"""The health probe: readiness follows what becomes of a photo, not what workers say of themselves"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from flask import Flask

from api.app import create_app
from api.health_probe import HealthProbe
from shared.errors import InternalError
from shared.jobs.celery_config import QUEUES, make_celery
from shared.jobs.contract import JobKind, Priority
from shared.jobs.listing import JobListing
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from shared.photos.preprocessing import PreprocessSpec
from shared.webhooks.queue import WebhookQueue
from tests.conftest import Clock
from tests.integration.api.test_api import EMBEDDED, report
from tests.integration.conftest import settings
from worker.tasks.webhooks import WebhookPublisher

N_BYTES = 224 * 224 * 3


@pytest.fixture
def app(client: redis.Redis, valkey_url: str) -> Flask:
    return create_app(settings(valkey_url, probe_every_s=0))


@pytest.fixture
def health_probe(app: Flask) -> HealthProbe:
    found: HealthProbe = app.extensions["lookalike"].health_probe
    return found


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.health_probe._ANSWER_WITHIN_S", 0.5)
    monkeypatch.setattr("api.health_probe._AGAIN_S", 0.05)


class Worker(threading.Thread):
    """Stands in for one: does with each job what it is told."""

    def __init__(self, jobs: JobStore, client: redis.Redis, *, fails: bool = False) -> None:
        super().__init__()
        self._jobs, self._client, self._fails = jobs, client, fails
        self.seen: list[tuple[JobKind, str, bytes | None]] = []
        self.leave = threading.Event()

    def run(self) -> None:
        while not self.leave.is_set():
            if self._client.blpop([QUEUES[Priority.INTERACTIVE]], timeout=0.1) and (
                taken := self._jobs.claim("w", lease_s=15)
            ):
                self.seen.append((taken.job.kind, taken.job.owner, taken.pixels))
                if self._fails:
                    self._jobs.fail(taken.job, InternalError("it crashed"))
                else:
                    self._jobs.succeed(taken.job, EMBEDDED)


@pytest.fixture
def hire(jobs: JobStore, client: redis.Redis) -> Iterator[Callable[..., Worker]]:
    hired: list[Worker] = []

    def start(**how: bool) -> Worker:
        hired.append(Worker(jobs, client, **how))
        hired[-1].start()
        return hired[-1]

    yield start
    for worker in hired:
        worker.leave.set()
        worker.join(5)


def eventually(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_probe_goes_through_the_whole_path_with_a_photo_no_cache_knows(
    health_probe: HealthProbe, hire: Callable[..., Worker]
) -> None:
    worker = hire()
    assert [health_probe.send() for _ in range(3)] == [None] * 3
    assert {(kind, owner) for kind, owner, _ in worker.seen} == {(JobKind.EMBED, "_canary")}
    photos = [pixels for _, _, pixels in worker.seen]
    assert len(set(photos)) == 3
    assert {len(pixels or b"") for pixels in photos} == {N_BYTES}


def test_a_probe_nobody_takes_or_that_fails_is_a_problem_in_words(
    health_probe: HealthProbe, hire: Callable[..., Worker]
) -> None:
    assert "took" in str(health_probe.send())
    hire(fails=True)
    assert "failed (internal_error)" in str(health_probe.send())


def test_readiness_goes_red_when_nobody_consumes_and_green_again(
    app: Flask, client: redis.Redis, jobs: JobStore, hire: Callable[..., Worker]
) -> None:
    service = app.extensions["lookalike"]
    health_probe = HealthProbe(
        service.store, service.registry, every_s=0.05, spec=PreprocessSpec, dispatch=service._dispatch
    )
    service.health_probe = health_probe
    report(client, state="ready")
    http = app.test_client()
    assert http.get("/readyz").status_code == 200  # nothing is known against it yet
    health_probe.start()
    eventually(lambda: http.get("/readyz").status_code == 503, "readiness goes red")
    answer = http.get("/readyz").get_json()
    assert (answer["status"], answer["workers"]) == ("unready", 0)
    assert "health probe" in answer["problems"][0]
    assert http.get("/livez").status_code == 200
    hire()
    eventually(lambda: http.get("/readyz").status_code == 200, "readiness goes green")
    health_probe.stop()


def test_a_full_redis_is_told_to_senders_and_makes_the_service_unready(app: Flask, client: redis.Redis) -> None:
    service, http = app.extensions["lookalike"], app.test_client()
    service.health_probe = HealthProbe(
        service.store, service.registry, every_s=0.05, spec=PreprocessSpec, dispatch=service._dispatch
    )
    report(client, state="ready")
    client.config_set("maxmemory", "1")
    try:
        refused = http.post("/v1/jobs/embed", json={"image_id": "p"})
        assert (refused.status_code, refused.get_json()["code"]) == (503, "queue_unavailable")
        assert "no room" in refused.get_json()["detail"]
        service.health_probe.start()
        eventually(lambda: http.get("/readyz").status_code == 503, "readiness goes red")
        assert "no room" in http.get("/readyz").get_json()["problems"][0]
    finally:
        client.config_set("maxmemory", "0")
        service.health_probe.stop()


def test_a_redis_that_takes_no_writes_is_named_where_no_worker_can_report(
    app: Flask, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    service, http = app.extensions["lookalike"], app.test_client()
    service.health_probe = HealthProbe(
        service.store, service.registry, every_s=0.05, spec=PreprocessSpec, dispatch=service._dispatch
    )
    refused = "the job queue cannot be written: Redis refuses it"
    client.config_set("min-replicas-to-write", "1")  # it has none
    try:
        service.health_probe.start()
        eventually(lambda: refused in http.get("/readyz").get_json()["problems"], "readiness tells why")
        queue = WebhookQueue(client)
        WebhookPublisher(make_celery("redis://127.0.0.1:1/0"), client, queue, lambda _: None).publish_due()
        assert f"event=redis_unreachable reason='{refused}'" in caplog.text
    finally:
        client.config_set("min-replicas-to-write", "0")
    eventually(lambda: len(http.get("/readyz").get_json()["problems"]) == 1, "and no longer than it lasts")
    service.health_probe.stop()


def test_probes_go_on_after_the_process_was_short_of_files(
    app: Flask, client: redis.Redis, hire: Callable[..., Worker]
) -> None:
    service, tries = app.extensions["lookalike"], iter([False, False, True])

    def spec() -> PreprocessSpec:
        if not next(tries, True):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return PreprocessSpec()

    probe = HealthProbe(service.store, service.registry, every_s=0.02, spec=spec, dispatch=service._dispatch)
    report(client, state="ready")
    worker = hire()
    probe.start()
    eventually(lambda: len(worker.seen) > 0, "a probe is sent")
    probe.stop()


def test_no_probe_is_sent_while_no_worker_reports(app: Flask, client: redis.Redis, jobs: JobStore) -> None:
    service = app.extensions["lookalike"]
    health_probe = HealthProbe(
        service.store, service.registry, every_s=0.02, spec=PreprocessSpec, dispatch=service._dispatch
    )
    health_probe.start()
    time.sleep(0.3)
    assert jobs.depth() == 0
    health_probe.stop()


def test_probes_are_sent_though_the_queue_is_full_and_are_in_nobodys_list(
    health_probe: HealthProbe, client: redis.Redis, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.health_probe._ANSWER_WITHIN_S", 0.05)
    http = app.test_client()
    for _ in range(3):
        assert http.post("/v1/jobs/embed", json={"image_id": "p"}).status_code == 202
    assert http.post("/v1/jobs/embed", json={"image_id": "p"}).status_code == 429
    for _ in range(6):  # as many API processes as like
        assert health_probe.send()  # no refusal, but that nobody took it
    assert len(JobListing(client).page(owner=None, limit=100).jobs) == 3
    assert client.exists(f"{PREFIX}jobs:_canary") == 0


def test_probes_nobody_takes_expire_and_leave_nothing(client: redis.Redis, clock: Clock, app: Flask) -> None:
    service = app.extensions["lookalike"]
    store = JobStore(client, clock=clock)
    HealthProbe(store, service.registry, every_s=0, spec=PreprocessSpec, dispatch=lambda job: None).send()
    clock.now += 10
    assert len(store.reap(max_attempts=3).expired) == 1  # twice the time it may take
    assert client.keys(f"{PREFIX}pixels:*") == []
    assert store.depth() == 0
