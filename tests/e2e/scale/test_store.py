"""Hosts that share nothing but Redis and an object store: they fetch what they need, and outlive its absence"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from shared.artifacts.bucket import Bucket
from shared.artifacts.snapshots import bundle_store, index_store
from shared.jobs.worker_registry import WorkerRegistry
from shared.model.bundle import import_bundle
from tests.conftest import encode, noise_image
from tests.e2e.conftest import Service, Stack, eventually
from tests.support.milvus import MilvusLite
from tests.support.object_store import ObjectStore, Proxy
from tests.support.places import location_of


@pytest.fixture(params=["faiss", "milvus"])
def index(request: pytest.FixtureRequest) -> str:
    """Where the vectors lie; in Milvus, everything else still lies in the store."""
    if request.param == "faiss":
        return "faiss"
    server: MilvusLite = request.getfixturevalue("milvus")
    return server.address


@pytest.fixture
def proxy(object_store: ObjectStore) -> Iterator[Proxy]:
    proxy = Proxy(object_store.port)
    yield proxy
    proxy.close()


@pytest.fixture
def url(bucket_url: str, home: Path, catalogue: Path, tmp_path: Path) -> str:
    """A store with the catalogue, and a model that was promoted; there is no index yet."""
    bucket = Bucket(bucket_url, tmp_path / "builder")
    for file in sorted(catalogue.rglob("*")):
        if file.is_file():
            bucket.upload(f"catalogue/{file.relative_to(catalogue)}", file)
    local, shared = bundle_store(location_of(home)), bundle_store(bucket)
    shared.promote(import_bundle(shared, local.path(local.newest())))
    return bucket_url


@pytest.fixture
def hosts(url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    stack = Stack(tmp_path / "api", tmp_path / "valkey", log=tmp_path / "log")
    stack.start("api", store=url, catalogue=f"{url}/catalogue")
    yield stack
    stack.close()


def start_worker(hosts: Stack, name: str, url: str, home: Path, index: str) -> None:
    """On a host of its own, which knows Redis and the store."""
    host = Service(home, hosts.redis_url, hosts._log)
    hosts.processes[name] = host.start("worker", store=url, index=index)


def ready_workers(hosts: Stack) -> int:
    with hosts.open_redis() as client:
        return sum(report.state == "ready" for report in WorkerRegistry(client).live())


def first_neighbour(hosts: Stack, photo: Path) -> str:
    with photo.open("rb") as file:
        answer = requests.post(
            f"{hosts.url}/v1/jobs/search", files={"image": file}, headers={"Prefer": "wait=20"}, timeout=60
        )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"]["neighbours"][0]["image_id"])


def test_hosts_with_a_redis_and_a_store_index_search_and_outlive_its_absence(
    hosts: Stack, proxy: Proxy, url: str, photos: list[Path], tmp_path: Path, bucket_url: str, index: str
) -> None:
    start_worker(hosts, "one", url, tmp_path / "one", index)
    start_worker(hosts, "two", url, tmp_path / "two", index)
    # A reindex knows the catalogue from whoever was told of it; here that is the store.
    Bucket(bucket_url, tmp_path / "builder").write("catalogue", f"{url}/catalogue".encode())
    eventually(lambda: requests.get(f"{hosts.url}/livez", timeout=5).ok, 60, "the API")
    answer = requests.post(f"{hosts.url}/v1/jobs/reindex", headers={"Prefer": "wait=1"}, timeout=60)
    job = f"{hosts.url}/v1/jobs/{answer.json()['id']}?wait=5"
    eventually(lambda: requests.get(job, timeout=30).json()["status"] not in ("queued", "running"), 120, "the reindex")
    ended = requests.get(job, timeout=30).json()
    assert ended["status"] == "succeeded", ended
    assert ended["result"]["promoted"], ended["result"]["decision"]
    assert ended["result"]["counts"]["embedded"] == len(photos)
    hosts.wait_ready()
    eventually(lambda: ready_workers(hosts) == 2, 60, "two workers with the index")

    assert first_neighbour(hosts, photos[0]) == photos[0].stem
    address = f"{hosts.url}/v1/images/{photos[0].stem}"
    thumbnail = requests.get(address, timeout=30)
    assert thumbnail.headers["Content-Type"] == "image/jpeg"
    unchanged = {"If-None-Match": thumbnail.headers["ETag"]}
    assert requests.get(address, headers=unchanged, timeout=30).status_code == 304
    put = requests.put(
        f"{hosts.url}/v1/images/new",
        files={"image": encode(noise_image(5))},
        data={"listing_id": "l", "category": "Appliances"},
        headers={"Prefer": "wait=20"},
        timeout=60,
    )
    assert put.json()["status"] == "succeeded", put.text
    assert requests.get(f"{hosts.url}/v1/images/new", timeout=30).ok

    with proxy.away():
        for photo in photos[1:5]:
            assert first_neighbour(hosts, photo) == photo.stem
        start_worker(hosts, "three", url, tmp_path / "three", index)
        eventually(lambda: "does not answer" in told(hosts), 60, "a worker that says what it waits for")
        assert ready_workers(hosts) == 2
    eventually(lambda: ready_workers(hosts) == 3, 60, "the third worker")
    shutil.rmtree(tmp_path / "two")  # nothing on a host is missed
    assert first_neighbour(hosts, photos[5]) == photos[5].stem
    assert index_store(Bucket(bucket_url, tmp_path / "builder")).current() is not None


def told(hosts: Stack) -> str:
    with hosts.open_redis() as client:
        return " ".join(report.problem or "" for report in WorkerRegistry(client).live())
