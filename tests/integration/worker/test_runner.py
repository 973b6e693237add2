"""Claim, run, finish on a real Valkey, with an engine made for the test."""

import itertools
import logging
import threading
import time
from collections.abc import Callable

import pytest
import redis
from celery.exceptions import Ignore

from shared.errors import ImageNotFound, IndexUnavailable
from shared.jobs.answers_contract import EmbedResult
from shared.jobs.contract import (
    EmbedRequest,
    Job,
    JobKind,
    JobResult,
    JobStatus,
    PhotoRequest,
    PhotoResult,
    Priority,
)
from shared.jobs.records import PREFIX, Claim, QueueName
from shared.jobs.reindex_contract import ShardRequest, ShardResult
from shared.jobs.reindex_jobs import SHARD_OWNER
from shared.jobs.store import JobStore
from shared.photos.preprocessing import PreprocessSpec
from tests.integration.conftest import PLENTY, eventually
from tests.support.jobs import RESULT, claim, create
from tests.support.runners import FakeDispatcher, FakeEngine, in_thread, runner, submit_suspect
from worker.jobs.leases import Lease, Leases
from worker.jobs.runner import JobRunner


def test_a_result_is_stored_with_its_timings(jobs: JobStore) -> None:
    job = create(jobs)
    runner(jobs, FakeEngine(lambda: RESULT)).run_queued()
    done = jobs.get(job.id)
    assert done.status is JobStatus.SUCCEEDED
    assert isinstance(done.result, EmbedResult)
    timing = done.result.timing_ms
    assert timing is not None
    assert 0 <= timing.compute <= timing.total
    assert done.result.scores == RESULT.scores


def test_a_message_delivered_twice_runs_the_model_once(jobs: JobStore) -> None:
    job, engine = create(jobs), FakeEngine(lambda: RESULT)
    for _ in range(2):
        runner(jobs, engine).run_queued()
    assert engine.calls == 1
    assert jobs.get(job.id).attempt == 1


def test_an_error_raised_on_purpose_is_the_jobs_error(jobs: JobStore) -> None:
    def refuse() -> PhotoResult:
        raise ImageNotFound("the live index has no photo of that id")

    job = create(jobs)
    runner(jobs, FakeEngine(refuse)).run_queued()
    error = jobs.get(job.id).error
    assert error is not None
    assert (error.code, error.retryable) == ("image_not_found", False)


def test_the_log_tells_why_a_job_failed(jobs: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> PhotoResult:
        raise IndexUnavailable("Milvus at http://milvus:19530 does not answer: UNAVAILABLE")

    create(jobs)
    with caplog.at_level(logging.INFO):
        runner(jobs, FakeEngine(fail)).run_queued()
    assert "outcome=index_unavailable" in caplog.text
    assert "reason='Milvus at http://milvus:19530 does not answer: UNAVAILABLE'" in caplog.text


def test_a_crash_fails_the_job_without_telling_its_inside(jobs: JobStore) -> None:
    def crash() -> PhotoResult:
        raise ZeroDivisionError("secret detail")

    job = create(jobs)
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

    job = create(jobs)
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
    job = create(store)
    runner(store, FakeEngine(lambda: RESULT)).run_queued()
    done = store.get(job.id)
    assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 1)


def test_a_job_claimed_again_by_the_process_that_lost_it_keeps_its_new_lease(jobs: JobStore) -> None:
    leases = Leases()
    job = create(jobs)
    again = job.model_copy(update={"attempt": 2})
    with leases.holding(again) as second:
        with leases.holding(job.model_copy(update={"attempt": 1})) as first:
            leases.drop({(job.id, 1)})
            assert (first.wanted, second.wanted) == (False, True)
        assert leases.held() == [(job.id, 2)]


def test_one_message_has_all_that_waits_done_until_the_worker_is_asked_to_stop(client: redis.Redis) -> None:
    store, stop_after = JobStore(client), itertools.count()
    for _ in range(3):
        create(store)
    runner(store, FakeEngine(lambda: RESULT)).run_queued()
    assert store.depth() == 0
    for _ in range(3):
        create(store)
    dispatcher = FakeDispatcher(asked_to_stop=lambda: next(stop_after) == 1)
    runner(store, FakeEngine(lambda: RESULT), dispatcher=dispatcher).run_queued()
    assert store.depth() == 1


def test_who_obeys_a_message_while_more_jobs_wait_wakes_one_other(client: redis.Redis) -> None:
    store, dispatcher = JobStore(client), FakeDispatcher()
    made = runner(store, FakeEngine(lambda: RESULT), dispatcher=dispatcher)
    for n_waiting, n_woken in ((1, 0), (5, 1)):
        for _ in range(n_waiting):
            create(store)
        dispatcher.dispatched.clear()
        made.run_queued()
        assert store.depth() == 0
        assert len(dispatcher.dispatched) == n_woken


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


def test_a_suspect_is_run_with_nothing_else_in_hand_and_others_wait_for_it(jobs: JobStore, client: redis.Redis) -> None:
    engine = Rooms()
    made = runner(jobs, engine)
    jobs.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner="early")
    threads = [in_thread(made)]
    eventually(lambda: set(engine.inside) == {"early"})
    submit_suspect(client, "suspect")
    threads.append(in_thread(made))
    eventually(lambda: made._lock._n_writers_waiting)
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


def test_a_shard_waits_unclaimed_while_a_quarantined_job_is_run(jobs: JobStore, client: redis.Redis) -> None:
    engine, ran = Rooms(), list[str]()

    def run_shard(claim: Claim, _: Lease) -> ShardResult:
        ran.append(claim.job.id)
        return ShardResult(name="s")

    made = JobRunner(jobs, engine, Leases(), worker="w1", lease_s=15, handlers={JobKind.SHARD: run_shard})
    request = ShardRequest(bundle_version="b", scope="known", photos=())
    shard = jobs.create(JobKind.SHARD, request, None, admission=PLENTY, owner=SHARD_OWNER).job
    submit_suspect(client, "suspect")
    alone = in_thread(made)
    eventually(lambda: set(engine.inside) == {"suspect"})
    beside = threading.Thread(target=made.run_job, args=[shard.id])
    beside.start()
    time.sleep(0.1)
    assert (jobs.get(shard.id).status, ran) == (JobStatus.QUEUED, [])  # nor is it lost with a worker that dies now
    engine.inside["suspect"].set()
    for thread in (alone, beside):
        thread.join(10)
    assert (jobs.get(shard.id).status, ran) == (JobStatus.SUCCEEDED, [shard.id])


@pytest.mark.parametrize("what", ["unknown", "expired", "in hand"])
def test_a_message_that_names_a_job_that_is_not_queued_is_passed_over(
    jobs: JobStore, client: redis.Redis, what: str
) -> None:
    job, engine = create(jobs), FakeEngine(lambda: RESULT)
    if what == "unknown":
        client.flushall()
    elif what == "expired":
        client.delete(f"{PREFIX}job:{job.id}")  # as its TTL will
    else:
        claim(jobs, job)
    with pytest.raises(Ignore):
        runner(jobs, engine).run_job(job.id)
    assert engine.calls == 0


def test_who_came_for_a_suspect_another_worker_took_runs_the_next_job(jobs: JobStore, client: redis.Redis) -> None:
    engine = Rooms()
    made = runner(jobs, engine)
    jobs.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner="early")
    threads = [in_thread(made)]
    eventually(lambda: set(engine.inside) == {"early"})
    submit_suspect(client, "suspect")
    threads.append(in_thread(made))
    eventually(lambda: made._lock._n_writers_waiting)
    assert jobs.claim("another", lease_s=15, only=QueueName.QUARANTINE)
    jobs.create(JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner="late")
    engine.inside["early"].set()
    eventually(lambda: set(engine.inside) == {"late"})
    engine.inside["late"].set()
    for thread in threads:
        thread.join(10)
    assert engine.ran == ["early", "late"]


def test_bulk_jobs_leave_a_thread_for_an_interactive_one(jobs: JobStore) -> None:
    inside, leave = threading.Semaphore(0), threading.Event()

    def slow() -> PhotoResult:
        inside.release()
        assert leave.wait(10)
        return RESULT

    dispatcher = FakeDispatcher()
    made = JobRunner(
        jobs, FakeEngine(slow), Leases(), worker="w1", lease_s=15, most_bulk=lambda: 1, dispatcher=dispatcher
    )
    bulk = [create(jobs, priority=Priority.BULK) for _ in range(2)]
    busy = in_thread(made)
    assert inside.acquire(timeout=10)
    made.run_queued()  # leaves the second bulk job where it is
    assert dispatcher.waited_but_for_bulk == [True]
    interactive = create(jobs)
    beside = in_thread(made)
    assert inside.acquire(timeout=10)
    assert [jobs.get(job.id).status for job in (*bulk, interactive)] == ["running", "queued", "running"]
    leave.set()
    busy.join()
    beside.join()
    made.run_queued()  # nothing is counted that does not run
    assert jobs.get(bulk[1].id).status is JobStatus.SUCCEEDED
    assert dispatcher.waited_but_for_bulk == [True, False]
