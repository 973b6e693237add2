"""Threads that wait for a word, on a real Valkey."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis

from shared.jobs.celery_config import QUEUES, make_celery
from shared.jobs.contract import EmbedRequest, Job, JobKind, JobStatus, Priority, Submission
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.idle import IdleThreads
from shared.jobs.records import PREFIX, UNREAD_ENOUGH, Created
from shared.jobs.store import JobStore
from tests.conftest import Clock
from tests.integration.conftest import PLENTY, eventually
from tests.support.jobs import RESULT
from tests.support.runners import FakeDispatcher, FakeEngine, runner
from worker.jobs.worker_dispatcher import WorkerDispatcher

LONG_S = 20.0
BOTH = list(Priority)


@pytest.fixture
def waker(client: redis.Redis, valkey_url: str) -> Dispatcher:
    return Dispatcher(make_celery(valkey_url, socket_timeout_s=2), client)


@pytest.fixture
def wait(client: redis.Redis) -> Callable[..., "Future[bool]"]:
    """Begins to wait on a thread of its own, and returns once Redis knows."""
    pool = ThreadPoolExecutor(4)

    def begin(thread: str, taken: list[Priority] = BOTH, timeout_s: float = LONG_S) -> "Future[bool]":
        waiting = pool.submit(IdleThreads(client).wait, thread, taken, timeout_s)
        eventually(lambda: client.zscore(f"{PREFIX}idle:{taken[0]}", f"@{thread}") is not None)
        return waiting

    return begin


def n_messages(client: redis.Redis) -> int:
    return sum(int(client.llen(queue)) for queue in QUEUES.values())


@pytest.mark.parametrize("priority", Priority)
def test_a_thread_that_waits_is_called_and_no_message_is_sent(
    client: redis.Redis, waker: Dispatcher, wait: Callable[..., "Future[bool]"], priority: Priority
) -> None:
    waiting = wait("a")
    waker.send_token(priority)
    assert waiting.result(10)
    assert n_messages(client) == 0
    waker.send_token(priority)  # it works now, and is called no more
    assert client.llen(QUEUES[priority]) == 1


def test_each_call_reaches_another_thread_and_then_a_message_is_sent(
    client: redis.Redis, waker: Dispatcher, wait: Callable[..., "Future[bool]"]
) -> None:
    waiting = [wait("a"), wait("b")]
    for _ in range(3):
        waker.send_token()
    assert [one.result(10) for one in waiting] == [True, True]
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 1


def test_a_thread_that_takes_only_bulk_jobs_is_called_for_no_other(
    client: redis.Redis, waker: Dispatcher, wait: Callable[..., "Future[bool]"]
) -> None:
    waiting = wait("a", [Priority.BULK])
    waker.send_token(Priority.INTERACTIVE)
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 1
    assert not waiting.done()
    waker.send_token(Priority.BULK)
    assert waiting.result(10)


@pytest.mark.parametrize("priority", Priority)
def test_a_thread_that_waits_is_called_by_the_very_call_that_writes_the_job(
    client: redis.Redis, wait: Callable[..., "Future[bool]"], priority: Priority
) -> None:
    waiting, store, submission = wait("a"), JobStore(client), Submission(priority=priority)

    def create() -> Created:
        return store.create(
            JobKind.EMBED, EmbedRequest(), None, admission=PLENTY, submission=submission, call_idle=True
        )

    assert create().called
    assert waiting.result(10)
    assert not create().called  # nobody else is there


@pytest.mark.parametrize("priority", Priority)
def test_a_job_needs_no_message_where_enough_lie_unread(client: redis.Redis, priority: Priority) -> None:
    store, submission = JobStore(client), Submission(priority=priority)

    def called() -> bool:
        request = EmbedRequest()
        job = store.create(JobKind.EMBED, request, None, admission=PLENTY, submission=submission, call_idle=True)
        return job.called

    for _ in range(UNREAD_ENOUGH):
        assert not called()
        client.lpush(QUEUES[priority], "message")
    assert called()


def test_a_thread_finds_what_came_before_its_name_was_on_the_list(client: redis.Redis) -> None:
    store, idle = JobStore(client), IdleThreads(client)
    assert not store.create(JobKind.EMBED, EmbedRequest(), None, admission=PLENTY, call_idle=True).called
    assert idle.wait("a", BOTH, LONG_S)
    assert not client.exists(f"{PREFIX}idle:interactive", f"{PREFIX}idle:bulk")
    assert not idle.wait("a", [Priority.BULK], 0.05)  # of the others it takes none
    assert store.claim("w", lease_s=15)
    assert not idle.wait("a", BOTH, 0.05)


def test_a_thread_that_gave_up_is_called_no_more(
    client: redis.Redis, waker: Dispatcher, wait: Callable[..., "Future[bool]"]
) -> None:
    assert not IdleThreads(client).wait("a", BOTH, 0.05)
    waker.send_token()
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 1


def test_a_thread_whose_process_died_is_counted_on_no_longer_than_it_meant_to_wait(client: redis.Redis) -> None:
    client.zadd(f"{PREFIX}idle:interactive", {"dead": time.time() + 2})
    assert not IdleThreads(client, clock=lambda: time.time() + 3).call(Priority.INTERACTIVE)
    assert not client.exists(f"{PREFIX}idle:interactive")


def test_the_thread_that_is_called_is_the_one_that_comes_however_often(
    client: redis.Redis, waker: Dispatcher, wait: Callable[..., "Future[bool]"]
) -> None:
    """Else a burst after a lone client finds one thread at hand, and the others where nobody calls them."""
    waiting = {name: wait(name) for name in "abc"}
    for _ in range(6):
        waker.send_token()
        eventually(lambda: any(one.done() for one in waiting.values()))
        [name] = [name for name, one in waiting.items() if one.done()]
        waiting[name] = wait(name)
        assert client.zcard(f"{PREFIX}idle:interactive") == len(waiting)
    for _ in waiting:
        waker.send_token()
    assert all(one.result(10) for one in waiting.values())
    assert n_messages(client) == 0


def test_a_thread_that_an_api_of_an_earlier_build_calls_comes_too(
    client: redis.Redis, wait: Callable[..., "Future[bool]"]
) -> None:
    waiting = wait("a")
    client.lpush(f"{PREFIX}word:interactive", "1")
    assert waiting.result(10)


def test_a_thread_of_an_earlier_build_is_called_too(client: redis.Redis) -> None:
    client.zadd(f"{PREFIX}idle:interactive", {"host-1/2": time.time() + 20})
    assert IdleThreads(client).call(Priority.INTERACTIVE)
    assert client.llen(f"{PREFIX}word:interactive") == 1


def test_a_thread_called_as_it_gives_up_looks_for_work(
    client: redis.Redis, wait: Callable[..., "Future[bool]"]
) -> None:
    waiting = wait("a", timeout_s=0.5)
    with client.pipeline() as pipe:  # as a call, whose word comes too late
        pipe.zrem(f"{PREFIX}idle:interactive", "@a")
        pipe.zrem(f"{PREFIX}idle:bulk", "@a")
        pipe.execute()
    assert waiting.result(10)


def test_a_worker_at_hand_does_what_is_submitted_without_a_message(
    client: redis.Redis, waker: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.worker_dispatcher._IDLE_AT_HAND_S", 1.0)
    store = JobStore(client)
    dispatcher = WorkerDispatcher(waker, IdleThreads(client), worker="w", takes=BOTH, asked_to_stop=lambda: False)
    thread = threading.Thread(target=runner(store, FakeEngine(lambda: RESULT), dispatcher=dispatcher).run_queued)
    thread.start()
    for _ in range(3):
        eventually(lambda: client.zcard(f"{PREFIX}idle:interactive") == 1)
        created = store.create(JobKind.EMBED, EmbedRequest(), None, admission=PLENTY, call_idle=True)
        assert created.called
        assert store.wait(created.job, 10).status.terminal
    thread.join(10)
    assert not thread.is_alive()  # nothing came any more
    assert n_messages(client) == 0


def test_a_thread_called_as_its_worker_is_asked_to_stop_does_that_one_job(client: redis.Redis) -> None:
    store = JobStore(client)

    def create() -> Job:
        return store.create(JobKind.EMBED, EmbedRequest(), None, admission=PLENTY).job

    jobs: list[Job] = []

    def called() -> bool:
        jobs.extend([create(), create()])
        return True

    dispatcher = FakeDispatcher(asked_to_stop=lambda: True, work_comes=called)
    runner(store, FakeEngine(lambda: RESULT), dispatcher=dispatcher).run_queued()
    assert [store.get(job.id).status for job in jobs] == [JobStatus.SUCCEEDED, JobStatus.QUEUED]


def test_a_thread_at_hand_goes_when_its_worker_is_asked_to_stop(client: redis.Redis, waker: Dispatcher) -> None:
    stopping = threading.Event()
    dispatcher = WorkerDispatcher(waker, IdleThreads(client), worker="w", takes=BOTH, asked_to_stop=stopping.is_set)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(dispatcher.wait_for_work)
        eventually(lambda: client.zcard(f"{PREFIX}idle:interactive") == 1)
        stopping.set()
        assert not waiting.result(5)
    assert not client.exists(f"{PREFIX}idle:interactive")


def test_a_thread_finds_a_job_whose_workers_died(client: redis.Redis, clock: Clock) -> None:
    store, idle = JobStore(client, clock=clock), IdleThreads(client)
    store.create(JobKind.EMBED, EmbedRequest(), None, admission=PLENTY)
    for _ in range(2):
        assert store.claim("w", lease_s=15)
        clock.now += 20
        assert store.reap(max_attempts=3).requeued
    assert idle.wait("a", BOTH, LONG_S)
