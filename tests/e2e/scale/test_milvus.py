"""An index that moves into Milvus while searches go on; Milvus killed, a builder killed; all of it real processes."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.artifacts.snapshots import IndexKind, index_store, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.index.drafts import collections
from shared.index.milvus.server import alias_of
from tests.conftest import encode, noise_image
from tests.e2e.conftest import eventually
from tests.e2e.operation.test_live_changes import assert_seen_by_every_worker, change, found, search
from tests.e2e.operation.test_reindex import result_of, submit
from tests.e2e.support.fleet import Fleet
from tests.support.milvus import MilvusLite
from tests.support.places import copy_installation, needs_faiss


class Place:
    """Two workers and an API with a Milvus of their own; the index they start with lies in files."""

    def __init__(self, directory: Path, home: Path, catalogue: Path) -> None:
        copy_installation(home, directory / "home")
        shutil.copytree(catalogue, directory / "catalogue")
        self.milvus = MilvusLite(directory)
        self.fleet = Fleet(
            directory / "home",
            directory / "valkey",
            log=directory / "log",
            lease_s=4,
            probe_every_s=0,
            catalogue=directory / "catalogue",
            index=self.milvus.address,
        )

    @property
    def store(self) -> ArtifactStore:
        return index_store(self.fleet.location)

    def live_in_milvus(self) -> bool:
        version = self.store.current()
        assert version
        facts = read_index_manifest(self.store, version).index
        return facts is not None and facts.kind is IndexKind.MILVUS

    def alias_leads_to(self, version: str | None) -> bool:
        return self.milvus.alias(alias_of(self.store.place)) == collections(self.store)[str(version)]

    def problems(self) -> str:
        return " ".join(requests.get(self.fleet.url + "/readyz", timeout=10).json()["problems"])

    def close(self) -> None:
        self.fleet.close()
        self.milvus.kill()


pytestmark = needs_faiss(reason="starts from an index in files")


@pytest.fixture(scope="module")
def place(home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"), home, catalogue)
    place.fleet.man(2)
    yield place
    place.close()


def neighbours(fleet: Fleet, photo: Path) -> list[tuple[str, float]]:
    answer = search(fleet, photo.read_bytes(), k=20)["result"]["neighbours"]
    return [(one["image_id"], round(one["score"], 4)) for one in answer]


def versions_that_answer(fleet: Fleet, photo: Path) -> set[str]:
    return {str(search(fleet, photo.read_bytes(), k=1)["result"]["index_version"]) for _ in range(6)}


def test_the_index_moves_into_milvus_and_live_changes_reindex_and_rollback_go_on_as_before(
    place: Place, photos: list[Path]
) -> None:
    fleet = place.fleet
    before = {photo: neighbours(fleet, photo) for photo in photos[:8]}
    moved = result_of(fleet, submit(fleet))
    assert (moved["promoted"], moved["counts"]["embedded"], place.live_in_milvus()) == (True, 0, True)
    first = moved["index_version"]
    eventually(lambda: versions_that_answer(fleet, photos[0]) == {first}, 20, "every worker answers from Milvus")
    assert {photo: neighbours(fleet, photo) for photo in photos[:8]} == before
    eventually(lambda: place.alias_leads_to(first), 10, "others find it")

    photo = encode(noise_image(903), "PNG")
    change(fleet, "put-live", photo)
    change(fleet, photos[1].stem, None)
    assert_seen_by_every_worker(fleet, photo, "put-live", there=True)
    assert_seen_by_every_worker(fleet, photos[1].read_bytes(), photos[1].stem, there=False)
    assert requests.get(f"{fleet.url}/v1/images/{photos[0].stem}", timeout=10).status_code == 200
    by_id = requests.post(
        f"{fleet.url}/v1/jobs/search", json={"image_id": photos[0].stem}, headers={"Prefer": "wait=20"}, timeout=30
    )
    assert found(by_id.json())[0] == photos[0].stem

    compacted = result_of(fleet, submit(fleet))
    assert (compacted["promoted"], compacted["counts"]["seen"]) == (True, 104)
    second = compacted["index_version"]
    eventually(lambda: place.alias_leads_to(second), 10, "others find the new one")
    eventually(lambda: versions_that_answer(fleet, photos[0]) == {second}, 20, "every worker answers from it")
    assert_seen_by_every_worker(fleet, photo, "put-live", there=True)
    assert requests.post(f"{fleet.url}/v1/index/rollback", timeout=10).status_code == 200
    eventually(lambda: place.alias_leads_to(first), 10, "others find the old one again")
    eventually(lambda: versions_that_answer(fleet, photos[0]) == {first}, 20, "every worker answers from the old one")
    assert_seen_by_every_worker(fleet, photo, "put-live", there=True)
    assert_seen_by_every_worker(fleet, photos[1].read_bytes(), photos[1].stem, there=False)


def failed_search(fleet: Fleet, photo: Path) -> dict[str, Any]:
    answer = requests.post(
        f"{fleet.url}/v1/jobs/search",
        files={"image": photo.read_bytes()},
        headers={"Prefer": "wait=20"},
        timeout=30,
    )
    ended: dict[str, Any] = answer.json()
    return ended


def test_while_milvus_is_down_searches_fail_by_name_and_come_back_by_themselves(
    place: Place, photos: list[Path]
) -> None:
    fleet = place.fleet
    if not place.live_in_milvus():
        result_of(fleet, submit(fleet))
    before = neighbours(fleet, photos[2])
    place.milvus.kill()
    ended = failed_search(fleet, photos[2])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "index_unavailable"), ended
    assert ended["error"]["retryable"]
    eventually(lambda: "Milvus at" in place.problems(), 10, "readiness says what is wrong")
    embedded = requests.post(
        f"{fleet.url}/v1/jobs/embed", files={"image": photos[2].read_bytes()}, headers={"Prefer": "wait=20"}, timeout=30
    )
    assert embedded.json()["status"] == "succeeded"  # what needs no index goes on
    place.milvus.start()
    eventually(lambda: place.problems() == "", 20, "readiness is content")
    assert neighbours(fleet, photos[2]) == before


def test_a_builder_killed_while_it_fills_a_collection_leaves_nothing_that_another_does_not_clear(
    place: Place, photos: list[Path]
) -> None:
    fleet = place.fleet
    if not place.live_in_milvus():
        result_of(fleet, submit(fleet))
    before = set(place.milvus.collections())
    job_id = submit(fleet, mode="all")
    eventually(lambda: set(place.milvus.collections()) - before, 60, "a collection is being filled")
    with fleet.client() as client:
        builder = (client.hget(f"lookalike:job:{job_id}", "worker") or b"").decode()
    [name] = [name for name, process in fleet.processes.items() if builder.endswith(f"-{process.pid}")]
    fleet.kill(name, signal.SIGKILL)
    result = result_of(fleet, job_id)
    assert result["promoted"]
    assert set(place.milvus.collections()) == set(collections(place.store).values())
    fleet.man(2)
    eventually(lambda: versions_that_answer(fleet, photos[0]) == {result["index_version"]}, 30, "all is as it was")
