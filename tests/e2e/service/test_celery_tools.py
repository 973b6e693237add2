"""Celery's own tools against the real service: inspect, control, a worker and a beat started by `celery`."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.jobs.celery_config import ALL_QUEUES, DELIVER_WEBHOOK, RUN_QUEUED, TASKS, make_celery
from shared.jobs.contract import JobKind
from shared.jobs.records import QueueName
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from tests.e2e.conftest import eventually
from tests.e2e.support.celery_cli import CELERY, celery, inspect
from tests.e2e.support.held_fleet import HeldFleet, held_fleet

N_THREADS = 22
N_SEARCHES = 20
N_SHARDS_AT_A_TIME = 2
YEARLY = "0 0 1 1 *"


@pytest.fixture(scope="module")
def fleet(home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldFleet]:
    settings = {"worker_beat": 0, "worker_threads": N_THREADS, "celery_events": 1}
    with held_fleet(home, catalogue, tmp_path_factory.mktemp("tools"), **settings) as fleet:
        fleet.start("api")
        yield fleet


@pytest.fixture
def held(fleet: HeldFleet) -> Iterator[HeldFleet]:
    """The held worker is ready and has nothing to do."""
    if not fleet.alive("held"):
        fleet.start("held")
    fleet.wait_ready()
    yield fleet
    fleet.release()
    eventually(lambda: not fleet.n_running(), 30, "nothing is left in hand")


@pytest.fixture
def alone(fleet: HeldFleet) -> HeldFleet:
    """No worker is there."""
    if fleet.alive("held"):
        assert fleet.kill("held", signal.SIGTERM) == 0
    return fleet


def test_what_is_in_hand_is_listed_under_the_names_and_ids_of_the_jobs(held: HeldFleet, photos: list[Path]) -> None:
    held.hold("photos", "shards")
    reindex = held.submit(JobKind.REINDEX, mode="all")
    searches = [held.submit(JobKind.SEARCH, photo) for photo in photos[:N_SEARCHES]]
    eventually(lambda: held.n_running() == N_SEARCHES + 1 + N_SHARDS_AT_A_TIME, 30, "all are in hand")
    [active] = inspect(held, "active").values()
    ids: dict[str, list[str]] = {}
    for request in active:
        ids.setdefault(request["name"], []).append(request["id"])
    shards = ids.pop(TASKS[JobKind.SHARD])
    assert {name: sorted(found) for name, found in ids.items()} == {
        TASKS[JobKind.SEARCH]: sorted(searches),
        TASKS[JobKind.REINDEX]: [reindex],
    }
    assert len(shards) == N_SHARDS_AT_A_TIME
    assert {held.status(shard) for shard in shards} == {"running"}
    assert all(request["args"] == [request["id"]] and request["time_start"] for request in active)
    held.release()
    eventually(lambda: {held.status(job_id) for job_id in [reindex, *searches]} == {"succeeded"}, 40, "all succeed")


def test_inspect_tells_of_a_worker_what_it_is(held: HeldFleet) -> None:
    commands = ["ping", "active", "registered", "stats", "active_queues", "report"]
    with make_celery(held.redis_url) as app:  # what `celery inspect` calls
        told = {command: getattr(app.control.inspect(limit=1), command)() for command in commands}
    [name] = {name for answers in told.values() for name in answers}
    with held.client() as client:
        [worker] = WorkerRegistry(client).live()
    assert name == f"celery@{worker.name}"
    by_command = {command: answers[name] for command, answers in told.items()}
    assert by_command["ping"] == {"ok": "pong"}
    assert by_command["active"] == []
    assert {*TASKS.values(), RUN_QUEUED, DELIVER_WEBHOOK} <= set(by_command["registered"])
    assert {queue["name"] for queue in by_command["active_queues"]} >= set(ALL_QUEUES)
    stats = by_command["stats"]
    assert stats["pid"] == worker.pid
    assert stats["pool"]["max-concurrency"] >= N_THREADS
    assert "celery:5.7" in by_command["report"]["ok"]


def test_revoke_cancels_jobs_that_wait_and_jobs_that_run(held: HeldFleet, photos: list[Path]) -> None:
    held.hold("photos")
    searches = [held.submit(JobKind.SEARCH, photo) for photo in photos[: N_THREADS + 2]]
    eventually(lambda: held.n_running() == N_THREADS, 30, "every thread has a job")
    by_status = {held.status(job_id): job_id for job_id in searches}
    waiting, running = by_status["queued"], by_status["running"]
    revoked = celery(held, "control", "revoke", waiting, running)
    assert revoked.returncode == 0, revoked.stdout + revoked.stderr
    assert f"canceled: {waiting}, {running}" in revoked.stdout
    assert held.status(waiting) == "canceled"
    held.release()
    eventually(lambda: held.status(running) == "canceled", 20, "the running one is cancelled")
    left = set(searches) - {waiting, running}
    eventually(lambda: {held.status(job_id) for job_id in left} == {"succeeded"}, 30, "the others succeed")


def test_revoke_cancels_a_reindex_with_its_shards(held: HeldFleet) -> None:
    held.hold("shards")
    reindex = held.submit(JobKind.REINDEX, mode="all")
    eventually(lambda: held.n_running() == 1 + N_SHARDS_AT_A_TIME, 30, "shards are in hand")
    with held.client() as client:
        shards = [key.decode().rpartition(":")[2] for key in client.zrange("lookalike:running", 0, -1)]
        shards += JobStore(client).waiting(QueueName.SHARD, for_s=-60)
    shards.remove(reindex)
    assert len(shards) > N_SHARDS_AT_A_TIME
    with make_celery(held.redis_url) as app:
        [answer] = app.control.revoke(reindex, reply=True)
    assert next(iter(answer.values())) == {"ok": f"canceled: {reindex}; unknown or ended: none"}
    held.release()
    eventually(lambda: held.status(reindex) == "canceled", 20, "the reindex is cancelled")
    eventually(lambda: {held.status(shard) for shard in shards} == {"canceled"}, 20, "its shards are too")


def test_shutdown_ends_a_worker_after_what_it_has_in_hand(held: HeldFleet, photos: list[Path]) -> None:
    held.hold("photos")
    job_id = held.submit(JobKind.SEARCH, photos[0])
    eventually(lambda: held.status(job_id) == "running", 20, "it runs")
    waiting = [held.submit(JobKind.SEARCH, photo) for photo in photos[:N_THREADS]][-1]
    asked = celery(held, "control", "shutdown")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert held.alive("held")
    held.release()
    assert held.processes["held"].wait(30) == 0
    assert (held.status(job_id), held.status(waiting)) == ("succeeded", "queued")
    with held.client() as client:
        assert WorkerRegistry(client).live() == []


def test_a_worker_started_by_celery_serves_and_takes_from_the_queues_it_is_given(
    alone: HeldFleet, photos: list[Path]
) -> None:
    bulk = alone.submit(JobKind.SEARCH, photos[1], priority="bulk")
    worker = alone.launch("celery", [*CELERY, "worker", "-Q", "interactive"])
    alone.wait_ready()
    interactive = alone.submit(JobKind.SEARCH, photos[0])
    eventually(lambda: alone.status(interactive) == "succeeded", 20, "a search is served")
    [queues] = inspect(alone, "active_queues").values()
    assert {queue["name"] for queue in queues} & set(ALL_QUEUES) == {"interactive"}
    assert alone.status(bulk) == "queued"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    alone.start("held")
    eventually(lambda: alone.status(bulk) == "succeeded", 60, "a worker of all queues takes the other")


def test_a_worker_without_a_queue_to_read_says_so_and_ends(alone: HeldFleet) -> None:
    ended = celery(alone, "worker", "-Q", "bulk", worker_takes="interactive")
    assert ended.returncode == 1
    assert "worker: none of the queues bulk is for this worker" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_beat_submits_the_reindex_that_is_due(held: HeldFleet) -> None:
    with held.client() as client:
        client.hset("lookalike:schedule", mapping={"cron": YEARLY, "slot": "0.0", "job": ""})
        beat = held.launch("beat", [*CELERY, "beat"], reindex_cron=YEARLY)
        eventually(lambda: client.hget("lookalike:schedule", "job"), 30, "beat takes the slot")
        job_id = (client.hget("lookalike:schedule", "job") or b"").decode()
    eventually(lambda: held.status(job_id) == "succeeded", 30, "the reindex ends")
    with held.client() as client:
        job = JobStore(client).get(job_id)
    assert (job.kind, job.request_id) == (JobKind.REINDEX, "schedule")
    beat.send_signal(signal.SIGTERM)
    assert beat.wait(20) == 0
