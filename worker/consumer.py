"""How a worker consumes Celery's queues: which ones, when, how many messages at once; and its remote control commands.

Celery reads all queues through one channel, with one limit. Here photo jobs, reindexes, shards and webhooks have a
limit each, and a queue is not read at all while the worker lacks what its jobs need: so every kind has its own channel.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool
from celery.worker import state
from celery.worker.control import control_command, inspect_command
from kombu.common import ignore_errors

from shared.errors import JobFinished, JobGone, JobNotFound
from shared.jobs.celery_config import job_id_of
from worker import process
from worker.intake import Intake


class ThreadPool(TaskPool):  # type: ignore[misc]
    """Celery's pool of threads; counts what is in hand by task, and wakes the event loop when a task ends.

    Without being woken the loop would look at its queues once a second, and a free thread would wait for so long.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._counting = threading.Lock()
        self._in_hand: Counter[str] = Counter()
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)

    def register_with_event_loop(self, hub: Any) -> None:
        """Let the loop of a new connection be woken."""
        hub.add_reader(self._pipe[0], self._woken)

    def on_apply(self, target: Any, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Run a task in a thread."""
        name = args[0]
        with self._counting:
            self._in_hand[name] += 1
        result = super().on_apply(target, args, *rest, **options)
        result.f.add_done_callback(lambda _: self._done(name))
        return result

    def n_in_hand(self, tasks: frozenset[str]) -> int:
        """How many of these tasks run or wait for a thread."""
        with self._counting:
            return sum(self._in_hand[name] for name in tasks)

    def _done(self, name: str) -> None:
        with self._counting:
            self._in_hand[name] -= 1
        self.wake()

    def wake(self) -> None:
        """Have the event loop look at its queues again."""
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._pipe[1], b"\0")

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._pipe[0], 4096)


class JobConsumers(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer bootstep: a channel for each intake, read while its limit is not reached."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, c: Any, **options: Any) -> None:
        self._consumers: list[Any] = []
        super().__init__(c, **options)

    def start(self, c: Any) -> None:
        """Begin to consume, at the start and after each reconnect."""
        self._close_channels(c)  # of a connection that was lost: Celery stops a step then, and does not shut it down
        running = process.current()
        first, *others = running.intakes
        self._limit(c, c.task_consumer.channel, first)
        for intake in others:
            channel = c.connection.channel()
            self._limit(c, channel, intake)
            queues = [c.app.amqp.queues[name] for name in intake.queues]
            consumer = c.app.amqp.TaskConsumer(channel, queues=queues, on_decode_error=c.on_decode_error)
            consumer.on_message = c.create_task_handler()
            consumer.consume()
            self._consumers.append(consumer)

    def stop(self, c: Any) -> None:
        """Read nothing more."""
        for consumer in self._consumers:
            _quietly(c, consumer.cancel)
        # What polls the connection. Celery leaves it there when that is lost, and the loop would call it for ever.
        c.hub.on_tick.clear()

    def shutdown(self, c: Any) -> None:
        """Close the channels."""
        self.stop(c)
        self._close_channels(c)

    def _close_channels(self, c: Any) -> None:
        for consumer in self._consumers:
            _quietly(c, consumer.channel.close)
        self._consumers = []

    @staticmethod
    def _limit(c: Any, channel: Any, intake: Intake) -> None:
        channel.qos.can_consume = lambda: c.pool.n_in_hand(intake.tasks) < intake.limit()


def _quietly(c: Any, close: Callable[[], object]) -> None:
    """Call what ends something of a connection that may be gone."""
    ignore_errors(c.connection, close)  # type: ignore[no-untyped-call]


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")  # type: ignore[untyped-decorator]
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: str | None = None, **_: Any) -> dict[str, str]:
    """Cancel jobs by id, wherever they are: queued ones at once, running ones as soon as their worker notices.

    In place of Celery's own command, which remembers ids in each worker's memory and forgets them at a restart.
    """
    canceled, left = [], []
    for one in [task_id] if isinstance(task_id, str) else task_id:
        try:
            process.current().store.cancel(job_id_of(one))
        except (JobFinished, JobGone, JobNotFound):  # also where another worker was told first, and it has ended since
            left.append(one)
        else:
            canceled.append(one)
    return {"ok": f"canceled: {', '.join(canceled) or 'none'}; unknown or ended: {', '.join(left) or 'none'}"}


@control_command()  # type: ignore[untyped-decorator]
def shutdown(state: Any, **_: Any) -> dict[str, str]:
    """End this worker as SIGTERM does: jobs in hand are finished, a reindex and its shards go to other workers.

    In place of Celery's own command, which only the consumer would notice: threads would go on claiming what is queued.
    """
    process.ask_to_stop()
    return {"ok": "ends after what it has in hand"}


@inspect_command()  # type: ignore[untyped-decorator]
def active_queues(state: Any) -> list[dict[str, Any]]:
    """The queues that this worker consumes, on whichever channel."""
    queues = state.app.amqp.queues
    return [dict(queues[name].as_dict(recurse=True)) for intake in process.current().intakes for name in intake.queues]


def hide_token(task_id: str) -> None:
    """Leave a token out of `inspect active`: the jobs that its thread runs are listed, each under its own name."""
    request = state.requests.get(task_id)
    if request is not None:
        state.active_requests.discard(request)
