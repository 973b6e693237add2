"""A worker as a process of its own, `python -m worker`, as far as only Celery's consumer can show it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest
import redis

from shared.errors import InternalError
from shared.jobs.contract import EmbedRequest, JobKind, Submission
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.webhooks.queue import DUE_KEY, TRIES_KEY
from tests import ROOT
from tests.integration.conftest import PLENTY
from tests.support.installation import Installation
from tests.support.webhooks import SECRET, Receiver, serving, status, url, wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving() as receiver:
        yield receiver


@pytest.fixture
def start(
    built: Installation, client: redis.Redis, valkey_url: str
) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts a worker, and returns once it reports that it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**changes: str) -> "subprocess.Popen[bytes]":
        environment = {
            "LOOKALIKE_REDIS_URL": valkey_url,
            "LOOKALIKE_HOME": str(built.home),
            "LOOKALIKE_CATALOGUE": str(built.catalogue),
            "LOOKALIKE_WEBHOOK_SECRET": SECRET,
            "LOOKALIKE_WEBHOOK_ALLOW_PRIVATE": "true",
        }
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker"], cwd=ROOT, env={**os.environ, **environment, **changes}
        )
        started.append(worker)
        ready = WorkerRegistry(client)
        wait_until(lambda: any(each.pid == worker.pid and each.state == "ready" for each in ready.live()), 60)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait()


def end_with_webhook(jobs: JobStore, webhook_url: str) -> str:
    """A job that has ended, whose webhook is due."""
    submission = Submission(webhook_url=webhook_url)
    jobs.create(JobKind.EMBED, EmbedRequest(image_id="p"), None, admission=PLENTY, submission=submission)
    claim = jobs.claim("w", lease_s=15)
    assert claim
    jobs.fail(claim.job, InternalError("it crashed"))
    return claim.job.id


def test_webhooks_are_sent_once_a_replica_has_the_end_as_fast_as_there_are_threads_and_those_in_hand_before_it_ends(
    client: redis.Redis,
    jobs: JobStore,
    receiver: Receiver,
    start: Callable[..., "subprocess.Popen[bytes]"],
    request: pytest.FixtureRequest,
) -> None:
    worker = start(LOOKALIKE_WEBHOOK_HOSTS=f"localhost:{receiver.server_port}", LOOKALIKE_REDIS_REPLICAS="1")
    early = end_with_webhook(jobs, url(receiver))
    wait_until(lambda: client.hget(TRIES_KEY, early) == b"0", 15)  # it was looked at, and put off
    assert receiver.seen == []
    request.getfixturevalue("replica")
    wait_until(lambda: [headers["webhook-id"] for _, headers, _ in receiver.seen] == [early], 15)
    receiver.seen.clear()

    n_published = client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
    sent = {end_with_webhook(jobs, url(receiver)) for _ in range(80)}
    began = time.monotonic()
    wait_until(lambda: {headers["webhook-id"] for _, headers, _ in receiver.seen} == sent, 15)
    assert time.monotonic() - began < 12  # eight every two seconds would take twenty

    arrived, leave = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        arrived.set()
        leave.wait(4)
        status(204)(handler)

    receiver.answer = answer
    end_with_webhook(jobs, url(receiver))
    assert arrived.wait(10)
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.5)
    leave.set()
    assert worker.wait(30) == 0
    assert client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"] == n_published  # no events
    assert not client.exists(DUE_KEY)
    assert WorkerRegistry(client).live() == []
