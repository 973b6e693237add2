"""Indexes of many photos: stored in a byte a number, built on after a kill, searched with many live changes."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexFacts, VectorKind, index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.index.delta.index import DeltaIndex
from shared.index.delta.vectors import SEALED
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.index.vectors import building
from shared.index.vectors.building import CODES
from shared.index.vectors.stored_vectors import VECTORS, Codebook, Codec, kinds_for
from shared.jobs.contract import SearchRequest
from shared.model.embedder import Embeddings
from shared.reindex.quality import stored_vectors
from tests.integration.index.test_compressed_index import DIMENSION, FINGERPRINT, clustered
from tests.support.snapshots import write_snapshot

N, BLOCK = 3000, 500
EMBEDDINGS = clustered(N, seed=2)
KILLED_AT = 5 * BLOCK


class Source:
    """Embeddings that are read block by block, each of which is told of."""

    shape = (N, DIMENSION)
    n_categories = len(CATEGORIES)

    def __init__(self, tell: Callable[[int, int], None] = lambda start, stop: None) -> None:
        self._tell = tell

    def read(self, start: int, stop: int) -> Embeddings:
        self._tell(start, stop)
        return Embeddings(EMBEDDINGS[start:stop], np.zeros((stop - start, self.n_categories), dtype=np.float32))


def build(home: Path, source: Source | Embeddings, codebook: Codebook | None = None) -> str:
    n = source.shape[0] if isinstance(source, Source) else len(source.vectors)
    return write_snapshot(
        index_store(home),
        (CataloguePhoto(f"p{row}", f"l{row // 2}", row % 13, Path("unused.jpg"), f"{row:064x}") for row in range(n)),
        source,
        fingerprint=FINGERPRINT,
        catalogue="many",
        catalogue_digest="d",
        exact_up_to=0,
        vectors=VectorKind.INT8,
        codebook=codebook,
        resume="ab12",
    )


def opened(home: Path, version: str) -> VectorIndex:
    return open_snapshot(index_store(home), fingerprint=FINGERPRINT, version=version)


def facts_of(index: VectorIndex) -> IndexFacts:
    assert index.manifest.index is not None
    return index.manifest.index


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def index(home: Path) -> VectorIndex:
    return opened(home, build(home, Source()))


def build_until_killed(home: Path) -> None:
    vars(building).update(CHUNK_ROWS=BLOCK, _BLOCKS_AT_RISK=2)

    def die(start: int, stop: int) -> None:
        if (start, stop) == (KILLED_AT, KILLED_AT + BLOCK):
            os.kill(os.getpid(), signal.SIGKILL)

    build(home, Source(die))


def test_a_build_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = multiprocessing.get_context("spawn").Process(target=build_until_killed, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert index_store(tmp_path).versions() == []
    monkeypatch.setattr(building, "CHUNK_ROWS", BLOCK)
    read: list[tuple[int, int]] = []
    version = build(tmp_path, Source(lambda *rows: read.append(rows)))
    # Nothing is sampled again, and only what lies behind the last blocks that were made sure of is written again.
    assert read[-1] == (N - BLOCK, N)
    assert read[0][0] >= KILLED_AT - 3 * BLOCK
    index = opened(tmp_path, version)
    assert np.abs(index.vectors(slice(None)) - EMBEDDINGS).max() < 0.01
    assert index.audit(200, np.random.default_rng(1)) == (400, 0)
    assert {path.suffix for path in index_store(tmp_path).path(version).iterdir()} == {
        ".npy",
        ".json",
        ".sqlite",
        ".faiss",
    }


def test_a_byte_a_number_finds_what_float32_finds(home: Path, index: VectorIndex) -> None:
    directory = index_store(home).path(index.version)
    assert (directory / VECTORS).stat().st_size < N * (DIMENSION + 4) + 500
    facts = facts_of(index)
    assert facts.vectors is VectorKind.INT8
    assert facts.vectors_recall_at_10 >= 0.99
    assert [gate.passed for gate in stored_vectors(facts)] == [True]
    assert not stored_vectors(facts.model_copy(update={"vectors_recall_at_10": 0.9}))[0].passed
    queries = clustered(100, seed=4)
    found = [index.search(query, SearchRequest(k=10)) for query in queries]
    exact = np.argsort(-(queries @ EMBEDDINGS.T), axis=1)[:, :10].tolist()
    assert np.mean([len({hit.row for hit in hits} & {*best}) for hits, best in zip(found, exact, strict=True)]) >= 9.7
    for query, hits in zip(queries, found, strict=True):
        assert [hit.score for hit in hits] == pytest.approx([EMBEDDINGS[hit.row] @ query for hit in hits], abs=0.005)


def test_embeddings_that_are_taken_over_lose_nothing_more(home: Path, index: VectorIndex, tmp_path: Path) -> None:
    taken = Embeddings(index.vectors(slice(None)), np.zeros((N, len(CATEGORIES)), dtype=np.float32))
    again = opened(tmp_path, build(tmp_path, taken, index.codebook))
    before, after = (
        np.load(index_store(at).path(one.version) / VECTORS) for at, one in ((home, index), (tmp_path, again))
    )
    assert (before["codes"] == after["codes"]).all()
    assert np.allclose(before["factor"], after["factor"], rtol=1e-6)


def test_a_row_that_is_stored_otherwise_than_it_was_written_is_found(index: VectorIndex, tmp_path: Path) -> None:
    other = opened(tmp_path, build(tmp_path, Source()))
    path = index_store(tmp_path).path(other.version) / VECTORS
    rows = np.load(path, mmap_mode="r+")
    rows["codes"][::100, 7] ^= 1  # one row in a hundred, by a step
    rows.flush()
    found = sum(other.audit(20, np.random.default_rng(seed)).n_damaged for seed in range(200))
    assert 10 < found < 100


def test_embeddings_that_need_more_bits_get_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    near = EMBEDDINGS[rng.integers(8, size=N)] + 0.012 * rng.standard_normal((N, DIMENSION), dtype=np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    other = opened(tmp_path, build(tmp_path, Embeddings(near, np.zeros((N, len(CATEGORIES)), dtype=np.float32))))
    assert facts_of(other).vectors is not VectorKind.INT8
    assert facts_of(other).vectors_recall_at_10 >= 0.99
    assert other.codebook is None
    assert (index_store(tmp_path).path(other.version) / CODES).exists()


@pytest.mark.parametrize("dimension", [1, 3, 48, 64, 100, 525])
def test_turning_the_space_changes_no_product_and_can_be_undone(dimension: int) -> None:
    vectors = np.random.default_rng(dimension).standard_normal((9, dimension), dtype=np.float32)
    codec = Codec(VectorKind.INT8, dimension, Codebook.of(vectors))
    assert codec.codebook is not None
    turned = codec.codebook.turned(vectors)
    assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-3)
    assert np.allclose(codec.codebook.turned_back(turned), vectors, atol=1e-5)
    vectors[0] = codec.codebook.mean  # a row without any length of its own
    assert np.allclose(codec.decode(codec.encode(vectors)), vectors, atol=0.05)


def test_small_indexes_keep_float32() -> None:
    assert kinds_for(200_000, 2048, None) == (VectorKind.FLOAT32,)
    assert kinds_for(10_000_000, 2048, None)[0] is VectorKind.INT8
    assert kinds_for(60_000, 2048, VectorKind.FLOAT16) == (VectorKind.FLOAT16, VectorKind.FLOAT32)


def test_many_live_changes_are_searched_as_if_they_had_been_indexed(index: VectorIndex) -> None:
    """Every third photo of the snapshot is put anew and every fifth deleted, in two goes, and others are new."""
    n_new = 2 * SEALED
    vectors = clustered(n_new, seed=9)
    now = {f"p{row}": EMBEDDINGS[row] for row in range(N)}
    delta = DeltaIndex(index, lambda photo: None)
    changes: list[Change] = []

    def put(image_id: str, vector: FloatArray) -> None:
        number = len(changes) + 1
        now[image_id] = vector
        photo = PutPhoto(f"of {image_id}", 1, "00", FINGERPRINT, vector, np.zeros(len(CATEGORIES), np.float32))
        changes.append(Change(f"{number}-0", image_id, number, photo))

    for place, row in enumerate(range(0, N, 3)):
        put(f"p{row}", vectors[place])
    for place in range(N // 3, n_new):
        put(f"new{place}", vectors[place])
    put("new1500", vectors[0])
    for row in range(0, N, 5):
        del now[f"p{row}"]
        changes.append(Change(f"{len(changes) + 1}-0", f"p{row}", len(changes) + 1, None))
    delta.apply(changes[:1800])
    delta.apply(changes[1800:])
    assert delta.n_changed == len({change.image_id for change in changes})
    ids, all_of_them = list(now), np.stack(list(now.values()))
    queries = clustered(100, seed=4)
    recalls = []
    for query in queries:
        hits = delta.search(query, SearchRequest(k=10))
        exact = {ids[place] for place in np.argsort(-(all_of_them @ query))[:10]}
        recalls.append(len({hit.image_id for hit in hits} & exact) / 10)
        assert [hit.score for hit in hits] == pytest.approx([now[hit.image_id] @ query for hit in hits], abs=0.005)
        assert {delta.photo_of(hit.image_id) for hit in hits} == {delta.photo(hit.row) for hit in hits}
    assert np.mean(recalls) >= 0.97
    # More than the lists nearest to a query hold: the others are compared, too.
    everything = delta.search(queries[0], SearchRequest(k=100, exclude_listing="of p3"))
    assert len(everything) == 100
    only_new = delta.search(queries[0], SearchRequest(k=100, category=CATEGORIES[1]))
    assert len(only_new) == 100
    stored = delta.stored("new1500").vectors[0]
    assert np.allclose(stored, vectors[0], atol=0.01)
