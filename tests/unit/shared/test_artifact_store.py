"""Versioned directories: whole or not there, promoted in one step, and damage is found before anything is read."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors import SafetensorError

from shared.artifacts.store import MANIFEST, ArtifactStore, WorkInterrupted
from shared.errors import ArtifactUnwritable, IndexDamaged, IndexMissing
from tests import ROOT

NOTES = (".lock", "CURRENT", "PROMOTIONS")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "things", missing=IndexMissing, damaged=IndexDamaged)


def write_version(store: ArtifactStore, text: str = "some content") -> str:
    """A version of two files beside the manifest."""
    with store.write() as draft:
        (draft.directory / "one.txt").write_text(text)
        (draft.directory / "two.bin").write_bytes(bytes(range(256)))
        (draft.directory / MANIFEST).write_text(json.dumps({"told": text}))
    return draft.version


def test_a_sealed_version_is_whole_and_not_yet_promoted(store: ArtifactStore) -> None:
    version = write_version(store)
    store.verify(version)
    assert store.versions() == [version]
    assert store.current() is None
    assert (store.path(version) / "one.txt").read_text() == "some content"


def test_the_manifest_keeps_what_was_told_and_lists_every_file(store: ArtifactStore) -> None:
    manifest = store.manifest(write_version(store))
    assert manifest["told"] == "some content"
    files = manifest["files"]
    assert isinstance(files, dict)
    assert {name: sealed["bytes"] for name, sealed in files.items()} == {"one.txt": 12, "two.bin": 256}


@pytest.mark.parametrize("writes_in", ["C", "UTF-8"])
def test_a_manifest_is_utf8_whatever_the_locale(tmp_path: Path, writes_in: str) -> None:
    write = (
        "with store.write() as draft: (draft.directory / MANIFEST).write_text(json.dumps({'told': 'K\\xfcche'}))\n"
        "store.promote(draft.version)"
    )
    read = "assert store.manifest(store.newest())['told'] == 'K\\xfcche'"
    for what, locale in ((write, writes_in), (read, "C"), (read, "UTF-8")):
        script = (
            "import json, sys; from pathlib import Path\n"
            "from shared.artifacts.store import MANIFEST, ArtifactStore; from shared.errors import *\n"
            f"store = ArtifactStore(Path(sys.argv[1]), missing=IndexMissing, damaged=IndexDamaged)\n{what}"
        )
        utf8 = {"PYTHONUTF8": str(int(locale != "C")), "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
        command = [sys.executable, "-c", script, str(tmp_path / "things")]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **utf8}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_store_without_versions_says_so(store: ArtifactStore) -> None:
    assert store.versions() == []
    assert store.current() is None
    with pytest.raises(IndexMissing, match="build one first"):
        store.newest()


def test_a_full_disk_is_told_whatever_library_finds_it_full(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactUnwritable, match=r"No space left on device.*make room"), store.write():
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError, match="header"), store.write():
        raise SafetensorError("Error while serializing: the header is not JSON")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_nothing_is_left_when_the_writer_raises(store: ArtifactStore, error: BaseException) -> None:
    kept = write_version(store)
    store.promote(kept)

    def write() -> None:
        with store.write() as draft:
            (draft.directory / "half.txt").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert store.versions() == [kept]
    assert store.current() == kept
    assert {path.name for path in store.root.iterdir()} == {*NOTES, kept}


def test_a_draft_of_the_same_is_gone_on_with_where_work_was_interrupted(store: ArtifactStore) -> None:
    def begin(error: Exception) -> None:
        with store.write("ab12") as draft, store.write("ab12") as beside:
            assert beside.directory != draft.directory  # one at a time
            (beside.directory / MANIFEST).write_text("{}")
            (draft.directory / "half.txt").write_text("half")
            raise error

    for error, left in ((OSError("gone"), False), (WorkInterrupted(), True)):
        with pytest.raises(type(error)):
            begin(error)
        with store.write("ab12") as draft:
            assert (draft.directory / "half.txt").exists() == left
            (draft.directory / MANIFEST).write_text("{}")
        store.verify(draft.version)


def test_a_large_file_is_read_once_as_long_as_nobody_writes_to_it(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.artifacts.store._LARGE", 200)
    version = write_version(store)
    read: list[str] = []
    digest = ArtifactStore.sha256

    def counted(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(ArtifactStore, "sha256", staticmethod(counted))
    store.verify(version, anew=False)
    assert read == [MANIFEST, "one.txt"]
    store.verify(version)
    assert read[2:] == [MANIFEST, "one.txt", "two.bin"]
    large = store.path(version) / "two.bin"
    content, stat = large.read_bytes(), large.stat()
    large.write_bytes(content[:-1] + b"?")
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(IndexDamaged, match=r"two\.bin"):
        store.verify(version, anew=False)


@pytest.mark.parametrize("manifest", [None, "not json", "[1]"])
def test_a_version_without_a_manifest_is_never_sealed(store: ArtifactStore, manifest: str | None) -> None:
    def write() -> None:
        with store.write() as draft:
            (draft.directory / "one.txt").write_text("x")
            if manifest is not None:
                (draft.directory / MANIFEST).write_text(manifest)

    with pytest.raises((OSError, ValueError, TypeError)):
        write()
    assert list(store.root.iterdir()) == []


def test_a_version_is_invisible_until_it_is_sealed(store: ArtifactStore) -> None:
    with store.write() as draft:
        (draft.directory / MANIFEST).write_text("{}")
        assert store.versions() == []
        with pytest.raises(IndexMissing):
            store.path(draft.directory.name)
    assert len(store.versions()) == 1


def test_promoting_is_seen_at_once_and_can_be_taken_back(store: ArtifactStore) -> None:
    old, new = write_version(store, "old"), write_version(store, "new")
    other_process = ArtifactStore(store.root, missing=IndexMissing, damaged=IndexDamaged)
    for version in (old, new, old):
        store.promote(version)
        assert store.current() == other_process.current() == version
    assert {path.name for path in store.root.iterdir()} == {*NOTES, old, new}


def test_versions_are_listed_oldest_first(store: ArtifactStore) -> None:
    written = [write_version(store, f"text {n}") for n in range(12)]
    assert store.versions() == written
    assert store.newest() == written[-1]


def test_equal_content_written_twice_is_two_versions(store: ArtifactStore) -> None:
    assert write_version(store) != write_version(store)
    assert len(store.versions()) == 2


def test_newest_is_the_version_sealed_last_even_when_the_clock_went_back(store: ArtifactStore) -> None:
    before = write_version(store, "sealed before")
    ahead = f"2999{before[4:]}"  # sealed while the clock was wrong
    store.path(before).rename(store.root / ahead)
    store.verify(ahead)
    write_version(store, "sealed last")
    assert store.manifest(store.newest())["told"] == "sealed last"


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verify_finds_a_missing_file(store: ArtifactStore) -> None:
    version = write_version(store)
    (store.path(version) / "two.bin").unlink()
    with pytest.raises(IndexDamaged, match=r"two\.bin is missing"):
        store.verify(version)


def test_verify_finds_a_truncated_file(store: ArtifactStore) -> None:
    version = write_version(store)
    path = store.path(version) / "two.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexDamaged, match=r"two\.bin has 255 bytes, not 256"):
        store.verify(version)


@pytest.mark.parametrize("name", ["one.txt", "two.bin"])
def test_verify_finds_one_flipped_bit(store: ArtifactStore, name: str) -> None:
    version = write_version(store)
    flip_bit(store.path(version) / name)
    with pytest.raises(IndexDamaged, match=name):
        store.verify(version)


def test_verify_finds_a_manifest_changed_together_with_its_file(store: ArtifactStore) -> None:
    version = write_version(store)
    directory = store.path(version)
    (directory / "one.txt").write_text("another text")
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"]["one.txt"]["sha256"] = store.sha256(directory / "one.txt")
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    with pytest.raises(IndexDamaged, match=MANIFEST):
        store.verify(version)


@pytest.mark.parametrize("manifest", [None, b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"files": []}'])
def test_a_manifest_that_is_not_whole_is_damage(store: ArtifactStore, manifest: bytes | None) -> None:
    version = write_version(store)
    path = store.path(version) / MANIFEST
    path.unlink()
    if manifest is not None:
        path.write_bytes(manifest)
    for read in (store.manifest, store.verify):
        with pytest.raises(IndexDamaged, match=MANIFEST):
            read(version)


@pytest.mark.parametrize("pointer", [b"20200101T000000000000Z-00000000\n", b"", b"../things", b".", b"\xff\xfe\x00"])
def test_a_pointer_to_nowhere_is_missing(store: ArtifactStore, pointer: bytes) -> None:
    write_version(store)
    (store.root / "CURRENT").write_bytes(pointer)
    with pytest.raises(IndexMissing, match="promote or build another"):
        store.current()


@pytest.mark.parametrize("name", ["../x", "", ".", "..", "CURRENT", "/etc", "../things/{}", "{}/", "{}/.", "./{}"])
def test_a_name_that_is_no_version_is_missing_whatever_it_points_to(store: ArtifactStore, name: str) -> None:
    version = write_version(store)
    store.promote(version)
    (store.root.parent / "x").mkdir()
    for ask in (store.path, store.manifest, store.verify, store.promote):
        with pytest.raises(IndexMissing):
            ask(name.format(version))
    assert store.current() == version


def test_a_reader_always_finds_a_whole_pointer_while_another_thread_promotes(store: ArtifactStore) -> None:
    versions = [write_version(store, "a"), write_version(store, "b")]
    store.promote(versions[0])
    done = threading.Event()
    seen: list[str | None] = []
    failures: list[Exception] = []

    def read() -> None:
        try:
            while not done.is_set():
                seen.append(store.current())
        except Exception as exc:  # asserted on below: an exception in a thread would go unnoticed
            failures.append(exc)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(100):
            store.promote(versions[turn % 2])
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert set(seen) == set(versions)
