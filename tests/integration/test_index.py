"""Index snapshots with the real FAISS: exact answers, and a refusal wherever an answer would be nonsense."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.artifacts import MANIFEST, ArtifactStore
from shared.catalogue import CATEGORIES, CataloguePhoto
from shared.errors import DimensionMismatch, FingerprintMismatch, ImageNotFound, IndexDamaged, IndexMissing
from shared.jobs import Distinct, SearchRequest
from shared.vision.embedder import Embeddings, FloatArray
from shared.vision.index import (
    ROWS,
    SCORES,
    VECTORS,
    IndexSnapshot,
    index_store,
    open_snapshot,
    read_index_manifest,
    write_snapshot,
)

DIMENSION = 64
FINGERPRINT = "f" * 64
N_PHOTOS = 300


def unit_rows(n: int, seed: int, dimension: int = DIMENSION) -> FloatArray:
    """(n, dimension) float32 with L2 norm 1."""
    rows = np.random.default_rng(seed).standard_normal((n, dimension))
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def catalogue_photo(row: int, listing_id: str, category: int) -> CataloguePhoto:
    return CataloguePhoto(f"p{row}", listing_id, category, Path("unused.jpg"))


PHOTOS = [catalogue_photo(row, f"l{row // 3}", row // 3 % 13) for row in range(N_PHOTOS)]  # three photos a listing
VECTORS_OF_PHOTOS = unit_rows(N_PHOTOS, seed=1)
SCORES_OF_PHOTOS = np.random.default_rng(2).standard_normal((N_PHOTOS, 13)).astype(np.float32)


def write(
    store: ArtifactStore,
    photos: list[CataloguePhoto] = PHOTOS,
    vectors: FloatArray = VECTORS_OF_PHOTOS,
    fingerprint: str = FINGERPRINT,
) -> str:
    embeddings = Embeddings(vectors, SCORES_OF_PHOTOS[: len(photos)])
    return write_snapshot(
        store, photos, embeddings, fingerprint=fingerprint, catalogue="synthetic", catalogue_digest="d1"
    )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return index_store(tmp_path)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> IndexSnapshot:
    store = index_store(tmp_path_factory.mktemp("home"))
    store.promote(write(store))
    return open_snapshot(store, fingerprint=FINGERPRINT)


QUERIES = unit_rows(5, seed=3)
QUERY = QUERIES[0]
SIMILARITY = VECTORS_OF_PHOTOS.astype(np.float64) @ QUERY.astype(np.float64)  # (n,)


def rows_of(snapshot: IndexSnapshot, **request: object) -> list[int]:
    return [neighbour.row for neighbour in snapshot.search(QUERY, SearchRequest.model_validate(request))]


def ranked(rows: list[int]) -> list[int]:
    """Rows by numpy's cosine similarity to QUERY, most similar first."""
    return sorted(rows, key=lambda row: -SIMILARITY[row])


# Searching


def test_neighbours_and_scores_are_those_of_numpy(snapshot: IndexSnapshot) -> None:
    for query in QUERIES:
        found = snapshot.search(query, SearchRequest(k=20))
        cosine = VECTORS_OF_PHOTOS.astype(np.float64) @ query.astype(np.float64)
        assert [neighbour.row for neighbour in found] == np.argsort(-cosine)[:20].tolist()
        # 64 float32 products, each rounded to 6e-8 of a number below one.
        np.testing.assert_allclose([n.score for n in found], np.sort(cosine)[::-1][:20], atol=1e-6)


def test_a_neighbour_says_which_photo_it_is(snapshot: IndexSnapshot) -> None:
    found = snapshot.search(QUERY, SearchRequest(k=10))
    assert [neighbour.rank for neighbour in found] == list(range(1, 11))
    for neighbour in found:
        photo = PHOTOS[neighbour.row]
        assert (neighbour.image_id, neighbour.listing_id) == (photo.image_id, photo.listing_id)
        assert neighbour.category == CATEGORIES[photo.category]


def test_scores_stay_within_cosine_even_when_a_vector_is_a_little_too_long(store: ArtifactStore) -> None:
    vectors = np.concatenate([QUERY[None], -QUERY[None], QUERY[None]]) * np.float32(1.0001)
    version = write(store, PHOTOS[:3], vectors)
    found = open_snapshot(store, fingerprint=FINGERPRINT, version=version).search(QUERY, SearchRequest(k=3))
    assert [neighbour.score for neighbour in found] == [1, 1, -1]


def test_a_catalogue_photo_is_its_own_nearest_neighbour(snapshot: IndexSnapshot) -> None:
    for row in (0, 150, 299):
        best = snapshot.search(VECTORS_OF_PHOTOS[row], SearchRequest(k=1))[0]
        assert best.row == row
        assert best.score == pytest.approx(1, abs=1e-6)  # float32 rounding


def test_more_neighbours_than_photos_are_all_photos(store: ArtifactStore) -> None:
    version = write(store, PHOTOS[:7], VECTORS_OF_PHOTOS[:7])
    small = open_snapshot(store, fingerprint=FINGERPRINT, version=version)
    assert len(small) == 7
    for distinct, n_expected in ((Distinct.NONE, 7), (Distinct.LISTING, 3)):
        assert len(small.search(QUERY, SearchRequest(k=100, distinct=distinct))) == n_expected


FILTERS = {
    "category": ({"category": CATEGORIES[4]}, lambda photo: photo.category == 4),
    "exclude_listing": ({"exclude_listing": "l5"}, lambda photo: photo.listing_id != "l5"),
    "both": (
        {"category": CATEGORIES[5], "exclude_listing": "l5"},
        lambda photo: photo.category == 5 and photo.listing_id != "l5",
    ),
    "listing of another category": (
        {"category": CATEGORIES[4], "exclude_listing": "l5"},
        lambda photo: photo.category == 4,
    ),
    "no such listing": ({"exclude_listing": "elsewhere"}, lambda photo: True),
}


@pytest.mark.parametrize(("request_fields", "fits"), FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_filters_leave_the_most_similar_of_what_fits(
    snapshot: IndexSnapshot, request_fields: dict[str, object], fits: Callable[[CataloguePhoto], bool], k: int
) -> None:
    expected = ranked([row for row, photo in enumerate(PHOTOS) if fits(photo)])
    assert rows_of(snapshot, k=k, **request_fields) == expected[:k]


def test_min_score_cuts_the_tail_and_nothing_else(snapshot: IndexSnapshot) -> None:
    threshold = 0.1
    expected = [row for row in ranked(list(range(N_PHOTOS))) if SIMILARITY[row] >= threshold]
    assert 20 < len(expected) < 100
    assert rows_of(snapshot, k=100, min_score=threshold) == expected
    assert rows_of(snapshot, k=5, min_score=threshold) == expected[:5]
    assert rows_of(snapshot, k=5, min_score=0.999) == []
    assert len(rows_of(snapshot, k=100, min_score=-1)) == 100


def test_distinct_keeps_the_best_photo_of_each_listing(snapshot: IndexSnapshot) -> None:
    best: dict[str, int] = {}
    for row in ranked(list(range(N_PHOTOS))):
        best.setdefault(PHOTOS[row].listing_id, row)
    found = snapshot.search(QUERY, SearchRequest(k=100, distinct=Distinct.LISTING))
    assert [neighbour.row for neighbour in found] == list(best.values())
    assert [neighbour.rank for neighbour in found] == list(range(1, 101))


def test_distinct_and_every_filter_work_together(snapshot: IndexSnapshot) -> None:
    best: dict[str, int] = {}
    for row in ranked([row for row, photo in enumerate(PHOTOS) if photo.category == 5 and photo.listing_id != "l5"]):
        best.setdefault(PHOTOS[row].listing_id, row)
    rows = list(best.values())
    assert len(rows) > 5
    request = {"category": CATEGORIES[5], "exclude_listing": "l5", "distinct": "listing"}
    assert rows_of(snapshot, k=100, **request) == rows
    between = float(SIMILARITY[rows[3]] + SIMILARITY[rows[4]]) / 2
    assert rows_of(snapshot, k=100, min_score=between, **request) == rows[:4]
    assert rows_of(snapshot, k=2, min_score=between, **request) == rows[:2]


@pytest.mark.parametrize("k", [1, 2, 4, 10])
@pytest.mark.parametrize("category", [None, CATEGORIES[0]])
def test_one_listing_with_fifty_alike_photos_does_not_crowd_out_the_others(
    store: ArtifactStore, k: int, category: str | None
) -> None:
    crowd = [catalogue_photo(row, "crowd", 0) for row in range(50)]
    others = [catalogue_photo(50 + row, f"l{row}", 0) for row in range(9)]
    alike = QUERY + unit_rows(50, seed=4) * np.float32(0.01)
    vectors = np.concatenate([alike / np.linalg.norm(alike, axis=1, keepdims=True), unit_rows(9, seed=5)])
    version = write(store, crowd + others, vectors)
    crowded = open_snapshot(store, fingerprint=FINGERPRINT, version=version)
    found = crowded.search(QUERY, SearchRequest(k=k, category=category, distinct=Distinct.LISTING))
    assert found[0].listing_id == "crowd"
    assert len({neighbour.listing_id for neighbour in found}) == len(found) == k


def test_filters_that_nothing_fits_give_no_neighbours(store: ArtifactStore) -> None:
    version = write(store, PHOTOS[:3], VECTORS_OF_PHOTOS[:3])  # one listing, one category
    small = open_snapshot(store, fingerprint=FINGERPRINT, version=version)
    for request in ({"category": CATEGORIES[9]}, {"exclude_listing": "l0"}):
        for distinct in Distinct:
            assert small.search(QUERY, SearchRequest.model_validate({**request, "distinct": distinct})) == []


@pytest.mark.parametrize("shape", [(DIMENSION - 1,), (DIMENSION * 2,), (1, DIMENSION), ()])
def test_a_query_of_another_shape_is_refused(snapshot: IndexSnapshot, shape: tuple[int, ...]) -> None:
    with pytest.raises(DimensionMismatch, match=f"dimension {DIMENSION}"):
        snapshot.search(np.ones(shape, dtype=np.float32), SearchRequest())


def test_a_stored_photo_gives_the_embedding_it_was_indexed_with(snapshot: IndexSnapshot) -> None:
    for row in (0, 123, 299):
        stored = snapshot.stored(f"p{row}")
        assert (stored.vectors == VECTORS_OF_PHOTOS[row : row + 1]).all()
        assert (stored.scores == SCORES_OF_PHOTOS[row : row + 1]).all()
        assert snapshot.search(stored.vectors[0], SearchRequest(k=1))[0].row == row


@pytest.mark.parametrize("image_id", ["p300", "", "P1", "l1"])
def test_a_photo_that_is_not_stored_is_not_found(snapshot: IndexSnapshot, image_id: str) -> None:
    with pytest.raises(ImageNotFound):
        snapshot.stored(image_id)


def test_all_gives_every_row_in_order(snapshot: IndexSnapshot) -> None:
    everything = snapshot.all()
    assert (everything.vectors == VECTORS_OF_PHOTOS).all()
    assert (everything.scores == SCORES_OF_PHOTOS).all()


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


@pytest.mark.parametrize("name", [VECTORS, SCORES, ROWS])
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


def test_rows_swapped_with_those_of_another_snapshot_are_refused(store: ArtifactStore) -> None:
    one, other = write(store), write(store, [*PHOTOS[1:], PHOTOS[0]])
    shutil.copy(store.path(other) / ROWS, store.path(one) / ROWS)
    with pytest.raises(IndexDamaged, match=ROWS):
        open_snapshot(store, fingerprint=FINGERPRINT, version=one)


@pytest.mark.parametrize(("field", "value"), [("dimension", 32), ("count", 299), ("catalogue_digest", "d2")])
def test_a_manifest_edited_after_sealing_is_refused(store: ArtifactStore, field: str, value: object) -> None:
    version = write(store)
    path = store.path(version) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}, indent=1, sort_keys=True) + "\n")
    with pytest.raises(IndexDamaged, match=MANIFEST):
        open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def reseal(store: ArtifactStore, change: Callable[[Path], None]) -> str:
    """A copy of the newest version, changed, under a seal that is in order."""
    original = store.path(store.newest())
    with store.write() as directory:
        for path in original.iterdir():
            shutil.copy(path, directory / path.name)
        change(directory)
    return store.newest()


def edit_json(name: str, edit: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        content = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps(edit(content)))

    return change


def fewer_scores(directory: Path) -> None:
    np.save(directory / SCORES, SCORES_OF_PHOTOS[:-1])


def no_vectors(directory: Path) -> None:
    (directory / VECTORS).write_bytes(b"not an index")


SEALED_NONSENSE: dict[str, Callable[[Path], None]] = {
    "another dimension": edit_json(MANIFEST, lambda manifest: manifest | {"dimension": 32}),
    "another count": edit_json(MANIFEST, lambda manifest: manifest | {"count": 299}),
    "manifest without count": edit_json(MANIFEST, lambda manifest: {k: v for k, v in manifest.items() if k != "count"}),
    "rows of fewer photos": edit_json(ROWS, lambda rows: rows | {"image_id": ["p0"]}),
    "rows without listings": edit_json(ROWS, lambda rows: {k: v for k, v in rows.items() if k != "listing_id"}),
    "rows that are no columns": edit_json(ROWS, lambda rows: [1, 2]),
    "category that is no number": edit_json(ROWS, lambda rows: rows | {"category": ["x"] * N_PHOTOS}),
    "fewer scores": fewer_scores,
    "vectors that are no index": no_vectors,
}


@pytest.mark.parametrize("change", SEALED_NONSENSE.values(), ids=SEALED_NONSENSE)
def test_files_that_disagree_are_refused_even_under_a_seal_in_order(
    store: ArtifactStore, change: Callable[[Path], None]
) -> None:
    write(store)
    version = reseal(store, change)
    store.verify(version)
    with pytest.raises(IndexDamaged, match=version):
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
    assert (old.all().vectors == VECTORS_OF_PHOTOS).all()
    new = open_snapshot(store, fingerprint=FINGERPRINT)
    assert new.version != old_version
    assert len(new) == 100
    assert new.search(VECTORS_OF_PHOTOS[299], SearchRequest(k=1))[0].image_id == "p0"


def test_the_name_given_back_is_that_of_the_snapshot_just_written(store: ArtifactStore) -> None:
    early = write(store, PHOTOS[:3], VECTORS_OF_PHOTOS[:3])
    store.path(early).rename(store.root / f"2999{early[4:]}")  # written while the clock was wrong
    assert read_index_manifest(store, write(store)).count == N_PHOTOS
