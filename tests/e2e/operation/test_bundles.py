"""Models of other specs are promoted under a running service: no answer is wrong, no job lost, the way back open"""

import json
import signal
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.artifacts import Location
from shared.model.bundle import Precision, Runtime, bundle_store, open_bundle, write_bundle_directory
from shared.photos.images import PreprocessSpec
from tests.e2e.conftest import eventually, verb
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger
from tests.support.places import copy_installation
from tests.support.snapshots import write_doubting

CROP = PreprocessSpec(size_px=160, fit="crop")


@pytest.fixture
def own_fleet(home: Path, catalogue: Path, tmp_path: Path) -> Iterator[Fleet]:
    """API and a worker over a copy of the installation; its health probe goes with the model too."""
    copy_installation(home, tmp_path / "home")
    fleet = Fleet(tmp_path / "home", tmp_path / "valkey", lease_s=4, probe_every_s=0.5, catalogue=catalogue, streams=2)
    fleet.man(1)
    yield fleet
    fleet.close()


def elsewhere(storage: Location, directory: Path) -> str:
    """The live model as another machine would have made it, for a crop of 160 px; returns its fingerprint."""
    live = open_bundle(bundle_store(storage))
    changed: dict[str, object] = {
        "preprocess": CROP,
        "runtime": Runtime.TORCH,
        "precision": Precision.FLOAT32,
        "recipe": "finetune",
    }
    changed["references"] = None  # they are of the photos as the live model takes them
    changed["text"] = None
    manifest = live.manifest.model_copy(update=changed)
    write_bundle_directory(directory, manifest, live.tensors(), split=live.split)
    return str(json.loads((directory / "manifest.json").read_text())["fingerprint"])


def operate(fleet: Fleet, *arguments: str) -> Any:
    done = verb(*arguments, "--json", home=fleet.home, redis_url=fleet.redis_url)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


class Client(threading.Thread):
    """Searches all the time for photos of the catalogue, each of which has to find itself."""

    def __init__(self, ledger: Ledger, photos: list[Path]) -> None:
        super().__init__()
        self.answered_by: list[str] = []
        self.wrong: list[str] = []
        self._ledger, self._photos = ledger, photos
        self._stopping = threading.Event()

    def run(self) -> None:
        for photo in cycle(self._photos):
            if self._stopping.is_set():
                return
            try:
                self.answered_by.append(found_itself(self._ledger, self._ledger.submit(photo.read_bytes()), photo))
            except Exception as exc:
                self.wrong.append(repr(exc))

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def found_itself(ledger: Ledger, job_id: str, photo: Path) -> str:
    """The model whose answer it is."""
    result: Any = ledger.read(job_id, wait_s=30)["result"]
    best = result["neighbours"][0]
    assert (best["image_id"], best["score"] > 0.999) == (photo.stem, True), best
    return str(result["model_fingerprint"])


def test_models_of_two_specs_take_turns_under_load_and_every_answer_is_right(
    own_fleet: Fleet, photos: list[Path], tmp_path: Path
) -> None:
    fleet, ledger = own_fleet, Ledger(own_fleet.url)
    new, old_version = elsewhere(fleet.location, tmp_path / "carried"), bundle_store(fleet.location).current()
    clients = [Client(ledger, photos[start::2]) for start in (0, 1)]
    for client in clients:
        client.start()
    try:
        promoted = operate(fleet, "bundle", "promote", str(tmp_path / "carried"))
        assert promoted["index"] is None

        def problems() -> tuple[int, str]:
            answer = requests.get(fleet.url + "/readyz", timeout=10)
            return answer.status_code, " ".join(answer.json()["problems"])

        eventually(lambda: "lookalike reindex" in problems()[1], 15, "readiness says what is to be done")
        assert problems()[0] == 200
        reindex = operate(fleet, "reindex", "--promote", "if_valid", "--wait")
        assert reindex["result"]["promoted"]
        ledger.accept(reindex["id"])
        eventually(lambda: all(client.answered_by[-1] == new for client in clients), 30, "the new one answers")
        eventually(lambda: problems() == (200, ""), 15, "all is well")
    finally:
        for client in clients:
            client.stop()
    assert [wrong for client in clients for wrong in client.wrong] == []
    assert all(len(set(client.answered_by)) == 2 for client in clients)
    info = requests.get(fleet.url + "/v1/index", timeout=10).json()
    assert (info["preprocess"], info["recipe"], info["runtime"]) == (CROP.model_dump(), "finetune", "torch")

    # Back: what waits was made for the new one, and is answered by it.
    fleet.kill("worker")
    waiting = {photo: ledger.submit(photo.read_bytes()) for photo in photos[:4]}
    assert operate(fleet, "bundle", "promote", str(old_version))["index"]
    fleet.man(1)
    assert {found_itself(ledger, job_id, photo) for photo, job_id in waiting.items()} == {new}
    eventually(
        lambda: found_itself(ledger, ledger.submit(photos[5].read_bytes()), photos[5]) != new, 15, "the old one answers"
    )
    ledger.settle()


def test_a_worker_that_has_followed_promotions_ends_in_good_order(own_fleet: Fleet) -> None:
    def limit() -> object:
        return requests.get(own_fleet.url + "/v1/index", timeout=10).json()["abstain_below"]

    for certain_from in (0.1, 0.2, 0.3):
        bundle_store(own_fleet.location).promote(write_doubting(own_fleet.location, certain_from))
        eventually(lambda: limit() == certain_from, 15, "the worker has the model that was promoted")  # noqa: B023
    assert own_fleet.kill("worker", signal.SIGTERM) == 0
