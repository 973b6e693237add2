"""Claim, call, finish on a real Valkey, with an engine made for the test; and the engine on damaged artifacts."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
import redis
from kombu.exceptions import OperationalError

from shared.errors import ImageNotFound, QueueUnavailable
from shared.jobs.celery_config import QUEUES, make_celery
from shared.jobs.contract import (
    EmbedRequest,
    EmbedResult,
    Job,
    JobKind,
    JobResult,
    JobStatus,
    PhotoRequest,
    PhotoResult,
    Priority,
    Submission,
)
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import QueueName
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.photos.preprocessing import PreprocessSpec
from shared.settings import Settings, WorkerTakes
from tests.conftest import Clock
from tests.integration.conftest import PLENTY, eventually, settings
from tests.integration.jobs.test_store import RESULT
from worker.jobs.runner import JobRunner, Leases
from worker.process import Heartbeat, run_worker
from worker.serving.engine import Engine
from worker.serving.micro_batcher import BatchLimits, MicroBatcher


class FakeEngine(Engine):
    """Answers what the test says."""

    def __init__(self, answer: Callable[[], PhotoResult]) -> None:
        super().__init__(Path("/nonexistent"))
        self._answer = answer
        self.calls = 0

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
        self.calls += 1
        return self._answer()


@pytest.fixture
def jobs(client: redis.Redis) -> JobStore:
    return JobStore(client)


def runner(jobs: JobStore, engine: Engine, leases: Leases | None = None) -> JobRunner:
    return JobRunner(jobs, engine, leases or Leases(), worker="w1", lease_s=15)


def submit(jobs: JobStore) -> Job:
    return jobs.create(JobKind.EMBED, EmbedRequest(), b"pixels", admission=PLENTY)[0]


def test_a_result_is_stored_with_its_timings(jobs: JobStore) -> None:
    job = submit(jobs)
    runner(jobs, FakeEngine(lambda: RESULT)).run_queued()
    done = jobs.get(job.id)
    assert done.status is JobStatus.SUCCEEDED
    assert isinstance(done.result, EmbedResult)
    timing = done.result.timing_ms
    assert timing is not None
    assert 0 <= timing.compute <= timing.total
    assert done.result.scores == RESULT.scores


def test_a_message_delivered_twice_runs_the_model_once(jobs: JobStore) -> None:
    job, engine = submit(jobs), FakeEngine(lambda: RESULT)
    for _ in range(2):
        runner(jobs, engine).run_queued()
    assert engine.calls == 1
    assert jobs.get(job.id).attempt == 1


def test_an_error_raised_on_purpose_is_the_jobs_error(jobs: JobStore) -> None:
    def refuse() -> PhotoResult:
        raise ImageNotFound("the live index has no photo of that id")

    job = submit(jobs)
    runner(jobs, FakeEngine(refuse)).run_queued()
    error = jobs.get(job.id).error
    assert error is not None
    assert (error.code, error.retryable) == ("image_not_found", False)


def test_a_crash_fails_the_job_without_telling_its_inside(jobs: JobStore) -> None:
    def crash() -> PhotoResult:
        raise ZeroDivisionError("secret detail")

    job = submit(jobs)
    runner(jobs, FakeEngine(crash)).run_queued()
    done = jobs.get(job.id)
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert done.error.code == "internal_error"
    assert "secret" not in done.error.detail


def test_a_lease_is_held_exactly_while_the_job_runs(jobs: JobStore) -> None:
    leases = Leases()
    inside, leave = threading.Event(), threading.Event()

    def slow() -> PhotoResult:
        inside.set()
        assert leave.wait(10)
        return RESULT

    job = submit(jobs)
    thread = threading.Thread(target=runner(jobs, FakeEngine(slow), leases).run_queued)
    thread.start()
    assert inside.wait(10)
    assert leases.held() == [(job.id, 1)]
    leave.set()
    thread.join()
    assert leases.held() == []


class DroppingStore(JobStore):
    """Its connection breaks at the first attempt to write a result, before or after Redis has heard of it."""

    def __init__(self, client: redis.Redis, *, heard: bool) -> None:
        super().__init__(client)
        self._heard = heard
        self._dropped = False

    def succeed(self, job: Job, result: JobResult) -> JobStatus | None:
        if self._dropped:
            return super().succeed(job, result)
        self._dropped = True
        if self._heard:
            super().succeed(job, result)
        raise redis.ConnectionError("Connection closed by server.")


@pytest.mark.parametrize("heard", [False, True])
def test_a_connection_dropped_while_the_result_is_written_costs_no_attempt(client: redis.Redis, heard: bool) -> None:
    store = DroppingStore(client, heard=heard)
    job = submit(store)
    runner(store, FakeEngine(lambda: RESULT)).run_queued()
    done = store.get(job.id)
    assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 1)


def waiting_heartbeat(client: redis.Redis, url: str, *, idle_s: float) -> tuple[Heartbeat, Job]:
    """A worker no message has reached for so long, and a job that waits for one."""
    job = submit(JobStore(client, clock=lambda: time.time() - 60))
    heartbeat = Heartbeat(
        Settings.model_validate({"redis_url": url}), client, JobStore(client), FakeEngine(lambda: RESULT)
    )
    heartbeat.runner.woken_at -= idle_s
    return heartbeat, job


@pytest.mark.parametrize(("idle_s", "status"), [(0, JobStatus.QUEUED), (10, JobStatus.SUCCEEDED)])
def test_a_job_whose_message_does_not_come_is_run_unasked(
    client: redis.Redis, valkey_url: str, idle_s: float, status: JobStatus
) -> None:
    heartbeat, job = waiting_heartbeat(client, valkey_url, idle_s=idle_s)
    heartbeat.poll_stalled()
    assert JobStore(client).get(job.id).status is status


@pytest.mark.parametrize(("n_messages", "ends"), [(0, False), (5, True)])
def test_a_worker_that_no_message_reaches_ends_if_there_are_any(
    client: redis.Redis, valkey_url: str, n_messages: int, ends: bool
) -> None:
    heartbeat, _ = waiting_heartbeat(client, valkey_url, idle_s=40)
    for _ in range(n_messages):
        client.lpush(QUEUES[Priority.INTERACTIVE], b"{}")
    with mock.patch("os._exit") as exit_process:
        for _ in range(6):
            submit(JobStore(client, clock=lambda: time.time() - 60))
            heartbeat.poll_stalled()
    assert exit_process.called == ends


def test_a_redis_long_away_is_looked_for_at_a_steady_pace() -> None:
    pauses_s: list[float] = []

    def refused(_error: Exception, pause_s: float) -> None:
        pauses_s.append(pause_s)

    consumer = make_celery("redis://127.0.0.1:1/0").connection_for_read()
    with mock.patch("kombu.utils.functional.sleep"), pytest.raises(OperationalError):
        consumer.ensure_connection(refused, 40)
    assert len(pauses_s) == 40
    assert max(pauses_s) <= 2


def test_a_job_claimed_again_by_the_process_that_lost_it_keeps_its_new_lease(jobs: JobStore) -> None:
    leases = Leases()
    job = submit(jobs)
    again = job.model_copy(update={"attempt": 2})
    with leases.holding(again) as second:
        with leases.holding(job.model_copy(update={"attempt": 1})) as first:
            leases.drop({(job.id, 1)})
            assert (first.wanted, second.wanted) == (False, True)
        assert leases.held() == [(job.id, 2)]


# --- workers that do not take all ---


def submit_of(client: redis.Redis, priority: Priority, *, age_s: float = 0) -> Job:
    store = JobStore(client, clock=lambda: time.time() - age_s)
    return store.create(
        JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, submission=Submission(priority=priority)
    )[0]


def heartbeat_of(client: redis.Redis, url: str, takes: WorkerTakes, engine: Engine | None = None) -> Heartbeat:
    return Heartbeat(settings(url, worker_takes=takes), client, JobStore(client), engine or FakeEngine(lambda: RESULT))


def n_messages(client: redis.Redis) -> dict[Priority, int]:
    return {priority: int(client.llen(queue)) for priority, queue in QUEUES.items()}


@pytest.mark.parametrize("mine", Priority)
def test_a_worker_of_one_kind_of_job_runs_no_other(client: redis.Redis, valkey_url: str, mine: Priority) -> None:
    jobs = {priority: submit_of(client, priority) for priority in Priority for _ in range(2)}
    heartbeat = heartbeat_of(client, valkey_url, WorkerTakes(mine.value))
    for _ in range(4):
        heartbeat.runner.run_waiting()
    assert heartbeat.queues == [QUEUES[mine]]
    store = JobStore(client)
    ended = {priority: store.get(job.id).status.terminal for priority, job in jobs.items()}
    assert ended == {priority: priority is mine for priority in Priority}
    assert store.depth() == 2


@pytest.mark.parametrize("takes", WorkerTakes)
def test_every_worker_runs_suspects_and_each_alone(client: redis.Redis, valkey_url: str, takes: WorkerTakes) -> None:
    suspect = submit_suspect(client, "somebody")
    assert heartbeat_of(client, valkey_url, takes).runner.run_waiting()
    assert JobStore(client).get(suspect.id).status is JobStatus.SUCCEEDED


def test_lost_messages_are_replaced_where_they_are_missing(client: redis.Redis, valkey_url: str) -> None:
    celery, store = make_celery(valkey_url, socket_timeout_s=2), JobStore(client)
    for priority in [Priority.BULK, Priority.BULK, Priority.INTERACTIVE]:
        submit_of(client, priority, age_s=60)
    Dispatcher(celery, client).send_token()
    assert Dispatcher(celery, client).republish_lost(store) == 2
    assert n_messages(client) == {Priority.INTERACTIVE: 1, Priority.BULK: 2}


def test_an_interactive_worker_with_bulk_messages_about_is_not_deaf(client: redis.Redis, valkey_url: str) -> None:
    heartbeat = heartbeat_of(client, valkey_url, WorkerTakes.INTERACTIVE)
    heartbeat.runner.woken_at -= 60
    client.lpush(QUEUES[Priority.BULK], b"{}")
    with mock.patch("os._exit") as exit_process:
        for _ in range(7):
            submit_of(client, Priority.BULK, age_s=60)
            heartbeat.poll_stalled()
    assert not exit_process.called


# --- alone ---


class Rooms(FakeEngine):
    """Runs a job until the test lets it go, and knows which are being run."""

    def __init__(self) -> None:
        super().__init__(lambda: RESULT)
        self.inside: dict[str, threading.Event] = {}
        self.ran: list[str] = []

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
        leave = threading.Event()
        self.inside[owner] = leave
        assert leave.wait(20)
        del self.inside[owner]
        self.ran.append(owner)
        return RESULT


def submit_suspect(client: redis.Redis, owner: str) -> Job:
    """A job whose workers died in every attempt but the last."""
    clock = Clock()
    clock.now = time.time()
    store = JobStore(client, clock=clock)
    job = store.create(JobKind.EMBED, EmbedRequest(), b"pixels", admission=PLENTY, owner=owner).job
    for _ in range(2):
        assert store.claim("dying", lease_s=0.1)
        clock.now += 1
        assert store.reap(max_attempts=3).requeued == [job.id]
    return job


def in_thread(made: JobRunner) -> threading.Thread:
    thread = threading.Thread(target=made.run_waiting, daemon=True)
    thread.start()
    return thread


def test_a_suspect_is_run_with_nothing_else_in_hand_and_others_wait_for_it(jobs: JobStore, client: redis.Redis) -> None:
    engine = Rooms()
    made = runner(jobs, engine)
    jobs.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner="early")
    threads = [in_thread(made)]
    eventually(lambda: set(engine.inside) == {"early"})
    submit_suspect(client, "suspect")
    threads.append(in_thread(made))
    eventually(lambda: made._lock._n_wanting_alone)
    jobs.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner="late")
    threads.append(in_thread(made))
    time.sleep(0.1)
    assert set(engine.inside) == {"early"}  # neither beside it
    engine.inside["early"].set()
    eventually(lambda: set(engine.inside) == {"suspect"})
    time.sleep(0.1)
    assert set(engine.inside) == {"suspect"}
    engine.inside["suspect"].set()
    eventually(lambda: set(engine.inside) == {"late"})
    engine.inside["late"].set()
    for thread in threads:
        thread.join(10)
    assert engine.ran == ["early", "suspect", "late"]
    assert jobs.depth() == 0


def test_who_came_for_a_suspect_another_worker_took_runs_the_next_job(jobs: JobStore, client: redis.Redis) -> None:
    engine = Rooms()
    made = runner(jobs, engine)
    jobs.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner="early")
    threads = [in_thread(made)]
    eventually(lambda: set(engine.inside) == {"early"})
    submit_suspect(client, "suspect")
    threads.append(in_thread(made))
    eventually(lambda: made._lock._n_wanting_alone)
    assert jobs.claim("another", lease_s=15, only=QueueName.QUARANTINE)
    jobs.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner="late")
    engine.inside["early"].set()
    eventually(lambda: set(engine.inside) == {"late"})
    engine.inside["late"].set()
    for thread in threads:
        thread.join(10)
    assert engine.ran == ["early", "late"]


# --- the heartbeat ---


class Batching(FakeEngine):
    """A model behind the real batcher, which runs when the test opens it."""

    def __init__(self) -> None:
        super().__init__(lambda: RESULT)
        self.open, self.passes = threading.Event(), list[bytes]()
        self.batcher: MicroBatcher[bytes, PhotoResult] = MicroBatcher(
            self._pass, limits=BatchLimits(max_batch=1), on_hang=lambda: None
        )

    def _pass(self, items: Sequence[bytes], exclusive: bool) -> list[PhotoResult]:
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
    jobs: JobStore, client: redis.Redis, valkey_url: str, how: str
) -> None:
    engine = Batching()
    heartbeat = Heartbeat(settings(valkey_url), client, jobs, engine)
    first = jobs.create(JobKind.EMBED, EmbedRequest(), b"first", admission=PLENTY).job
    threads = [in_thread(heartbeat.runner)]
    eventually(lambda: engine.passes)
    deadline = Submission(deadline_s=0.3 if how == "expired" else None)
    second = jobs.create(JobKind.EMBED, EmbedRequest(), b"second", admission=PLENTY, submission=deadline).job
    threads.append(in_thread(heartbeat.runner))
    eventually(engine.batcher._n_waiting)
    if how == "canceled":
        assert jobs.cancel(second.id).status is JobStatus.CANCELING
    else:
        time.sleep(0.35)
        assert jobs.get(second.id).status is JobStatus.EXPIRED
    heartbeat.beat()
    engine.open.set()
    for thread in threads:
        thread.join(10)
    engine.batcher.close()
    assert engine.passes == [b"first"]
    assert (jobs.get(first.id).status, jobs.get(second.id).status) == (JobStatus.SUCCEEDED, JobStatus(how))
    ended = heartbeat.runner.counts.outcomes()
    assert ended == {"succeeded": 1, "canceled" if how == "canceled" else "late": 1}


def test_a_message_that_cannot_be_sent_is_told_at_once(client: redis.Redis) -> None:
    publisher = make_celery("redis://127.0.0.1:1/0", socket_timeout_s=2)
    with mock.patch("kombu.utils.functional.sleep") as pause, pytest.raises(QueueUnavailable):
        Dispatcher(publisher, client).send_token()
    assert not pause.called


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

    def look(engine: Engine) -> None:
        if next(looks):  # the first is at the start
            beaten = {worker.reported_at for worker in registry.live()}
            eventually(lambda: {worker.reported_at for worker in registry.live()} - beaten != set())
            raise SystemExit(0)

    monkeypatch.setattr(Engine, "refresh", look)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            run_worker(Settings.model_validate({"redis_url": valkey_url, "home": tmp_path}))
    finally:
        signal.signal(signal.SIGTERM, before)


# A signal that arrives in a callback of a weak reference: Python ignores what its handler raises.
_ASKED_IN_A_CALLBACK = """
import os, signal, weakref
from shared.settings import load_settings
from worker.process import Heartbeat, run_worker

def start_lines(heartbeat):
    dying = set()
    heartbeat.kept = weakref.ref(dying, lambda _: os.kill(os.getpid(), signal.SIGTERM))

Heartbeat.start_lines = start_lines
raise SystemExit(run_worker(load_settings()))
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
    assert "Exception ignored in" in ended.stderr
    assert ended.returncode == 0, ended.stderr


def test_one_message_has_all_that_waits_done_until_the_worker_is_asked_to_stop(client: redis.Redis) -> None:
    store, stop_after = JobStore(client), itertools.count()
    for _ in range(3):
        submit(store)
    JobRunner(store, FakeEngine(lambda: RESULT), Leases(), worker="w", lease_s=15).run_queued()
    assert store.depth() == 0
    for _ in range(3):
        submit(store)
    stopping = JobRunner(
        store, FakeEngine(lambda: RESULT), Leases(), worker="w", lease_s=15, stopping=lambda: next(stop_after) == 1
    )
    stopping.run_queued()
    assert store.depth() == 1


def test_who_obeys_a_message_while_more_jobs_wait_wakes_one_other(client: redis.Redis) -> None:
    store, woken = JobStore(client), list[str]()
    runner = JobRunner(
        store,
        FakeEngine(lambda: RESULT),
        Leases(),
        worker="w",
        lease_s=15,
        wake=lambda job: woken.append(job.id),
    )
    for n_waiting, n_woken in ((1, 0), (5, 1)):
        for _ in range(n_waiting):
            submit(store)
        woken.clear()
        runner.run_queued()
        assert store.depth() == 0
        assert len(woken) == n_woken


def test_no_more_messages_are_sent_than_workers_could_need(client: redis.Redis, valkey_url: str) -> None:
    publisher = make_celery(valkey_url)
    for n_sent in range(1, 41):
        Dispatcher(publisher, client).send_token()
        assert client.llen(QUEUES[Priority.INTERACTIVE]) == min(n_sent, 16)
