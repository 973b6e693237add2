"""Celery's consumer with our channels on a real Valkey, whose connections are dropped."""

from types import SimpleNamespace

import pytest
import redis
from celery.contrib.testing.worker import start_worker

from shared.jobs.celery_config import WEBHOOKS, make_celery
from tests.integration.conftest import eventually
from worker import process
from worker.consumer import JobConsumers
from worker.intake import Intake


def test_a_lost_connection_is_polled_no_longer(
    client: redis.Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake((WEBHOOKS,), frozenset(), lambda: 1)
    monkeypatch.setattr(process, "_running", SimpleNamespace(intakes=[intake]))
    app = make_celery(valkey_url)
    app.steps["consumer"].add(JobConsumers)

    def consumes(n_lost: int) -> bool:
        waiting = [one for one in client.client_list() if one["cmd"] == "brpop"]
        return worker.consumer.restart_count == n_lost and len(waiting) == 1

    with start_worker(app, pool="worker.consumer:ThreadPool", perform_ping_check=False) as worker:
        for n_lost in range(2):
            eventually(lambda n_lost=n_lost: consumes(n_lost))  # type: ignore[misc]
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
        eventually(lambda: consumes(2))
        assert len(worker.hub.on_tick) == 1
