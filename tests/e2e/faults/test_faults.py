"""Things are really killed; every accepted job still ends, once."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Stack, eventually
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger
from tests.support.signals import send


def submit(stack: Stack, photo: Path) -> str:
    answer = requests.post(stack.url + "/v1/jobs/search", files={"image": photo.read_bytes()}, timeout=10)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def status(stack: Stack, job_id: str) -> str:
    text: str = requests.get(f"{stack.url}/v1/jobs/{job_id}", timeout=10).json()["status"]
    return text


@pytest.mark.alone
def test_a_redis_that_hangs_or_dies_is_a_503_within_3_s_and_then_all_is_well(
    own_stack: Stack, photos: list[Path]
) -> None:
    own_stack.start("api")
    eventually(lambda: requests.get(own_stack.url + "/livez", timeout=5).ok, 30, "the API answers")
    photo = photos[0].read_bytes()
    assert submit(own_stack, photos[0])
    for hurt, heal in ((signal.SIGSTOP, signal.SIGCONT), (signal.SIGKILL, None)):
        own_stack.signal_valkey(hurt)
        took_s = []
        for _ in range(3):
            began = time.monotonic()
            answer = requests.post(own_stack.url + "/v1/jobs/embed", files={"image": photo}, timeout=10)
            took_s.append(time.monotonic() - began)
            assert answer.status_code == 503
            assert answer.json()["code"] in ("queue_unavailable", "acceptance_unknown")
            assert int(answer.headers["Retry-After"]) >= 1
        assert min(took_s) < 3  # the machine may have had a bad moment, but not three
        assert requests.get(own_stack.url + "/readyz", timeout=10).status_code == 503
        if heal:
            own_stack.signal_valkey(heal)
        else:
            own_stack.restart_valkey()
        eventually(lambda: submit_ok(own_stack, photo), 15, "submits are taken again")


def submit_ok(stack: Stack, photo: bytes) -> bool:
    return requests.post(stack.url + "/v1/jobs/embed", files={"image": photo}, timeout=10).status_code == 202


def test_jobs_of_a_killed_worker_end_after_its_restart(fleet: Fleet, photos: list[Path]) -> None:
    fleet.man(1)
    worker = fleet.processes["worker"]
    send(worker, signal.SIGSTOP)  # so that all of them wait when it begins
    ledger = Ledger(fleet.url)
    for photo in photos[:40]:
        ledger.submit(photo.read_bytes())
    fleet.freeze_holding(worker)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert ledger.open()
    fleet.start("worker")
    ledger.settle(60)
    assert max(int(str(ledger.read(job_id)["attempt"])) for job_id in ledger.accepted) == 2


def test_a_worker_lives_through_a_restart_of_redis_and_loses_no_job(fleet: Fleet, photos: list[Path]) -> None:
    fleet.man(1)
    worker = fleet.processes["worker"]
    ledger = Ledger(fleet.url)
    for photo in photos[:10]:
        ledger.submit(photo.read_bytes())
    ledger.settle(30)
    for _ in range(2):
        fleet.restart_valkey()
        eventually(lambda: submit_ok(fleet, photos[0].read_bytes()), 15, "submits are taken again")
        job_id = submit(fleet, photos[1])
        eventually(lambda job_id=job_id: status(fleet, job_id) == "succeeded", 15, "it is consumed from again")  # type: ignore[misc]
    assert worker.poll() is None
    assert "Connection to broker lost" in fleet.log_text()
    assert "CPendingDeprecationWarning" not in fleet.log_text()


def test_more_clients_may_wait_than_redis_clients_pool_by_default(own_stack: Stack, photos: list[Path]) -> None:
    own_stack.start("api")
    eventually(lambda: requests.get(own_stack.url + "/livez", timeout=5).ok, 30, "the API answers")
    job_id = submit(own_stack, photos[0])
    with ThreadPoolExecutor(150) as pool:
        url = f"{own_stack.url}/v1/jobs/{job_id}?wait=3"
        waiting = [pool.submit(requests.get, url, timeout=30) for _ in range(150)]
        time.sleep(1)  # they are waiting now; nobody works
        assert submit(own_stack, photos[1])
        assert {answer.result().status_code for answer in waiting} == {200}


def test_an_asked_to_stop_worker_finishes_what_it_holds(fleet: Fleet, photos: list[Path]) -> None:
    fleet.man(1)
    worker = fleet.processes["worker"]
    send(worker, signal.SIGSTOP)  # so that all of them wait when it begins
    ledger = Ledger(fleet.url)
    for photo in photos[:40]:
        ledger.submit(photo.read_bytes())
    fleet.freeze_holding(worker)
    worker.terminate()
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(30) == 0
    assert "running" not in {ledger.read(job_id)["status"] for job_id in ledger.accepted}
    fleet.start("worker")
    ledger.settle(60)
    assert {ledger.read(job_id)["attempt"] for job_id in ledger.accepted} == {1}


def test_a_worker_without_an_index_takes_no_job_and_says_why(own_stack: Stack, tmp_path: Path) -> None:
    own_stack.home = tmp_path / "empty"
    own_stack.start("api")
    own_stack.start("worker")

    def told() -> bool:
        answer = requests.get(own_stack.url + "/readyz", timeout=10)
        return answer.status_code == 503 and any("index build" in problem for problem in answer.json()["problems"])

    eventually(told, 30, "readiness says what is missing")


def test_a_redis_that_takes_no_writes_is_a_503_and_its_worker_waits_for_better_times(
    fleet: Fleet, photos: list[Path]
) -> None:
    fleet.man(1)
    worker = fleet.processes["worker"]
    with fleet.open_redis() as valkey:
        valkey.config_set("min-replicas-to-write", 1)  # it has none
        answer = requests.post(fleet.url + "/v1/jobs/embed", files={"image": photos[0].read_bytes()}, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        time.sleep(5)  # the consumer meets it too
        valkey.config_set("min-replicas-to-write", 0)
    assert worker.poll() is None
    job_id = submit(fleet, photos[0])
    eventually(lambda: status(fleet, job_id) == "succeeded", 30, "jobs are done again")
