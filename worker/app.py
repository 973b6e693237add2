"""The worker process: model first, then heartbeat, then Celery's consumer. Nothing forks after the model is loaded."""

import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable

import redis
from celery.platforms import SecurityWarning
from celery.signals import setup_logging
from celery.worker import state

from shared.errors import QueueUnavailable
from shared.job_store import JobStore
from shared.jobs import WorkerReport
from shared.queues import INTERACTIVE, RUN_JOB, broker_errors, make_celery, oldest_message, wake_worker
from shared.redis_client import connect, refuse_cluster
from shared.settings import Settings
from shared.telemetry import configure_logging, event
from worker.batching import BatchLimits
from worker.engine import Engine, EngineOptions
from worker.tasks import JobRunner, Leases

_LOG = logging.getLogger(__name__)
_BEAT_S = 2.0
_LOST_MESSAGE_S = 5.0


class Periodic(threading.Thread):
    """Calls `action` every two seconds until stopped, whatever it raises."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._action = action
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(_BEAT_S):
            try:
                self._action()
            except Exception:  # a worker whose heartbeat died would lose every job it takes
                _LOG.exception("event=periodic_failed name=%s", self.name)

    def stop(self) -> None:
        """End the thread after the round it is in."""
        self._stopping.set()
        self.join(timeout=_BEAT_S + 3)


class Heartbeat:
    """What a worker does for its jobs and its peers: extend leases, report, and move dead workers' jobs on."""

    def __init__(self, settings: Settings, client: redis.Redis, store: JobStore, engine: Engine) -> None:
        self.leases = Leases()
        self.worker_name = f"{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._client = client
        self._store = store
        self._engine = engine
        self._celery = make_celery(settings.required_redis_url, socket_timeout_s=2)

    def beat(self) -> None:
        """One round; Redis being away is logged and tried again at the next."""
        try:
            with broker_errors():
                self._store.extend(self.leases.held(), lease_s=self._settings.lease_s)
                self._report()
                if self._engine.ready:
                    self._reap()
        except QueueUnavailable as exc:
            event(_LOG, "redis_unreachable", level=logging.WARNING, reason=type(exc.__cause__).__name__)

    def retire(self) -> None:
        """Withdraw the heartbeat."""
        try:
            self._store.retire(self.worker_name)
        except redis.RedisError:
            pass  # Redis is gone too; the heartbeat goes stale by itself

    def _report(self) -> None:
        self._store.report(
            WorkerReport(
                name=self.worker_name,
                pid=os.getpid(),
                reported_at=time.time(),
                state="ready" if self._engine.ready else "unready",
                index=self._engine.info(),
                problem=self._engine.problem,
                stats=self._engine.stats(),
            )
        )

    def _reap(self) -> None:
        report = self._store.reap(
            max_attempts=self._settings.max_attempts,
            lost_after_s=_LOST_MESSAGE_S,
            oldest_message=oldest_message(self._client),
        )
        for job in report.wake:
            event(_LOG, "job_requeued", level=logging.WARNING, job_id=job.id, attempt=job.attempt)
            wake_worker(self._celery, job)
        for job_id in report.failed:
            event(_LOG, "job_given_up", level=logging.ERROR, job_id=job_id)


def run_worker(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; jobs in hand are finished first.

    Returns:
        The process's exit code: 1 when nobody asked it to stop, because Celery's consumer met an error of Redis's that
        it does not wait out (no memory left, too few replicas). Whatever supervises the worker starts it again.

    Raises:
        CannotStart: Redis is of a kind that cannot be used.
    """
    configure_logging()
    # As root Celery warns of pickled messages; ours are JSON, and nothing else is accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    client = connect(settings.required_redis_url)
    refuse_cluster(client)
    store = JobStore(client, job_ttl_s=settings.job_ttl_s, result_ttl_s=settings.result_ttl_s)
    engine = Engine(settings.home, _engine_options(settings))
    heartbeat = Heartbeat(settings, client, store, engine)
    engine.refresh()
    while not engine.ready:  # a worker without a model takes no job, but says why
        heartbeat.beat()
        time.sleep(_BEAT_S)
        engine.refresh()
    heartbeat.beat()
    # Apart from each other: loading a new bundle takes longer than a lease may.
    periodic = [Periodic("heartbeat", heartbeat.beat), Periodic("promotions", engine.refresh)]
    for thread in periodic:
        thread.start()
    runner = JobRunner(store, engine, heartbeat.leases, worker=heartbeat.worker_name, lease_s=settings.lease_s)
    # Celery would set the root logger to its own level, and our events would end there.
    setup_logging.connect(_keep_logging, weak=False)
    celery = make_celery(settings.required_redis_url)
    celery.task(name=RUN_JOB)(runner.run)
    event(_LOG, "worker_ready", worker=heartbeat.worker_name, threads=settings.worker_threads)
    try:
        celery.worker_main(
            [
                "--quiet",
                "worker",
                "--pool=threads",
                f"--concurrency={settings.worker_threads}",
                f"--queues={INTERACTIVE}",
                f"--hostname={heartbeat.worker_name}",
                "--loglevel=WARNING",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ]
        )
    finally:
        for thread in periodic:
            thread.stop()
        engine.close()
        heartbeat.retire()
    asked = state.should_stop is not None or state.should_terminate is not None
    return 0 if asked else 1


def _keep_logging(**_: object) -> None:
    """Celery leaves logging alone where somebody listens to this signal."""


def _engine_options(settings: Settings) -> EngineOptions:
    limits = BatchLimits(
        max_batch=settings.max_batch,
        max_waiting=max(64, 2 * settings.worker_threads),
        max_wait_s=settings.batch_wait_ms / 1e3,
        hang_after_s=settings.hang_after_s,
    )
    return EngineOptions(
        threads=settings.threads,
        streams=settings.streams,
        limits=limits,
        cache_entries=settings.cache_entries,
        cache_ttl_s=settings.cache_ttl_s,
    )
