"""The overlay over a real snapshot answers as one index of what there is now would, also in the midst of a change"""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.array_types import FloatArray
from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.errors import ImageNotFound
from shared.index.delta.index import DeltaIndex
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.contract import Distinct, SearchRequest
from shared.model.embedder import Embeddings
from tests.support.snapshots import write_snapshot

DIM, N = 6, 24
FINGERPRINT = "f" * 64


def unit(seed: int) -> FloatArray:
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> VectorIndex:
    store = index_store(tmp_path_factory.mktemp("overlay"))
    photos = [CataloguePhoto(f"p{i}", f"l{i // 2}", i % 3, Path(f"{i}.jpg"), f"{i:064}") for i in range(N)]
    embeddings = Embeddings(np.stack([unit(i) for i in range(N)]), np.zeros((N, 13), np.float32))
    version = write_snapshot(
        store, photos, embeddings, fingerprint=FINGERPRINT, catalogue="c", catalogue_digest="d", compacted_through="5-0"
    )
    return open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def never(photo: PutPhoto) -> Embeddings | None:
    raise AssertionError("embedded again")


def put(image_id: str, n: int, *, listing: str = "l0", category: int = 0, seed: int | None = None) -> Change:
    """Change number n."""
    vector = unit(1000 + n if seed is None else seed)
    photo = PutPhoto(listing, category, "5a", FINGERPRINT, vector, np.full(13, n, np.float32))
    return Change(f"{5 + n}-0", image_id, n, photo)


def delete(image_id: str, n: int) -> Change:
    return Change(f"{5 + n}-0", image_id, n, None)


def found(overlay: DeltaIndex, query: FloatArray, **options: object) -> list[str]:
    return [n.image_id for n in overlay.search(query, SearchRequest.model_validate({"k": 100, **options}))]


IDS = st.sampled_from([*(f"p{i}" for i in range(6)), "new1", "new2", "new3"])
CHANGES = st.lists(
    st.tuples(IDS, st.booleans(), st.sampled_from(["l0", "l1", "l2", "other"]), st.integers(0, 2), st.integers(0, 40)),
    max_size=20,
)
REQUESTS = st.builds(
    SearchRequest,
    k=st.integers(1, 40),
    category=st.none() | st.sampled_from(CATEGORIES[:4]),
    distinct=st.sampled_from(Distinct),
    exclude_listing=st.none() | st.sampled_from(["l0", "l1", "other"]),
    min_score=st.none() | st.sampled_from([-0.5, 0.0, 0.4]),
)


def test_a_listing_is_of_the_category_that_it_was_put_with_last(snapshot: VectorIndex) -> None:
    overlay = DeltaIndex(snapshot, never)
    photos = [photo for photo in snapshot.photos() if photo.listing_id == "l0"]
    assert overlay.category_of("l0") == CATEGORIES[photos[0].category]
    overlay.apply([put("new1", 1, category=5), put("new2", 2, category=4)])
    assert overlay.category_of("l0") == CATEGORIES[4]
    overlay.apply([delete("new2", 3)])
    assert overlay.category_of("l0") == CATEGORIES[5]
    overlay.apply([delete(one, 4 + n) for n, one in enumerate(["new1", *(photo.image_id for photo in photos)])])
    assert overlay.category_of("l0") is None
    assert overlay.category_of("nowhere") is None


@given(CHANGES, REQUESTS, st.integers(0, 50), st.integers(0, 20))
def test_a_search_finds_what_brute_force_over_everything_there_is_finds(
    snapshot: VectorIndex,
    wanted: list[tuple[str, bool, str, int, int]],
    request_: SearchRequest,
    seed: int,
    cut: int,
) -> None:
    there = {p.image_id: (p.listing_id, p.category, unit(i)) for i, p in enumerate(snapshot.photos())}
    changes = []
    for n, (image_id, is_put, listing, category, of_seed) in enumerate(wanted, start=1):
        there.pop(image_id, None)
        if is_put:
            there[image_id] = (listing, category, unit(of_seed))
        changes.append(
            put(image_id, n, listing=listing, category=category, seed=of_seed) if is_put else delete(image_id, n)
        )
    overlay = DeltaIndex(snapshot, never)
    overlay.apply(changes[:cut])
    overlay.apply(changes[max(0, cut - 3) :])  # what was applied already is passed over

    query = unit(seed)
    expected: list[tuple[float, str]] = []
    listings: set[str] = set()
    for image_id, (listing, category, vector) in sorted(there.items(), key=lambda one: -float(one[1][2] @ query)):
        score = float(vector @ query)
        if request_.category not in (None, CATEGORIES[category]) or listing == request_.exclude_listing:
            continue
        if request_.min_score is not None and score < request_.min_score:
            continue
        if request_.distinct is Distinct.LISTING and listing in listings:
            continue
        listings.add(listing)
        expected.append((score, image_id))
    neighbours = overlay.search(query, request_)
    # Copies of a vector tie, and which of them comes first is another matter: scores are compared, and who they are of.
    assert [n.score for n in neighbours] == pytest.approx([score for score, _ in expected[: request_.k]], abs=2e-6)
    assert [n.rank for n in neighbours] == list(range(1, len(neighbours) + 1))
    assert len({n.image_id for n in neighbours}) == len({n.row for n in neighbours}) == len(neighbours)
    for neighbour in neighbours:
        listing, category, vector = there[neighbour.image_id]
        assert (neighbour.listing_id, neighbour.category) == (listing, CATEGORIES[category])
        assert neighbour.score == pytest.approx(float(vector @ query), abs=2e-6)


def test_a_photo_put_live_has_a_row_of_its_own_until_the_next_snapshot(snapshot: VectorIndex) -> None:
    overlay = DeltaIndex(snapshot, never)
    overlay.apply([put("a", 1), put("b", 2), delete("a", 3), put("p1", 4)])
    rows = {n.image_id: n.row for n in overlay.search(unit(0), SearchRequest(k=100))}
    assert (rows["b"], rows["p1"], rows["p0"]) == (N + 1, N + 2, 0)
    assert "a" not in rows
    assert (overlay.applied_to, overlay.n_changed) == ("9-0", 3)


def test_by_id_a_photo_put_live_is_found_and_a_deleted_one_is_not(snapshot: VectorIndex) -> None:
    overlay = DeltaIndex(snapshot, never)
    overlay.apply([put("new", 1), put("p1", 2), delete("p2", 3)])
    assert overlay.stored("new").vectors.tolist() == [unit(1001).tolist()]
    assert overlay.stored("p1").scores.tolist() == [[2.0] * 13]
    assert overlay.stored("p3").vectors.tolist() == snapshot.stored("p3").vectors.tolist()
    for image_id in ("p2", "nobody"):
        with pytest.raises(ImageNotFound):
            overlay.stored(image_id)


def test_entries_that_the_snapshot_holds_and_changes_accepted_earlier_are_passed_over(snapshot: VectorIndex) -> None:
    overlay = DeltaIndex(snapshot, never)
    compacted = Change("5-0", "p0", 9, None)
    overlay.apply([compacted, put("p1", 7, seed=500), Change("13-0", "p1", 6, None)])
    assert found(overlay, unit(0))[0] == "p0"
    assert found(overlay, unit(500))[0] == "p1"
    assert overlay.applied_to == "13-0"


def test_a_photo_of_another_model_is_embedded_again_or_not_found_and_keeps_its_row(snapshot: VectorIndex) -> None:
    photo = PutPhoto("l", 0, "had", "another", np.ones(3, np.float32), np.zeros(13, np.float32))
    lost = PutPhoto("l", 0, "lost", "another", np.ones(3, np.float32), np.zeros(13, np.float32))
    again = Embeddings(unit(77)[None], np.ones((1, 13), np.float32))
    overlay = DeltaIndex(snapshot, lambda photo: again if photo.sha256 == "had" else None)
    overlay.apply([Change("6-0", "p0", 1, lost), Change("7-0", "new", 2, photo)])
    best = overlay.search(unit(77), SearchRequest(k=100))
    assert (best[0].image_id, best[0].row) == ("new", N + 1)
    assert "p0" not in [n.image_id for n in best]


def test_a_search_in_another_thread_never_sees_half_a_change(snapshot: VectorIndex) -> None:
    overlay = DeltaIndex(snapshot, never)
    overlay.apply([put("moving", 1, seed=0)])
    stop, odd = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            names = found(overlay, unit(0))
            if names.count("moving") != 1 or len(names) != N + 1:
                odd.append(names)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(2, 400):  # past the first room for vectors
        overlay.apply([put("moving", n, seed=n % 5)])
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == []


def test_a_put_in_a_category_that_the_model_does_not_know_is_left_out_and_told(
    snapshot: VectorIndex, caplog: pytest.LogCaptureFixture
) -> None:
    """It was made for another catalogue, and is still in the log."""
    overlay = DeltaIndex(snapshot, never)
    overlay.apply([put("strange", 1, category=len(CATEGORIES)), put("known", 2)])
    assert "strange" not in found(overlay, unit(1001))
    assert "known" in found(overlay, unit(1002))
    assert "event=put_of_another_catalogue image_id=strange" in caplog.text


def test_a_filter_that_was_asked_before_is_asked_of_what_came_since(snapshot: VectorIndex) -> None:
    """Of so many photos that they are not all sorted at once."""
    overlay = DeltaIndex(snapshot, never)
    query = unit(7)
    asked: dict[str, object] = {
        "filter": {"must": [{"key": "listing_id", "match": {"any": ["some", "others"]}}]},
        "exclude_listing": "others",
        "category": CATEGORIES[1],
    }
    scores: dict[str, float] = {}
    for start in (1, 301):
        for n in range(start, start + 300):
            overlay.apply([put(f"new{n}", n, listing=("some", "others", "l1")[n % 3], category=n % 2)])
            if n % 3 == 0 and n % 2 == 1:
                scores[f"new{n}"] = round(float(query @ unit(1000 + n)), 6)
        best = sorted(scores, key=lambda image_id: (-scores[image_id], int(image_id[3:])))
        assert found(overlay, query, **asked) == best[:100]
    assert found(overlay, query) != found(overlay, query, **asked)
