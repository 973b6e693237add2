"""How a worker starts, takes over Celery's own worker, and ends. Nothing forks after the model is loaded.

`python -m worker` and `celery -A worker.celery_app worker` start the same: Celery's signals call the functions below.
"""

import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.utils.nodenames import default_nodename

from shared.errors import CannotStart
from shared.jobs.celery_config import ALL_QUEUES
from shared.settings import load_settings
from shared.telemetry import configure_logging, event
from worker.heap import bound_heap
from worker.process import WorkerProcess, ask_to_stop, close_current, current, set_current
from worker.tracing import trace_tasks

_LOG = logging.getLogger(__name__)
_SWITCH_S = 0.0005  # after which a thread that computes in Python lets others do so; Python's own choice is 5 ms


def _or_exit(listener: Callable[..., None]) -> Callable[..., None]:
    """A listener of Celery's signals whose errors end the process: Celery would log them and go on without a worker."""

    @wraps(listener)
    def listen(*args: Any, **kwargs: Any) -> None:
        try:
            listener(*args, **kwargs)
        except BaseException as exc:
            stop_worker()
            if not isinstance(exc, Exception):  # asked to stop
                raise
            if isinstance(exc, CannotStart):
                print(f"worker: {exc}", file=sys.stderr)
            else:
                _LOG.exception("event=worker_failed")
            raise SystemExit(1) from exc

    return listen


@_or_exit
def start_worker(instance: Any, conf: Any, options: Mapping[str, Any], **_: Any) -> None:
    """Make the worker and load its model, before Celery makes its own parts (signal `celeryd_init`)."""
    configure_logging()
    bound_heap()
    # As root Celery warns of pickled messages; ours are JSON, and nothing else is accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    # Until Celery's own handler takes over nothing is in hand, so that an end is in good order at any moment.
    signal.signal(signal.SIGTERM, _leave)
    settings = load_settings()
    trace_tasks(settings)
    running = WorkerProcess(settings, instance.app, _selected(options))
    set_current(running)
    # A collection of garbage stops all threads and looks at all objects, 0.1 s long; the modules' are most of them, and
    # stay. Models come and go: none is loaded yet.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)
    running.start()
    conf.worker_concurrency = running.n_threads


@_or_exit
def take_over(sender: Any, **_: Any) -> None:
    """Fit Celery's worker to what was made (signal `worker_init`): queues, threads, name."""
    running = current()
    queues = sender.app.amqp.queues
    for name in running.intakes[0].queues:
        if name not in queues:
            queues.add(name)
    queues.select(running.intakes[0].queues)
    running.n_photo_threads = sender.concurrency
    sender.concurrency += running.n_other_threads
    if sender.hostname == default_nodename(None):  # several workers of one host each need a name
        sender.hostname = default_nodename(running.name)
    # Workers know one another by their reports in Redis. Celery's own word of each to each grows with their square.
    quiet = {"without_gossip": True, "without_mingle": True, "without_heartbeat": not sender.task_events}
    sender.options.update(quiet)
    running.tracer.hostname = sender.hostname
    running.tracer.eventer = lambda: getattr(getattr(sender, "consumer", None), "event_dispatcher", None)
    event(_LOG, "worker_ready", worker=running.name, threads=running.n_photo_threads)


def stop_worker(**_: Any) -> None:
    """End what was started beside Celery (signal `worker_shutdown`)."""
    close_current()


def keep_our_logging(**_: Any) -> None:
    """Celery leaves logging alone where somebody listens to its signal `setup_logging`."""
    configure_logging()


def hide_explanations(**_: Any) -> None:
    """Have Celery not explain over six lines, at every reconnect, what a setting of ours does.

    Where it sets up logging it switches such warnings on, so this comes after that (signal `celeryd_after_setup`).
    """
    warnings.simplefilter("ignore", CPendingDeprecationWarning)


def _leave(*_: object) -> None:
    ask_to_stop()  # for where an exception is lost, as in the callback of a weak reference
    raise SystemExit(os.EX_OK)


def _selected(options: Mapping[str, Any]) -> set[str]:
    """The queues that `celery worker` is to read, by its options -Q and -X."""
    return {*(options.get("queues") or ALL_QUEUES)} - {*(options.get("exclude_queues") or ())}
