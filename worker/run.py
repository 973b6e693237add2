"""Runs a worker until it is asked to stop: what `python -m worker` does."""

from worker.celery_app import app
from worker.process import asked_to_stop, stop_worker


def run_worker() -> int:
    """Serve until SIGTERM or SIGINT; jobs in hand are finished first.

    Returns:
        The process's exit code: 1 when nobody asked it to stop, because Celery's consumer met an error of Redis's that
        it does not wait out (no memory left, too few replicas). Whatever supervises the worker starts it again.
    """
    try:
        app.worker_main(["--quiet", "worker", "--loglevel=WARNING"])
    except SystemExit:
        pass  # the exit code is made below
    finally:
        stop_worker()
    return 0 if asked_to_stop() else 1
