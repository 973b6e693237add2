"""Redis dies, hangs, drops its clients and runs full under load; every accepted job still ends, once."""

import signal
import time
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import eventually
from tests.e2e.support.clients import Clients
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger

pytestmark = pytest.mark.alone

RECOVERED_WITHIN_S = 15


@pytest.fixture
def images(photos: list[Path]) -> list[bytes]:
    return [photo.read_bytes() for photo in photos]


def consumed_again(fleet: Fleet, ledger: Ledger, image: bytes) -> None:
    """A job sent now is done in time, counted from here."""
    deadline = time.monotonic() + RECOVERED_WITHIN_S
    key = f"recovery-{time.time_ns()}"

    def accepted() -> bool:
        answer = requests.post(
            f"{fleet.url}/v1/jobs/search", files={"image": image}, headers={"Idempotency-Key": key}, timeout=10
        )
        return answer.status_code == 202 and bool(ledger.accept(answer.json()["id"], key))

    eventually(accepted, RECOVERED_WITHIN_S, "submits are taken again")
    job_id = ledger.job_of[key]
    left_s = deadline - time.monotonic()
    eventually(lambda: ledger.read(job_id, wait_s=1)["status"] == "succeeded", left_s, "Redis is consumed from again")


def test_a_redis_killed_under_load_comes_back_with_its_log_and_nothing_is_lost(
    fleet: Fleet, images: list[bytes]
) -> None:
    fleet.man(2)
    ledger = Ledger(fleet.url)
    with Clients(ledger, images) as clients:
        time.sleep(1.5)
        fleet.restart_valkey()
        consumed_again(fleet, ledger, images[0])
    assert clients.errors == []
    ledger.settle(40)
    assert fleet.alive("worker")
    assert fleet.alive("worker-2")


def test_a_redis_that_hangs_is_refused_within_3_s_and_consumed_within_15_s(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(1)
    ledger = Ledger(fleet.url)
    with Clients(ledger, images) as clients:
        time.sleep(1)
        fleet.signal_valkey(signal.SIGSTOP)
        time.sleep(7)  # longer than a lease
        fleet.signal_valkey(signal.SIGCONT)
        consumed_again(fleet, ledger, images[0])
    assert clients.errors == []
    assert clients.refused["503"] > 0
    assert clients.slowest_answer_s < 3
    ledger.settle(40)


def test_clients_dropped_every_second_come_back_every_time(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(2)
    ledger = Ledger(fleet.url)
    with Clients(ledger, images) as clients, fleet.client() as client:
        for _ in range(4):
            time.sleep(1)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert clients.errors == []
    consumed_again(fleet, ledger, images[0])
    ledger.settle(40)


def test_a_full_redis_refuses_new_jobs_and_ends_the_old_ones(fleet: Fleet, images: list[bytes]) -> None:
    fleet.man(1)
    ledger = Ledger(fleet.url)
    fleet.signal("worker", signal.SIGSTOP)
    for image in images[:30]:
        ledger.submit(image)
    with fleet.client() as client:
        client.delete("lookalike.wake")  # a full Redis takes no new messages
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - (6 << 20))
        try:
            answer = requests.post(fleet.url + "/v1/jobs/search", files={"image": images[0]}, timeout=10)
            assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
            fleet.signal("worker", signal.SIGCONT)
            eventually(lambda: not ledger.open(), 30, "the jobs that made it full are done")
        finally:
            client.config_set("maxmemory", 0)
    consumed_again(fleet, ledger, images[0])
    ledger.settle(30)
    assert fleet.alive("worker")
