"""Index snapshots with the real FAISS: exact answers, and a refusal wherever an answer would be nonsense."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shared.artifacts import MANIFEST, ArtifactStore
from shared.catalogue import CATEGORIES, CataloguePhoto
from shared.errors import DimensionMismatch, FingerprintMismatch, ImageNotFound, IndexDamaged, IndexMissing
from shared.jobs import Distinct, SearchRequest
from shared.snapshots import PHOTOS as DATABASE
from shared.snapshots import IndexKind, index_store, read_index_manifest
from shared.vision.compress import EXACT_UP_TO
from shared.vision.embedder import Embeddings, FloatArray
from shared.vision.index import SCORES, VECTORS, IndexSnapshot, open_files, open_snapshot, write_snapshot
from shared.vision.rows import CATEGORY_CODES, LISTING_CODES

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
    exact_up_to: int = EXACT_UP_TO,
) -> str:
    return write_snapshot(
        store,
        photos,
        Embeddings(vectors, SCORES_OF_PHOTOS[: len(photos)]),
        fingerprint=fingerprint,
        catalogue="synthetic",
        catalogue_digest="d1",
        exact_up_to=exact_up_to,
    )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return index_store(tmp_path)


@pytest.fixture(scope="module", params=IndexKind)
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> IndexSnapshot:
    """Of either kind; the compressed one looks into every list, so that it must find what the exact one finds."""
    store = index_store(tmp_path_factory.mktemp("home"))
    version = write(store, exact_up_to=0 if request.param is IndexKind.COMPRESSED else EXACT_UP_TO)
    manifest = read_index_manifest(store, version)
    assert manifest.index is not None
    assert manifest.index.kind is request.param
    thorough = manifest.index.model_copy(update={"n_probes": manifest.index.n_lists, "n_candidates": 40})
    return open_files(store.path(version), version, manifest.model_copy(update={"index": thorough}))


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


def test_every_row_comes_back_in_order(snapshot: IndexSnapshot) -> None:
    assert list(snapshot.photos()) == [replace(photo, path=photo.path.absolute()) for photo in PHOTOS]
    assert (snapshot.vectors(slice(None)) == VECTORS_OF_PHOTOS).all()
    assert (snapshot.scores(slice(None)) == SCORES_OF_PHOTOS).all()


def test_chosen_rows_come_back_as_asked(snapshot: IndexSnapshot) -> None:
    rows = np.array([299, 0, 7])
    assert [snapshot.photo(int(row)).image_id for row in rows] == ["p299", "p0", "p7"]
    assert (snapshot.vectors(rows) == VECTORS_OF_PHOTOS[rows]).all()
    assert (snapshot.scores(rows) == SCORES_OF_PHOTOS[rows]).all()
    assert [snapshot.row_of(image_id) for image_id in ("p299", "p300")] == [299, None]


def test_photos_inside_the_catalogue_are_named_relative_to_it_and_keep_their_digest(
    store: ArtifactStore, tmp_path: Path
) -> None:
    inside = CataloguePhoto("in", "l", 0, tmp_path / "catalogue" / "images" / "a.jpg", "a" * 64)
    outside = CataloguePhoto("out", "l", 0, tmp_path / "catalogue-of-another" / "b.png", "b" * 64)
    embeddings = Embeddings(VECTORS_OF_PHOTOS[:2], SCORES_OF_PHOTOS[:2])
    version = write_snapshot(
        store,
        [inside, outside],
        embeddings,
        fingerprint=FINGERPRINT,
        catalogue="two",
        catalogue_digest="d",
        root=tmp_path / "catalogue",
    )
    photos = open_snapshot(store, fingerprint=FINGERPRINT, version=version).photos()
    assert list(photos) == [replace(inside, path=Path("images/a.jpg")), outside]


def test_hidden_rows_are_not_found_and_do_not_shorten_the_answer(snapshot: IndexSnapshot) -> None:
    order = ranked(list(range(N_PHOTOS)))
    hidden = np.array([*order[:10], *order[50:]])
    for k in (1, 10, 100):
        found = snapshot.search(QUERY, SearchRequest(k=k), hidden=hidden)
        assert [neighbour.row for neighbour in found] == order[10:50][:k]
    everything = np.arange(N_PHOTOS)
    assert snapshot.search(QUERY, SearchRequest(distinct=Distinct.LISTING), hidden=everything) == []


def test_measurements_see_what_searches_find(snapshot: IndexSnapshot) -> None:
    for scores, rows in (snapshot.nearest(QUERIES, 10), snapshot.exact_nearest(QUERIES, 10)):
        cosine = QUERIES.astype(np.float64) @ VECTORS_OF_PHOTOS.astype(np.float64).T
        assert rows.tolist() == np.argsort(-cosine, axis=1)[:, :10].tolist()
        np.testing.assert_allclose(scores, np.take_along_axis(cosine, rows, 1), atol=2e-6)  # float32, six decimals


def test_threads_share_a_snapshot(snapshot: IndexSnapshot) -> None:
    requests = [
        SearchRequest(k=20, distinct=distinct, category=c) for distinct in Distinct for c in (None, CATEGORIES[4])
    ]
    work = [(query, request) for query in QUERIES for request in requests] * 5
    expected = [snapshot.search(*one) for one in work]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: snapshot.search(*one), work)) == expected


# Writing


def test_two_photos_of_one_id_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(IndexDamaged, match="two photos have one id"):
        write(store, [PHOTOS[0], PHOTOS[0]], VECTORS_OF_PHOTOS[:2])
    assert store.versions() == []


def test_photos_and_embeddings_that_are_not_as_many_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(IndexDamaged, match="2 photos, 3 vectors"):
        write(store, PHOTOS[:2], VECTORS_OF_PHOTOS[:3])


def test_an_embedding_that_is_not_finite_is_refused(store: ArtifactStore) -> None:
    vectors = VECTORS_OF_PHOTOS.copy()
    vectors[200, 3] = np.nan
    with pytest.raises(IndexDamaged, match="finite"):
        write(store, vectors=vectors)


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
