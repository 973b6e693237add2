"""MicroBatcher: combines concurrent calls into batches, one forward pass each."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shared.jobs.contract import Priority
from shared.model.embedder import Cores

_SPARE_SLOWER = 10  # times as long a pass may take that gives way to others
_EWMA_WEIGHT = 0.2  # weight of the last pass in the moving average

Item = TypeVar("Item")
Output = TypeVar("Output")


@dataclass(frozen=True)
class BatchLimits:
    """How batches are formed.

    Attributes:
        max_batch: items of one pass at most; bounds its memory.
        max_waiting: queued items of a priority above which `submit` blocks, as backpressure on threads that claim jobs.
        max_wait_s: longest delay of a pass for items announced by `expecting`.
        alone_after_s: how long no two items must have met here before one counts as alone. A pass over all cores waits
            for the slowest of them, and slow is the one that receives and answers other jobs.
        bulk_patience_s: a bulk item that has waited so long goes before interactive ones, where they share runners.
        interactive_for_s: how long after an interactive item more of them are expected.
        bulk_pass_s: longest pass of bulk items in that time, where an interactive item may have to wait for it.
        hang_after_s: a pass that takes longer counts as hung; ten times as long, where it gives way to others.
    """

    max_batch: int = 8
    max_waiting: int = 64
    max_wait_s: float = 0.002
    alone_after_s: float = 0.25
    bulk_patience_s: float = 1.0
    interactive_for_s: float = 2.0
    bulk_pass_s: float = 0.03
    hang_after_s: float = 60.0


@dataclass
class _Waiting(Generic[Item, Output]):
    item: Item
    priority: Priority
    owner: str
    unwanted: Callable[[], bool]
    since: float
    future: "Future[Output]" = field(default_factory=Future)


def _always_wanted() -> bool:
    return False


class MicroBatcher(Generic[Item, Output]):
    """Combines queued items into batches and runs them on its own threads, one pass per thread at a time.

    A pass begins as soon as a thread is free: under load, the items that arrive during one pass are the next batch.
    Bulk items have runners of their own, whose passes give way to all others; or, where a pass cannot give way, share
    those of interactive items. Then bulk batches are smaller while interactive items are expected, which would have to
    wait for the end of the pass. A pass is delayed, by `max_wait_s` at most, only while a thread has announced an item
    with `expecting`. A batch that raises is halved until the item that causes the error is alone and fails alone.

        batcher = MicroBatcher(lambda items, cores: [item * 2 for item in items], on_hang=os.abort)
        future = batcher.submit(21)

    Args:
        run: called with 1..max_batch items and what the pass may use of the machine; must return one output per item.
        limits: how batches are formed; None: the defaults.
        n_runners: threads, and so passes at the same time.
        n_bulk_runners: the same, of bulk items alone; 0: they share the others.
        on_hang: called once when a pass exceeds `hang_after_s`. It should end the process, since a pass cannot be
            stopped; the leases of its jobs then run out, and other workers run them.
        on_batch: called with the size of each batch, for the metrics.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], Cores], Sequence[Output]],
        *,
        limits: BatchLimits | None = None,
        n_runners: int = 1,
        n_bulk_runners: int = 0,
        on_hang: Callable[[], None],
        on_batch: Callable[[int], None] = lambda size: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._limits = limits or BatchLimits()
        self._on_hang = on_hang
        self._on_batch = on_batch
        self._clock = clock
        self._waiting: dict[Priority, deque[_Waiting[Item, Output]]] = {p: deque() for p in Priority}
        # One lock, and a condition for each kind of thread that waits: every thread that is woken costs a switch.
        self._lock = threading.RLock()
        self._work = {priority: threading.Condition(self._lock) for priority in Priority}  # for runners without a batch
        if not n_bulk_runners:
            self._work[Priority.BULK] = self._work[Priority.INTERACTIVE]
        self._n_runners, self._n_bulk_runners = n_runners, n_bulk_runners
        self._gathered = threading.Condition(self._lock)  # for runners whose batch may grow
        self._room = threading.Condition(self._lock)  # for those who submit
        self._drained = threading.Event()
        self._turn = 0
        self._served: dict[str, int] = {}  # owner -> the turn it had last; as many as there are API keys
        self._n_expected = 0
        self._announced = threading.local()
        self._running_since: dict[int, float] = {}
        self._interactive_at = self._met_at = float("-inf")
        self._bulk_item_s = 0.0  # what an item of a bulk pass took of late
        self._closing = False
        served = [(Priority.INTERACTIVE,) if n_bulk_runners else tuple(Priority)] * n_runners
        served += [(Priority.BULK,)] * n_bulk_runners
        self._threads = [
            threading.Thread(target=self._serve, args=(number, priorities), name=f"batch-{number}", daemon=True)
            for number, priorities in enumerate(served)
        ]
        self._watchdog = threading.Thread(target=self._watch, name="batch-watchdog", daemon=True)
        for thread in [*self._threads, self._watchdog]:
            thread.start()

    def submit(
        self,
        item: Item,
        *,
        priority: Priority = Priority.INTERACTIVE,
        owner: str = "",
        unwanted: Callable[[], bool] = _always_wanted,
    ) -> "Future[Output]":
        """Queue one item; see `submit_all`."""
        return self.submit_all([item], priority=priority, owner=owner, unwanted=unwanted)[0]

    def submit_all(
        self,
        items: Sequence[Item],
        *,
        priority: Priority = Priority.INTERACTIVE,
        owner: str = "",
        unwanted: Callable[[], bool] = _always_wanted,
    ) -> "list[Future[Output]]":
        """Queue items at once, so that they share a pass where it has room; blocks while `max_waiting` are queued.

        Args:
            items: to run.
            priority: interactive items go before bulk ones.
            owner: items are taken from owners in round robin.
            unwanted: called just before the pass; if true, an item is dropped and its future cancelled.

        Returns:
            a future of each item's output.

        Raises:
            CancelledError: the batcher is closed.
        """
        now = self._clock()
        waiting: list[_Waiting[Item, Output]] = [_Waiting(item, priority, owner, unwanted, now) for item in items]
        with self._lock:
            self._room.wait_for(lambda: self._closing or len(self._waiting[priority]) < self._limits.max_waiting)
            if self._closing:
                raise CancelledError("the batcher is closed")
            if self._running_since or self._n_waiting():
                self._met_at = self._clock()
            self._waiting[priority].extend(waiting)
            if priority is Priority.INTERACTIVE:
                self._interactive_at = self._clock()
            self._work[priority].notify(len(waiting))
            self._arrived()
        return [one.future for one in waiting]

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce that this thread will probably call `submit` in the body, so that a pass may wait for its item."""
        with self._lock:
            self._n_expected += 1
        self._announced.pending = True
        try:
            yield
        finally:
            with self._lock:
                self._arrived()

    def _arrived(self) -> None:
        """Withdraw this thread's announcement, because its item came or will not; the caller holds the lock."""
        if getattr(self._announced, "pending", False):
            self._announced.pending = False
            self._n_expected -= 1
        if self._nothing_more_comes():
            self._gathered.notify_all()

    def close(self) -> None:
        """Accept no more items, run the queued ones, and return when they are done."""
        with self._lock:
            self._closing = True
            for waiting in (*self._work.values(), self._gathered, self._room):
                waiting.notify_all()
            self._tell_drained()
        for thread in [*self._threads, self._watchdog]:
            thread.join()

    # --- the threads ---

    def _serve(self, number: int, priorities: Sequence[Priority]) -> None:
        while batch := self._next_batch(number, priorities):
            try:
                self._run_or_halve(batch, spare=self._is_spare(number))
            finally:
                with self._lock:
                    took_s = self._clock() - self._running_since.pop(number)
                    if batch[-1].priority is Priority.BULK:
                        news = took_s / len(batch) - self._bulk_item_s
                        self._bulk_item_s += _EWMA_WEIGHT * news if self._bulk_item_s else news
                    self._tell_drained()

    def _next_batch(self, number: int, priorities: Sequence[Priority]) -> "list[_Waiting[Item, Output]]":
        """Block until there is a batch of these priorities to run; empty once the batcher is closed and drained."""
        work = self._work[priorities[0]]
        with self._lock:
            while True:
                work.wait_for(lambda: self._n_waiting(priorities) or self._closing)
                if not self._n_waiting(priorities):
                    return []
                self._gathered.wait_for(lambda: self._nothing_more_comes(priorities), timeout=self._limits.max_wait_s)
                batch = [waiting for waiting in self._take(priorities) if not self._dropped(waiting)]
                if self._n_waiting(priorities):
                    work.notify()  # whoever was woken for what is left may have been this thread
                self._room.notify_all()
                if batch:
                    self._running_since[number] = self._clock()
                    return batch
                self._tell_drained()

    def _nothing_more_comes(self, priorities: Sequence[Priority] = tuple(Priority)) -> bool:
        return self._n_expected == 0 or self._closing or self._n_waiting(priorities) >= self._limits.max_batch

    def _take(self, priorities: Sequence[Priority]) -> "list[_Waiting[Item, Output]]":
        """Take the next batch: overdue bulk items up to a quarter of it, then interactive items, or else bulk items.

        Priorities are not mixed beyond that: bulk items would make the passes of interactive ones longer.
        """
        interactive, bulk = (self._waiting[p] if p in priorities else deque() for p in Priority)
        overdue_since = self._clock() - self._limits.bulk_patience_s
        batch: list[_Waiting[Item, Output]] = []
        while interactive and bulk and bulk[0].since <= overdue_since and len(batch) < self._overdue_share():
            batch.append(bulk.popleft())
        source, most = (interactive, self._limits.max_batch) if interactive else (bulk, self._most_bulk())
        while source and len(batch) < most:
            batch.append(self._next_in_turn(source))
        return batch

    def _most_bulk(self) -> int:
        """Largest bulk batch: limited by `bulk_pass_s` while interactive items are expected that would wait for it."""
        expected = self._clock() <= self._interactive_at + self._limits.interactive_for_s
        if self._n_bulk_runners or not expected or not self._bulk_item_s:
            return self._limits.max_batch
        return min(self._limits.max_batch, max(1, int(self._limits.bulk_pass_s / self._bulk_item_s)))

    def _next_in_turn(self, source: "deque[_Waiting[Item, Output]]") -> "_Waiting[Item, Output]":
        """Take the first item of the owner who was served longest ago (round robin)."""
        place = min(range(len(source)), key=lambda i: self._served.get(source[i].owner, 0))
        waiting = source[place]
        del source[place]
        self._turn += 1
        self._served[waiting.owner] = self._turn
        return waiting

    def _overdue_share(self) -> int:
        return max(1, self._limits.max_batch // 4)

    def _dropped(self, waiting: "_Waiting[Item, Output]") -> bool:
        """Whether the item was cancelled before its pass; from here on its future can no longer be cancelled."""
        if waiting.unwanted():
            waiting.future.cancel()
        return not waiting.future.set_running_or_notify_cancel()

    def _run_or_halve(self, batch: "Sequence[_Waiting[Item, Output]]", *, spare: bool) -> None:
        with self._lock:
            beside = len(self._running_since) > 1 or self._n_waiting()
            met = self._clock() < self._met_at + self._limits.alone_after_s
        cores = Cores.SPARE if spare else Cores.STREAM if len(batch) > 1 or beside or met else Cores.ALL
        try:
            outputs = self._run([waiting.item for waiting in batch], cores)
            if len(outputs) != len(batch):
                raise ValueError(f"{len(outputs)} outputs for {len(batch)} items")
        except Exception as exc:  # any error is the result of the item that causes it
            if len(batch) == 1:
                batch[0].future.set_exception(exc)
                return
            middle = len(batch) // 2
            self._run_or_halve(batch[:middle], spare=spare)
            self._run_or_halve(batch[middle:], spare=spare)
            return
        self._on_batch(len(batch))
        for waiting, output in zip(batch, outputs, strict=True):
            waiting.future.set_result(output)

    def _watch(self) -> None:
        while not self._drained.wait(timeout=min(1.0, self._limits.hang_after_s / 4)):
            with self._lock:
                hung = any(
                    self._clock() - since > self._patience_s(number) for number, since in self._running_since.items()
                )
            if hung:
                self._on_hang()
                return

    def _is_spare(self, number: int) -> bool:
        """Whether a runner's passes give way to others."""
        return number >= self._n_runners

    def _patience_s(self, number: int) -> float:
        return self._limits.hang_after_s * (_SPARE_SLOWER if self._is_spare(number) else 1)

    def _tell_drained(self) -> None:
        """End the watchdog once the batcher is closed and nothing runs; the caller holds the lock."""
        if self._closing and not self._n_waiting() and not self._running_since:
            self._drained.set()

    def _n_waiting(self, priorities: Sequence[Priority] = tuple(Priority)) -> int:
        return sum(len(self._waiting[priority]) for priority in priorities)
