"""One contract for artifacts, wherever they lie: in a directory or in an object store, seen by two machines."""

import json
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from shared.artifacts.backend import Backend, DirectoryBackend
from shared.artifacts.bucket import Bucket
from shared.artifacts.bucket_backend import BucketBackend
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.errors import IndexDamaged, IndexMissing, PromotionRefused

Machine = Callable[[str], ArtifactStore]


@pytest.fixture(params=["directory", "bucket"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """The same artifacts as seen from a machine."""
    url = request.getfixturevalue("bucket_url") if request.param == "bucket" else ""

    def see(name: str) -> ArtifactStore:
        backend: Backend = DirectoryBackend(tmp_path / "indexes", damaged=IndexDamaged)
        if url:
            bucket = Bucket(url, cache=tmp_path / name)
            backend = BucketBackend(bucket, "indexes", damaged=IndexDamaged)
        return ArtifactStore(backend, missing=IndexMissing, damaged=IndexDamaged)

    return see


@pytest.fixture
def here(machine: Machine) -> ArtifactStore:
    return machine("here")


@pytest.fixture
def there(machine: Machine) -> ArtifactStore:
    return machine("there")


def write_version(store: ArtifactStore, text: str = "some content", *, n_large: int = 10_000) -> str:
    """A version of three files beside the manifest, one of them empty."""
    with store.write() as draft:
        (draft.directory / "one.txt").write_text(text)
        (draft.directory / "empty").touch()
        (draft.directory / "large.bin").write_bytes(b"large" * n_large)
        (draft.directory / MANIFEST).write_text(json.dumps({"told": text}))
    return draft.version


def test_what_one_machine_seals_another_reads_whole(here: ArtifactStore, there: ArtifactStore) -> None:
    version = write_version(here, n_large=2_000_000)  # more than is sent at once
    assert there.versions() == here.versions() == [version]
    there.verify(version)
    assert {path.name for path in there.path(version).iterdir()} == {MANIFEST, "one.txt", "empty", "large.bin"}
    assert (there.path(version) / "one.txt").read_text() == "some content"
    assert there.manifest(version) == here.manifest(version)
    assert there.n_bytes(version) == sum(path.stat().st_size for path in here.path(version).iterdir())


def test_one_file_may_be_had_without_the_others(here: ArtifactStore, there: ArtifactStore) -> None:
    version = write_version(here)
    assert there.file(version, "one.txt").read_text() == "some content"
    assert not there.file(version, "of an earlier release").exists()


def test_a_store_without_versions_says_so(here: ArtifactStore) -> None:
    assert here.versions() == []
    assert here.current() is None
    assert here.history() == []
    with pytest.raises(IndexMissing, match="build one first"):
        here.newest()
    with pytest.raises(PromotionRefused, match="nothing that was live before"):
        here.rollback()


def test_versions_are_listed_oldest_first(here: ArtifactStore, there: ArtifactStore) -> None:
    written = [write_version(store, str(n)) for n, store in enumerate([here, there, here, there])]
    assert here.versions() == there.versions() == written
    assert there.newest() == written[-1]


@pytest.mark.parametrize("name", ["../x", "", ".", "CURRENT", "PROMOTIONS.json", "/etc", "{}/", "./{}", "{}/one.txt"])
def test_a_name_that_is_no_version_is_missing(here: ArtifactStore, name: str) -> None:
    version = write_version(here)
    for ask in (here.path, here.manifest, here.verify, here.promote, here.n_bytes):
        with pytest.raises(IndexMissing):
            ask(name.format(version))


def test_a_promotion_here_is_seen_there(machine: Machine, here: ArtifactStore) -> None:
    old, new = write_version(here, "old"), write_version(here, "new")
    for version in (old, new, old):
        here.promote(version)
        assert here.current() == machine("just started").current() == version


def test_a_promotion_that_expects_another_version_to_be_live_is_refused(
    here: ArtifactStore, there: ArtifactStore
) -> None:
    first, second, third = (write_version(here, text) for text in "abc")
    here.promote(first, expected=None)
    with pytest.raises(PromotionRefused, match=f"{first} is live, not {second}"):
        there.promote(third, expected=second)
    with pytest.raises(PromotionRefused, match="not nothing"):
        there.promote(third, expected=None)
    there.promote(third, expected=first)
    assert [entry.version for entry in here.history()] == [first, third]


def test_who_was_overtaken_on_another_machine_may_not_promote(here: ArtifactStore, there: ArtifactStore) -> None:
    version = write_version(here)
    zombie = here.take_fence()
    successor = there.take_fence()
    with pytest.raises(PromotionRefused, match="taken over"):
        here.promote(version, fence=zombie)
    there.promote(version, fence=successor)
    assert here.history()[-1].version == version


def test_rolling_back_twice_goes_back_two(here: ArtifactStore, there: ArtifactStore) -> None:
    first, second, third = (write_version(here, text) for text in "abc")
    for version in (first, second, third):
        here.promote(version)
    assert there.previous() == second
    assert there.rollback() == second
    assert here.rollback(expected=second) == first
    with pytest.raises(PromotionRefused, match="nothing that was live before"):
        there.rollback()


def test_of_two_machines_that_promote_at_once_one_wins_each_time(here: ArtifactStore, there: ArtifactStore) -> None:
    first, second = write_version(here, "a"), write_version(here, "b")
    here.promote(first)
    won: list[str] = []
    begin = threading.Barrier(2)

    def race(store: ArtifactStore) -> None:
        begin.wait()
        for _ in range(15):
            live = store.history()[-1].version
            try:
                store.promote(second if live == first else first, expected=live)
                won.append(live)
            except PromotionRefused:
                pass

    racers = [threading.Thread(target=race, args=(store,)) for store in (here, there)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    entries = here.history()
    assert len(entries) == 1 + len(won)  # nobody's promotion was written over
    assert all(one.version != next_one.version for one, next_one in pairwise(entries))


def test_pruning_keeps_the_last_ones_the_live_one_and_the_way_back(here: ArtifactStore, there: ArtifactStore) -> None:
    versions = [write_version(here, str(n)) for n in range(6)]
    for version in (versions[0], versions[1]):
        here.promote(version)
    assert there.prune(2, protect=[versions[2]]) == [versions[3]]
    assert here.versions() == [*versions[:3], *versions[4:]]
    assert here.prune(2, protect=[versions[2]]) == []
    with pytest.raises(IndexMissing):
        there.promote(versions[3])
    assert here.rollback() == versions[0]


def test_writing_promoting_and_pruning_at_once_loses_nobody_s_live_version(
    here: ArtifactStore, there: ArtifactStore
) -> None:
    errors: list[Exception] = []

    def work(store: ArtifactStore) -> None:
        try:
            for n in range(4):
                store.promote(write_version(store, str(n)))
                store.prune(4)  # the other's last one, sealed and not yet promoted, is always among them
        except Exception as exc:  # asserted on below: an exception in a thread would go unnoticed
            errors.append(exc)

    workers = [threading.Thread(target=work, args=(store,)) for store in (here, there)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert here.history()[-1].version in there.versions()
    for version in there.versions():
        there.verify(version)


def test_nothing_is_sealed_when_the_writer_raises(here: ArtifactStore, there: ArtifactStore) -> None:
    def write() -> None:
        with here.write() as draft:
            (draft.directory / "half.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert there.versions() == []


def test_damage_is_found_and_named(here: ArtifactStore) -> None:
    version = write_version(here)
    backend = here._backend
    if isinstance(backend, DirectoryBackend):
        path = here.path(version) / "large.bin"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    else:
        assert isinstance(backend, BucketBackend)
        content = backend._bucket.read(f"indexes/{version}/large.bin")
        backend._bucket.write(f"indexes/{version}/large.bin", content[:-1] + b"!")
        (here.path(version) / "large.bin").unlink()
    with pytest.raises(IndexDamaged, match=r"large\.bin has changed since it was written"):
        here.verify(version)
