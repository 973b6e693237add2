"""A thread that does something at intervals."""

import threading
import time

from worker.jobs.periodic import Periodic


def test_it_goes_on_after_an_error_and_no_more_once_it_is_stopped() -> None:
    enough = threading.Event()
    calls: list[float] = []

    def act() -> None:
        calls.append(time.monotonic())
        if len(calls) == 3:
            enough.set()
        raise ValueError

    began = time.monotonic()
    thread = Periodic("test", act, every_s=0.05)
    thread.start()
    assert enough.wait(20)
    thread.stop()
    assert not thread.is_alive()
    assert calls[2] - began >= 3 * 0.05
