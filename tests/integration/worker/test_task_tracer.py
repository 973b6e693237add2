"""Claimed jobs as Celery's tasks on a real Valkey: its signals, its list of what runs, and its events know each."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery, signals
from celery.worker import state

from shared.errors import ImageNotFound
from shared.jobs.celery_config import QUEUES, RUN_QUEUED, TASKS, make_celery
from shared.jobs.contract import EmbedRequest, Job, JobKind, JobStatus, PhotoResult, Priority
from shared.jobs.records import Claim
from shared.jobs.store import JobStore
from tests.conftest import Clock
from tests.integration.conftest import PLENTY
from tests.support.jobs import RESULT, create
from tests.support.runners import FakeEngine
from worker import process
from worker.jobs.leases import Leases
from worker.jobs.runner import JobRunner
from worker.jobs.task_tracer import TaskTracer
from worker.serving.engine import ArtifactNotReady
from worker.tasks.registry import register_tasks

NAME = TASKS[JobKind.EMBED]


class Tasks:
    """What Celery's signals and events told, by task id."""

    def __init__(self) -> None:
        self.signals: list[tuple[str, str, str]] = []  # signal, task and its id
        self.state = ""  # as `task_postrun` told it last
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.enabled, self.groups = True, set[str]()  # as of Celery's dispatcher of events

    def prerun(self, task_id: str, task: Any, args: Any, **_: Any) -> None:
        assert args == (task_id.partition(".")[0],)
        self.signals.append(("prerun", task.name, task_id))

    def success(self, sender: Any, result: str, **_: Any) -> None:
        self.signals.append((f"success: {result}", sender.name, sender.request.id))

    def failure(self, sender: Any, task_id: str, exception: Exception, **_: Any) -> None:
        self.signals.append((f"failure: {exception}", sender.name, task_id))

    def postrun(self, task_id: str, task: Any, **told: Any) -> None:
        self.state = told["state"]
        self.signals.append(("postrun", task.name, task_id))

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    tasks = Tasks()
    listened = [
        (signals.task_prerun, tasks.prerun),
        (signals.task_success, tasks.success),
        (signals.task_failure, tasks.failure),
        (signals.task_postrun, tasks.postrun),
    ]
    for signal, listener in listened:
        signal.connect(listener)
    yield tasks
    for signal, listener in listened:
        signal.disconnect(listener)


@pytest.fixture
def app(valkey_url: str) -> Celery:
    app = make_celery(valkey_url, socket_timeout_s=2)
    register_tasks(app)
    return app


@pytest.fixture
def runner_of(app: Celery, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobRunner]:
    """A worker's runner and tracer, by how its engine answers; the rest of the worker is not there."""

    def make(store: JobStore, answer: Callable[[], PhotoResult]) -> JobRunner:
        tracer = TaskTracer(app)
        tracer.hostname, tracer.eventer = "w1@here", lambda: tasks
        runner = JobRunner(store, FakeEngine(answer), Leases(), worker="w1", lease_s=15, tracer=tracer)

        class Worker:
            pass

        worker = Worker()
        worker.__dict__.update(tracer=tracer, runner=runner, store=store)
        monkeypatch.setattr(process, "_running", worker)
        return runner

    return make


def test_a_photo_job_is_a_task_of_its_kind_under_its_own_id(
    jobs: JobStore, tasks: Tasks, runner_of: Callable[..., JobRunner]
) -> None:
    job = create(jobs)
    assert runner_of(jobs, lambda: RESULT).run_waiting()
    assert tasks.signals == [(what, NAME, job.id) for what in ("prerun", "success: succeeded", "postrun")]
    assert jobs.get(job.id).status is JobStatus.SUCCEEDED


def test_a_job_that_fails_is_a_task_that_fails_with_the_same_error(
    jobs: JobStore, tasks: Tasks, runner_of: Callable[..., JobRunner], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> PhotoResult:
        raise ImageNotFound("no photo of that id")

    job = create(jobs)
    assert runner_of(jobs, refuse).run_waiting()
    assert tasks.signals == [(what, NAME, job.id) for what in ("prerun", "failure: no photo of that id", "postrun")]
    assert (jobs.get(job.id).status, tasks.state) == (JobStatus.FAILED, "FAILURE")
    assert "Traceback" not in caplog.text  # a job that fails as jobs do is no bug


def test_a_job_cancelled_meanwhile_is_neither_a_success_nor_a_failure(
    jobs: JobStore, tasks: Tasks, runner_of: Callable[..., JobRunner]
) -> None:
    def answer_late() -> PhotoResult:
        jobs.cancel(job.id)
        return RESULT

    job = create(jobs)
    assert runner_of(jobs, answer_late).run_waiting()
    assert [what for what, *_ in tasks.signals] == ["prerun", "postrun"]
    assert (jobs.get(job.id).status, tasks.state) == (JobStatus.CANCELED, "IGNORED")
    assert [kind for kind, _ in tasks.events] == ["task-received", "task-started", "task-revoked"]


def test_a_job_handed_back_is_told_to_be_queued_again(
    jobs: JobStore, tasks: Tasks, runner_of: Callable[..., JobRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere() -> PhotoResult:
        raise ArtifactNotReady

    monkeypatch.setattr("worker.jobs.runner._ELSEWHERE_S", 0.0)
    job = create(jobs)
    assert runner_of(jobs, elsewhere).run_waiting()
    assert [what for what, *_ in tasks.signals] == ["prerun", "postrun"]
    assert (jobs.get(job.id).status, tasks.state) == (JobStatus.QUEUED, "IGNORED")
    assert tasks.events[-1] == ("task-rejected", {"uuid": job.id, "requeue": True})


def test_every_attempt_is_a_task_of_another_id(
    store: JobStore, clock: Clock, tasks: Tasks, runner_of: Callable[..., JobRunner]
) -> None:
    job = create(store)
    assert store.claim("dying", lease_s=15)
    clock.now += 16
    assert store.reap(max_attempts=3).requeued == [job.id]
    assert runner_of(store, lambda: RESULT).run_waiting()
    assert {task_id for *_, task_id in tasks.signals} == {f"{job.id}.2"}


def test_a_job_is_listed_as_active_while_it_runs_with_its_worker_and_queue(
    jobs: JobStore, runner_of: Callable[..., JobRunner]
) -> None:
    seen: list[dict[str, Any]] = []

    def look() -> PhotoResult:
        seen.extend(request.info() for request in state.active_requests)
        return RESULT

    job = create(jobs, priority="bulk")
    assert runner_of(jobs, look).run_waiting()
    [info] = seen
    assert (info["id"], info["name"], info["args"], info["hostname"]) == (job.id, NAME, (job.id,), "w1@here")
    assert info["delivery_info"]["routing_key"] == QUEUES[Priority.BULK]
    assert not state.active_requests
    assert job.id not in state.requests


def test_events_tell_flower_name_id_runtime_and_outcome(
    jobs: JobStore, tasks: Tasks, runner_of: Callable[..., JobRunner]
) -> None:
    job = create(jobs)
    assert runner_of(jobs, lambda: RESULT).run_waiting()
    assert [(kind, told["uuid"]) for kind, told in tasks.events] == [
        (kind, job.id) for kind in ("task-received", "task-started", "task-succeeded")
    ]
    assert tasks.events[0][1]["name"] == NAME
    assert tasks.events[2][1]["runtime"] >= 0
    assert "succeeded" in tasks.events[2][1]["result"]


def test_a_message_that_names_a_photo_job_runs_it_likewise(
    app: Celery, jobs: JobStore, tasks: Tasks, runner_of: Callable[..., JobRunner]
) -> None:
    job = create(jobs)
    runner_of(jobs, lambda: RESULT)
    assert app.tasks[NAME].apply(args=(job.id,), task_id=job.id).get() == "succeeded"
    assert [what for what, *_ in tasks.signals] == ["prerun", "success: succeeded", "postrun"]


def test_redis_being_away_ends_the_attempt_and_leaves_nothing_listed(
    client: redis.Redis, tasks: Tasks, runner_of: Callable[..., JobRunner], caplog: pytest.LogCaptureFixture
) -> None:
    class Dropping(JobStore):
        def succeed(self, *_: Any) -> JobStatus | None:
            raise redis.ConnectionError("away")

    store = Dropping(client)
    job: Job = store.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY).job
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("worker.jobs.retries._RETRY_WITHIN_S", 0.0)
        patched.setattr("worker.jobs.retries._RETRY_EVERY_S", 0.0)
        runner_of(store, lambda: RESULT).run_waiting()
    assert store.get(job.id).status is JobStatus.RUNNING  # until its lease is over
    assert [what for what, *_ in tasks.signals] == ["prerun", "failure: away", "postrun"]
    assert not state.active_requests
    assert "Traceback" not in caplog.text  # that Redis is away is no bug


def test_a_token_that_meets_a_broken_redis_says_so_in_a_line(
    client: redis.Redis, app: Celery, runner_of: Callable[..., JobRunner], caplog: pytest.LogCaptureFixture
) -> None:
    class Away(JobStore):
        def claim(self, *_: Any, **__: Any) -> Claim | None:
            raise redis.ConnectionError("away")

    runner_of(Away(client), lambda: RESULT)
    ended = app.tasks[RUN_QUEUED].apply()
    assert (ended.state, str(ended.result)) == ("FAILURE", "away")
    told = [record for record in caplog.records if record.name in ("celery.app.trace", "worker.tasks.registry")]
    assert "event=redis_unreachable reason='the job queue cannot be reached'" in [one.getMessage() for one in told]
    assert not any(record.exc_info for record in told)  # that Redis is away is no bug


def test_a_script_that_fails_in_redis_is_logged_as_the_bug_it_is(
    client: redis.Redis, app: Celery, runner_of: Callable[..., JobRunner], caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(JobStore):
        def claim(self, *_: Any, **__: Any) -> Claim | None:
            client.eval("return redis.call('NOTHING')", 0)
            return None

    runner_of(Wrong(client), lambda: RESULT)
    assert app.tasks[RUN_QUEUED].apply().state == "FAILURE"
    assert [record for record in caplog.records if record.name == "celery.app.trace" and record.exc_info]
