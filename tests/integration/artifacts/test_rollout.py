"""A new model comes to two machines, one after the other: each photo is answered by a model that takes it, once"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.uploads.preprocessing import ServingPreprocessing
from pipeline.building.index import prepare
from shared.artifacts import bucket as bucket_module
from shared.artifacts.bucket import Bucket
from shared.artifacts.snapshots import bundle_store, index_store
from shared.errors import StoreUnavailable
from shared.jobs.answers_contract import SearchResult
from shared.jobs.contract import (
    Job,
    JobKind,
    JobStatus,
    SearchRequest,
)
from shared.jobs.records import Admission
from shared.jobs.store import JobStore
from shared.photos.images import PreprocessSpec, decode_photo
from shared.settings import Settings
from tests.conftest import Clock, encode, noise_image
from tests.e2e.conftest import eventually
from tests.support.bundles import make_bundle, make_index
from tests.support.object_store import ObjectStore, Proxy
from tests.support.runners import FakeDispatcher
from worker.jobs import runner as tasks
from worker.jobs.leases import Leases
from worker.jobs.runner import JobRunner
from worker.serving.engine import Engine

PHOTOS = [encode(noise_image(seed, (120, 90))) for seed in range(3)]
OLD, NEW = PreprocessSpec(size_px=96), PreprocessSpec(size_px=64, fit="crop")


class Host:
    """A worker's engine and runner on a machine of their own."""

    def __init__(self, name: str, url: str, cache: Path, jobs: JobStore) -> None:
        self.engine = Engine(Bucket(url, cache))
        self.dispatcher = FakeDispatcher()
        self.runner = JobRunner(jobs, self.engine, Leases(), worker=name, lease_s=15, dispatcher=self.dispatcher)


@pytest.fixture
def proxy(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(bucket_module, "_QUICKLY_S", 2)
    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    monkeypatch.setattr(tasks, "_ELSEWHERE_S", 0.01)
    proxy = Proxy(object_store.port)
    yield proxy
    proxy.close()


@pytest.fixture
def indexes(bucket_url: str, tmp_path: Path) -> dict[PreprocessSpec, str]:
    """Of two models in one store, of which that of OLD is live."""
    storage = Bucket(bucket_url, tmp_path / "builder")
    bundles = {spec: make_bundle(storage, spec) for spec in (OLD, NEW)}
    made = {spec: make_index(storage, version, PHOTOS) for spec, version in bundles.items()}
    bundle_store(storage).promote(bundles[OLD])
    index_store(storage).promote(made[OLD])
    return made


def promote_new(url: str, cache: Path, indexes: dict[PreprocessSpec, str]) -> None:
    storage = Bucket(url, cache)
    bundle_store(storage).promote(bundle_store(storage).newest())
    index_store(storage).promote(indexes[NEW])


@pytest.fixture
def near(bucket_url: str, indexes: object, tmp_path: Path, store: JobStore) -> Iterator[Host]:
    host = Host("near", bucket_url, tmp_path / "near", store)
    host.engine.refresh()
    yield host
    host.engine.close()


@pytest.fixture
def far(
    bucket_url: str, indexes: object, proxy: Proxy, tmp_path: Path, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    """Reaches the store by way of the proxy."""
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.url)
        host = Host("far", bucket_url, tmp_path / "far", store)
        host.engine.refresh()
    yield host
    host.engine.close()


def submit(store: JobStore, spec: PreprocessSpec) -> Job:
    pixels = decode_photo(PHOTOS[1], spec).tobytes()
    admission = Admission(max_queued=10, max_queued_per_owner=10)
    return store.create(JobKind.SEARCH, SearchRequest(k=1), pixels, spec=spec, admission=admission).job


def caught_up(host: Host, indexes: dict[PreprocessSpec, str]) -> bool:
    host.engine.refresh()
    info = host.engine.info()
    return info is not None and info.version == indexes[NEW]


def answered_by(store: JobStore, job: Job, indexes: dict[PreprocessSpec, str]) -> PreprocessSpec:
    result = store.get(job.id).result
    assert isinstance(result, SearchResult)
    assert result.neighbours[0].image_id == "1"
    [spec] = [spec for spec, version in indexes.items() if version == result.index_version]
    return spec


def test_a_machine_that_cannot_fetch_the_new_model_leaves_its_photos_to_another(
    near: Host,
    far: Host,
    proxy: Proxy,
    store: JobStore,
    indexes: dict[PreprocessSpec, str],
    bucket_url: str,
    tmp_path: Path,
) -> None:
    promote_new(bucket_url, tmp_path / "builder", indexes)
    eventually(lambda: caught_up(near, indexes), 30, "the other machine has the new model")
    with proxy.away():
        far.engine.refresh()
        job = submit(store, NEW)
        assert far.runner.run_waiting()
        assert store.get(job.id).status is JobStatus.QUEUED
        assert [told.id for told in far.dispatcher.dispatched] == [job.id]
        assert near.runner.run_waiting()
        assert answered_by(store, job, indexes) == NEW
        old = submit(store, OLD)
        assert far.runner.run_waiting()  # what it has, it answers
        assert answered_by(store, old, indexes) == OLD
    eventually(lambda: caught_up(far, indexes), 30, "the machine catches up")
    late = submit(store, NEW)
    assert far.runner.run_waiting()
    assert answered_by(store, late, indexes) == NEW


def test_a_machine_answers_with_the_old_model_while_it_fetches_the_new_one(
    far: Host,
    proxy: Proxy,
    store: JobStore,
    clock: Clock,
    indexes: dict[PreprocessSpec, str],
    bucket_url: str,
    tmp_path: Path,
) -> None:
    promote_new(bucket_url, tmp_path / "builder", indexes)
    seen = bundle_store(far.engine.live._storage)
    eventually(lambda: seen.current() == seen.newest(), 10, "the promotion is known")
    proxy.hold_after = 1 << 20  # in the middle of the weights
    fetching = threading.Thread(target=far.engine.refresh)
    fetching.start()
    eventually(lambda: proxy.holding, 30, "a fetch under way")
    old = submit(store, OLD)
    clock.now += 1
    new = submit(store, NEW)
    assert far.runner.run_waiting()
    assert answered_by(store, old, indexes) == OLD
    assert far.runner.run_waiting()
    assert store.get(new.id).status is JobStatus.QUEUED
    proxy.hold_after = None
    fetching.join()
    eventually(lambda: caught_up(far, indexes), 30, "it is there")
    assert far.runner.run_waiting()
    assert answered_by(store, new, indexes) == NEW


def test_the_front_door_makes_no_photo_for_a_model_it_has_not_seen(
    bucket_url: str, indexes: object, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    clock = Clock()
    door = ServingPreprocessing(Bucket(bucket_url, tmp_path / "door"), clock)
    with proxy.away():
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                door.current()
    assert door.current() == OLD
    with proxy.away():
        clock.now += 1
        assert door.current() == OLD


def test_nothing_is_built_anew_because_the_store_is_away(
    bucket_url: str, indexes: object, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    settings = Settings.model_validate({"home": tmp_path / "home", "store": bucket_url})
    said: list[str] = []
    with proxy.away(), pytest.raises(StoreUnavailable):
        prepare(settings, said.append)
    assert said == []
