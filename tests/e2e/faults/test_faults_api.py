"""The front door under abuse: killed between record and message, asked the same fifty times at once, and overrun."""

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from shared.jobs.celery_config import QUEUES, make_celery
from shared.jobs.contract import JobKind, Priority, SearchRequest
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import Admission
from shared.jobs.store import JobStore
from tests.e2e.conftest import eventually
from tests.e2e.support.clients import Clients
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger

PLENTY = Admission(max_queued=1 << 20, max_queued_per_owner=1 << 20)


@pytest.fixture
def images(photos: list[Path]) -> list[bytes]:
    return [photo.read_bytes() for photo in photos]


def test_a_front_door_killed_at_any_moment_loses_nothing_and_makes_nothing_twice(
    fleet: Fleet, photos: list[Path], images: list[bytes]
) -> None:
    fleet.man(1)
    ledger = Ledger(fleet.url)
    rng = random.Random(17)
    mix = {"search": 6, "batch": 2, "again": 1}
    with fleet.client() as client, Clients(ledger, images, mix=mix) as clients:
        # What a process leaves that is killed after the record and before the message.
        job = (
            JobStore(client).create(JobKind.SEARCH, SearchRequest(image_id=photos[0].stem), None, admission=PLENTY).job
        )
        ledger.accept(job.id)
        for _ in range(2):
            time.sleep(rng.uniform(0.5, 1.5))
            fleet.kill("api")
            fleet.start("api")
            eventually(lambda: requests.get(fleet.url + "/livez", timeout=5).ok, 30, "the API answers")
    assert clients.errors == []
    assert clients.refused["ConnectionError"] > 0
    ledger.settle()


def test_one_key_sent_fifty_times_at_once_makes_one_job(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(1)
    ledger = Ledger(fleet.url)
    with ThreadPoolExecutor(50) as pool:
        job_ids = set(pool.map(lambda _: ledger.submit(images[0], key=f"one-{id(ledger)}"), range(50)))
    assert len(job_ids) == 1
    ledger.settle()


def test_two_thousand_queued_jobs_drain_and_leave_no_message(fleet: Fleet, photos: list[Path]) -> None:
    fleet.man(2)
    for name in ("worker", "worker-2"):
        fleet.signal(name, signal.SIGSTOP)
    ledger = Ledger(fleet.url)
    celery = make_celery(fleet.redis_url, socket_timeout_s=5)
    request = SearchRequest(image_id=photos[0].stem, k=1)
    with fleet.client() as client:
        client.config_set("appendfsync", "everysec")  # nothing dies here, and it is much faster
        store = JobStore(client)
        for _ in range(2000):
            job = store.create(JobKind.SEARCH, request, None, admission=PLENTY).job
            ledger.accept(job.id)
            Dispatcher(celery, client).send_token()
        for name in ("worker", "worker-2"):
            fleet.signal(name, signal.SIGCONT)
        eventually(lambda: store.depth() == 0, 90, "no job waits")
        ledger.settle()
        eventually(lambda: client.llen(QUEUES[Priority.INTERACTIVE]) == 0, 20, "no message is left")
        client.config_set("appendfsync", "always")


def test_more_than_may_wait_is_refused_until_there_is_room(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(1)
    fleet.kill("api", signal.SIGTERM)
    fleet.start("api", max_queued=20)
    eventually(lambda: requests.get(fleet.url + "/livez", timeout=5).ok, 30, "the API answers")
    ledger = Ledger(fleet.url)
    fleet.signal("worker", signal.SIGSTOP)
    for image in images[:20]:
        ledger.submit(image)
    for _ in range(3):
        answer = requests.post(fleet.url + "/v1/jobs/search", files={"image": images[0]}, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1
    first = next(iter(ledger.accepted))
    answer = requests.post(f"{fleet.url}/v1/jobs/{first}/cancel", timeout=10)  # works when the queue is full
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    ledger.submit(images[21])
    fleet.signal("worker", signal.SIGCONT)
    ledger.settle(statuses=frozenset({"succeeded", "canceled"}))
    fleet.kill("api", signal.SIGTERM)
