"""Real workers on two machines, of which one takes long to fetch a new model: it does what it can, and no more"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shared.artifacts.bucket import Bucket
from shared.artifacts.snapshots import bundle_store, index_store
from shared.jobs.answers_contract import SearchResult
from shared.jobs.celery_config import make_celery
from shared.jobs.contract import (
    Job,
    JobKind,
    JobStatus,
    SearchRequest,
)
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import PREFIX, Admission
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import WorkerReport
from shared.photos.images import PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image
from tests.e2e.conftest import Service, Stack, eventually
from tests.support.bundles import make_bundle, make_index
from tests.support.object_store import ObjectStore, Proxy

PHOTOS = [encode(noise_image(seed, (120, 90))) for seed in range(3)]
OLD, NEW = PreprocessSpec(size_px=96), PreprocessSpec(size_px=64, fit="crop")
N_THREADS = 4
PLENTY = Admission(max_queued=100, max_queued_per_owner=100)


@pytest.fixture
def proxy(object_store: ObjectStore) -> Iterator[Proxy]:
    with closing(Proxy(object_store.port)) as proxy:
        yield proxy


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Stack]:
    """A machine, with the Valkey."""
    with closing(Stack(tmp_path / "far", tmp_path / "valkey", log=tmp_path / "far.log")) as far:
        yield far


@pytest.fixture
def near(far: Stack, tmp_path: Path) -> Iterator[Service]:
    """Another one."""
    with closing(Service(tmp_path / "near", far.redis_url, log=tmp_path / "near.log")) as near:
        yield near


def test_a_worker_claims_no_photo_again_and_again_for_which_it_fetches_the_model(
    far: Stack, near: Service, proxy: Proxy, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Bucket(bucket_url, tmp_path / "builder")
    bundles = {spec: make_bundle(storage, spec) for spec in (OLD, NEW)}
    indexes = {spec: make_index(storage, version, PHOTOS) for spec, version in bundles.items()}

    def promote(spec: PreprocessSpec) -> None:
        bundle_store(storage).promote(bundles[spec])
        index_store(storage).promote(indexes[spec])

    promote(OLD)
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.url)
        far.start("worker", store=bucket_url, worker_threads=N_THREADS)
    with far.open_redis() as client:
        jobs, registry = JobStore(client), WorkerRegistry(client)
        dispatcher = Dispatcher(make_celery(far.redis_url, socket_timeout_s=2), client)

        def submit(spec: PreprocessSpec) -> Job:
            pixels = decode_photo(PHOTOS[1], spec).tobytes()
            made = jobs.create(JobKind.SEARCH, SearchRequest(k=1), pixels, spec=spec, admission=PLENTY, call_idle=True)
            if not made.called:
                dispatcher.dispatch(made.job)
            return made.job

        def answered_by(job: Job) -> PreprocessSpec:
            eventually(lambda: jobs.get(job.id).status is JobStatus.SUCCEEDED, 60, "it is answered")
            result = jobs.get(job.id).result
            assert isinstance(result, SearchResult)
            [spec] = [spec for spec, version in indexes.items() if version == result.index_version]
            return spec

        def report() -> WorkerReport | None:
            """The latest."""
            return next(iter(registry.live()), None)

        def serves(spec: PreprocessSpec) -> bool:
            latest = report()
            return latest is not None and latest.index is not None and latest.index.version == indexes[spec]

        eventually(lambda: serves(OLD), 120, "the far worker serves the old model")
        assert answered_by(submit(OLD)) == OLD
        proxy.hold_after = 1 << 20  # in the middle of the weights
        promote(NEW)
        eventually(lambda: proxy.holding, 60, "a fetch under way")
        began = report()
        assert began
        new = [submit(NEW) for _ in range(3 * N_THREADS)]
        assert answered_by(submit(OLD)) == OLD  # behind more of the others than the worker has threads
        eventually(lambda: (at := report()) and at.reported_at > began.reported_at + 6, 60, "some seconds pass")
        assert answered_by(submit(OLD)) == OLD
        waiting = [jobs.get(job.id) for job in new]
        assert {job.status for job in waiting} == {JobStatus.QUEUED}
        # Each thread may have one in hand as the first of them finds out.
        assert 1 <= sum(job.attempt for job in waiting) <= N_THREADS

        near.start("worker", store=bucket_url, worker_threads=N_THREADS)
        assert {answered_by(job) for job in new} == {NEW}
        assert sum(jobs.get(job.id).attempt for job in new) <= N_THREADS + len(new)
        assert not any(client.hexists(f"{PREFIX}job:{job.id}", "deaths") for job in new)
        assert [answered_by(submit(NEW)) for _ in range(5)] == [NEW] * 5

        near.processes["worker"].terminate()
        near.processes["worker"].wait(60)
        late = submit(NEW)
        proxy.hold_after = None
        assert answered_by(late) == NEW
        eventually(lambda: serves(NEW), 60, "the far worker has caught up")
        assert far.processes["worker"].poll() is None
