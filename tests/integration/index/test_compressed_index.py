"""The compressed index with the real FAISS: tuned to find what exact search finds, and never short of an answer."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexKind, index_store, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.errors import IndexDamaged
from shared.index.snapshot import IndexSnapshot, open_files, open_snapshot
from shared.index.vector_index import VectorIndex
from shared.index.vectors.ann import Allowed, CompressedIndex
from shared.index.vectors.building import CODES
from shared.index.vectors.compression import TARGET_RECALL, compress, n_lists_for
from shared.jobs.contract import Distinct, SearchRequest
from shared.model.embedder import Embeddings
from tests.support.snapshots import write_snapshot

FINGERPRINT = "f" * 64
DIMENSION = 48
N_PHOTOS = 2000


def clustered(n: int, seed: int) -> FloatArray:
    """(n, DIMENSION) float32 with L2 norm 1, around forty centres that are the same for every seed."""
    centres = np.random.default_rng(1).standard_normal((40, DIMENSION))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(40, size=n)] + 0.7 * rng.standard_normal((n, DIMENSION))
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


VECTORS_OF_PHOTOS = clustered(N_PHOTOS, seed=2)
# A category is a cluster's worth of photos or far fewer; one listing has a tenth of all, the others a few.
_RNG = np.random.default_rng(3)
PHOTOS = [
    CataloguePhoto(
        f"p{row}",
        "crowd" if _RNG.random() < 0.1 else f"l{_RNG.integers(N_PHOTOS // 4)}",
        int(min(12, _RNG.geometric(0.4) - 1)),
        Path("unused.jpg"),
    )
    for row in range(N_PHOTOS)
]


def write(store: ArtifactStore, vectors: FloatArray = VECTORS_OF_PHOTOS) -> str:
    scores = np.zeros((len(vectors), len(CATEGORIES)), dtype=np.float32)
    return write_snapshot(
        store,
        PHOTOS[: len(vectors)],
        Embeddings(vectors, scores),
        fingerprint=FINGERPRINT,
        catalogue="clustered",
        catalogue_digest="d1",
        exact_up_to=0,
    )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return index_store(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[ArtifactStore, str]:
    store = index_store(tmp_path_factory.mktemp("home"))
    return store, write(store)


@pytest.fixture(scope="module")
def snapshot(built: tuple[ArtifactStore, str]) -> VectorIndex:
    store, version = built
    return open_snapshot(store, fingerprint=FINGERPRINT, version=version)


@pytest.fixture(scope="module")
def hasty(built: tuple[ArtifactStore, str]) -> IndexSnapshot:
    """Looks into one list and at ten candidates, unless it must do more."""
    store, version = built
    manifest = read_index_manifest(store, version)
    assert manifest.index is not None
    least = manifest.index.model_copy(update={"n_probes": 1, "n_candidates": 10})
    return open_files(store.path(version), version, manifest.model_copy(update={"index": least}))


def test_searches_find_what_exact_search_finds(snapshot: VectorIndex) -> None:
    queries = clustered(100, seed=4)
    found, exact = snapshot.nearest(queries, 10)[1], snapshot.exact_nearest(queries, 10)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    # A hundred queries vary by 0.01 (two standard errors).
    assert recall >= TARGET_RECALL - 0.01


def test_the_manifest_says_how_it_is_searched_and_what_that_finds(snapshot: VectorIndex) -> None:
    facts = snapshot.manifest.index
    assert facts is not None
    assert facts.kind is IndexKind.COMPRESSED
    assert facts.recall_at_10 >= TARGET_RECALL
    assert facts.n_lists == n_lists_for(N_PHOTOS) == 128
    assert 1 <= facts.n_probes < facts.n_lists


def test_scores_are_exact_cosines(hasty: IndexSnapshot) -> None:
    for query in clustered(20, seed=5):
        found = hasty.search(query, SearchRequest(k=20))
        assert found
        for hit in found:
            cosine = float(VECTORS_OF_PHOTOS[hit.row].astype(np.float64) @ query.astype(np.float64))
            assert hit.score == pytest.approx(cosine, abs=2e-6)  # float32 product, rounded to six decimals


@dataclass(frozen=True)
class Case:
    query: int
    request: SearchRequest
    hidden: tuple[int, ...] | None


CASES = st.builds(
    Case,
    query=st.integers(0, 99),
    request=st.builds(
        SearchRequest,
        k=st.integers(1, 100),
        category=st.none() | st.sampled_from(CATEGORIES),
        exclude_listing=st.none() | st.sampled_from(["crowd", "l7", "elsewhere"]),
        distinct=st.sampled_from(Distinct),
    ),
    hidden=st.none() | st.integers(0, N_PHOTOS).map(lambda n: tuple(range(n))),
)
QUERIES = clustered(100, seed=6)


@settings(max_examples=100)
@given(case=CASES)
def test_every_search_finds_k_that_fit_whenever_there_are_k(hasty: IndexSnapshot, case: Case) -> None:
    request = case.request
    hidden = None if case.hidden is None else np.array(case.hidden, dtype=np.int64)
    fitting = {
        row
        for row, photo in enumerate(PHOTOS)
        if row not in set(case.hidden or ())
        and request.category in (None, CATEGORIES[photo.category])
        and photo.listing_id != request.exclude_listing
    }
    listings = {PHOTOS[row].listing_id for row in fitting}
    found = hasty.search(QUERIES[case.query], request, hidden=hidden)
    n_fitting = len(listings) if request.distinct is Distinct.LISTING else len(fitting)
    assert len(found) == min(request.k, n_fitting)
    assert {hit.row for hit in found} <= fitting
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    if request.distinct is Distinct.LISTING:
        assert max(Counter(hit.listing_id for hit in found).values(), default=1) == 1


def test_lists_that_hold_too_few_are_left_for_more(store: ArtifactStore) -> None:
    lonely = clustered(200, seed=7)
    lonely[:150] = lonely[0]  # one list holds most, many hold one
    version = write(store, lonely)
    manifest = read_index_manifest(store, version)
    assert manifest.index is not None
    least = manifest.index.model_copy(update={"n_probes": 1, "n_candidates": 1})
    hasty = open_files(store.path(version), version, manifest.model_copy(update={"index": least}))
    for row in (0, 199):
        assert len(hasty.search(lonely[row], SearchRequest(k=100))) == 100


def test_the_same_vectors_give_the_same_codes(tmp_path: Path) -> None:
    facts = [compress(tmp_path / name, VECTORS_OF_PHOTOS, threads=1) for name in ("one", "two")]
    assert facts[0] == facts[1]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_codes_of_four_bits_take_half_as_much_and_find_the_same(tmp_path: Path) -> None:
    vectors = np.ascontiguousarray(VECTORS_OF_PHOTOS[:, :45])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = compress(tmp_path / "codes", vectors, bits=4)
    assert facts.recall_at_10 >= TARGET_RECALL
    assert facts.n_candidates <= 100
    index: Any = faiss.read_index(str(tmp_path / "codes"))
    lists: Any = faiss.downcast_index(index.index)
    assert (lists.d, lists.code_size) == (32, 16)


def test_building_with_fewer_threads_leaves_the_setting_of_the_thread_as_it_was(tmp_path: Path) -> None:
    before = faiss.omp_get_max_threads()
    compress(tmp_path / "codes", VECTORS_OF_PHOTOS[:100], threads=1)
    assert faiss.omp_get_max_threads() == before


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [_flip_a_bit, _truncate, Path.unlink])
def test_damaged_codes_are_refused_by_name(store: ArtifactStore, damage: Callable[[Path], None]) -> None:
    version = write(store, VECTORS_OF_PHOTOS[:300])
    damage(store.path(version) / CODES)
    with pytest.raises(IndexDamaged, match=CODES):
        open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def _of_fewer(path: Path) -> None:
    compress(path, VECTORS_OF_PHOTOS[:200])


def _of_another_dimension(path: Path) -> None:
    compress(path, np.ascontiguousarray(VECTORS_OF_PHOTOS[:300, :32]))


def _of_another_kind(path: Path) -> None:
    flat = faiss.IndexFlatL2(DIMENSION)
    flat.add(VECTORS_OF_PHOTOS[:300])
    faiss.write_index(flat, str(path))


@pytest.mark.parametrize("change", [_truncate, Path.unlink, _of_fewer, _of_another_dimension, _of_another_kind])
def test_codes_of_other_vectors_are_refused_before_anything_is_sealed(
    store: ArtifactStore, change: Callable[[Path], None]
) -> None:
    version = write(store, VECTORS_OF_PHOTOS[:300])
    change(store.path(version) / CODES)
    with pytest.raises(IndexDamaged, match=version):
        open_files(store.path(version), version, read_index_manifest(store, version))


def test_a_row_that_is_left_out_makes_no_search_visit_more_lists(hasty: IndexSnapshot) -> None:
    """Photos that were put or deleted live are left out of the snapshot's by every search."""
    index = hasty._index._photos
    assert isinstance(index, CompressedIndex)
    query = (np.vecdot(index._axes, hasty.vectors(slice(0, 1))[0]) + index._origin)[None]
    mask = np.ones(len(hasty), dtype=np.bool_)
    mask[3] = False
    assert index._n_probes_among(Allowed(mask), query, 1) <= 2
    mask[::2] = False
    assert index._n_probes_among(Allowed(mask), query, 1) > 2
