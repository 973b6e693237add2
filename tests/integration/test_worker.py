"""Claim, call, finish on a real Valkey, with an engine made for the test; and the engine on damaged artifacts."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from shared.errors import ImageNotFound
from shared.jobs import EmbedRequest, EmbedResult, Job, JobKind, JobRequest, JobResult, JobStatus, Priority
from shared.store.jobs import JobStore
from tests.integration.conftest import PLENTY
from tests.integration.test_job_store import RESULT
from worker.engine import Engine
from worker.tasks import JobRunner, Leases


class FakeEngine(Engine):
    """Answers what the test says."""

    def __init__(self, answer: Callable[[], JobResult]) -> None:
        super().__init__(Path("/nonexistent"))
        self._answer = answer
        self.calls = 0

    def run(
        self,
        request: JobRequest,
        pixels: bytes | None,
        *,
        priority: Priority = Priority.INTERACTIVE,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> JobResult:
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
    runner(jobs, FakeEngine(lambda: RESULT)).run_next()
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
        runner(jobs, engine).run_next()
    assert engine.calls == 1
    assert jobs.get(job.id).attempt == 1


def test_an_error_raised_on_purpose_is_the_jobs_error(jobs: JobStore) -> None:
    def refuse() -> JobResult:
        raise ImageNotFound("the live index has no photo of that id")

    job = submit(jobs)
    runner(jobs, FakeEngine(refuse)).run_next()
    error = jobs.get(job.id).error
    assert error is not None
    assert (error.code, error.retryable) == ("image_not_found", False)


def test_a_crash_fails_the_job_without_telling_its_inside(jobs: JobStore) -> None:
    def crash() -> JobResult:
        raise ZeroDivisionError("secret detail")

    job = submit(jobs)
    runner(jobs, FakeEngine(crash)).run_next()
    done = jobs.get(job.id)
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert done.error.code == "internal_error"
    assert "secret" not in done.error.detail


def test_a_lease_is_held_exactly_while_the_job_runs(jobs: JobStore) -> None:
    leases = Leases()
    inside, leave = threading.Event(), threading.Event()

    def slow() -> JobResult:
        inside.set()
        assert leave.wait(10)
        return RESULT

    job = submit(jobs)
    thread = threading.Thread(target=runner(jobs, FakeEngine(slow), leases).run_next)
    thread.start()
    assert inside.wait(10)
    assert leases.held() == [(job.id, 1)]
    leave.set()
    thread.join()
    assert leases.held() == []


def test_an_engine_without_artifacts_is_not_ready_and_says_why(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.refresh()
    assert not engine.ready
    assert engine.info() is None
    assert "index build" in str(engine.problem)
