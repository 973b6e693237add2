"""A worker's runner around an engine and a dispatcher made for the test; and one that runs jobs named by messages."""

import base64
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import redis
from celery.exceptions import Ignore

from shared.errors import LookalikeError
from shared.jobs.celery_config import NAMED_QUEUES, make_celery
from shared.jobs.contract import Job, JobKind, PhotoRequest, PhotoResult, Priority
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.idle import IdleThreads
from shared.jobs.store import JobStore
from shared.photos.preprocessing import PreprocessSpec
from shared.settings import Settings
from tests.conftest import Clock
from tests.support.jobs import create
from worker.jobs.leases import Leases
from worker.jobs.runner import JobRunner
from worker.jobs.worker_dispatcher import NoDispatcher, WorkerDispatcher
from worker.serving.engine import Engine
from worker.tasks.reindex import Reindexer
from worker.tasks.shard_decoder import ShardDecoders
from worker.tasks.shards import ShardRunner

_N_THREADS = {JobKind.REINDEX: 1, JobKind.SHARD: 2}
_LOOK_S = 0.2


class FakeEngine(Engine):
    """Answers what the test says."""

    def __init__(self, answer: Callable[[], PhotoResult]) -> None:
        super().__init__(Path("/nonexistent"))
        self._answer = answer
        self.calls = 0
        self.without_index = False

    @property
    def ready(self) -> bool:
        return not self.without_index

    @property
    def can_embed(self) -> bool:
        return True

    def run(
        self,
        request: PhotoRequest,
        pixels: bytes | None,
        *,
        spec: PreprocessSpec | None = None,
        priority: Priority = Priority.INTERACTIVE,
        owner: str = "",
        unwanted: Callable[[], bool] = lambda: False,
    ) -> PhotoResult:
        self.calls += 1
        return self._answer()


class FakeDispatcher(NoDispatcher):
    """Notes the jobs it is told of; stops and waits as the test says."""

    def __init__(
        self, *, asked_to_stop: Callable[[], bool] = lambda: False, work_comes: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__()
        self.dispatched: list[Job] = []
        self.waited_but_for_bulk: list[bool] = []
        self._stop = asked_to_stop
        self._work_comes = work_comes

    @property
    def stopping(self) -> bool:
        return self._stop()

    def dispatch(self, job: Job) -> None:
        self.dispatched.append(job)

    def wait_for_work(self, *, but_bulk: bool = False) -> bool:
        self.waited_but_for_bulk.append(but_bulk)
        return self._work_comes()


def runner(
    jobs: JobStore, engine: Engine, leases: Leases | None = None, dispatcher: WorkerDispatcher | None = None
) -> JobRunner:
    """A runner of photo jobs."""
    return JobRunner(jobs, engine, leases or Leases(), worker="w1", lease_s=15, dispatcher=dispatcher)


def submit_suspect(client: redis.Redis, owner: str) -> Job:
    """A job whose workers died in every attempt but the last."""
    clock = Clock()
    clock.now = time.time()
    store = JobStore(client, clock=clock)
    job = create(store, owner=owner)
    for _ in range(2):
        assert store.claim("dying", lease_s=0.1)
        clock.now += 1
        assert store.reap(max_attempts=3).requeued == [job.id]
    return job


def in_thread(made: JobRunner) -> threading.Thread:
    """Have it run one photo job, if one waits."""
    thread = threading.Thread(target=made.run_waiting, daemon=True)
    thread.start()
    return thread


DECODERS = ShardDecoders()  # of all tests of a process: each takes 0.3 s to start


class NamedJobs:
    """What a worker does with reindexes and shards: threads read their messages, and each runs the job it names."""

    def __init__(self, settings: Settings, client: redis.Redis, jobs: JobStore, engine: Engine) -> None:
        self._client = client
        self._stopping = threading.Event()
        stopping = self._stopping.is_set
        self._celery = make_celery(settings.required_redis_url, socket_timeout_s=2)
        dispatcher = Dispatcher(self._celery, client)
        reindexer = Reindexer(settings, client, jobs, engine, dispatcher=dispatcher, stopping=stopping)
        shards = ShardRunner(settings, jobs, engine, DECODERS, stopping=stopping)
        self._runner = JobRunner(
            jobs,
            engine,
            Leases(),
            worker="w1",
            lease_s=settings.lease_s,
            handlers={JobKind.REINDEX: reindexer.run, JobKind.SHARD: shards.run},
            dispatcher=WorkerDispatcher(
                dispatcher, IdleThreads(client), worker="w1", takes=list(Priority), asked_to_stop=stopping
            ),
        )
        self._threads = [
            threading.Thread(target=self._run, args=[NAMED_QUEUES[kind]], name=kind.value, daemon=True)
            for kind, n_threads in _N_THREADS.items()
            for _ in range(n_threads)
        ]

    def start(self) -> None:
        """Begin to read messages."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Read no more, and hand back what is in hand."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        self._celery.close()

    def _run(self, queue: str) -> None:
        while not self._stopping.is_set():
            if popped := cast(tuple[bytes, bytes] | None, self._client.brpop([queue], _LOOK_S)):
                try:
                    self._runner.run_job(job_named_by(popped[1]))
                except (Ignore, LookalikeError):
                    continue  # the job's record says how it ended


def job_named_by(message: bytes) -> str:
    """The id in a message of Celery's that names a job."""
    (job_id,), _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return str(job_id)
