"""What one of everything costs, measured on this machine: a pass, a job, a heartbeat, a shard, a submit.

Processor time is that of the process that spends it, so that it matters little what else the machine does.
"""

import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import redis
import requests

from shared.jobs.celery_config import NAMED_QUEUES, make_celery
from shared.jobs.contract import EmbedRequest, JobKind, JobStatus
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import Admission, QueueName
from shared.jobs.reindex_contract import Progress, ReindexRequest, ShardPhoto, ShardRequest, ShardResult
from shared.jobs.reindex_jobs import ReindexStore
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import WorkerReport
from shared.model.bundle import bundle_store, open_bundle
from shared.model.embedder import Cores
from shared.model.runtimes import open_embedder
from shared.redis_client import connect
from shared.settings import Backbone
from tests.benchmarks.support import sleeping_worker
from tests.benchmarks.support.fleet_model import Costs, Fleet
from tests.benchmarks.support.installation import add_workers, installed, serving
from tests.benchmarks.support.material import query_photos
from tests.benchmarks.support.processes import cpu_s
from tests.e2e.conftest import Stack

NO_LIMIT = Admission(10_000_000, 10_000_000)
_N_JOBS = 1500
_N_SHARDS = 200
_N_SUBMITS = 150
_N_REPORTS = 200
_IDLE_S = 10.0


@dataclass(frozen=True)
class RedisUse:
    """Time of the thread that runs commands, and how many commands, those in scripts too."""

    cpu_s: float
    commands: float

    @classmethod
    def so_far(cls, client: redis.Redis) -> "RedisUse":
        used = client.info("cpu")
        return cls(
            float(used["used_cpu_user_main_thread"]) + float(used["used_cpu_sys_main_thread"]),
            sum(float(each["calls"]) for each in client.info("commandstats").values()),
        )

    def of_each(self, until: "RedisUse", n: int) -> "RedisUse":
        """Of one of n things that were done from now until then."""
        return RedisUse((until.cpu_s - self.cpu_s) / n, (until.commands - self.commands) / n)


class Measured(NamedTuple):
    """Seconds, and the commands that Redis runs for a job, from submit to end, and for a shard."""

    costs: Costs
    job_commands: float
    shard_commands: float


def measure(backbone: Backbone) -> Measured:
    """Everything, in about a minute."""
    home = installed(backbone)
    pass_s, photo_s, pass_photos, streams = _model(home)
    quick_passes = (sleeping_worker.__name__, "1", "8")
    settings = {"cache_entries": 0, "probe_every_s": 0, "streams": 1, "max_batch": 8}
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(home, Path(scratch), n_workers=0) as stack,
        stack.open_redis() as client,
    ):
        empty = _redis_cpu_of_a_beat(client)
        add_workers(stack, 1, quick_passes, settings=settings)
        stack.wait_ready()
        beat_redis_s = max(0.0, _redis_cpu_of_a_beat(client) - empty)
        beat_report_s = _reports(client)
        worker_s, job = _jobs(stack, client)
        shard = _shards(stack)
        costs = Costs(
            pass_s=pass_s,
            photo_s=photo_s,
            pass_photos=pass_photos,
            streams=streams,
            worker_s=worker_s,
            redis_s=job.cpu_s,
            beat_redis_s=beat_redis_s,
            beat_report_s=beat_report_s,
            api_s=_submits(stack),
            shard_redis_s=shard.cpu_s,
        )
        return Measured(costs, job.commands, shard.commands)


def fill(store: JobStore, n_jobs: int) -> list[str]:
    """Jobs of so many different photos; nobody is woken."""
    rng = np.random.default_rng(17)
    made = []
    for _ in range(n_jobs):
        pixels = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8).tobytes()
        made.append(store.create(JobKind.EMBED, EmbedRequest(), pixels, admission=NO_LIMIT)[0].id)
    return made


def wait_drained(store: JobStore) -> None:
    while store.depth() or store.backlog().running:
        time.sleep(0.05)


def _model(home: Path) -> tuple[float, float, int, int]:
    """Of a pass besides its photos, of a photo, photos of a pass, passes at the same time."""
    bundle = open_bundle(bundle_store(home))
    embedder = open_embedder(bundle)
    size_px = bundle.manifest.preprocess.size_px
    rng = np.random.default_rng(17)

    def passes_s(n_photos: int, n_passes: int = 40) -> float:
        photos = rng.integers(0, 256, (n_photos, size_px, size_px, 3), dtype=np.uint8)

        def run() -> None:
            for _ in range(n_passes):
                embedder.embed(photos, Cores.STREAM)

        threads = [threading.Thread(target=run) for _ in range(embedder.n_streams)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - began) / n_passes

    embedder.embed(np.zeros((1, size_px, size_px, 3), dtype=np.uint8))  # never by two threads first: OpenVINO hangs
    passes_s(1, 5)
    one, full = passes_s(1), passes_s(embedder.best_batch)
    if embedder.best_batch == 1:
        return 0.0, one, 1, embedder.n_streams
    photo_s = min(max(0.0, (full - one) / (embedder.best_batch - 1)), full / embedder.best_batch)
    return full - embedder.best_batch * photo_s, photo_s, embedder.best_batch, embedder.n_streams


def _jobs(stack: Stack, client: redis.Redis) -> tuple[float, RedisUse]:
    """Of a job: its worker's interpreter, and Redis."""
    store, celery = JobStore(client), make_celery(stack.redis_url, socket_timeout_s=2)
    worker = [stack.processes["worker-0"].pid]
    before, worker_before = RedisUse.so_far(client), cpu_s(worker)
    fill(store, _N_JOBS)
    for _ in range(Fleet(1).threads):
        Dispatcher(celery, client).send_token()
    wait_drained(store)
    celery.close()
    return (cpu_s(worker) - worker_before) / _N_JOBS, before.of_each(RedisUse.so_far(client), _N_JOBS)


def _redis_cpu_of_a_beat(client: redis.Redis) -> float:
    """Between two beats, while there is no work."""
    before = RedisUse.so_far(client)
    time.sleep(_IDLE_S)
    return before.of_each(RedisUse.so_far(client), 1).cpu_s * Fleet(1).beat_s / _IDLE_S


def _reports(client: redis.Redis) -> float:
    """Of one more report in the registry, for whoever reads them all."""
    registry = WorkerRegistry(client)
    (real,) = registry.live()
    peers = [real.model_copy(update={"name": f"peer-{number}"}) for number in range(_N_REPORTS)]
    alone = _cpu_of_reports(client, registry, peers[:1])
    for peer in peers:
        registry.report(peer)
    many = _cpu_of_reports(client, registry, peers[:1])
    for peer in peers:
        registry.retire(peer.name)
    return max(0.0, many - alone) / _N_REPORTS


def _cpu_of_reports(client: redis.Redis, registry: WorkerRegistry, reports: Iterable[WorkerReport]) -> float:
    n_rounds = 200
    before = RedisUse.so_far(client)
    for _ in range(n_rounds):
        for report in reports:
            registry.report(report)
    return before.of_each(RedisUse.so_far(client), n_rounds).cpu_s


def _submits(stack: Stack) -> float:
    api = [stack.processes["api"].pid]
    photos = [path.read_bytes() for path in query_photos()[:_N_SUBMITS]]
    url = f"{stack.url}/v1/jobs/embed"
    with requests.Session() as session:

        def submit(photo: bytes) -> None:
            session.post(url, files={"image": photo}, headers={"Prefer": "wait=10"}, timeout=30).raise_for_status()

        submit(photos[0])
        before = cpu_s(api)
        for photo in photos:
            submit(photo)
    return (cpu_s(api) - before) / len(photos)


def _shards(stack: Stack) -> RedisUse:
    """From the reindex that submits it to the one that forgets it, less what happens in its model."""
    # Of its own, or the worker would claim what is made here.
    url = f"redis://127.0.0.1:{stack.valkey.port}/1"
    with connect(url) as client:
        jobs = JobStore(client)
        celery = make_celery(url, socket_timeout_s=2)
        store = ReindexStore(client, jobs, Dispatcher(celery, client))
        jobs.create(JobKind.REINDEX, ReindexRequest(), None, admission=NO_LIMIT)
        reindex = jobs.claim("bench", lease_s=60, only=QueueName.REINDEX)
        assert reindex is not None
        n_photos = Fleet(1).shard_photos
        photos = tuple(ShardPhoto(path=f"/catalogue/images/{i:040x}.jpg", sha256=f"{i:064x}") for i in range(n_photos))
        before = RedisUse.so_far(client)
        for number in range(_N_SHARDS):
            request = ShardRequest(bundle_version="v", scope="any", photos=photos)
            job_id = store.submit_shard(reindex.job, request, f"shard-{number}")
            assert client.brpop([NAMED_QUEUES[JobKind.SHARD]], 5)
            claim = jobs.claim_job(job_id, "bench", lease_s=60)
            assert claim is not None
            for _ in range(1 + n_photos // Fleet(1).shard_ahead):
                jobs.extend([(job_id, 1)], lease_s=60)
            assert jobs.succeed(claim.job, ShardResult(name="x")) is JobStatus.SUCCEEDED
            store.report(reindex.job, Progress(stage="embedding", done=number, total=_N_SHARDS))
            store.ended([job_id], 1)
            store.forget_shard(job_id)
        celery.close()
        return before.of_each(RedisUse.so_far(client), _N_SHARDS)
