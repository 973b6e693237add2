"""Index snapshots in files: a refusal wherever an answer would be nonsense."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shared.artifacts.snapshots import PHOTOS as DATABASE
from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.catalogue.categories import CATEGORIES
from shared.errors import FingerprintMismatch, IndexDamaged, IndexMissing
from shared.index.metadata.rows import CATEGORY_CODES, LISTING_CODES
from shared.index.snapshot import open_files, open_snapshot
from shared.index.vectors.building import SCORES
from shared.index.vectors.stored_vectors import VECTORS
from shared.jobs.contract import SearchRequest
from tests.support.limits import no_more_files
from tests.support.vectors import (
    DIMENSION,
    FINGERPRINT,
    N_PHOTOS,
    PHOTOS,
    QUERY,
    SCORES_OF_PHOTOS,
    VECTORS_OF_PHOTOS,
    write,
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return index_store(tmp_path)


# Opening


def test_the_manifest_describes_the_snapshot(store: ArtifactStore) -> None:
    manifest = read_index_manifest(store, write(store))
    assert (manifest.count, manifest.dimension, manifest.fingerprint) == (N_PHOTOS, DIMENSION, FINGERPRINT)
    assert (manifest.catalogue, manifest.catalogue_digest) == ("synthetic", "d1")


def test_without_a_promoted_snapshot_the_command_that_makes_one_is_named(store: ArtifactStore) -> None:
    with pytest.raises(IndexMissing, match="lookalike index build"):
        open_snapshot(store, fingerprint=FINGERPRINT)
    write(store)
    with pytest.raises(IndexMissing, match="lookalike index build"):
        open_snapshot(store, fingerprint=FINGERPRINT)
    with pytest.raises(IndexMissing):
        open_snapshot(store, fingerprint=FINGERPRINT, version="../home")


def test_a_snapshot_of_another_model_is_refused_with_both_named(store: ArtifactStore) -> None:
    store.promote(write(store, fingerprint="a" * 64))
    with pytest.raises(FingerprintMismatch, match=r"model aaaaaaaaaaaa, .*ffffffffffff.*lookalike index build"):
        open_snapshot(store, fingerprint=FINGERPRINT)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize("name", [VECTORS, SCORES, DATABASE, CATEGORY_CODES, LISTING_CODES])
@pytest.mark.parametrize("damage", [flip_bit, truncate, Path.unlink])
def test_a_damaged_file_is_refused_by_name(store: ArtifactStore, name: str, damage: Callable[[Path], None]) -> None:
    version = write(store)
    store.promote(version)
    damage(store.path(version) / name)
    with pytest.raises(IndexDamaged, match=name):
        open_snapshot(store, fingerprint=FINGERPRINT)


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_a_damaged_manifest_is_refused_by_name(store: ArtifactStore, damage: Callable[[Path], None]) -> None:
    version = write(store)
    damage(store.path(version) / MANIFEST)
    with pytest.raises(IndexDamaged, match=MANIFEST):
        open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def test_where_no_more_files_may_be_opened_nothing_is_called_damaged(store: ArtifactStore) -> None:
    version = write(store)
    manifest, directory = read_index_manifest(store, version), store.path(version)
    open_files(directory, version, manifest)
    for read in (lambda: read_index_manifest(store, version), lambda: open_files(directory, version, manifest)):
        with no_more_files(), pytest.raises(OSError, match="Too many open files"):
            read()
    open_files(directory, version, manifest)


def test_rows_swapped_with_those_of_another_snapshot_are_refused(store: ArtifactStore) -> None:
    one, other = write(store), write(store, [*PHOTOS[1:], PHOTOS[0]])
    shutil.copy(store.path(other) / DATABASE, store.path(one) / DATABASE)
    with pytest.raises(IndexDamaged, match=DATABASE):
        open_snapshot(store, fingerprint=FINGERPRINT, version=one)


@pytest.mark.parametrize(("field", "value"), [("dimension", 32), ("count", 299), ("catalogue_digest", "d2")])
def test_a_manifest_edited_after_sealing_is_refused(store: ArtifactStore, field: str, value: object) -> None:
    version = write(store)
    path = store.path(version) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}, indent=1, sort_keys=True) + "\n")
    with pytest.raises(IndexDamaged, match=MANIFEST):
        open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def reseal(store: ArtifactStore, change: Callable[[Path], object]) -> str:
    """A copy of the newest version, changed, under a seal that is in order."""
    original = store.path(store.newest())
    with store.write() as draft:
        for path in original.iterdir():
            shutil.copy(path, draft.directory / path.name)
        change(draft.directory)
    return draft.version


def edit_manifest(edit: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        content = json.loads((directory / MANIFEST).read_text())
        (directory / MANIFEST).write_text(json.dumps(edit(content)))

    return change


def edit_rows(statement: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        with closing(sqlite3.connect(directory / DATABASE)) as connection, connection:
            connection.execute(statement)

    return change


def put_array(name: str, array: npt.NDArray[Any]) -> Callable[[Path], None]:
    return lambda directory: np.save(directory / name, array)


def put_bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(content)


SEALED_NONSENSE: dict[str, Callable[[Path], object]] = {
    "another dimension": edit_manifest(lambda manifest: manifest | {"dimension": 32}),
    "another count": edit_manifest(lambda manifest: manifest | {"count": 299}),
    "manifest without count": edit_manifest(lambda manifest: {k: v for k, v in manifest.items() if k != "count"}),
    "another kind of index": edit_manifest(lambda manifest: manifest | {"index": {"kind": "magic"}}),
    "rows of fewer photos": edit_rows("DELETE FROM photos WHERE row = 299"),
    "rows without their table": edit_rows("ALTER TABLE photos RENAME TO pictures"),
    "rows that are no database": put_bytes(DATABASE, b"not a database" * 100),
    "rows that are empty": put_bytes(DATABASE, b""),
    "category that is none": put_array(CATEGORY_CODES, np.full(N_PHOTOS, 13, dtype=np.int16)),
    "fewer categories": put_array(CATEGORY_CODES, np.zeros(299, dtype=np.int16)),
    "fewer listings": put_array(LISTING_CODES, np.zeros(299, dtype=np.int32)),
    "fewer scores": put_array(SCORES, SCORES_OF_PHOTOS[:-1]),
    "vectors of another type": put_array(VECTORS, VECTORS_OF_PHOTOS.astype(np.float64)),
    "vectors that are no array": put_bytes(VECTORS, b"not an array"),
    "vectors that are Python objects": put_array(VECTORS, np.array([None])),
}


@pytest.mark.parametrize("change", SEALED_NONSENSE.values(), ids=SEALED_NONSENSE)
def test_files_that_disagree_are_refused_even_under_a_seal_in_order(
    store: ArtifactStore, change: Callable[[Path], object]
) -> None:
    write(store)
    version = reseal(store, change)
    store.verify(version)
    with pytest.raises(IndexDamaged, match=version):
        open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def test_a_snapshot_of_an_earlier_release_is_refused_with_the_command_that_makes_it_anew(store: ArtifactStore) -> None:
    write(store)
    version = reseal(store, edit_manifest(lambda manifest: {k: v for k, v in manifest.items() if k != "index"}))
    with pytest.raises(IndexDamaged, match=r"earlier Lookalike.*lookalike index build"):
        open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def test_an_open_snapshot_answers_as_before_after_its_successor_is_live_and_its_files_are_gone(
    store: ArtifactStore,
) -> None:
    old_version = write(store)
    store.promote(old_version)
    old = open_snapshot(store, fingerprint=FINGERPRINT)
    request = SearchRequest(k=50, category=CATEGORIES[3])
    before = old.search(QUERY, request)
    store.promote(write(store, PHOTOS[:100], VECTORS_OF_PHOTOS[::-1][:100]))
    shutil.rmtree(store.path(old_version))
    assert old.search(QUERY, request) == before
    assert (old.stored("p299").scores == SCORES_OF_PHOTOS[299:]).all()
    assert (old.vectors(slice(None)) == VECTORS_OF_PHOTOS).all()
    new = open_snapshot(store, fingerprint=FINGERPRINT)
    assert new.version != old_version
    assert len(new) == 100
    assert new.search(VECTORS_OF_PHOTOS[299], SearchRequest(k=1))[0].image_id == "p0"


def test_the_name_given_back_is_that_of_the_snapshot_just_written(store: ArtifactStore) -> None:
    early = write(store, PHOTOS[:3], VECTORS_OF_PHOTOS[:3])
    store.path(early).rename(store.root / f"2999{early[4:]}")  # written while the clock was wrong
    assert read_index_manifest(store, write(store)).count == N_PHOTOS
