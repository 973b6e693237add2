"""How a worker learns of work and tells other threads and workers of it."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import redis

from shared.errors import QueueUnavailable
from shared.jobs.contract import Job, Priority
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.idle import IdleThreads

# How long a thread that has run out of work stays at hand, and how often it looks whether the worker is to stop.
_IDLE_AT_HAND_S = 10.0
_LOOK_EVERY_S = 1.0


class WorkerDispatcher:
    """What a worker's threads ask for work.

    Args:
        dispatcher: publishes messages and notifies threads of any worker.
        idle: the threads of all workers that could begin at once.
        worker: this worker's name.
        takes: the priorities of the jobs it runs.
        asked_to_stop: whether the worker is about to end.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        idle: IdleThreads,
        *,
        worker: str,
        takes: Sequence[Priority],
        asked_to_stop: Callable[[], bool],
    ) -> None:
        self._dispatcher = dispatcher
        self._idle = idle
        self._worker = worker
        self._takes = takes
        self._asked_to_stop = asked_to_stop

    @property
    def stopping(self) -> bool:
        """Whether the worker is about to end, so that nothing more is begun."""
        return self._asked_to_stop()

    def dispatch(self, job: Job) -> None:
        """Have some worker begin with a queued job; where the broker is away, the reaper does so later."""
        with suppress(QueueUnavailable):
            self._dispatcher.dispatch(job)

    def pass_on(self) -> None:
        """Have another worker look for jobs such as this one takes; where the broker is away, the reaper does it."""
        with suppress(QueueUnavailable):
            for priority in self._takes:
                self._dispatcher.send_token(priority)

    def wait_for_work(self, *, but_bulk: bool = False) -> bool:
        """Stay at hand for ten seconds; returns true when this thread was notified of a job.

        Whoever submits meanwhile notifies a thread that waits here in the script that writes the job, which takes less
        time than a message.

        Args:
            but_bulk: for no bulk job.
        """
        takes = [priority for priority in self._takes if not (but_bulk and priority is Priority.BULK)]
        thread = f"{self._worker}/{threading.get_ident()}"
        until = time.monotonic() + _IDLE_AT_HAND_S
        with suppress(redis.RedisError):  # the consumer waits for its return
            while time.monotonic() < until and not self.stopping:
                if self._idle.wait(thread, takes, _LOOK_EVERY_S):
                    return True
        return False


class NoDispatcher(WorkerDispatcher):
    """For a runner on its own: tells nobody, waits for nothing, never stops."""

    def __init__(self) -> None:
        """Needs no connection."""

    @property
    def stopping(self) -> bool:
        """Never."""
        return False

    def dispatch(self, job: Job) -> None:
        """Does nothing."""

    def pass_on(self) -> None:
        """Does nothing."""

    def wait_for_work(self, *, but_bulk: bool = False) -> bool:
        """Returns false at once."""
        return False
