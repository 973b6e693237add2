"""Workers are killed, frozen, poisoned, added and taken away; every accepted job still ends, once."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from shared.jobs.celery_config import QUEUES, RUN_QUEUED, make_celery
from shared.jobs.contract import Priority
from shared.jobs.worker_registry import WorkerRegistry
from tests.conftest import encode
from tests.e2e.conftest import eventually
from tests.e2e.support.clients import Clients
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger
from tests.e2e.support.poisonable_worker import POISON


@pytest.fixture
def images(photos: list[Path]) -> list[bytes]:
    return [photo.read_bytes() for photo in photos]


@pytest.mark.parametrize("at_hand", [False, True])
def test_messages_and_calls_that_died_with_idle_workers_are_replaced(
    fleet: Fleet, images: list[bytes], at_hand: bool
) -> None:
    fleet.man(3)
    ledger = Ledger(fleet.url)
    if at_hand:  # they have just worked, and wait to be called
        for image in images[12:36]:
            ledger.submit(image)
        ledger.settle(30)
    doomed = ["worker-2", "worker-3"]
    for name in doomed:
        fleet.signal(name, signal.SIGSTOP)  # each has asked Redis for a message or a call, and is sent the next
    fleet.signal("worker", signal.SIGSTOP)
    for image in images[:12]:
        ledger.submit(image)
    for name in doomed:
        fleet.kill(name)
    fleet.signal("worker", signal.SIGCONT)
    ledger.settle(30)


def test_the_late_write_of_a_worker_that_was_away_past_its_lease_is_fenced(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(2)
    ledger = Ledger(fleet.url)
    for name in ("worker", "worker-2"):
        fleet.signal(name, signal.SIGSTOP)
    for image in images[:40]:
        ledger.submit(image)
    n_late = fleet.logged("late_write_dropped")
    fleet.freeze_holding(fleet.processes["worker"])
    fleet.signal("worker-2", signal.SIGCONT)
    ledger.settle(40)
    assert max(int(str(ledger.read(job_id)["attempt"])) for job_id in ledger.accepted) == 2
    fleet.signal("worker", signal.SIGCONT)
    eventually(lambda: fleet.logged("late_write_dropped") > n_late, 20, "the late write is dropped")
    ledger.settle(10)


def test_a_photo_that_kills_its_worker_fails_after_three_attempts_and_harms_no_other(
    fleet: Fleet, images: list[bytes]
) -> None:
    fleet.man(1)
    fleet.kill("worker", signal.SIGTERM)
    ledger = Ledger(fleet.url)
    others = [ledger.submit(image) for image in images[:6]]
    poison = ledger.submit(encode(Image.new("RGB", (224, 224), POISON), "PNG"))
    others += [ledger.submit(image) for image in images[6:12]]
    done = threading.Event()
    exit_codes: list[int] = []

    def supervise() -> None:
        while not done.is_set():
            exit_codes.append(fleet.start("poisonable").wait())

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    try:
        ledger.settle(90, statuses=frozenset({"succeeded", "failed"}))
        assert ledger.read(poison)["error"] == {
            "code": "worker_lost",
            "detail": "its worker died in each of 3 attempts",
            "retryable": True,
        }
        assert ledger.read(poison)["attempt"] == 3
        assert {ledger.read(job_id)["status"] for job_id in others} == {"succeeded"}
    finally:
        done.set()
        os.killpg(fleet.processes["poisonable"].pid, signal.SIGKILL)
        supervisor.join()
    assert exit_codes[:3] == [-signal.SIGSEGV] * 3


def test_a_worker_asked_to_stop_as_soon_as_it_reports_ends_in_good_order(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(2)
    assert fleet.kill("worker-2", signal.SIGTERM) == 0  # Celery may not even have begun
    ledger = Ledger(fleet.url)
    ledger.submit(images[0])
    ledger.settle(30)


def test_workers_come_and_go_under_load_and_no_attempt_is_lost(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(1)
    ledger = Ledger(fleet.url)
    with Clients(ledger, images) as clients:
        fleet.man(3)
        time.sleep(1)
        assert fleet.kill("worker-2", signal.SIGTERM) == 0
        assert fleet.kill("worker-3", signal.SIGTERM) == 0
        time.sleep(1)
    assert (clients.errors, clients.refused) == ([], {})
    ledger.settle(30)
    assert {ledger.read(job_id)["attempt"] for job_id in ledger.accepted} == {1}


def test_a_worker_of_many_threads_has_connections_for_all_of_them(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(1)
    fleet.kill("worker")
    fleet.start("worker", worker_threads=128)
    fleet.man(1)
    ledger = Ledger(fleet.url)
    celery = make_celery(fleet.redis_url, socket_timeout_s=5)
    for _ in range(128):  # each has a thread look for a job, and then wait for one
        celery.send_task(RUN_QUEUED, queue=QUEUES[Priority.INTERACTIVE])
    celery.close()
    with fleet.client() as client:
        eventually(lambda: client.info("clients")["blocked_clients"] >= 128, 30, "every thread waits on a connection")
        for image in images[:40]:
            ledger.submit(image)
        ledger.settle(60)
        before = WorkerRegistry(client).live()[0]  # who reported last: the one that was killed does no more
        eventually(lambda: WorkerRegistry(client).live()[0].reported_at > before.reported_at, 15, "the heart beats on")
    assert "MaxConnectionsError" not in fleet.log_text()
    fleet.kill("worker")
