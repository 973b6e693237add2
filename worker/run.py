"""Runs a worker until it is asked to stop: what `python -m worker` does."""

from worker.celery_app import app
from worker.lifecycle import stop_worker
from worker.process import asked_to_stop


def run_worker() -> int:
    """Serve until SIGTERM or SIGINT; jobs in hand are finished first.

    Returns:
        The process's exit code: 1 when nobody asked it to stop, because Celery's consumer met an error of Redis's that
        it does not wait out (no memory left, too few replicas). Whatever supervises the worker starts it again.
    """
    try:
        # As `celery worker` does; but that command first imports every other one, and the plugins of Celery that happen
        # to be installed, which takes 0.15 s of a processor.
        app.Worker(loglevel="WARNING", quiet=True).start()
    except SystemExit:
        pass  # the exit code is made below
    finally:
        stop_worker()
    return 0 if asked_to_stop() else 1
