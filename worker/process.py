"""The worker process: what it is made of, in which order its parts start, and how they end."""

import gc
import logging
import os
import socket
import time
from collections.abc import Collection
from functools import partial

import redis
from celery import Celery
from celery.worker import state

from shared.artifacts.installation import installation_id
from shared.changes.log import ChangeLog
from shared.errors import CannotStart, JobGone, JobNotFound
from shared.feedback.store import FeedbackStore
from shared.index.milvus.server import MilvusServer, open_server
from shared.jobs.celery_config import (
    ALL_QUEUES,
    DELIVER_WEBHOOK,
    NAMED_QUEUES,
    OLD_QUEUES,
    OLD_RUN_QUEUED,
    QUEUES,
    RUN_QUEUED,
    TASKS,
    WEBHOOKS,
    make_celery,
)
from shared.jobs.contract import JobKind, Priority
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.idle import IdleThreads
from shared.jobs.records import QueueName
from shared.jobs.store import JobStore
from shared.jobs.view import view
from shared.jobs.worker_registry import WorkerRegistry
from shared.quality.store import QualityStore
from shared.redis_address import running_redis_url
from shared.redis_client import connect, refuse_unusable
from shared.settings import Settings, WorkerTakes
from shared.webhooks.queue import WebhookQueue
from shared.webhooks.signing import WebhookMessage, event_body
from worker.intake import Intake
from worker.jobs.heartbeat import Heartbeat
from worker.jobs.leases import Leases
from worker.jobs.periodic import EVERY_S, Periodic
from worker.jobs.reaper import Reaper
from worker.jobs.runner import JobRunner
from worker.jobs.stalled import StalledJobs
from worker.jobs.task_tracer import TaskTracer
from worker.jobs.worker_dispatcher import WorkerDispatcher
from worker.schedule import reindex_schedule
from worker.serving.engine import Engine
from worker.serving.loaded_model import EngineOptions
from worker.serving.micro_batcher import BatchLimits
from worker.serving.shadow import ShadowSearches
from worker.tasks.duplicates import DuplicateFinder
from worker.tasks.feedback import FeedbackArchiver
from worker.tasks.images import ChangeFollower, ChangeWriter, read_changes
from worker.tasks.reindex import Reindexer
from worker.tasks.shard_decoder import ShardDecoders
from worker.tasks.shards import ShardRunner
from worker.tasks.webhooks import PARALLEL, NotEnded, WebhookPublisher, WebhookSender

_LOG = logging.getLogger(__name__)
_FEWEST_THREADS = 8
_MOST_THREADS = 128
_SPARED_OF_BULK = 4  # one thread in so many; the others have in hand what is in passes and half as much again
_OTHER_CONNECTIONS = 64
# Two shards: while one writes what it has embedded, the model works for the other.
_AT_A_TIME = {JobKind.REINDEX: 1, JobKind.SHARD: 2, JobKind.DUPLICATES: 1}
_PUBLISH_WITHIN_S = 2.0
_COLLECTS_EVERY_S = 60.0  # 2 to 4 ms each

_Thread = Periodic | ChangeFollower | ShadowSearches


class WorkerProcess:
    """Everything one worker is made of.

    Args:
        settings: of the installation.
        app: whose tasks it runs.
        queues: to read, of those that the settings allow.

    Attributes:
        name: host and process id, unique among workers.
        n_photo_threads: photo jobs to have in hand at once; 0: as many as keep the model busy.
        engine: runs the model.
        runner: what tasks call.
        tracer: runs claimed jobs as tasks of `app`.
        store: the job records.
        webhooks: posts the ends of jobs.
        webhook_publisher: publishes a message for each of those that is due.
        intakes: which queues are read, and when; the photo jobs' come first.

    Raises:
        CannotStart: Redis is of a kind that cannot be used, or no queue is left to read.
    """

    def __init__(self, settings: Settings, app: Celery, queues: Collection[str] = ALL_QUEUES) -> None:
        url = running_redis_url(settings)
        # A thread that waits for work holds a connection, and one that runs a job may need another.
        client = connect(url, max_connections=2 * max(settings.worker_threads, _MOST_THREADS) + _OTHER_CONNECTIONS)
        refuse_unusable(client)
        # The heartbeat's own: whatever the threads do, it finds a connection.
        beating = connect(url)
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.n_photo_threads = settings.worker_threads
        self._settings = settings
        allowed = [p for p in Priority if settings.worker_takes in (WorkerTakes.ALL, WorkerTakes(p.value))]
        # Also what is claimed, not only what is read: a token of one queue stands for the jobs of all that are taken.
        self._takes = [priority for priority in allowed if QUEUES[priority] in queues]
        self.store = _job_store(client, settings)
        server = open_server(settings)
        # On the connections of the jobs: one that has just claimed a search reaches the Redis that is alive.
        log = ChangeLog(client)
        self.engine = Engine(settings.storage, _engine_options(settings), partial(read_changes, log), server)
        # Apart from the consumer's connections, which wait for ever: a heartbeat must not.
        publishing = make_celery(url, socket_timeout_s=_PUBLISH_WITHIN_S)
        leases = Leases()
        self.tracer = TaskTracer(app)
        self._decoders = ShardDecoders()
        self.runner = self._make_runner(client, log, server, leases, Dispatcher(publishing, client))
        deliveries = WebhookQueue(client)
        shown = _job_store(client, settings, n_replicas=settings.redis_replicas)
        self.webhooks = WebhookSender(
            deliveries, partial(_webhook, shown, settings.url_prefix), settings.webhook_policy
        )
        self._heartbeat = self._make_heartbeat(beating, leases, Dispatcher(publishing, beating))
        self.webhook_publisher = WebhookPublisher(publishing, client, deliveries, self.webhooks.deliver)
        self.shadow = ShadowSearches(QualityStore(client), share=settings.shadow_share)
        if settings.shadow_share:
            self.engine.on_answered = self.shadow.offer
        self._beating = Periodic("heartbeat", self._heartbeat.beat)
        self._threads = self._make_threads(client, publishing, leases, ChangeLog(connect(url)))
        self.intakes = self._make_intakes(queues, named=Priority.BULK in allowed)
        self._started: list[_Thread] = []

    def start(self) -> None:
        """Load the model and begin all but Celery's consumer; returns at once when the worker is asked to stop."""
        self._heartbeat.beat()
        # Apart from what follows: to fetch and load a model or an index takes longer than a lease may.
        self._begin(self._beating)
        self.engine.refresh()
        while not (self.engine.can_embed or asked_to_stop()):  # without a model it can do nothing, but says why
            time.sleep(EVERY_S)
            self.engine.refresh()
        self._heartbeat.beat()
        for thread in self._threads:
            self._begin(thread)

    def close(self) -> None:
        """End every thread, finish what waits for the model, withdraw the heartbeat; may be called again."""
        for thread in self._started:
            thread.stop()
        self._started = []
        self.engine.close()
        self._decoders.close()
        self._heartbeat.retire()

    @property
    def n_threads(self) -> int:
        """Photo jobs to have in hand at once, so that the next are there when the model is done with these."""
        wanted = min(_MOST_THREADS, max(_FEWEST_THREADS, 2 * self.engine.max_concurrency))
        return self.n_photo_threads or wanted

    @property
    def n_other_threads(self) -> int:
        """Threads for the tasks that are no photo jobs."""
        return sum(_AT_A_TIME.values()) + PARALLEL

    def _begin(self, thread: _Thread) -> None:
        thread.start()
        self._started.append(thread)

    def _make_runner(
        self, client: redis.Redis, log: ChangeLog, server: MilvusServer | None, leases: Leases, dispatcher: Dispatcher
    ) -> JobRunner:
        settings = self._settings
        shards = ShardRunner(settings, self.store, self.engine, self._decoders, stopping=asked_to_stop)
        reindexer = Reindexer(
            settings, client, self.store, self.engine, dispatcher=dispatcher, stopping=asked_to_stop, server=server
        )
        duplicates = DuplicateFinder(settings, client, reindexer.store, self.engine, stopping=asked_to_stop)
        change = ChangeWriter(log, self.engine, settings, duplicates.of_put).run
        return JobRunner(
            self.store,
            self.engine,
            leases,
            worker=self.name,
            lease_s=settings.lease_s,
            handlers={
                JobKind.REINDEX: reindexer.run,
                JobKind.SHARD: shards.run,
                JobKind.DUPLICATES: duplicates.run,
                JobKind.PUT_IMAGE: change,
                JobKind.DELETE_IMAGE: change,
            },
            only=QueueName(self._takes[0].value) if len(self._takes) == 1 else None,
            most_bulk=lambda: self.n_threads - self.n_threads // _SPARED_OF_BULK,
            dispatcher=WorkerDispatcher(
                dispatcher, IdleThreads(client), worker=self.name, takes=self._takes, asked_to_stop=asked_to_stop
            ),
            tracer=self.tracer,
        )

    def _make_heartbeat(self, client: redis.Redis, leases: Leases, dispatcher: Dispatcher) -> Heartbeat:
        settings = self._settings
        records = _job_store(client, settings)
        return Heartbeat(
            self.name,
            records,
            WorkerRegistry(client),
            self.engine,
            leases,
            self.runner.counts,
            Reaper(records, dispatcher, max_attempts=settings.max_attempts, lease_s=settings.lease_s),
            lease_s=settings.lease_s,
            installation=installation_id(settings.storage),
        )

    def _make_threads(
        self, client: redis.Redis, publishing: Celery, leases: Leases, followed: ChangeLog
    ) -> list[_Thread]:
        """What runs beside the jobs, but for the heartbeat."""
        settings = self._settings
        threads: list[_Thread] = [
            Periodic("promotions", self.engine.refresh),
            Periodic("webhooks", self.webhook_publisher.publish_due),
            Periodic("feedback", FeedbackArchiver(settings, FeedbackStore(client)).archive),
            # Replaced indexes and broken connections refer to themselves; Python by itself looks for such seldom.
            Periodic("garbage", gc.collect, every_s=_COLLECTS_EVERY_S),
            ChangeFollower(followed, self.engine),
        ]
        if settings.shadow_share:
            threads.append(self.shadow)
        if self._takes:
            stalled = StalledJobs(
                self.runner,
                leases,
                self.store,
                client,
                [QUEUES[priority] for priority in self._takes],
                able=lambda: self.engine.takes_all and not asked_to_stop(),
            )
            threads.append(Periodic("stalled", stalled.poll))
        if settings.worker_beat:
            threads.append(Periodic("beat", reindex_schedule(settings, publishing, client).run_due))
        return threads

    def _make_intakes(self, queues: Collection[str], *, named: bool) -> list[Intake]:
        engine = self.engine
        intakes = []
        if self._takes:
            photos = tuple(names[priority] for names in (QUEUES, OLD_QUEUES) for priority in self._takes)
            tokens = frozenset(
                {RUN_QUEUED, OLD_RUN_QUEUED, *(TASKS[kind] for kind in TASKS if kind not in NAMED_QUEUES)}
            )
            intakes.append(Intake(photos, tokens, lambda: self.n_threads if engine.takes_all else 0))
        for kind, limit in _AT_A_TIME.items():
            if named and NAMED_QUEUES[kind] in queues:
                # Also while there is no index: that is how there comes to be one.
                able = partial(_when_able, engine, limit)
                intakes.append(Intake((NAMED_QUEUES[kind],), frozenset({TASKS[kind]}), able))
        if WEBHOOKS in queues:
            intakes.append(Intake((WEBHOOKS,), frozenset({DELIVER_WEBHOOK}), lambda: PARALLEL))
        if not intakes:
            raise CannotStart(
                f"none of the queues {', '.join(sorted(queues)) or '(none)'} is for this worker; "
                f"there are {', '.join(ALL_QUEUES)}, and LOOKALIKE_WORKER_TAKES={self._settings.worker_takes}"
            )
        return intakes


_running: WorkerProcess | None = None


def current() -> WorkerProcess:
    """The worker that this process is.

    Raises:
        RuntimeError: it is none, as where a task is called without a worker.
    """
    if _running is None:
        raise RuntimeError("no worker runs in this process")
    return _running


def set_current(worker: WorkerProcess) -> None:
    """Make a worker the one that this process is."""
    global _running  # noqa: PLW0603 - Celery's tasks and signals have nothing else in common
    _running = worker


def close_current() -> None:
    """Close the worker that this process is, if it is one."""
    if _running is not None:
        _running.close()


def asked_to_stop() -> bool:
    """Whether Celery's consumer was told to end."""
    return state.should_stop is not None or state.should_terminate is not None


def ask_to_stop() -> None:
    """Have Celery's consumer end at its next look, and every thread begin nothing more."""
    state.should_stop = os.EX_OK


def _when_able(engine: Engine, limit: int) -> int:
    return limit if engine.can_embed else 0


def _webhook(store: JobStore, prefix: str, job_id: str) -> WebhookMessage | None:
    """What to tell of an ended job; None when nobody can know any more.

    Raises:
        NotEnded: it has not ended, or too few replicas have its end.
    """
    try:
        job = store.get(job_id)
    except (JobNotFound, JobGone):
        return None
    if job.submission.webhook_url is None:
        return None
    if job.finished_at is None:
        raise NotEnded
    body = event_body(f"job.{job.status}", job.finished_at, view(job, prefix=prefix).model_dump(mode="json"))
    return WebhookMessage(job.submission.webhook_url, body)


def _job_store(client: redis.Redis, settings: Settings, *, n_replicas: int = 0) -> JobStore:
    return JobStore(client, job_ttl_s=settings.job_ttl_s, result_ttl_s=settings.result_ttl_s, n_replicas=n_replicas)


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
