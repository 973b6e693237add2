"""Builds and tunes the compressed index, which catalogues of more than EXACT_UP_TO vectors get.

Up to EXACT_UP_TO vectors, search is exact: no training, full recall, and 16 ms for 50,000 vectors of 2048 dimensions.
Above that, vectors are projected on their 256 principal axes, clustered into 4 sqrt(n) inverted lists and stored as one
byte per axis (FAISS: PCA256,IVF,SQ8): a search reads 264 bytes per photo instead of 8,192. The measurements behind this
are in docs/performance.md.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import IndexFacts, IndexKind
from shared.index.ann import MIN_PROBES, CompressedIndex, Mask, exact_nearest
from shared.index.arrays import CHUNK_ROWS

EXACT_UP_TO = 50_000
TARGET_RECALL = 0.98  # recall at 10, minus two standard errors of the sample it is measured on, must reach this
_N_AXES = 256
_AXES_SAMPLE = 32_768
_SAMPLE_PER_LIST = 40
_N_QUERIES = 512
_CANDIDATES = (50, 100, 200, 400, 800)
_TIE = 1e-6  # float32 products of equal vectors differ by less
_CODE_NS, _CANDIDATE_NS = 50, 2_000  # cost of comparing one


def n_lists_for(n: int) -> int:
    """Choose the number of inverted lists for `n` vectors: the power of two nearest to 4 sqrt(n).

    Source: FAISS's guidelines for choosing an index.
    """
    return 1 << max(0, round(math.log2(4 * math.sqrt(n))))


def compress(path: Path, vectors: FloatArray, *, threads: int = 0, seed: int = 17) -> IndexFacts:
    """Build the compressed index of some vectors and tune it on a sample of them to reach TARGET_RECALL at least cost.

    Holds a sample of the vectors and all codes in memory: 0.5 GB for a million vectors of 2048 dimensions.

    Args:
        path: the file to write.
        vectors: (n, dim) float32, L2 norm 1, memory-mapped.
        threads: at most so many; 0: all cores. On a busy machine one is faster than two, which wait for each other.
        seed: of the sampling.

    Returns:
        the tuned settings with the recall that was measured.
    """
    rng = np.random.default_rng(seed)
    with _at_most(threads):
        index, n_lists = _train(vectors, rng)
        for start in range(0, len(vectors), CHUNK_ROWS):
            index.add(np.ascontiguousarray(vectors[start : start + CHUNK_ROWS]))
        faiss.write_index(index, str(path))
        del index
        return _tune(path, vectors, n_lists, rng)


@contextmanager
def _at_most(threads: int) -> Iterator[None]:
    """Limit the FAISS calls of the calling thread to so many OpenMP threads; 0: no limit."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _train(vectors: FloatArray, rng: np.random.Generator) -> tuple[faiss.IndexPreTransform, int]:
    n_lists = n_lists_for(len(vectors))
    rows = _sample(len(vectors), max(_AXES_SAMPLE, _SAMPLE_PER_LIST * n_lists), rng)
    axes = faiss.PCAMatrix(vectors.shape[1], min(_N_AXES, vectors.shape[1]))
    axes.train(vectors[np.sort(rng.permutation(rows)[:_AXES_SAMPLE])])
    projected = np.concatenate(
        [axes.apply(vectors[rows[start : start + CHUNK_ROWS]]) for start in range(0, len(rows), CHUNK_ROWS)]
    )
    # L2 distances rather than inner products: centring the axes does not change them.
    centres = faiss.IndexFlatL2(axes.d_out)
    lists = faiss.IndexIVFScalarQuantizer(centres, axes.d_out, n_lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2)
    lists.train(projected)
    return faiss.IndexPreTransform(axes, lists), n_lists


def _sample(n: int, size: int, rng: np.random.Generator) -> IntArray:
    """Choose rows at random; sorted, so that the disk is read sequentially."""
    return np.sort(rng.choice(n, min(n, size), replace=False))


def _tune(path: Path, vectors: FloatArray, n_lists: int, rng: np.random.Generator) -> IndexFacts:
    """Find the cheapest settings that reach TARGET_RECALL, else those of the highest recall."""
    queries = vectors[_sample(len(vectors), _N_QUERIES, rng)]
    # A row finds itself first, which proves nothing: search for eleven, and do not count it.
    worst = exact_nearest(vectors, queries, 11)[0][:, -1] - _TIE
    trials: list[tuple[float, float, IndexFacts]] = []

    def cost_ns(n_probes: int, n_candidates: int) -> float:
        return _CODE_NS * n_probes * len(vectors) / n_lists + _CANDIDATE_NS * n_candidates

    n_probes = min(MIN_PROBES, n_lists)
    while n_probes <= max(MIN_PROBES, n_lists // 4):
        if any(recall >= TARGET_RECALL and cost < cost_ns(n_probes, _CANDIDATES[0]) for recall, cost, _ in trials):
            break
        index = CompressedIndex(path, vectors, n_probes=n_probes, n_candidates=_CANDIDATES[-1] + 1)
        right = np.stack([_right(index, vectors, query, score) for query, score in zip(queries, worst, strict=True)])
        for n_candidates in _CANDIDATES:
            recalls = np.clip(right[:, : n_candidates + 1].sum(axis=1) - 1, 0, 10) / 10
            # A query between two lists misses many neighbours at once, so that the mean alone is too optimistic.
            sure = float(recalls.mean() - 2 * recalls.std() / math.sqrt(len(recalls)))
            facts = IndexFacts(
                kind=IndexKind.COMPRESSED,
                recall_at_10=round(float(recalls.mean()), 4),
                n_lists=n_lists,
                n_probes=n_probes,
                n_candidates=n_candidates,
            )
            trials.append((sure, cost_ns(n_probes, n_candidates), facts))
        n_probes *= 2
    return max(trials, key=lambda trial: (min(trial[0], TARGET_RECALL), -trial[1]))[2]


def _right(index: CompressedIndex, vectors: FloatArray, query: FloatArray, worst: float) -> Mask:
    """Mark which candidates, in their order, are among the true nearest; padded with false."""
    rows = index.candidates(query, 10)
    right: Mask = np.zeros(_CANDIDATES[-1] + 1, dtype=bool)
    right[: len(rows)] = np.vecdot(vectors[rows], query) >= worst
    return right
