"""Trains, writes and tunes the compressed index, which catalogues of more than EXACT_UP_TO vectors get.

Up to EXACT_UP_TO vectors, search is exact: no training, full recall, and 16 ms for 50,000 vectors of 2048 dimensions.
Above that, vectors are projected on their 256 principal axes, clustered into 4 sqrt(n) inverted lists and stored as one
byte per axis (FAISS: PCA256,IVF,SQ8): a search reads 264 bytes per photo instead of 8,192. The measurements behind this
are in docs/performance.md.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np
import numpy.typing as npt

from shared.array_types import BoolArray, FloatArray, IntArray
from shared.artifacts.snapshots import IndexFacts, IndexKind
from shared.index.arrays import CHUNK_ROWS
from shared.index.vectors.ann import MIN_PROBES, CompressedIndex, Nearest, at_most, products
from shared.index.vectors.stored_vectors import Vectors

EXACT_UP_TO = 50_000
TARGET_RECALL = 0.98  # recall at 10, minus two standard errors of the sample it is measured on, must reach this
_N_AXES, _IN_STEP = 256, 16  # FAISS compares codes of so many axes at once, and others tenfold as slowly one by one
_AXES_SAMPLE = 32_768
_SAMPLE_PER_LIST = 40
_RUN = 1024  # rows that are sampled together, so that a disk or a cache of shards is read in order
_ENOUGH_LISTS, _LONG = 4096, 4096
_MOST_LISTS = 1 << 15  # their numbers are kept in 16 bits
_N_QUERIES = 128
_CANDIDATES = (50, 100, 200, 400, 800)
_TIE = 1e-6  # float32 products of equal vectors differ by less
_AT_ONCE = 1 << 20  # codes that are sorted into lists together
KNOWN = 64  # neighbours of a query that are known, because the tenth may have copies
_CODE_NS, _CANDIDATE_NS = 50, 2_000  # cost of comparing one

_QUANTIZERS = {8: faiss.ScalarQuantizer.QT_8bit, 4: faiss.ScalarQuantizer.QT_4bit}

Read = Callable[[int, int], FloatArray]  # returns the embeddings (m, dim) float32 of the rows from one to another


def n_lists_for(n: int) -> int:
    """Choose the number of inverted lists for `n` vectors: the power of two nearest to 4 sqrt(n).

    Source: FAISS's guidelines for choosing an index. Above _ENOUGH_LISTS, finding each vector's list would be most of
    the work of building, and a query's that of searching: lists are then longer, up to _LONG.
    """
    n_lists = max(min(4 * math.sqrt(n), _ENOUGH_LISTS), n / _LONG)
    return min(_MOST_LISTS, 1 << max(0, round(math.log2(n_lists))))


def compress(path: Path, vectors: FloatArray, *, bits: int = 8, threads: int = 0, seed: int = 17) -> IndexFacts:
    """Build the compressed index of vectors that are all there, and tune it to reach TARGET_RECALL at least cost.

    Holds a sample of the vectors and all codes in memory: 0.5 GB for a million vectors of 2048 dimensions.

    Args:
        path: the file to write.
        vectors: (n, dim) float32, L2 norm 1, memory-mapped.
        bits: that a code has for each axis, 8 or 4.
        threads: at most so many; 0: all cores. On a busy machine one is faster than two, which wait for each other.
        seed: of the sampling.

    Returns:
        the tuned settings with the recall that was measured.
    """

    def read(start: int, stop: int) -> FloatArray:
        return np.ascontiguousarray(vectors[start:stop])

    with at_most(threads):
        sample = Sample.draw(len(vectors), read, seed)
        codec = Compression.train(sample, len(vectors), read, bits=bits)
        numbers, codes = np.empty(len(vectors), np.uint16), np.empty((len(vectors), codec.width), np.uint8)
        truth = Nearest(sample.queries, KNOWN)
        for start in range(0, len(vectors), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, len(vectors))
            block = read(start, stop)
            numbers[start:stop], codes[start:stop] = codec.encode(block)
            truth.add(block, start)
        codec.write(path, numbers, codes)
        return tune(path, vectors, Truth(sample, truth.scores, truth.rows))


class Sample(NamedTuple):
    """Rows of an index that it is trained and tuned with.

    Attributes:
        runs: first row and the one behind the last of runs of rows.
        vectors: (m, dim) float32 of rows among those.
        query_rows: (n,) rows that stand for queries.
        queries: (n, dim) float32, theirs.
    """

    runs: list[tuple[int, int]]
    vectors: FloatArray
    query_rows: IntArray
    queries: FloatArray

    @classmethod
    def draw(cls, n: int, read: Read, seed: int) -> Self:
        """Draw the sample of `n` rows."""
        rng = np.random.default_rng(seed)
        size = max(_AXES_SAMPLE, _SAMPLE_PER_LIST * n_lists_for(n))
        n_runs = math.ceil(n / _RUN)
        chosen = np.sort(rng.choice(n_runs, min(n_runs, math.ceil(size / _RUN)), replace=False)).tolist()
        runs = [(run * _RUN, min(n, (run + 1) * _RUN)) for run in chosen]
        each = math.ceil(_AXES_SAMPLE / len(runs))
        vectors, rows = [], []
        for start, stop in runs:
            places = np.sort(rng.permutation(stop - start)[:each])
            vectors.append(read(start, stop)[places])
            rows.append(start + places)
        kept, of_kept = np.concatenate(vectors), np.concatenate(rows)
        asked = np.sort(rng.choice(len(kept), min(len(kept), _N_QUERIES), replace=False))
        return cls(runs, kept, of_kept[asked], kept[asked])


@dataclass
class Compression:
    """Principal axes and inverted lists, trained: what turns embeddings into codes.

    Attributes:
        index: as FAISS has it, without any codes.
    """

    index: faiss.IndexPreTransform

    @classmethod
    def train(cls, sample: Sample, n: int, read: Read, *, bits: int = 8) -> Self:
        """Train it for `n` rows.

        Args:
            sample: of the rows.
            n: how many rows.
            read: reads them.
            bits: see `compress`.
        """
        n_lists, dimension = n_lists_for(n), sample.vectors.shape[1]
        n_axes = min(_N_AXES, dimension)
        axes = faiss.PCAMatrix(dimension, n_axes - n_axes % _IN_STEP or n_axes)
        axes.train(sample.vectors)
        projected = np.concatenate([axes.apply(read(*run)) for run in sample.runs])
        # L2 distances rather than inner products: centring the axes does not change them.
        centres = faiss.IndexFlatL2(axes.d_out)
        lists = faiss.IndexIVFScalarQuantizer(centres, axes.d_out, n_lists, _QUANTIZERS[bits], faiss.METRIC_L2)
        lists.train(projected)
        index = faiss.IndexPreTransform(axes, lists)
        return cls(index)

    @property
    def _lists(self) -> Any:
        return faiss.downcast_index(self.index.index)

    @property
    def width(self) -> int:
        """Bytes of a code."""
        return int(self._lists.code_size)

    def encode(self, vectors: FloatArray) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """Turn embeddings (n, dim) float32 into the numbers of their inverted lists (n,) and codes (n, width)."""
        lists: Any = self._lists
        axes: Any = self.index.chain
        projected = axes.at(0).apply(vectors)
        numbers = np.ascontiguousarray(lists.quantizer.search(projected, 1)[1][:, 0])
        codes = np.empty((len(vectors), self.width), np.uint8)
        pointers = (faiss.swig_ptr(array) for array in (projected, numbers, codes))
        lists.encode_vectors(len(vectors), *pointers)
        return numbers.astype(np.uint16), codes

    def write(self, path: Path, numbers: npt.NDArray[np.uint16], codes: npt.NDArray[np.uint8]) -> None:
        """Write the index of encoded rows; holds their codes in memory, once.

        Args:
            path: the file to write.
            numbers, codes: of all rows, as `encode` gives them; may be memory-mapped.
        """
        lists: Any = self._lists
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers, minlength=lists.nlist))
        for start, stop in _parts(ends):
            rows = order[start:stop]
            in_order = np.argsort(rows)
            some = np.empty((len(rows), self.width), np.uint8)
            some[in_order] = codes[rows[in_order]]  # read from first to last, not all over the disk
            for number in np.unique(numbers[rows]).tolist():
                of_list = slice(int(ends[number - 1]) - start if number else 0, int(ends[number]) - start)
                pointers = (faiss.swig_ptr(array) for array in (rows[of_list], some[of_list]))
                lists.invlists.add_entries(number, of_list.stop - of_list.start, *pointers)
        lists.ntotal = self.index.ntotal = len(numbers)
        faiss.write_index(self.index, str(path))
        lists.reset()
        self.index.ntotal = 0


def _parts(ends: IntArray) -> Iterator[tuple[int, int]]:
    """Cut rows that are sorted by list into parts of whole lists, of _AT_ONCE rows unless a list has more."""
    start = 0
    while start < ends[-1]:
        stop = int(ends[max(int(np.searchsorted(ends, start + _AT_ONCE, side="right")) - 1, 0)])
        stop = stop if stop > start else int(ends[np.searchsorted(ends, start, side="right")])
        yield start, stop
        start = stop


class Truth(NamedTuple):
    """The nearest rows of a sample's queries, by their embeddings as they came from the model.

    Attributes:
        sample: its queries.
        scores, rows: cosine similarities and rows, (n, k), most similar first, the query itself among them.
    """

    sample: Sample
    scores: FloatArray
    rows: IntArray

    def right(self, query: int, rows: IntArray, scores: FloatArray) -> BoolArray:
        """Which of some rows (m,), whose scores by what is stored are given, are among a query's ten nearest: (m,)."""
        near = self.rows[query] != self.sample.query_rows[query]
        known, of_known = self.rows[query][near], self.scores[query][near]
        if not len(known):
            return np.zeros(len(rows), dtype=bool)
        worst = of_known[min(10, len(of_known)) - 1] - _TIE
        if len(known) >= KNOWN - 1 and of_known[-1] >= worst:  # so many copies that not all are known
            found: BoolArray = scores >= worst
        else:
            found = np.isin(rows, known[of_known >= worst])
        return found

    def recall(self, query: int, rows: IntArray, scores: FloatArray) -> tuple[float, float]:
        """Recall at 10 of a search that compares these candidates (m,) by these scores.

        Returns:
            the recall, and what it is of those that are among the candidates: what the scores leave of it.
        """
        others = rows != self.sample.query_rows[query]
        rows, scores = rows[others], scores[others]
        n = max(1, min(10, self.rows.shape[1] - 1))
        first = np.argsort(-scores, kind="stable")[:n]
        right = self.right(query, rows, scores)
        n_right, n_there = np.count_nonzero(right[first]), min(n, np.count_nonzero(right))
        return n_right / n, n_right / max(1, n_there) if n_there else 1.0


def tune(path: Path, vectors: Vectors, truth: Truth) -> IndexFacts:
    """Find the cheapest settings that reach TARGET_RECALL, else those of the highest recall.

    Args:
        path: of the codes.
        vectors: (n, dim) by which candidates are compared.
        truth: what searches should find.
    """
    trials: list[tuple[float, float, IndexFacts]] = []
    n_lists = n_lists_for(len(vectors))

    def cost_ns(n_probes: int, n_candidates: int) -> float:
        return _CODE_NS * n_probes * len(vectors) / n_lists + _CANDIDATE_NS * n_candidates

    n_probes = min(MIN_PROBES, n_lists)
    while n_probes <= max(MIN_PROBES, n_lists // 4):
        if any(recall >= TARGET_RECALL and cost < cost_ns(n_probes, _CANDIDATES[0]) for recall, cost, _ in trials):
            break
        index = CompressedIndex(path, vectors, n_probes=n_probes, n_candidates=_CANDIDATES[-1] + 1)
        recalls = np.array([_recalls(index, vectors, truth, i) for i in range(len(truth.sample.queries))])
        for place, n_candidates in enumerate(_CANDIDATES):
            found, of_those = recalls[:, place].T
            facts = IndexFacts(
                kind=IndexKind.COMPRESSED,
                recall_at_10=round(float(found.mean()), 4),
                n_lists=n_lists,
                n_probes=n_probes,
                n_candidates=n_candidates,
                vectors_recall_at_10=round(float(of_those.mean()), 4),
            )
            # A query between two lists misses many neighbours at once, so that the mean alone is too optimistic.
            sure = float(found.mean() - 2 * found.std() / math.sqrt(len(found)))
            trials.append((sure, cost_ns(n_probes, n_candidates), facts))
        n_probes *= 2
    return max(trials, key=lambda trial: (min(trial[0], TARGET_RECALL), -trial[1]))[2]


def _recalls(index: CompressedIndex, vectors: Vectors, truth: Truth, query: int) -> list[tuple[float, float]]:
    """Recall of a query with each of _CANDIDATES, as `Truth.recall`."""
    vector = truth.sample.queries[query]
    rows = index.candidates(vector, 10)
    scores = products(vectors, rows, vector)
    return [truth.recall(query, rows[: n + 1], scores[: n + 1]) for n in _CANDIDATES]
