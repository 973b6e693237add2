"""The result cache: remembers within its bounds, computes once at a time, never remembers an error."""

import threading
from concurrent.futures import CancelledError

import pytest

from tests.conftest import Clock
from worker.serving.result_cache import ResultCache


def cache(max_entries: int = 3, ttl_s: float = 10) -> tuple[ResultCache[int], Clock]:
    clock = Clock()
    return ResultCache(max_entries=max_entries, ttl_s=ttl_s, clock=clock), clock


def never() -> int:
    raise AssertionError("it is remembered")


def test_a_value_is_computed_once_and_then_remembered() -> None:
    made, _ = cache()
    assert made.get(b"a", lambda: 1) == 1
    assert made.get(b"a", never) == 1
    assert (made.counts.hits, made.counts.misses) == (1, 1)


def test_a_value_is_forgotten_when_its_time_is_up() -> None:
    made, clock = cache(ttl_s=10)
    made.get(b"a", lambda: 1)
    clock.now += 9.9
    assert made.get(b"a", never) == 1
    clock.now += 0.2
    assert made.get(b"a", lambda: 2) == 2


def test_the_least_recently_used_value_goes_first() -> None:
    made, _ = cache(max_entries=2)
    for key in (b"a", b"b"):
        made.get(key, lambda: 1)
    made.get(b"a", never)
    made.get(b"c", lambda: 1)
    assert len(made) == 2
    assert made.get(b"a", never) == 1
    assert made.get(b"b", lambda: 5) == 5


def test_without_entries_nothing_is_remembered() -> None:
    made, _ = cache(max_entries=0)
    assert made.get(b"a", lambda: 1) == 1
    assert made.get(b"a", lambda: 2) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_those_who_ask_at_once_share_one_computation_and_its_error(fails: bool) -> None:
    made, _ = cache()
    begun, finish = threading.Event(), threading.Event()
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        begun.set()
        assert finish.wait(20)
        if fails:
            raise ValueError("no")
        return 7

    outcomes: list[object] = []

    def ask() -> None:
        try:
            outcomes.append(made.get(b"a", compute))
        except ValueError as exc:
            outcomes.append(str(exc))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    threads[0].start()
    assert begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    while made.counts.shared < 5:
        threading.Event().wait(0.005)
    finish.set()
    for thread in threads:
        thread.join(20)
    assert calls == [1]
    assert outcomes == ["no" if fails else 7] * 6


def test_an_error_is_not_remembered() -> None:
    made, _ = cache()
    with pytest.raises(ZeroDivisionError):
        made.get(b"a", lambda: 1 // 0)
    assert made.get(b"a", lambda: 3) == 3


def test_who_shares_a_computation_nobody_wants_any_more_still_gets_the_value() -> None:
    made, _ = cache()
    begun, cancel = threading.Event(), threading.Event()
    values: list[int] = []
    cancelled: list[bool] = []

    def unwanted() -> int:
        begun.set()
        assert cancel.wait(20)
        raise CancelledError

    def first() -> None:
        with pytest.raises(CancelledError):
            made.get(b"a", unwanted)
        cancelled.append(True)

    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        return 7

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert begun.wait(20)
    threads += [threading.Thread(target=lambda: values.append(made.get(b"a", compute))) for _ in range(5)]
    for thread in threads[1:]:
        thread.start()
    while made.counts.shared < 5:
        threading.Event().wait(0.005)
    cancel.set()
    for thread in threads:
        thread.join(20)
    assert (cancelled, values, calls) == ([True], [7] * 5, [1])
