"""The worker process: model first, then heartbeat, then Celery's consumer. Nothing forks after the model is loaded."""

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import redis
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.signals import setup_logging
from celery.worker import state

from shared.changes.log import ChangeLog
from shared.errors import JobGone, JobNotFound, QueueUnavailable
from shared.index.milvus_server import MilvusServer, open_server
from shared.jobs.contract import Job, JobKind, Priority, WorkerReport
from shared.jobs.idle import IdleThreads
from shared.jobs.dispatcher import LOST_AFTER_S, QUEUES, RUN_NEXT, Dispatcher, broker_errors, make_celery
from shared.jobs.records import QueueName
from shared.jobs.reindex_jobs import ReindexStore
from shared.jobs.store import JobStore
from shared.jobs.view import view
from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_client import connect, refuse_cluster
from shared.schedule.slots import Schedule
from shared.settings import Settings, WorkerTakes
from shared.telemetry import configure_logging, event
from shared.webhooks.queue import WebhookQueue
from shared.webhooks.signing import WebhookMessage, event_body
from worker.jobs.consumer import QueueConsumer
from worker.jobs.runner import JobRunner, Leases
from worker.serving.engine import Engine
from worker.serving.loaded_model import EngineOptions
from worker.serving.micro_batcher import BatchLimits
from worker.tasks.images import ChangeFollower, ChangeWriter, read_changes
from worker.tasks.reindex import Reindexer
from worker.tasks.shards import ShardRunner
from worker.tasks.webhooks import WebhookSender

_LOG = logging.getLogger(__name__)
_BEAT_S = 2.0
_DEAF_AFTER_S = 30.0
_DEAF_ROUNDS = 5
_LEAVE_WITHIN_S = 10.0
_IDLE_AT_HAND_S = 10.0
_LOOK_EVERY_S = 1.0
_FEWEST_THREADS = 8
_MOST_THREADS = 128
# Two: while one writes what it has embedded, the model works for the other.
_SHARDS_AT_A_TIME = 2


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

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        store: JobStore,
        engine: Engine,
        server: MilvusServer | None = None,
    ) -> None:
        self.worker_name = f"{socket.gethostname()}-{os.getpid()}"
        takes = settings.worker_takes
        self._only = None if takes is WorkerTakes.ALL else Priority(takes.value)
        self.queues = [queue for priority, queue in QUEUES.items() if self._only in (None, priority)]
        self._leases = Leases()
        self._stopping = threading.Event()
        shards = ShardRunner(settings, store, engine, stopping=self._stopping.is_set)
        reindexer = Reindexer(settings, client, store, engine, stopping=self._stopping.is_set, server=server)
        change = ChangeWriter(ChangeLog(client), engine, settings.storage).run
        self.runner = JobRunner(
            store,
            engine,
            self._leases,
            worker=self.worker_name,
            lease_s=settings.lease_s,
            handlers={
                JobKind.REINDEX: reindexer.run,
                JobKind.SHARD: shards.run,
                JobKind.PUT_IMAGE: change,
                JobKind.DELETE_IMAGE: change,
            },
            only=None if self._only is None else QueueName(self._only.value),
            stopping=_asked_to_stop,
            wake=self._dispatch,
            await_more=self._await_more,
        )
        self._lines = [
            QueueConsumer(
                line,
                ReindexStore(client, store),
                self.runner.run_line,
                able=lambda: engine.can_embed,
                stop=self._stopping,
            )
            for line in (QueueName.REINDEX, *(_SHARDS_AT_A_TIME * [QueueName.SHARD]))
            if self._only is not Priority.INTERACTIVE
        ]
        self._settings = settings
        self._client = client
        self._store = store
        self._registry = WorkerRegistry(client)
        self._engine = engine
        self._waker = Dispatcher(make_celery(settings.required_redis_url, socket_timeout_s=2), client)
        self._idle = IdleThreads(client)
        self._n_rounds_deaf = 0

    def beat(self) -> None:
        """One round; Redis being away is logged and tried again at the next."""
        try:
            with broker_errors():
                held = self._leases.held()
                wanted = self._store.extend(held, lease_s=self._settings.lease_s)
                self._leases.drop(set(held) - wanted)
                if self._engine.can_embed:
                    self._reap()
                self._report(len(held))
        except QueueUnavailable as exc:
            event(_LOG, "redis_unreachable", level=logging.WARNING, reason=type(exc.__cause__).__name__)

    def poll_stalled(self) -> None:
        """Run jobs whose messages do not come, one at a time: Redis is too full for messages, or our consumer is dead.

        A dead consumer ends the process: messages lie in the queue, and for half a minute none has reached it.
        """
        asked_at = self.runner.woken_at
        idle_s = time.monotonic() - asked_at
        if idle_s < LOST_AFTER_S:
            self._n_rounds_deaf = 0
        until = time.monotonic() + _BEAT_S
        try:
            if idle_s < LOST_AFTER_S or self._leases.hold_photos() or self._store.oldest_wait_s() < LOST_AFTER_S:
                return
            n_messages = sum(int(self._client.llen(queue)) for queue in self.queues)
            while time.monotonic() < until and self.runner.woken_at == asked_at and self.runner.run_waiting():
                pass
        except redis.RedisError:
            return  # nobody can work now
        # Several rounds, because after a pause of the whole process or of Redis the first messages are just arriving.
        if n_messages and idle_s > _DEAF_AFTER_S:
            self._n_rounds_deaf += 1
        if self._n_rounds_deaf > _DEAF_ROUNDS and self.runner.woken_at == asked_at:
            event(_LOG, "consumer_dead", level=logging.CRITICAL, idle_s=idle_s)
            logging.shutdown()
            os._exit(os.EX_SOFTWARE)

    @property
    def n_threads(self) -> int:
        """Jobs to be in hand at once, so that the next photos are there when the model is done with these."""
        return min(_MOST_THREADS, max(_FEWEST_THREADS, 2 * self._engine.max_concurrency))

    def start_lines(self) -> None:
        """Take reindexes and shards from now on, also while there is no index: that is how there comes to be one."""
        for line in self._lines:
            line.start()

    def stop_lines(self) -> None:
        """Hand back what is in hand of them."""
        self._stopping.set()
        for line in self._lines:
            if line.is_alive():
                line.join(timeout=_LEAVE_WITHIN_S)

    def retire(self) -> None:
        """Withdraw the heartbeat."""
        try:
            self._registry.retire(self.worker_name)
        except redis.RedisError:
            pass  # Redis is gone too; the heartbeat goes stale by itself

    def _report(self, n_held: int) -> None:
        counts = self.runner.counts
        stats = self._engine.stats().model_copy(update={"outcomes": counts.outcomes(), "stages": counts.stages()})
        self._registry.report(
            WorkerReport(
                name=self.worker_name,
                pid=os.getpid(),
                reported_at=time.time(),
                state="ready" if self._engine.ready else "unready",
                held=n_held,
                device=self._engine.device,
                photos_per_s=self._engine.photos_per_s,
                index=self._engine.info(),
                problem=self._engine.problem,
                stats=stats,
            )
        )

    def _dispatch(self, job: Job) -> None:
        with suppress(QueueUnavailable):  # what waits for long is found without a message
            self._waker.wake(job.submission.priority)

    def _await_more(self) -> bool:
        """Stay at hand for a while: whoever submits next calls a thread that waits here, and sends no message."""
        thread = f"{self.worker_name}/{threading.get_ident()}"
        taken = [priority for priority in Priority if self._only in (None, priority)]
        until = time.monotonic() + _IDLE_AT_HAND_S
        with suppress(redis.RedisError):  # the consumer waits for its return
            while time.monotonic() < until and not _asked_to_stop():
                if self._idle.wait(thread, taken, _LOOK_EVERY_S):
                    return True
        return False

    def _reap(self) -> None:
        report = self._store.reap(max_attempts=self._settings.max_attempts)
        for job_id in report.requeued:
            event(_LOG, "job_requeued", level=logging.WARNING, job_id=job_id)
            for priority in Priority:
                self._waker.wake(priority)
        for job_id in report.failed:
            event(_LOG, "job_given_up", level=logging.ERROR, job_id=job_id)
        for job_id in report.expired:
            event(_LOG, "job_expired", job_id=job_id)
        if n_lost := self._waker.republish_lost(self._store):
            event(_LOG, "messages_replaced", level=logging.WARNING, count=n_lost)


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
    # At every reconnect it explains over six lines what a setting of ours does.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    client = connect(settings.required_redis_url)
    refuse_cluster(client)
    store = JobStore(client, job_ttl_s=settings.job_ttl_s, result_ttl_s=settings.result_ttl_s)
    log = ChangeLog(connect(settings.required_redis_url))
    server = open_server(settings)
    engine = Engine(settings.storage, _engine_options(settings), partial(read_changes, log), server)
    heartbeat = Heartbeat(settings, client, store, engine, server)
    sender = WebhookSender(WebhookQueue(client), partial(_webhook, store), settings.webhook_policy)
    periodic: list[Periodic | ChangeFollower] = []
    # Until Celery's own handler takes over nothing is in hand, so that an end is in good order at any moment.
    signal.signal(signal.SIGTERM, _leave)
    try:
        heartbeat.beat()
        # Apart from what follows: to fetch and load a model or an index takes longer than a lease may.
        periodic.append(Periodic("heartbeat", heartbeat.beat))
        periodic[0].start()
        engine.refresh()
        heartbeat.start_lines()
        while not (engine.ready or _asked_to_stop()):  # a worker without an index takes no job of a photo, but says why
            time.sleep(_BEAT_S)
            engine.refresh()
        heartbeat.beat()
        for thread in (
            Periodic("promotions", engine.refresh),
            Periodic("unasked", heartbeat.poll_stalled),
            Periodic("webhooks", sender.deliver_due),
            ChangeFollower(log, engine),
            Periodic("schedule", partial(_reindex_when_due, settings, Schedule(client, store))),
        ):
            thread.start()
            periodic.append(thread)
        _consume(settings, heartbeat)
    finally:
        heartbeat.stop_lines()
        sender.close()
        for thread in periodic:
            thread.stop()
        engine.close()
        heartbeat.retire()
    return 0 if _asked_to_stop() else 1


def _asked_to_stop() -> bool:
    """Whether Celery's consumer was told to end."""
    return state.should_stop is not None or state.should_terminate is not None


def _consume(settings: Settings, heartbeat: Heartbeat) -> None:
    """Run Celery's consumer until it is asked to stop."""
    # Celery would set the root logger to its own level, and our events would end there.
    setup_logging.connect(_keep_logging, weak=False)
    celery = make_celery(settings.required_redis_url)
    celery.task(name=RUN_NEXT)(heartbeat.runner.run_next)
    threads = settings.worker_threads or heartbeat.n_threads
    event(_LOG, "worker_ready", worker=heartbeat.worker_name, threads=threads)
    celery.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=threads",
            f"--concurrency={threads}",
            f"--queues={','.join(heartbeat.queues)}",
            f"--hostname={heartbeat.worker_name}",
            "--loglevel=WARNING",
            "--without-gossip",
            "--without-mingle",
            "--task-events" if settings.celery_events else "--without-heartbeat",
        ]
    )


def _leave(*_: object) -> None:
    state.should_stop = os.EX_OK  # for where an exception is lost, as in the callback of a weak reference
    raise SystemExit(os.EX_OK)


def _reindex_when_due(settings: Settings, schedule: Schedule) -> None:
    if settings.reindex_cron is None:
        return
    try:
        if job_id := schedule.run_due(settings.reindex_cron):
            event(_LOG, "reindex_due", job_id=job_id)
    except redis.RedisError:
        pass  # the slot stays due


def _webhook(store: JobStore, job_id: str) -> WebhookMessage | None:
    """What to tell of an ended job; None when nobody can know any more."""
    try:
        job = store.get(job_id)
    except (JobNotFound, JobGone):
        return None
    if job.submission.webhook_url is None or job.finished_at is None:
        return None
    body = event_body(f"job.{job.status}", job.finished_at, view(job).model_dump(mode="json"))
    return WebhookMessage(job.submission.webhook_url, body)


def _keep_logging(**_: object) -> None:
    """Celery leaves logging alone where somebody listens to this signal."""


def _engine_options(settings: Settings) -> EngineOptions:
    limits = BatchLimits(
        max_waiting=max(64, 2 * settings.worker_threads),
        max_wait_s=settings.batch_wait_ms / 1e3,
        hang_after_s=settings.hang_after_s,
    )
    return EngineOptions(
        threads=settings.threads,
        streams=settings.streams,
        max_batch=settings.max_batch,
        tunings=settings.home / "tuning",
        limits=limits,
        cache_entries=settings.cache_entries,
        cache_ttl_s=settings.cache_ttl_s,
    )
