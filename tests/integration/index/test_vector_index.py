"""What every `VectorIndex` promises, asked of each: files with FAISS, exact and compressed, and a Milvus server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.errors import DimensionMismatch, ImageNotFound, IndexDamaged
from shared.index.delta.index import DeltaIndex
from shared.index.milvus.index import MilvusIndex, open_collection
from shared.index.milvus.server import MilvusServer
from shared.index.recall import recall_of
from shared.index.snapshot import open_files, open_snapshot
from shared.index.vector_index import VectorIndex
from shared.index.vectors.compression import EXACT_UP_TO
from shared.jobs.contract import Distinct, ListingScore, SearchRequest
from shared.model.embedder import Embeddings
from tests.support.milvus import MilvusLite
from tests.support.snapshots import write_snapshot
from tests.support.vectors import (
    DIMENSION,
    FINGERPRINT,
    N_PHOTOS,
    PHOTOS,
    QUERIES,
    QUERY,
    SCORES_OF_PHOTOS,
    SIMILARITY,
    VECTORS_OF_PHOTOS,
    catalogue_photo,
    ranked,
    unit_rows,
    write,
)

FILES, MILVUS = "files", "milvus"
EXACT, LISTS = EXACT_UP_TO, 0  # above how many photos not every vector is compared


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return index_store(tmp_path)


def server_at(place: str, request: pytest.FixtureRequest) -> MilvusServer | None:
    if place == FILES:
        return None
    milvus: MilvusLite = request.getfixturevalue("milvus")
    return milvus.connect()


@pytest.fixture(params=[FILES, MILVUS])
def server(request: pytest.FixtureRequest) -> MilvusServer | None:
    return server_at(request.param, request)


@pytest.fixture(
    scope="module",
    params=[(FILES, EXACT), (FILES, LISTS), (MILVUS, EXACT), (MILVUS, LISTS)],
    ids=lambda p: f"{p[0]}-{p[1]}",
)
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VectorIndex:
    """Of each kind; those with lists look into every one, so that they must find what the exact ones find."""
    place, exact_up_to = request.param
    server = server_at(place, request)
    store = index_store(tmp_path_factory.mktemp("home"))
    version = write(store, exact_up_to=exact_up_to, server=server)
    manifest = read_index_manifest(store, version)
    assert manifest.index is not None
    assert (manifest.index.n_lists > 0) is (exact_up_to == LISTS)
    thorough = manifest.index.model_copy(update={"n_probes": manifest.index.n_lists, "n_candidates": 40})
    manifest = manifest.model_copy(update={"index": thorough})
    if server:
        return open_collection(server, store.path(version), version, manifest)
    return open_files(store.path(version), version, manifest)


def rows_of(snapshot: VectorIndex, **request: object) -> list[int]:
    return [neighbour.row for neighbour in snapshot.search(QUERY, SearchRequest.model_validate(request))]


# Searching


def test_neighbours_and_scores_are_those_of_numpy(snapshot: VectorIndex) -> None:
    for query in QUERIES:
        found = snapshot.search(query, SearchRequest(k=20))
        cosine = VECTORS_OF_PHOTOS.astype(np.float64) @ query.astype(np.float64)
        assert [neighbour.row for neighbour in found] == np.argsort(-cosine)[:20].tolist()
        # 64 float32 products, each rounded to 6e-8 of a number below one.
        np.testing.assert_allclose([n.score for n in found], np.sort(cosine)[::-1][:20], atol=1e-6)


def test_a_neighbour_says_which_photo_it_is(snapshot: VectorIndex) -> None:
    found = snapshot.search(QUERY, SearchRequest(k=10))
    assert [neighbour.rank for neighbour in found] == list(range(1, 11))
    for neighbour in found:
        photo = PHOTOS[neighbour.row]
        assert (neighbour.image_id, neighbour.listing_id) == (photo.image_id, photo.listing_id)
        assert neighbour.category == CATEGORIES[photo.category]


def test_scores_stay_within_cosine_even_when_a_vector_is_a_little_too_long(
    store: ArtifactStore, server: MilvusServer | None
) -> None:
    vectors = np.concatenate([QUERY[None], -QUERY[None], QUERY[None]]) * np.float32(1.0001)
    version = write(store, PHOTOS[:3], vectors, server=server)
    found = open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server).search(
        QUERY, SearchRequest(k=3)
    )
    assert [neighbour.score for neighbour in found] == [1, 1, -1]


def test_a_catalogue_photo_is_its_own_nearest_neighbour(snapshot: VectorIndex) -> None:
    for row in (0, 150, 299):
        best = snapshot.search(VECTORS_OF_PHOTOS[row], SearchRequest(k=1))[0]
        assert best.row == row
        assert best.score == pytest.approx(1, abs=1e-6)  # float32 rounding


def test_more_neighbours_than_photos_are_all_photos(store: ArtifactStore, server: MilvusServer | None) -> None:
    version = write(store, PHOTOS[:7], VECTORS_OF_PHOTOS[:7], server=server)
    small = open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server)
    assert len(small) == 7
    for distinct, n_expected in ((Distinct.NONE, 7), (Distinct.LISTING, 3)):
        assert len(small.search(QUERY, SearchRequest(k=100, distinct=distinct))) == n_expected


@pytest.mark.parametrize("score", ListingScore)
def test_listings_are_ranked_by_all_their_photos_with_pending_changes(
    snapshot: VectorIndex, score: ListingScore
) -> None:
    listings = {photo.image_id: photo.listing_id for photo in PHOTOS}
    vectors = dict(zip(listings, VECTORS_OF_PHOTOS, strict=True))
    new = unit_rows(30, seed=7)
    changes = [Change(f"{n}-0", f"p{3 * n}", n, None) for n in range(1, 20)]  # listings with two photos left
    for n, (vector, place) in enumerate(zip(new, range(60, 90), strict=True), start=20):  # others with four, or moved
        image_id = f"new{n}" if n % 2 else f"p{n}"
        photo = PutPhoto(f"l{place}", place % 13, "5a", FINGERPRINT, vector, np.zeros(13, np.float32))
        changes.append(Change(f"{n}-0", image_id, n, photo))
    for change in changes:
        listings.pop(change.image_id, None)
        if change.photo:
            listings[change.image_id], vectors[change.image_id] = change.photo.listing_id, change.photo.vector
    delta = DeltaIndex(snapshot, lambda put: None)
    delta.apply(changes)
    similar: dict[str, list[float]] = {}
    for image_id, listing_id in listings.items():
        similar.setdefault(listing_id, []).append(float(vectors[image_id].astype(np.float64) @ QUERY))
    value = np.mean if score is ListingScore.MEAN else np.max
    expected = sorted(((float(value(all_)), name) for name, all_ in similar.items()), reverse=True)
    for k in (4, 60):
        found = delta.search(QUERY, SearchRequest(k=k, distinct=Distinct.LISTING, listing_score=score))
        assert [one.listing_id for one in found] == [listing_id for _, listing_id in expected[:k]]
        np.testing.assert_allclose([one.score for one in found], [mean for mean, _ in expected[:k]], atol=1e-6)
        assert [one.listing_photos for one in found] == [len(similar[one.listing_id]) for one in found]
        for one in found:  # each stands for its listing with its most similar photo
            best = max(similar[one.listing_id])
            assert float(vectors[one.image_id].astype(np.float64) @ QUERY) == pytest.approx(best, abs=1e-6)
    at_least = expected[2][0] - 1e-5
    asked = SearchRequest(k=9, distinct=Distinct.LISTING, listing_score=score, min_score=at_least)
    assert len(delta.search(QUERY, asked)) == 3


def test_a_listing_as_the_query_is_all_photos_that_can_be_found_and_no_neighbour(snapshot: VectorIndex) -> None:
    delta = DeltaIndex(snapshot, lambda put: None)
    put = PutPhoto("l4", 4, "5a", FINGERPRINT, QUERY, np.full(13, 2, np.float32))
    delta.apply([Change("1-0", "p12", 1, None), Change("2-0", "new", 2, put)])
    stored = delta.stored_listing("l4")
    np.testing.assert_allclose(stored.vectors, [*VECTORS_OF_PHOTOS[13:15], QUERY], atol=1e-6)
    np.testing.assert_allclose(stored.scores, [*SCORES_OF_PHOTOS[13:15], put.scores], atol=1e-6)
    found = delta.search(QUERY, SearchRequest(k=100, listing_id="l4", exclude_listing="l5"))
    assert {"l4", "l5"}.isdisjoint(one.listing_id for one in found)
    assert len(found) == 100
    delta.apply([Change(f"{n}-0", image_id, n, None) for n, image_id in enumerate(("p13", "p14", "new"), start=3)])
    for nowhere in ("l4", "no such listing"):
        with pytest.raises(ImageNotFound, match="listing"):
            delta.stored_listing(nowhere)


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
    snapshot: VectorIndex, request_fields: dict[str, object], fits: Callable[[CataloguePhoto], bool], k: int
) -> None:
    expected = ranked([row for row, photo in enumerate(PHOTOS) if fits(photo)])
    assert rows_of(snapshot, k=k, **request_fields) == expected[:k]


def test_min_score_cuts_the_tail_and_nothing_else(snapshot: VectorIndex) -> None:
    threshold = 0.1
    expected = [row for row in ranked(list(range(N_PHOTOS))) if SIMILARITY[row] >= threshold]
    assert 20 < len(expected) < 100
    assert rows_of(snapshot, k=100, min_score=threshold) == expected
    assert rows_of(snapshot, k=5, min_score=threshold) == expected[:5]
    assert rows_of(snapshot, k=5, min_score=0.999) == []
    assert len(rows_of(snapshot, k=100, min_score=-1)) == 100


def test_distinct_keeps_the_best_photo_of_each_listing(snapshot: VectorIndex) -> None:
    best: dict[str, int] = {}
    for row in ranked(list(range(N_PHOTOS))):
        best.setdefault(PHOTOS[row].listing_id, row)
    found = snapshot.search(QUERY, SearchRequest(k=100, distinct=Distinct.LISTING))
    assert [neighbour.row for neighbour in found] == list(best.values())
    assert [neighbour.rank for neighbour in found] == list(range(1, 101))


def test_distinct_and_every_filter_work_together(snapshot: VectorIndex) -> None:
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
    store: ArtifactStore, server: MilvusServer | None, k: int, category: str | None
) -> None:
    crowd = [catalogue_photo(row, "crowd", 0) for row in range(50)]
    others = [catalogue_photo(50 + row, f"l{row}", 0) for row in range(9)]
    alike = QUERY + unit_rows(50, seed=4) * np.float32(0.01)
    vectors = np.concatenate([alike / np.linalg.norm(alike, axis=1, keepdims=True), unit_rows(9, seed=5)])
    version = write(store, crowd + others, vectors, server=server)
    crowded = open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server)
    found = crowded.search(QUERY, SearchRequest(k=k, category=category, distinct=Distinct.LISTING))
    assert found[0].listing_id == "crowd"
    assert len({neighbour.listing_id for neighbour in found}) == len(found) == k


def test_filters_that_nothing_fits_give_no_neighbours(store: ArtifactStore, server: MilvusServer | None) -> None:
    version = write(store, PHOTOS[:3], VECTORS_OF_PHOTOS[:3])  # one listing, one category
    small = open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server)
    for request in ({"category": CATEGORIES[9]}, {"exclude_listing": "l0"}):
        for distinct in Distinct:
            assert small.search(QUERY, SearchRequest.model_validate({**request, "distinct": distinct})) == []


@pytest.mark.parametrize("shape", [(DIMENSION - 1,), (DIMENSION * 2,), (1, DIMENSION), ()])
def test_a_query_of_another_shape_is_refused(snapshot: VectorIndex, shape: tuple[int, ...]) -> None:
    with pytest.raises(DimensionMismatch, match=f"dimension {DIMENSION}"):
        snapshot.search(np.ones(shape, dtype=np.float32), SearchRequest())


def test_a_stored_photo_gives_the_embedding_it_was_indexed_with(snapshot: VectorIndex) -> None:
    for row in (0, 123, 299):
        stored = snapshot.stored(f"p{row}")
        assert (stored.vectors == VECTORS_OF_PHOTOS[row : row + 1]).all()
        assert (stored.scores == SCORES_OF_PHOTOS[row : row + 1]).all()
        assert snapshot.search(stored.vectors[0], SearchRequest(k=1))[0].row == row


@pytest.mark.parametrize("image_id", ["p300", "", "P1", "l1"])
def test_a_photo_that_is_not_stored_is_not_found(snapshot: VectorIndex, image_id: str) -> None:
    with pytest.raises(ImageNotFound):
        snapshot.stored(image_id)


def test_every_row_comes_back_in_order(snapshot: VectorIndex) -> None:
    assert list(snapshot.photos()) == [replace(photo, path=Path(str(photo.path)).absolute()) for photo in PHOTOS]
    assert (snapshot.vectors(slice(None)) == VECTORS_OF_PHOTOS).all()
    assert (snapshot.scores(slice(None)) == SCORES_OF_PHOTOS).all()


def test_chosen_rows_come_back_as_asked(snapshot: VectorIndex) -> None:
    rows = np.array([299, 0, 7])
    assert [snapshot.photo(int(row)).image_id for row in rows] == ["p299", "p0", "p7"]
    assert (snapshot.vectors(rows) == VECTORS_OF_PHOTOS[rows]).all()
    assert (snapshot.scores(rows) == SCORES_OF_PHOTOS[rows]).all()
    assert [snapshot.row_of(image_id) for image_id in ("p299", "p300")] == [299, None]


def test_photos_inside_the_catalogue_are_named_relative_to_it_and_keep_their_digest(
    store: ArtifactStore, server: MilvusServer | None, tmp_path: Path
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
        server=server,
    )
    photos = open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server).photos()
    assert list(photos) == [replace(inside, path=Path("images/a.jpg")), outside]


def test_hidden_rows_are_not_found_and_do_not_shorten_the_answer(snapshot: VectorIndex) -> None:
    order = ranked(list(range(N_PHOTOS)))
    hidden = np.array([*order[:10], *order[50:]])
    for k in (1, 10, 100):
        found = snapshot.search(QUERY, SearchRequest(k=k), hidden=hidden)
        assert [neighbour.row for neighbour in found] == order[10:50][:k]
    everything = np.arange(N_PHOTOS)
    assert snapshot.search(QUERY, SearchRequest(distinct=Distinct.LISTING), hidden=everything) == []


def test_measurements_see_what_searches_find(snapshot: VectorIndex) -> None:
    for scores, rows in (snapshot.nearest(QUERIES, 10), snapshot.exact_nearest(QUERIES, 10)):
        cosine = QUERIES.astype(np.float64) @ VECTORS_OF_PHOTOS.astype(np.float64).T
        assert rows.tolist() == np.argsort(-cosine, axis=1)[:, :10].tolist()
        np.testing.assert_allclose(scores, np.take_along_axis(cosine, rows, 1), atol=2e-6)  # float32, six decimals


def test_threads_share_a_snapshot(snapshot: VectorIndex) -> None:
    requests = [
        SearchRequest(k=20, distinct=distinct, category=c) for distinct in Distinct for c in (None, CATEGORIES[4])
    ]
    work = [(query, request) for query in QUERIES for request in requests] * 5
    expected = [snapshot.search(*one) for one in work]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: snapshot.search(*one), work)) == expected


# Writing


def test_two_photos_of_one_id_are_refused(store: ArtifactStore, server: MilvusServer | None) -> None:
    with pytest.raises(IndexDamaged, match="two photos have one id"):
        write(store, [PHOTOS[0], PHOTOS[0]], VECTORS_OF_PHOTOS[:2], server=server)
    assert store.versions() == []


def test_photos_and_embeddings_that_are_not_as_many_are_refused(
    store: ArtifactStore, server: MilvusServer | None
) -> None:
    with pytest.raises(IndexDamaged, match="2 photos, 3 vectors"):
        write(store, PHOTOS[:2], VECTORS_OF_PHOTOS[:3], server=server)


def test_an_embedding_that_is_not_finite_is_refused(store: ArtifactStore, server: MilvusServer | None) -> None:
    vectors = VECTORS_OF_PHOTOS.copy()
    vectors[200, 3] = np.nan
    with pytest.raises(IndexDamaged, match="finite"):
        write(store, vectors=vectors, server=server)


HOSTILE = ("' or row >= 0 or '", '"; drop', "back\\slash", "new\nline", "{row}", "ﬁ😀", "in [1, 2]", " ", "%", "l5")


def test_ids_that_look_like_conditions_are_only_ids(store: ArtifactStore, server: MilvusServer | None) -> None:
    photos = [CataloguePhoto(f"{text}{row}", text, 0, Path("a")) for row, text in enumerate(HOSTILE)]
    version = write(store, photos, VECTORS_OF_PHOTOS[: len(photos)], server=server)
    index = open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server)
    for row, photo in enumerate(photos):
        assert (index.stored(photo.image_id).vectors == VECTORS_OF_PHOTOS[row : row + 1]).all()
        others = index.search(VECTORS_OF_PHOTOS[row], SearchRequest(k=100, exclude_listing=photo.listing_id))
        assert {neighbour.image_id for neighbour in others} == {one.image_id for one in photos} - {photo.image_id}


def test_copies_of_a_photo_tie_and_the_older_row_comes_first(store: ArtifactStore, server: MilvusServer | None) -> None:
    vectors = VECTORS_OF_PHOTOS[[1, 0, 0, 2, 0]]
    version = write(store, PHOTOS[:5], vectors, server=server)
    index = open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server)
    found = index.search(VECTORS_OF_PHOTOS[0], SearchRequest(k=4))
    assert [neighbour.row for neighbour in found[:3]] == [1, 2, 4]
    assert found[0].score == found[2].score


def test_of_more_copies_than_are_wanted_the_oldest_rows_are_found(store: ArtifactStore) -> None:
    vectors = VECTORS_OF_PHOTOS[[1, *[0] * 60, 2]]
    photos = [replace(PHOTOS[0], image_id=f"p{n}", listing_id=f"l{n // 2}") for n in range(len(vectors))]
    index = open_snapshot(store, fingerprint=FINGERPRINT, version=write(store, photos, vectors))
    for k in (1, 7, 59):
        found = index.search(VECTORS_OF_PHOTOS[0], SearchRequest(k=k))
        assert [neighbour.row for neighbour in found] == list(range(1, k + 1))
    hidden = np.array([2, 3], dtype=np.int64)
    assert [one.row for one in index.search(VECTORS_OF_PHOTOS[0], SearchRequest(k=3), hidden=hidden)] == [1, 4, 5]
    apart = index.search(VECTORS_OF_PHOTOS[0], SearchRequest(k=4, distinct=Distinct.LISTING))
    assert [neighbour.row for neighbour in apart] == [1, 2, 4, 6]


# Live quality


def test_rows_are_audited_and_recall_is_told_whatever_the_kind(snapshot: VectorIndex) -> None:
    rng = np.random.default_rng(1)
    audit = snapshot.audit(50, rng)
    assert (audit.n_rows in (50, 100), audit.n_damaged) == (True, 0)
    delta = DeltaIndex(snapshot, lambda put: None)
    found = delta.search(QUERY, SearchRequest(k=10))
    assert recall_of(delta, QUERY, found, rng) == 1
    missed = [neighbour for neighbour in delta.search(QUERY, SearchRequest(k=12)) if neighbour.rank not in (2, 5)]
    assert recall_of(delta, QUERY, missed, rng) == pytest.approx(0.8)
    field = "digests" if isinstance(snapshot, MilvusIndex) else "_digests"
    written = np.array(getattr(snapshot, field))
    written[::100] ^= 1  # of other vectors than those that are there now
    changed = replace(snapshot, **{field: written})  # type: ignore[type-var]
    assert sum(changed.audit(32, rng).n_damaged for _ in range(40)) > 0


def test_in_a_large_index_recall_is_right_in_the_mean(snapshot: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(snapshot, MilvusIndex):
        pytest.skip("the server compares all")
    monkeypatch.setattr("shared.index.recall._COMPARED_BYTES", 4 * DIMENSION * 40)  # of 300 rows
    delta, rng = DeltaIndex(snapshot, lambda put: None), np.random.default_rng(1)
    found = delta.search(QUERY, SearchRequest(k=12))
    assert {recall_of(delta, QUERY, found[:10], rng) for _ in range(50)} == {1.0}
    missed = [neighbour for neighbour in found if neighbour.rank not in (2, 5)]
    estimates = [recall_of(delta, QUERY, missed, rng) for _ in range(3000)]
    # Each is missed by two: a standard deviation of 0.4 for either, of 3,000.
    assert np.mean(estimates) == pytest.approx(0.8, abs=0.05)


def test_deleted_photos_are_no_neighbours_that_were_missed(snapshot: VectorIndex) -> None:
    delta = DeltaIndex(snapshot, lambda put: None)
    best = delta.search(QUERY, SearchRequest(k=2))
    delta.apply([Change(f"1-{n}", one.image_id, n, None) for n, one in enumerate(best, start=1)])
    found = delta.search(QUERY, SearchRequest(k=10))
    assert recall_of(delta, QUERY, found, np.random.default_rng(1)) == 1
