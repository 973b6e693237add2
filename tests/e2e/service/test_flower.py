"""Flower, started as in deploy/flower: each job is there under its own name and id, with its outcome and runtime."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.jobs.celery_config import QUEUES, TASKS
from shared.jobs.contract import JobKind, Priority
from shared.jobs.store import JobStore
from tests import ROOT
from tests.e2e.conftest import eventually
from tests.e2e.support.held_fleet import HeldFleet, held_fleet
from tests.support.ports import free_port

LOGIN = ("lookalike", "of-the-test")
N_PHOTOS = 104
SHARD_PHOTOS = 4


@pytest.fixture(scope="module")
def fleet(home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldFleet]:
    with held_fleet(home, catalogue, tmp_path_factory.mktemp("flower"), celery_events=1, worker_beat=0) as fleet:
        fleet.start("api")
        fleet.start("held")
        fleet.wait_ready()
        yield fleet


class Flower:
    """What Flower answers at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: object) -> requests.Response:
        return requests.get(self.url + path, auth=LOGIN, params={**query}, timeout=10)  # type: ignore[arg-type]

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Every task it knows, by id."""
        found: dict[str, dict[str, Any]] = self.get("/api/tasks", limit=1000).json()
        return found

    def has_ended(self, *job_ids: str) -> bool:
        tasks = self.tasks()
        return all(job_id in tasks and tasks[job_id]["state"] not in ("RECEIVED", "STARTED") for job_id in job_ids)


@pytest.fixture(scope="module")
def flower(fleet: HeldFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / "lookalike_redis_url").write_text(fleet.redis_url)
    (secrets / "flower_password").write_text(LOGIN[1])
    port = free_port()
    started = subprocess.Popen(
        ["sh", "start.sh", secrets, "--address=127.0.0.1", f"--port={port}"],
        cwd=ROOT / "deploy/flower",
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    try:
        found = Flower(f"http://127.0.0.1:{port}")
        eventually(lambda: found.get("/healthcheck").text == "OK", 30, "Flower answers")
        eventually(lambda: found.get("/api/workers", refresh=1).json(), 30, "Flower has found the worker")
        yield found
    finally:
        started.terminate()
        started.wait(20)


def test_jobs_are_shown_under_their_names_and_ids_with_outcome_and_runtime(
    fleet: HeldFleet, flower: Flower, photos: list[Path]
) -> None:
    good = fleet.submit(JobKind.SEARCH, photos[0])
    bulk = fleet.submit(JobKind.EMBED, photos[1], priority="bulk")
    bad = fleet.submit(JobKind.SEARCH, image_id="no-such-photo")
    eventually(lambda: flower.has_ended(good, bulk, bad), 20, "Flower knows how they ended")
    fleet.hold("photos")
    canceled = fleet.submit(JobKind.SEARCH, photos[2])
    eventually(lambda: flower.tasks().get(canceled, {}).get("state") == "STARTED", 20, "Flower shows it running")
    assert requests.post(f"{fleet.url}/v1/jobs/{canceled}/cancel", timeout=10).status_code == 202
    fleet.release()
    eventually(lambda: flower.has_ended(canceled), 20, "Flower knows that it was")
    tasks = flower.tasks()
    told = {job_id: (tasks[job_id]["name"], tasks[job_id]["state"]) for job_id in (good, bulk, bad, canceled)}
    assert told == {
        good: (TASKS[JobKind.SEARCH], "SUCCESS"),
        bulk: (TASKS[JobKind.EMBED], "SUCCESS"),
        bad: (TASKS[JobKind.SEARCH], "FAILURE"),
        canceled: (TASKS[JobKind.SEARCH], "REVOKED"),
    }
    assert set(tasks) == set(told)  # no token is among them
    assert 0 < tasks[good]["runtime"] < 20
    assert tasks[good]["args"] == f"('{good}',)"
    assert "succeeded" in tasks[good]["result"]
    assert "the live index has no photo" in tasks[bad]["exception"]
    page = flower.get(f"/task/{good}").text
    assert TASKS[JobKind.SEARCH] in page
    assert "SUCCESS" in page
    listed = flower.get(
        "/tasks/datatable",
        **{
            "draw": 1,
            "start": 0,
            "length": 10,
            "order[0][column]": 0,
            "columns[0][data]": "name",
            "order[0][dir]": "asc",
        },
    )
    assert {row["uuid"] for row in listed.json()["data"]} == set(told)  # what fills the table of the next
    assert "tasks-table" in flower.get("/tasks").text


def test_a_reindex_is_shown_with_each_of_its_shards(fleet: HeldFleet, flower: Flower) -> None:
    job_id = fleet.submit(JobKind.REINDEX, mode="all")
    eventually(lambda: fleet.status(job_id) == "succeeded", 60, "the reindex ends")
    eventually(lambda: flower.has_ended(job_id), 20, "Flower knows that")
    tasks = flower.tasks()
    assert (tasks[job_id]["name"], tasks[job_id]["state"]) == (TASKS[JobKind.REINDEX], "SUCCESS")
    shards = [task for task in tasks.values() if task["name"] == TASKS[JobKind.SHARD]]
    assert {task["state"] for task in shards} == {"SUCCESS"}
    assert len(shards) == N_PHOTOS / SHARD_PHOTOS
    assert sum(task["runtime"] for task in shards) > tasks[job_id]["runtime"] / 4


def test_a_reindex_that_is_cancelled_is_shown_as_revoked_with_its_shards(fleet: HeldFleet, flower: Flower) -> None:
    before = set(flower.tasks())
    fleet.hold("shards")
    job_id = fleet.submit(JobKind.REINDEX, mode="all")
    eventually(lambda: fleet.n_running() == 3, 30, "two shards are in hand")
    assert requests.post(f"{fleet.url}/v1/jobs/{job_id}/cancel", timeout=10).status_code == 202
    eventually(lambda: fleet.status(job_id) == "canceled", 20, "it is cancelled")
    fleet.release()

    def told() -> set[tuple[str, str]]:
        return {(task["name"], task["state"]) for key, task in flower.tasks().items() if key not in before}

    revoked = {(TASKS[JobKind.REINDEX], "REVOKED"), (TASKS[JobKind.SHARD], "REVOKED")}
    eventually(lambda: told() == revoked, 20, "Flower knows of all that they were")


def test_workers_and_queues_are_shown_and_nothing_can_be_done(fleet: HeldFleet, flower: Flower) -> None:
    [(name, worker)] = flower.get("/api/workers", refresh=1).json().items()
    assert set(worker["registered"]) >= set(TASKS.values())
    assert {queue["name"] for queue in worker["active_queues"]} >= {*QUEUES.values(), "reindex", "shards", "webhooks"}
    lengths = flower.get("/api/queues/length").json()["active_queues"]
    assert {queue["name"] for queue in lengths} >= {QUEUES[Priority.INTERACTIVE], "reindex"}
    assert requests.get(flower.url + "/api/tasks", timeout=10).status_code == 401
    refused = requests.post(f"{flower.url}/api/worker/shutdown/{name}", auth=LOGIN, timeout=10)
    assert refused.status_code == 403
    assert fleet.alive("held")
    with fleet.client() as client:
        assert JobStore(client).depth() == 0
