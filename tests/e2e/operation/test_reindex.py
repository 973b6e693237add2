"""Reindexing that nobody notices: killed at any moment, spread over workers, frozen, searched through meanwhile."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from tests.e2e.conftest import eventually
from tests.e2e.support.counting_worker import COUNTED, DIE_BEFORE, SHARD_PHOTOS
from tests.e2e.support.fleet import Fleet
from tests.support.places import milvus_server

N_PHOTOS = 104
IN_FLIGHT = 2 * SHARD_PHOTOS  # of one worker


@pytest.fixture(scope="module")
def counting(home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of counting workers over a copy of everything."""
    fleet = Fleet.over_copies(
        home, catalogue, tmp_path_factory.mktemp("reindex"), lease_s=4, probe_every_s=0, streams=2
    )
    fleet.start("api")
    yield fleet
    fleet.close()


def man(fleet: Fleet, n_workers: int) -> None:
    """Have exactly so many counting workers, ready, whatever the last test left."""
    for name in [name for name in fleet.processes if name.startswith("counting") and fleet.alive(name)]:
        if int(name.partition("-")[2]) > n_workers:
            fleet.kill(name)
    for number in range(1, n_workers + 1):
        if not fleet.alive(f"counting-{number}"):
            fleet.start(f"counting-{number}")
    eventually(lambda: requests.get(fleet.url + "/readyz", timeout=5).json()["workers"] == n_workers, 60, "workers")


def submit(fleet: Fleet, **request: object) -> str:
    (fleet.home / COUNTED).unlink(missing_ok=True)
    answer = requests.post(f"{fleet.url}/v1/jobs/reindex", json=request, timeout=10)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def job(fleet: Fleet, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{fleet.url}/v1/jobs/{job_id}", timeout=10).json()
    return found


def result_of(fleet: Fleet, job_id: str, within_s: float = 60) -> dict[str, Any]:
    eventually(lambda: job(fleet, job_id)["status"] not in ("queued", "running"), within_s, "the reindex ends")
    ended = job(fleet, job_id)
    assert ended["status"] == "succeeded", ended
    result: dict[str, Any] = ended["result"]
    return result


def done(fleet: Fleet, job_id: str) -> int:
    """Photos that are embedded; all of them once it has gone on to what comes next."""
    progress = job(fleet, job_id)["progress"] or {"stage": "none"}
    if progress["stage"] == "embedding":
        return int(progress["done"])
    return N_PHOTOS if progress["stage"] in ("building", "verifying") else 0


def wait_done(fleet: Fleet, job_id: str, share: float) -> None:
    eventually(lambda: done(fleet, job_id) >= share * N_PHOTOS, 60, f"{share:.0%} are embedded")


def counted(fleet: Fleet) -> Counter[str]:
    return Counter((fleet.home / COUNTED).read_text().split())


def snapshots(fleet: Fleet) -> list[VectorIndex]:
    """Every version that can be seen, each opened and verified."""
    store = index_store(fleet.location)
    return [
        open_snapshot(
            store,
            fingerprint=read_index_manifest(store, version).fingerprint,
            version=version,
            server=milvus_server(),
        )
        for version in store.versions()
    ]


@contextmanager
def searched(fleet: Fleet, photo: Path) -> Iterator[Counter[str]]:
    """Search five times a second meanwhile; what became of it, by index version or kind of failure."""
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def search() -> None:
        while not stop.wait(0.2):
            answer = requests.post(
                f"{fleet.url}/v1/jobs/search",
                files={"image": photo.read_bytes()},
                headers={"Prefer": "wait=20"},
                timeout=30,
            )
            body = answer.json()
            ended = answer.status_code == 200 and body["status"] == "succeeded"
            outcomes[body["result"]["index_version"] if ended else f"{answer.status_code} {body.get('error')}"] += 1

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join()


def test_killed_early_midway_late_and_before_promotion_it_embeds_nothing_twice_but_shards_in_flight(
    counting: Fleet, photos: list[Path]
) -> None:
    man(counting, 1)
    before = index_store(counting.location).current()
    job_id = submit(counting, mode="all")
    n_kills = 0
    for share in (0.1, 0.5, 0.8):
        wait_done(counting, job_id, share)
        counting.kill("counting-1")
        n_kills += 1
        assert {len(snapshot) for snapshot in snapshots(counting)} == {N_PHOTOS}
        assert index_store(counting.location).current() == before
        if share == 0.8:
            (counting.home / DIE_BEFORE).touch()
        counting.start("counting-1")
    worker = counting.processes["counting-1"]
    worker.wait(60)  # it ends itself, with a sealed snapshot that is not promoted
    assert index_store(counting.location).current() == before
    n_versions = len(snapshots(counting))
    counting.start("counting-1")
    result = result_of(counting, job_id)
    assert (result["promoted"], result["index_version"]) == (True, index_store(counting.location).current())
    assert len(snapshots(counting)) == n_versions  # what was sealed was promoted, and not made again
    embedded = counted(counting)
    assert len(embedded) == N_PHOTOS
    assert embedded.total() <= N_PHOTOS + n_kills * IN_FLIGHT


def test_three_workers_make_the_snapshot_that_one_makes_while_searches_go_on(
    counting: Fleet, photos: list[Path]
) -> None:
    man(counting, 1)
    alone = result_of(counting, submit(counting, mode="all"))
    man(counting, 3)
    with searched(counting, photos[0]) as outcomes:
        job_id = submit(counting, mode="all")
        together = result_of(counting, job_id)
        eventually(lambda: outcomes[str(together["index_version"])], 10, "searches are answered from the new one")
    assert set(outcomes) == {alone["index_version"], together["index_version"]}
    assert counted(counting).total() == N_PHOTOS
    by_version = {snapshot.version: snapshot for snapshot in snapshots(counting)}
    one, three = by_version[str(alone["index_version"])], by_version[str(together["index_version"])]
    assert list(one.photos()) == list(three.photos())
    rows = np.arange(N_PHOTOS)
    # int8 and other batch sizes: the same to the last bits of float32.
    assert np.allclose(one.vectors(rows), three.vectors(rows), atol=1e-4)
    with counting.client() as client:
        runs = client.hvals("lookalike:workers")
    assert sum(b'"succeeded"' in run for run in runs) > 1  # several had part in it


def test_a_coordinator_frozen_past_its_lease_promotes_nothing_when_it_wakes(counting: Fleet) -> None:

    man(counting, 1)
    before = len(index_store(counting.location).history())
    job_id = submit(counting, mode="all")
    eventually(lambda: done(counting, job_id) >= 20, 30, "some are done")
    counting.signal("counting-1", signal.SIGSTOP)
    counting.start("counting-2")
    result = result_of(counting, job_id)
    counting.signal("counting-1", signal.SIGCONT)
    eventually(lambda: requests.get(counting.url + "/readyz", timeout=5).json()["workers"] == 2, 30, "it is back")
    time.sleep(1)  # for whatever it would do wrong
    history = index_store(counting.location).history()
    assert (len(history), history[-1].version) == (before + 1, result["index_version"])
    assert job(counting, job_id)["attempt"] == 2


def test_a_cancelled_one_ends_soon_and_promotes_nothing(counting: Fleet) -> None:
    man(counting, 1)
    before = index_store(counting.location).current()
    job_id = submit(counting, mode="all")
    eventually(lambda: done(counting, job_id) >= 8, 30, "some are done")
    assert requests.post(f"{counting.url}/v1/jobs/{job_id}/cancel", timeout=10).status_code == 202
    eventually(lambda: job(counting, job_id)["status"] == "canceled", 20, "canceled")
    n = counted(counting).total()
    with counting.client() as client:
        eventually(lambda: not client.zcard("lookalike:running"), 10, "shards in hand end")
    at_the_end = counted(counting).total()
    assert n <= at_the_end <= min(n + IN_FLIGHT, N_PHOTOS - 1)
    time.sleep(0.5)
    assert counted(counting).total() == at_the_end
    assert index_store(counting.location).current() == before
