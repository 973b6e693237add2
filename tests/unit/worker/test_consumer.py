"""The pool of threads: what is in hand of which tasks, and the event loop woken when that becomes less."""

import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from worker.consumer import ThreadPool


class Hub:
    """An event loop as far as the pool knows one."""

    def __init__(self) -> None:
        self._readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback

    def sleep(self, timeout_s: float) -> bool:
        """Until a reader has something to read, which it then does; false when none had in time."""
        readable, _, _ = select.select(list(self._readers), [], [], timeout_s)
        for fd in readable:
            self._readers[fd]()
        return bool(readable)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def pool(hub: Hub) -> Iterator[ThreadPool]:
    pool = ThreadPool(2)
    pool.register_with_event_loop(hub)
    yield pool
    pool.on_stop()


def begin(pool: ThreadPool, name: str, leave: threading.Event, *, fails: bool = False) -> None:
    """A task of that name, whose body ends when the test says."""

    def body(*_: object) -> None:
        assert leave.wait(10)
        if fails:
            raise ZeroDivisionError

    # As Celery calls it: the task's name comes first.
    pool.on_apply(body, (name, "id"), {}, callback=lambda _: None, accept_callback=lambda *_: None)


def test_what_runs_or_waits_for_a_thread_is_counted_by_its_task(pool: ThreadPool) -> None:
    leave = threading.Event()
    for name in ("a", "a", "b"):  # of which one waits
        begin(pool, name, leave)
    assert [pool.n_in_hand(frozenset(names)) for names in ("a", "b", "ab", "c", "")] == [2, 1, 3, 0, 0]
    leave.set()
    deadline = time.monotonic() + 10
    while pool.n_in_hand(frozenset("ab")):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("fails", [False, True])
def test_the_event_loop_is_woken_by_the_end_of_a_task_and_not_before(hub: Hub, pool: ThreadPool, fails: bool) -> None:
    leave = threading.Event()
    begin(pool, "a", leave, fails=fails)
    assert not hub.sleep(0.05)
    leave.set()
    assert hub.sleep(10)
    assert pool.n_in_hand(frozenset("a")) == 0
    assert not hub.sleep(0)  # once


def test_a_loop_that_is_busy_holds_up_nobody_who_wakes_it(hub: Hub, pool: ThreadPool) -> None:
    for _ in range(100_000):  # more than a pipe holds
        pool.wake()
    assert hub.sleep(0)
