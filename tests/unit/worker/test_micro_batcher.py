"""The micro-batcher: every item gets its own answer, once, whatever else is in its batch."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.jobs.contract import Priority
from shared.model.embedder import Cores
from tests.conftest import Clock
from worker.serving.micro_batcher import BatchLimits, MicroBatcher

WAIT_S = 20.0


class QualityGate:
    """A run function that can be held shut, and remembers its batches."""

    def __init__(self, run: Callable[[int], int] = lambda item: item * 10) -> None:
        self._run = run
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.cores: list[Cores] = []

    def __call__(self, items: Sequence[int], cores: Cores) -> list[int]:
        self.batches.append(list(items))
        self.cores.append(cores)
        self.entered.release()
        assert self.open.wait(WAIT_S)
        return [self._run(item) for item in items]


def unexpected_hang() -> None:
    raise AssertionError("nothing hangs here")


@contextmanager
def batcher(run: Any, **options: Any) -> Iterator[MicroBatcher[int, int]]:
    made: MicroBatcher[int, int] = MicroBatcher(run, **{"on_hang": unexpected_hang, **options})
    try:
        yield made
    finally:
        if isinstance(run, QualityGate):
            run.open.set()
        made.close()


def results(futures: Sequence["Future[int]"]) -> list[int]:
    return [future.result(WAIT_S) for future in futures]


def test_what_arrives_during_a_pass_is_the_next_batch() -> None:
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(max_batch=4)) as made:
        first = made.submit(0)
        assert gate.entered.acquire(timeout=WAIT_S)
        rest = [made.submit(item) for item in range(1, 8)]
        gate.open.set()
        assert results([first, *rest]) == [item * 10 for item in range(8)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_a_lone_item_runs_at_once_and_knows_that_it_is_alone() -> None:
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(max_wait_s=3600)) as made:
        gate.open.set()
        assert made.submit(1).result(WAIT_S) == 10
    assert gate.cores == [Cores.ALL]


def test_a_pass_is_held_back_for_what_another_thread_announced_until_it_submits() -> None:
    gate = QualityGate()
    gate.open.set()
    announced, go_on = threading.Event(), threading.Event()
    futures: list[Future[int]] = []
    with batcher(gate, limits=BatchLimits(max_wait_s=3600)) as made:

        def claimer() -> None:
            with made.expecting():
                announced.set()
                assert go_on.wait(WAIT_S)
                futures.append(made.submit(2))
                assert futures[0].result(WAIT_S) == 20  # while still inside: what was announced has come

        thread = threading.Thread(target=claimer)
        thread.start()
        assert announced.wait(WAIT_S)
        first = made.submit(1)
        time.sleep(0.05)
        assert gate.batches == []
        go_on.set()
        assert first.result(WAIT_S) == 10
        thread.join(WAIT_S)
    assert gate.batches == [[1, 2]]
    assert gate.cores == [Cores.STREAM]


def test_items_submitted_together_share_a_pass() -> None:
    gate = QualityGate()
    gate.open.set()
    with batcher(gate, limits=BatchLimits(max_batch=4)) as made, made.expecting():
        assert results(made.submit_all(range(10))) == [item * 10 for item in range(10)]
    assert gate.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_announcement_that_comes_to_nothing_holds_nothing_back() -> None:
    gate = QualityGate()
    gate.open.set()
    with batcher(gate, limits=BatchLimits(max_wait_s=3600)) as made:
        with made.expecting():
            pass
        assert made.submit(1).result(WAIT_S) == 10


def test_waiting_for_the_announced_ends_in_time() -> None:
    gate = QualityGate()
    gate.open.set()
    leave = threading.Event()
    with batcher(gate, limits=BatchLimits(max_wait_s=0.05)) as made:

        def claimer() -> None:
            with made.expecting():
                assert leave.wait(WAIT_S)

        thread = threading.Thread(target=claimer)
        thread.start()
        assert made.submit(1).result(WAIT_S) == 10
        leave.set()
        thread.join(WAIT_S)


def test_interactive_goes_before_bulk_and_is_not_mixed_with_it() -> None:
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(max_batch=4, bulk_patience_s=3600)) as made:
        futures = [made.submit(0)]
        assert gate.entered.acquire(timeout=WAIT_S)
        futures += [made.submit(item, priority=Priority.BULK) for item in (1, 2)]
        futures += [made.submit(item) for item in (3, 4)]
        gate.open.set()
        results(futures)
    assert gate.batches == [[0], [3, 4], [1, 2]]


def test_bulk_items_have_runners_of_their_own_that_interactive_ones_never_wait_for() -> None:
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(max_batch=2, max_waiting=2), n_bulk_runners=1) as made:
        bulk = [made.submit(0, priority=Priority.BULK)]
        assert gate.entered.acquire(timeout=WAIT_S)
        bulk += made.submit_all([1, 2], priority=Priority.BULK)  # no more bulk items have room
        interactive = made.submit(3)
        assert gate.entered.acquire(timeout=WAIT_S)  # although the bulk pass has not ended
        assert gate.batches == [[0], [3]]
        gate.open.set()
        assert results([interactive, *bulk]) == [30, 0, 10, 20]
    assert gate.batches == [[0], [3], [1, 2]]
    assert gate.cores == [Cores.SPARE, Cores.STREAM, Cores.SPARE]


def test_a_pass_is_held_back_for_the_announced_however_many_bulk_items_wait() -> None:
    gate = QualityGate()
    announced, go_on = threading.Event(), threading.Event()
    with batcher(gate, limits=BatchLimits(max_batch=2, max_wait_s=3600), n_bulk_runners=1) as made:
        made.submit(0, priority=Priority.BULK)
        assert gate.entered.acquire(timeout=WAIT_S)
        made.submit_all([1, 2], priority=Priority.BULK)

        def claimer() -> None:
            with made.expecting():
                announced.set()
                assert go_on.wait(WAIT_S)
                made.submit(4)

        thread = threading.Thread(target=claimer)
        thread.start()
        assert announced.wait(WAIT_S)
        made.submit(3)
        assert not gate.entered.acquire(timeout=0.05)
        go_on.set()
        assert gate.entered.acquire(timeout=WAIT_S)
        thread.join(WAIT_S)
        gate.open.set()
    assert gate.batches == [[0], [3, 4], [1, 2]]


def test_bulk_passes_that_give_way_are_not_shortened(clock: Clock) -> None:
    sizes: list[int] = []
    gate = QualityGate()

    def run(items: Sequence[int], cores: Cores) -> list[int]:
        clock.now += 0.01 * len(items)
        return gate(items, cores)

    limits = BatchLimits(max_batch=8, bulk_pass_s=0.03)
    with batcher(run, limits=limits, n_bulk_runners=1, clock=clock, on_batch=sizes.append) as made:
        gate.open.set()
        for item in range(3):
            made.submit(item, priority=Priority.BULK).result(WAIT_S)
        made.submit(0).result(WAIT_S)
        results(made.submit_all(range(8), priority=Priority.BULK))
    assert sizes == [1, 1, 1, 1, 8]


def test_an_item_is_alone_again_some_time_after_the_last_two_met(clock: Clock) -> None:
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(alone_after_s=0.25), n_runners=2, clock=clock) as made:
        met = [made.submit(1)]
        assert gate.entered.acquire(timeout=WAIT_S)
        met.append(made.submit(2))
        gate.open.set()
        results(met)
        for wait_s in (0.2, 0.2, 0.2):
            clock.now += wait_s
            made.submit(3).result(WAIT_S)
    assert gate.cores == [Cores.ALL, Cores.STREAM, Cores.STREAM, Cores.ALL, Cores.ALL]


def test_bulk_is_never_starved() -> None:
    now = [0.0]
    gate = QualityGate()
    gate.open.set()
    with batcher(gate, limits=BatchLimits(max_batch=4, max_waiting=1000), clock=lambda: now[0]) as made:
        gate.open.clear()
        futures = [made.submit(0)]
        assert gate.entered.acquire(timeout=WAIT_S)
        futures += [made.submit(-item, priority=Priority.BULK) for item in (1, 2)]
        futures += [made.submit(item) for item in range(1, 9)]
        now[0] += 2  # longer than a bulk item's patience
        gate.open.set()
        results(futures)
    assert gate.batches == [[0], [-1, 1, 2, 3], [-2, 4, 5, 6], [7, 8]]


def test_bulk_passes_are_short_while_interactive_items_come(clock: Clock) -> None:
    gate = QualityGate()
    gate.open.set()
    sizes: list[int] = []

    def run(items: Sequence[int], cores: Cores) -> list[int]:
        clock.now += 0.01 * len(items)
        return gate(items, cores)

    limits = BatchLimits(max_batch=8, bulk_pass_s=0.03, interactive_for_s=2.0, bulk_patience_s=3600)
    with batcher(run, limits=limits, clock=clock, on_batch=sizes.append) as made:

        def bulk() -> list[int]:
            """Sizes of the passes of items that waited together, all of them or all but the first."""
            gate.open.clear()
            sizes.clear()
            futures = [made.submit(item, priority=Priority.BULK) for item in range(9)]
            gate.open.set()
            results(futures)
            return sizes

        for _ in range(30):  # until what an item takes is known
            made.submit(0, priority=Priority.BULK).result(WAIT_S)
        assert max(bulk()) > 3
        made.submit(0).result(WAIT_S)
        assert max(bulk()) <= 3
        clock.now += 2.1
        assert max(bulk()) > 3


def test_the_items_that_make_a_batch_fail_fail_alone() -> None:
    def run(items: Sequence[int], cores: Cores) -> list[int]:
        if any(item in (3, 6) for item in items):
            raise RuntimeError("poison")
        return [item * 10 for item in items]

    gate = QualityGate()
    with batcher(lambda items, cores: (gate if 0 in items else run)(items, cores)) as made:
        first = made.submit(0)
        assert gate.entered.acquire(timeout=WAIT_S)
        futures = {item: made.submit(item) for item in range(1, 9)}
        gate.open.set()
        assert first.result(WAIT_S) == 0
        for item, future in futures.items():
            if item in (3, 6):
                with pytest.raises(RuntimeError, match="poison"):
                    future.result(WAIT_S)
            else:
                assert future.result(WAIT_S) == item * 10


def test_outputs_that_do_not_match_the_items_are_an_error_and_never_mixed_up() -> None:
    with batcher(lambda items, cores: [1, 2]) as made, pytest.raises(ValueError, match="2 outputs for 1"):
        made.submit(1).result(WAIT_S)


def test_unwanted_and_cancelled_items_leave_before_their_pass() -> None:
    gate = QualityGate()
    with batcher(gate) as made:
        first = made.submit(0)
        assert gate.entered.acquire(timeout=WAIT_S)
        unwanted = made.submit(1, unwanted=lambda: True)
        cancelled = made.submit(2)
        wanted = made.submit(3)
        assert cancelled.cancel()
        gate.open.set()
        assert results([first, wanted]) == [0, 30]
        assert unwanted.cancelled()
    assert gate.batches == [[0], [3]]


def test_submit_blocks_while_too_much_waits() -> None:
    gate = QualityGate()
    submitted = threading.Event()
    with batcher(gate, limits=BatchLimits(max_batch=2, max_waiting=2)) as made:
        futures = [made.submit(0)]
        assert gate.entered.acquire(timeout=WAIT_S)
        futures += [made.submit(1), made.submit(2)]

        def one_more() -> None:
            futures.append(made.submit(3))
            submitted.set()

        claimer = threading.Thread(target=one_more)
        claimer.start()
        assert not submitted.wait(0.05)
        gate.open.set()
        assert submitted.wait(WAIT_S)
        claimer.join()
        assert results(futures) == [0, 10, 20, 30]


def test_closing_drains_what_waits_and_takes_nothing_more() -> None:
    gate = QualityGate()
    with batcher(gate) as made:
        futures = [made.submit(0)]
        assert gate.entered.acquire(timeout=WAIT_S)
        futures += [made.submit(item) for item in range(1, 20)]
        closer = threading.Thread(target=made.close)
        closer.start()
        gate.open.set()
        closer.join(WAIT_S)
        assert results(futures) == [item * 10 for item in range(20)]
        with pytest.raises(CancelledError):
            made.submit(1)


def test_a_hung_pass_is_noticed() -> None:
    hung = threading.Event()
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(hang_after_s=0.05), on_hang=hung.set) as made:
        made.submit(1)
        assert hung.wait(WAIT_S)
        gate.open.set()


def test_a_pass_that_gives_way_has_ten_times_as_long() -> None:
    hung = threading.Event()
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(hang_after_s=0.05), n_bulk_runners=1, on_hang=hung.set) as made:
        began = time.monotonic()
        made.submit(1, priority=Priority.BULK)
        assert hung.wait(WAIT_S)
        assert time.monotonic() - began >= 0.5
        gate.open.set()


def test_the_last_pass_is_watched_too_when_the_batcher_closes() -> None:
    entered, go_on, hung = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def run(items: Sequence[int], cores: Cores) -> Sequence[int]:
        entered.release()
        assert go_on.acquire(timeout=WAIT_S)
        return items

    limits = BatchLimits(max_batch=1, hang_after_s=0.5)
    made: MicroBatcher[int, int] = MicroBatcher(run, limits=limits, on_hang=hung.set)
    futures = [made.submit(item) for item in (1, 2)]
    assert entered.acquire(timeout=WAIT_S)
    closing = threading.Thread(target=made.close)
    closing.start()
    go_on.release()
    assert entered.acquire(timeout=WAIT_S)  # the second pass, which begins after the close
    assert hung.wait(WAIT_S)
    go_on.release()
    closing.join(WAIT_S)
    assert results(futures) == [1, 2]


def test_two_runners_work_side_by_side_and_neither_is_alone() -> None:
    gate = QualityGate()
    with batcher(gate, n_runners=2) as made:
        futures = [made.submit(1)]
        assert gate.entered.acquire(timeout=WAIT_S)
        futures.append(made.submit(2))
        assert gate.entered.acquire(timeout=WAIT_S)
        gate.open.set()
        assert results(futures) == [10, 20]
    assert gate.cores == [Cores.ALL, Cores.STREAM]


@settings(max_examples=60)
@given(
    items=st.lists(st.tuples(st.integers(0, 99), st.sampled_from(Priority), st.booleans()), max_size=40),
    poison=st.sets(st.integers(0, 99), max_size=20),
    max_batch=st.integers(1, 9),
    n_runners=st.integers(1, 3),
    n_bulk_runners=st.integers(0, 2),
)
def test_every_item_gets_its_own_answer_once_whatever_else_is_in_the_queue(
    items: list[tuple[int, Priority, bool]], poison: set[int], max_batch: int, n_runners: int, n_bulk_runners: int
) -> None:
    sizes: list[int] = []
    ran: list[int] = []

    def run(batch: Sequence[int], cores: Cores) -> list[int]:
        sizes.append(len(batch))
        if poison & set(batch):
            raise RuntimeError("poison")
        ran.extend(batch)
        return [item * 10 for item in batch]

    limits = BatchLimits(max_batch=max_batch)
    with batcher(run, limits=limits, n_runners=n_runners, n_bulk_runners=n_bulk_runners) as made:
        futures = [
            made.submit(item, priority=priority, unwanted=lambda drop=drop: drop)  # type: ignore[misc]
            for item, priority, drop in items
        ]
        assert not wait(futures, WAIT_S).not_done
    for (item, _, drop), future in zip(items, futures, strict=True):
        if drop:
            assert future.cancelled()
        elif item in poison:
            assert isinstance(future.exception(), RuntimeError)
        else:
            assert future.result() == item * 10
    assert sorted(ran) == sorted(item for item, _, drop in items if not drop and item not in poison)
    assert max(sizes, default=0) <= max_batch


def test_owners_take_turns_within_what_waits() -> None:
    gate = QualityGate()
    with batcher(gate, limits=BatchLimits(max_batch=2)) as made:
        first = made.submit(0, owner="flood")
        assert gate.entered.acquire(timeout=WAIT_S)
        flood = [made.submit(number, owner="flood") for number in range(1, 8)]
        others = [made.submit(100, owner="a"), made.submit(200, owner="b"), made.submit(101, owner="a")]
        gate.open.set()
        assert results([first, *flood, *others])[-3:] == [1000, 2000, 1010]
    assert gate.batches[1:3] == [[100, 200], [1, 101]]
    assert [item for batch in gate.batches for item in batch if item < 100] == list(range(8))
