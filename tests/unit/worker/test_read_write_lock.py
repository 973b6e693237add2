"""The read-write lock: a writer is alone, and everybody gets in"""

import random
import threading
import time

import pytest

from worker.jobs.read_write_lock import ReadWriteLock


class Room:
    """Watches who is inside together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.shared = self.alone = self.most_shared = 0
        self.broken: list[str] = []

    def enter(self, *, alone: bool) -> None:
        with self._lock:
            if self.alone or (alone and self.shared):
                self.broken.append(f"{'alone' if alone else 'shared'} beside {self.alone} alone, {self.shared} shared")
            if alone:
                self.alone += 1
            else:
                self.shared += 1
                self.most_shared = max(self.most_shared, self.shared)

    def leave(self, *, alone: bool) -> None:
        with self._lock:
            if alone:
                self.alone -= 1
            else:
                self.shared -= 1


@pytest.mark.parametrize("share_alone", [0.02, 0.3, 1.0])
def test_alone_means_alone_whatever_comes_at_once_and_nobody_is_left_outside(share_alone: float) -> None:
    lock, room, n_done = ReadWriteLock(), Room(), []

    def come_and_go(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(100):
            alone = chance.random() < share_alone
            try:
                with lock.write() if alone else lock.read():
                    room.enter(alone=alone)
                    if chance.random() < 0.3:
                        time.sleep(chance.random() / 2000)
                    room.leave(alone=alone)
                    if chance.random() < 0.1:
                        raise ZeroDivisionError  # as a job may
            except ZeroDivisionError:
                pass
        n_done.append(1)

    threads = [threading.Thread(target=come_and_go, args=(seed,), daemon=True) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(n_done) == 12
    assert room.broken == []
    assert share_alone > 0.5 or room.most_shared > 1  # many may be inside together


def test_who_wants_to_be_alone_waits_for_those_inside_and_goes_before_those_outside() -> None:
    lock, order = ReadWriteLock(), []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with lock.read():
            inside.set()
            assert leave.wait(10)
            order.append("first")

    def alone() -> None:
        with lock.write():
            order.append("alone")

    def later() -> None:
        with lock.read():
            order.append("later")

    threads = [threading.Thread(target=body) for body in (first, alone, later)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    while not lock._n_writers_waiting:
        time.sleep(0.001)
    threads[2].start()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "alone", "later"]
