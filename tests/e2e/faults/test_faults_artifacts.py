"""Models and indexes are swapped, broken and deleted under a running service: it serves whole versions or says why."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from shared.artifacts.backends import backend_at
from shared.artifacts.snapshots import index_store
from shared.model.bundle import bundle_store
from tests.e2e.conftest import eventually
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger
from tests.support.places import copy_installation, location_of, needs_files
from tests.support.snapshots import UNUSABLE, rows_by_version, write_reversed


class Searches:
    """What a client that searches all the time is answered."""

    def __init__(self, ledger: Ledger, image: bytes, rows: dict[str, dict[str, int]]) -> None:
        self.versions: list[str] = []
        self.errors: list[str] = []
        self._ledger = ledger
        self._image = image
        self._rows = rows

    @contextmanager
    def going_on(self) -> Iterator["Searches"]:
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                try:
                    self._search()
                except Exception as exc:
                    self.errors.append(repr(exc))

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        yield self
        stop.set()
        for thread in threads:
            thread.join()

    def _search(self) -> None:
        result = self._ledger.read(self._ledger.submit(self._image, k=10), wait_s=20)["result"]
        assert isinstance(result, dict)
        version = result["index_version"]
        for neighbour in result["neighbours"]:
            assert neighbour["row"] == self._rows[version][neighbour["image_id"]]
        self.versions.append(version)


def problems(fleet: Fleet) -> tuple[int, str]:
    answer = requests.get(fleet.url + "/readyz", timeout=10)
    return answer.status_code, " ".join(answer.json()["problems"])


@needs_files(reason="hosts of an object store go on with their copies")
def test_versions_are_swapped_and_old_ones_deleted_under_load_and_each_answer_is_of_one(
    fleet: Fleet, photos: list[Path], tmp_path: Path
) -> None:
    fleet.man(1)
    ledger, store = Ledger(fleet.url), index_store(fleet.location)
    first = store.current()
    assert first is not None
    versions = [first, write_reversed(fleet.location)]
    whole = shutil.copytree(store.root, tmp_path / "indexes")
    searches = Searches(ledger, photos[0].read_bytes(), rows_by_version(fleet.location))
    with searches.going_on():
        for version in (versions[1], versions[0], versions[1]):
            store.promote(version)
            eventually(lambda version=version: searches.versions[-1:] == [version], 15, "it is served")  # type: ignore[misc]
        shutil.rmtree(store.path(versions[0]))
        n_before = len(searches.versions)
        eventually(lambda: len(searches.versions) > n_before + 20, 20, "searches go on")
        shutil.rmtree(store.path(versions[1]))  # the one being served: its files are mapped, and stay until it is not
        n_before = len(searches.versions)
        eventually(lambda: "does not exist" in problems(fleet)[1], 15, "readiness names what is missing")
        eventually(lambda: len(searches.versions) > n_before + 20, 20, "searches go on")
    assert searches.errors == []
    assert set(searches.versions) == set(versions)
    shutil.copytree(whole, store.root, dirs_exist_ok=True)
    eventually(lambda: problems(fleet) == (200, ""), 15, "all is well again")
    ledger.settle()


def test_what_cannot_be_used_is_named_while_the_old_one_serves(fleet: Fleet, photos: list[Path]) -> None:
    fleet.man(1)
    ledger, store = Ledger(fleet.url), index_store(fleet.location)
    good = store.current()
    assert good is not None
    searches = Searches(ledger, photos[0].read_bytes(), rows_by_version(fleet.location))
    with searches.going_on():
        for name in ("flipped bit", "pointer to nowhere"):
            promote, said = UNUSABLE[name]
            promote(fleet.location)
            eventually(lambda said=said: said in problems(fleet)[1], 15, name)  # type: ignore[misc]
            assert problems(fleet)[0] == 200
            store.promote(good)
            eventually(lambda: problems(fleet) == (200, ""), 15, "all is well again")
    assert searches.errors == []
    assert set(searches.versions) == {good}
    ledger.settle()


def test_a_worker_that_cannot_load_its_model_takes_no_job_until_it_can(
    home: Path, photos: list[Path], tmp_path: Path
) -> None:
    copy_installation(home, tmp_path / "home")
    storage = location_of(tmp_path / "home")
    files, weights = backend_at(storage, "bundles"), f"{bundle_store(storage).newest()}/graph.bin"
    whole = files.at(weights).read_bytes()
    files.remove([weights])
    fleet = Fleet(tmp_path / "home", tmp_path / "valkey")
    try:
        fleet.start("api")
        fleet.start("worker")
        eventually(lambda: "graph.bin is missing" in problems(fleet)[1], 30, "it says why")
        ledger = Ledger(fleet.url)
        job_id = ledger.submit(photos[0].read_bytes())
        files.write(weights, whole[:-1000] + bytes(1000))
        eventually(lambda: "graph.bin has changed" in problems(fleet)[1], 30, "it says why")
        assert problems(fleet)[0] == 503
        job = ledger.read(job_id)
        assert (job["status"], job["attempt"]) == ("queued", 0)
        files.write(weights, whole)
        ledger.settle(30)
    finally:
        fleet.close()
