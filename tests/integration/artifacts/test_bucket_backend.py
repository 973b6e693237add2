"""What can go wrong between a machine and its object store, with a real S3 server behind a proxy that misbehaves."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.artifacts import bucket as bucket_module
from shared.artifacts.bucket import Bucket
from shared.artifacts.bucket_backend import BucketBackend
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.errors import ArtifactUnwritable, IndexDamaged, IndexMissing, StoreUnavailable
from tests.support.object_store import ObjectStore, Proxy

LARGE = bytes(range(256)) * (12 << 10)  # 3 MiB


@pytest.fixture
def proxy(object_store: ObjectStore) -> Iterator[Proxy]:
    proxy = Proxy(object_store.port)
    yield proxy
    proxy.close()


@pytest.fixture
def unlucky(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The proxy, to break requests: nothing is tried again underneath."""
    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    return proxy


@pytest.fixture
def bucket(bucket_url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """By way of the proxy; small files come in many pieces."""
    monkeypatch.setattr(bucket_module, "_PIECE_BYTES", 256 << 10)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return Bucket(bucket_url, cache=tmp_path / "machine")


def store_in(bucket: Bucket) -> ArtifactStore:
    backend = BucketBackend(bucket, "indexes", damaged=IndexDamaged)
    return ArtifactStore(backend, missing=IndexMissing, damaged=IndexDamaged)


@pytest.fixture
def elsewhere(bucket_url: str, bucket: Bucket, tmp_path: Path) -> ArtifactStore:
    """Another machine."""
    return store_in(Bucket(bucket_url, cache=tmp_path / "elsewhere"))


@pytest.fixture
def store(bucket: Bucket) -> ArtifactStore:
    return store_in(bucket)


def write_version(store: ArtifactStore) -> str:
    with store.write() as draft:
        (draft.directory / "large.bin").write_bytes(LARGE)
        (draft.directory / "small.txt").write_text("small")
        (draft.directory / MANIFEST).write_text("{}")
    return draft.version


def part_of(store: ArtifactStore, version: str) -> Path:
    return store.root / version / ".large.bin.part"


def test_a_fetch_that_is_cut_goes_on_where_it_was(
    store: ArtifactStore, elsewhere: ArtifactStore, unlucky: Proxy
) -> None:
    version = write_version(elsewhere)
    unlucky.cut_after = 2 << 20
    with pytest.raises(StoreUnavailable, match="try again"):
        store.path(version)
    fetched = part_of(store, version).stat().st_size
    assert fetched >= 1 << 20
    unlucky.cut_after = len(LARGE) - fetched + (256 << 10)  # too little for all of it again
    store.verify(version)
    assert (store.path(version) / "large.bin").read_bytes() == LARGE
    assert not part_of(store, version).exists()


def test_half_a_file_that_is_not_its_beginning_is_fetched_anew(store: ArtifactStore, elsewhere: ArtifactStore) -> None:
    version = write_version(elsewhere)
    store.manifest(version)
    part_of(store, version).write_bytes(b"x" * 1000)
    store.verify(version)


def test_two_processes_fetch_a_file_once(
    store: ArtifactStore, elsewhere: ArtifactStore, bucket_url: str, bucket: Bucket
) -> None:
    version = write_version(elsewhere)
    other_process = store_in(Bucket(bucket_url, cache=bucket.cache))
    fetchers = [threading.Thread(target=one.path, args=(version,)) for one in (store, other_process)]
    for fetcher in fetchers:
        fetcher.start()
    for fetcher in fetchers:
        fetcher.join()
    store.verify(version)
    assert not part_of(store, version).exists()


def test_a_copy_that_was_damaged_on_this_machine_is_fetched_again(
    store: ArtifactStore, elsewhere: ArtifactStore
) -> None:
    version = write_version(elsewhere)
    path = store.path(version) / "large.bin"
    content = bytearray(LARGE)
    content[1_000_000] ^= 1
    path.write_bytes(content)
    (store.path(version) / "small.txt").unlink()
    (store.path(version) / MANIFEST).write_text("{")
    store.verify(version)
    assert path.read_bytes() == LARGE


def test_a_bit_that_flipped_in_the_store_is_found_and_said(
    store: ArtifactStore, elsewhere: ArtifactStore, bucket: Bucket
) -> None:
    version = write_version(elsewhere)
    content = bytearray(LARGE)
    content[1_000_000] ^= 1
    bucket.write(f"indexes/{version}/large.bin", bytes(content))
    with pytest.raises(IndexDamaged, match=r"large\.bin has changed since it was written"):
        store.verify(version)
    assert not (store.root / version / "large.bin").exists()
    bucket.write(f"indexes/{version}/large.bin", LARGE)
    store.verify(version)


def test_a_manifest_that_was_changed_in_the_store_is_found(
    store: ArtifactStore, elsewhere: ArtifactStore, bucket: Bucket
) -> None:
    version = write_version(elsewhere)
    bucket.write(f"indexes/{version}/{MANIFEST}", b'{"files": {}}')
    with pytest.raises(IndexDamaged, match=MANIFEST):
        store.verify(version)


def test_a_version_of_which_a_file_is_gone_is_damaged(
    store: ArtifactStore, elsewhere: ArtifactStore, bucket: Bucket
) -> None:
    version = write_version(elsewhere)
    bucket.remove([f"indexes/{version}/small.txt"])
    with pytest.raises(IndexDamaged, match=r"small\.txt is missing"):
        store.path(version)


def test_what_is_pruned_while_it_is_fetched_is_missing_and_not_damaged(
    store: ArtifactStore, elsewhere: ArtifactStore, unlucky: Proxy
) -> None:
    version, live = write_version(elsewhere), write_version(elsewhere)
    elsewhere.promote(live)
    unlucky.cut_after = 2 << 20
    with pytest.raises(StoreUnavailable):
        store.path(version)
    unlucky.cut_after = None
    assert elsewhere.prune(1) == [version]
    with pytest.raises(IndexMissing, match="removed while it was fetched"):
        store.path(version)
    assert store.path(live).is_dir()


def test_half_an_upload_is_never_seen_and_is_swept_later(
    store: ArtifactStore, elsewhere: ArtifactStore, unlucky: Proxy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Bucket.upload

    def cut_in_the_middle(self: Bucket, key: str, file: Path) -> None:
        if key.endswith("small.txt"):
            unlucky.refusing = True  # large.bin is there by now
        upload(self, key, file)

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "upload", cut_in_the_middle)
        with pytest.raises(StoreUnavailable):
            write_version(store)
    unlucky.refusing = False
    assert elsewhere.versions() == []
    left = [stored.key for stored in bucket.below("indexes")]
    assert left
    write_version(elsewhere)  # sweeps only what is a day old
    assert {stored.key for stored in bucket.below("indexes")} > set(left)
    store._sweep(older_than_s=-60)
    assert not {stored.key for stored in bucket.below("indexes")} & set(left)
    assert len(elsewhere.versions()) == 1


def test_a_store_that_is_away_is_told_in_words_and_found_again(store: ArtifactStore, unlucky: Proxy) -> None:
    version = write_version(store)
    store.promote(version)
    with unlucky.away():
        for ask in (store.versions, store.history, lambda: store.promote(version), lambda: write_version(store)):
            with pytest.raises(StoreUnavailable, match=r"s3://bucket-\w+/some/where does not answer \(.*try again"):
                ask()
    assert store.versions() == [version]


def test_a_store_that_is_silent_is_waited_for_within_bounds(
    store: ArtifactStore, unlucky: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_QUICKLY_S", 1)
    unlucky.silent.set()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.versions()
    assert time.monotonic() - began < 20
    unlucky.silent.clear()
    assert store.versions() == []


def test_who_asks_for_the_live_version_is_answered_while_the_store_is_away_for_a_moment(
    store: ArtifactStore, unlucky: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_SEEN_FOR_S", 0.0)
    version = write_version(store)
    store.promote(version)
    assert store.current() == version
    with unlucky.away():
        assert store.current() == version
        monkeypatch.setattr(bucket_module, "_BRIDGED_S", 0.0)
        with pytest.raises(StoreUnavailable):
            store.current()
    assert store.current() == version


def test_a_swap_whose_answer_was_lost_is_known_as_ours(
    store: ArtifactStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, swap = write_version(store), Bucket.swap

    def repeated_underneath(self: Bucket, key: str, content: bytes, *, tag: str | None) -> bool:
        return swap(self, key, content, tag=tag) and swap(self, key, content, tag=tag)

    monkeypatch.setattr(Bucket, "swap", repeated_underneath)
    store.promote(version, expected=None)
    assert [entry.version for entry in store.history()] == [version]


def test_a_removal_that_was_killed_is_finished_by_the_next(
    store: ArtifactStore, elsewhere: ArtifactStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, live = write_version(store), write_version(store)
    store.promote(live)
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.prune(1)
    assert elsewhere.versions() == [live]  # its files are there, and nobody sees them
    with pytest.raises(IndexMissing):
        elsewhere.promote(gone)
    with pytest.raises(IndexMissing):
        store.promote(gone)  # which has a copy
    assert elsewhere.prune(1) == []
    assert not [stored for stored in bucket.below("indexes") if gone in stored.key]


def test_a_machine_keeps_what_is_live_and_the_way_back_and_lets_go_of_the_rest(
    store: ArtifactStore, elsewhere: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.artifacts.copies._KEPT_HERE_S", 0)
    versions = [write_version(elsewhere) for _ in range(4)]
    for version in versions:
        elsewhere.promote(version)
        store.verify(version)
    assert {path.name for path in store.root.iterdir()} == set(versions[-2:])
    store.verify(versions[0])  # fetched again


def test_a_full_disk_of_this_machine_is_said(store: ArtifactStore, elsewhere: ArtifactStore) -> None:
    version = write_version(elsewhere)
    store.root.parent.mkdir(parents=True, exist_ok=True)
    store.root.write_text("no directory can be made where a file is")
    with pytest.raises(ArtifactUnwritable, match="cannot be written"):
        store.path(version)


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket, tmp_path: Path) -> None:
    store = store_in(Bucket("s3://nobody-made-this", cache=tmp_path))
    for ask in (store.versions, store.history, lambda: write_version(store)):
        with pytest.raises(StoreUnavailable, match="s3://nobody-made-this: there is no such bucket"):
            ask()


def test_notes_that_cannot_be_read_are_damage(store: ArtifactStore, bucket: Bucket) -> None:
    store.promote(write_version(store))
    bucket.write("indexes/PROMOTIONS.json", json.dumps({"ledger": 1}).encode())
    with pytest.raises(IndexDamaged, match=r"PROMOTIONS\.json cannot be read"):
        store.history()


def test_the_promotion_log_is_written_as_every_release_has_written_it(store: ArtifactStore, bucket: Bucket) -> None:
    version = write_version(store)
    store.promote(version)
    written = json.loads(bucket.read("indexes/PROMOTIONS.json"))
    assert written.keys() == {"ledger", "removed", "writer"}
    assert written["ledger"].keys() == {"fence", "promotions"}
    bucket.write("indexes/PROMOTIONS.json", json.dumps({"ledger": {**written["ledger"], "fence": 41}}).encode())
    assert store.take_fence() == 42
    assert [entry.version for entry in store.history()] == [version]


def test_an_object_of_any_name_is_read_back(bucket: Bucket) -> None:
    for key in ("a b.jpg", "ü~x.jpg", "100%.jpg", "a+b&c=d#e?.jpg", "'(quoted)'.jpg"):
        bucket.write(f"images/{key}", key.encode())
    found = bucket.below("images")
    assert len(found) == 5
    assert all(bucket.read(stored.key).decode() == stored.key.removeprefix("images/") for stored in found)


def test_what_was_fetched_has_the_digest_that_was_asked_for(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("file", b"content")
    path = tmp_path / "file"
    assert not bucket.fetch("file", path, sha256="0" * 64, n_bytes=7)
    assert not path.exists()
    assert bucket.fetch("file", path, sha256=hashlib.sha256(b"content").hexdigest(), n_bytes=7)
    assert path.read_bytes() == b"content"


def test_who_comes_to_fetch_what_another_process_has_just_fetched_leaves_nothing_behind(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.write("file", b"content")
    path = tmp_path / "file"
    for _ in range(2):
        assert bucket.fetch("file", path, sha256=hashlib.sha256(b"content").hexdigest(), n_bytes=7)
    assert list(tmp_path.iterdir()) == [path]


def test_a_turn_that_was_waited_for_while_the_file_moved_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    waits = threading.Event()

    def wait() -> str:
        waits.set()
        with bucket_module._turn_at(path) as part:
            return part.name if Path(part.name).stat().st_size == 0 else "the file that was moved"

    with ThreadPoolExecutor() as pool:
        with bucket_module._turn_at(path) as part:
            part.write(b"content")
            waiting = pool.submit(wait)
            waits.wait()
            time.sleep(0.1)
            Path(part.name).replace(path)
        assert waiting.result(10) == part.name
    assert path.read_bytes() == b"content"
