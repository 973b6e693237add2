"""Nearest-neighbour search over the rows of a vector matrix: exact, and compressed with FAISS.

Rows are numbers here; callers translate filters into allowed rows, and rows into photos.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.index.arrays import CHUNK_ROWS
from shared.index.vector_index import SCORE_DECIMALS
from shared.index.vectors.stored_vectors import StoredVectors, Vectors

Mask = npt.NDArray[np.bool_]
_GATHER_COST = 4  # of comparing a row that lies alone, beside one of many in a row
_GATHERED = 1024  # rows at a time: their copy stays in the processor's cache
# With so few rows allowed, comparing all of their vectors is as fast as choosing candidates, and exact.
_BRUTE_FORCE_UP_TO = 2_000
MIN_PROBES = 8  # fewer may suffice for the catalogue's own photos, but users' query photos resemble it less
_SAMPLED = 131_072  # rows by which it is told how many of each inverted list a filter leaves
_SCARCE, _MOST_SCARCE = 1.5, 64
_FEWEST_PROBES = 64  # of a search with a filter: the fewest that do were found without one
_TIE = 1e-6  # of two similarities that are shown as one, the most that they differ by
_ROUNDING = 1e-4  # of squared distances to lists
_NEARLY_ALL = 0.9  # of the rows are allowed: some were put or deleted live, or one listing is left out; no filter


class Allowed:
    """The rows that a search may find, in the forms that searches need; each is computed once, when first needed.

    Args:
        mask: (rows,) true where a row may be found; not to be written to any more.
        rows: the same as numbers, ascending, where they are known.
    """

    def __init__(self, mask: Mask, rows: IntArray | None = None) -> None:
        self.mask = mask
        self.in_lists: IntArray | None = None  # counted by a CompressedIndex, for itself
        if rows is not None:
            self.rows = rows

    @cached_property
    def rows(self) -> IntArray:
        """Numbers of the rows, (m,) int64, ascending."""
        found: IntArray = np.flatnonzero(self.mask)
        return found

    @cached_property
    def count(self) -> int:
        """How many rows."""
        known = self.__dict__.get("rows")
        return int(np.count_nonzero(self.mask)) if known is None else len(known)

    @cached_property
    def bitmap(self) -> npt.NDArray[np.uint8]:
        """One bit a row, as FAISS's `IDSelectorBitmap` reads it."""
        return np.packbits(self.mask, bitorder="little")

    def both(self, other: Mask) -> "Allowed":
        """Return the rows that are also true in another mask."""
        few = self.count <= _BRUTE_FORCE_UP_TO
        return Allowed(self.mask & other, self.rows[other[self.rows]] if few else None)

    def without(self, rows: IntArray | list[int]) -> "Allowed":
        """Return a copy without some rows."""
        mask = self.mask.copy()
        mask[rows] = False
        return Allowed(mask, self.rows[mask[self.rows]] if self.count <= _BRUTE_FORCE_UP_TO else None)


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Limit the FAISS calls of the calling thread to so many OpenMP threads; 0: no limit."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class RowIndex(Protocol):
    """Searches the rows of a vector matrix by cosine similarity; safe to share between threads."""

    def search(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Find the allowed rows most similar to one query.

        Args:
            query: (dim,) float32, L2 norm 1.
            n: rows wanted.
            allowed: rows that may be found; None: all.

        Returns:
            cosine similarities (m,) float32 and rows (m,) int64 in no order; m is `n`, or less where fewer are allowed.
        """
        ...

    def compare(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Compare one query with all rows that a search for `n` of them compares it with: as `search`, and the rest."""
        ...


class ExactIndex:
    """A `RowIndex` that compares the query with every vector.

    Args:
        vectors: (rows, dim) float32, L2 norm 1; may be memory-mapped.
    """

    def __init__(self, vectors: FloatArray) -> None:
        self._vectors = vectors

    def search(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Find the rows most similar to a query by brute force; see `RowIndex.search`."""
        return best(*self.compare(query, n, allowed), n)

    def compare(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Compare a query with every allowed row; see `RowIndex.compare`."""
        # As fast as a matrix product on two cores, which leaves its threads spinning for 30 ms of processor time.
        if allowed is None:
            return np.vecdot(self._vectors, query), np.arange(len(self._vectors))  # (rows, dim) -> (rows,)
        return products(self._vectors, allowed.rows, query), allowed.rows


class CompressedIndex:
    """A `RowIndex` that selects candidates by their compressed codes, then re-ranks them by their full vectors.

    Args:
        path: as written by `Compression.write`; memory-mapped, so that all processes that open it share its pages.
        vectors: (rows, dim), L2 norm 1, memory-mapped, as they are stored.
        n_probes: inverted lists visited by a search for ten neighbours among all rows.
        n_candidates: rows re-ranked by such a search.

    Raises:
        RuntimeError, ValueError: the file is damaged, or belongs to other vectors.
    """

    def __init__(self, path: Path, vectors: Vectors, *, n_probes: int, n_candidates: int) -> None:
        # Plain IO_FLAG_MMAP starts 32 threads a search to read ahead.
        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        if not isinstance(index, faiss.IndexPreTransform) or (index.ntotal, index.d) != vectors.shape:
            raise ValueError(f"{path.name} does not belong to vectors of shape {vectors.shape}")
        axes: Any = faiss.downcast_VectorTransform(index.chain.at(0))  # type: ignore[attr-defined]
        self._axes = faiss.vector_to_array(axes.A).reshape(axes.d_out, axes.d_in)
        self._origin = faiss.vector_to_array(axes.b)
        self._lists: Any = faiss.downcast_index(index.index)
        lists: Any = self._lists
        self._quantizer: Any = faiss.downcast_index(lists.quantizer)
        self._owner = index  # frees the lists when it goes
        self._vectors = vectors
        self._n_probes = n_probes
        self._n_candidates = n_candidates
        self._stride = max(1, len(vectors) // _SAMPLED)

    def search(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Find the rows most similar to a query among the candidates; see `RowIndex.search`."""
        return best(*self.compare(query, n, allowed), n)

    def compare(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Compare a query with the candidates; see `RowIndex.compare`."""
        rows = self.candidates(query, n, allowed)
        return products(self._vectors, rows, query), rows

    def candidates(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> IntArray:
        """Select the rows whose full vectors are worth comparing with a query.

        Args:
            query: (dim,) float32, L2 norm 1.
            n: neighbours wanted.
            allowed: rows that may be found; None: all.

        Returns:
            rows (m,) int64, at least `n` unless fewer are allowed; likeliest first, unless all allowed ones are given.
        """
        n_allowed = len(self._vectors)
        n_wanted = max(self._n_candidates, 4 * n)
        params = faiss.SearchParametersIVF()
        if allowed is not None:
            n_allowed = allowed.count
            if n_allowed <= max(n_wanted, _BRUTE_FORCE_UP_TO):
                return allowed.rows
            params = faiss.SearchParametersIVF(sel=faiss.IDSelectorBitmap(allowed.bitmap))  # type: ignore[call-arg, arg-type]
        projected = self._projected(query)
        params.nprobe = self._n_probes_for(n)
        if allowed is not None:
            params.nprobe = self._n_probes_among(allowed, projected, params.nprobe)
        while True:
            rows: IntArray = self._lists.search(projected, min(n_wanted, n_allowed), params=params)[1][0]
            rows = rows[rows >= 0]  # FAISS pads with -1 when it finds fewer
            if len(rows) >= min(n, n_allowed) or params.nprobe >= self._lists.nlist:
                return rows
            params.nprobe *= 4

    def _projected(self, query: FloatArray) -> FloatArray:
        # Done by FAISS, this product would leave threads spinning for 8 ms of processor time.
        projected: FloatArray = (np.vecdot(self._axes, query) + self._origin)[None]  # (dim,) -> (1, axes)
        return projected

    def _n_probes_for(self, n: int) -> int:
        return math.ceil(self._n_probes * max(1, n / 10))  # tuned for ten neighbours among all rows

    def lists_near(self, query: FloatArray, n: int) -> IntArray:
        """The inverted lists that a search for the `n` nearest among all rows looks into, nearest first."""
        n_probes = min(self._n_probes_for(n), int(self._lists.nlist))
        nearest: IntArray = self._quantizer.search(self._projected(query), n_probes)[1][0]
        return nearest

    def lists_of(self, vectors: FloatArray) -> npt.NDArray[np.uint16]:
        """The inverted list that each of some vectors (n, dim) belongs in, (n,)."""
        projected = np.ascontiguousarray(vectors @ self._axes.T + self._origin, dtype=np.float32)
        with at_most(1):
            numbers: npt.NDArray[np.uint16] = self._quantizer.search(projected, 1)[1][:, 0].astype(np.uint16)
        return numbers

    def damaged_codes(self, n: int, rng: np.random.Generator) -> int:
        """Encode the vectors of some rows again, and count those whose codes are others, or lie in the wrong list.

        Args:
            n: rows, drawn at random.
            rng: draws them.
        """
        inverted = self._lists.invlists
        ends = self._list_ends
        drawn = rng.integers(0, ends[-1], n)
        lists = np.searchsorted(ends, drawn, side="right")
        width = int(self._lists.code_size)
        stored, rows = np.empty((n, width), np.uint8), np.empty(n, np.int64)
        for i, (number, place) in enumerate(zip(lists.tolist(), (ends[lists] - drawn - 1).tolist(), strict=True)):
            size = inverted.list_size(number)
            rows[i] = faiss.rev_swig_ptr(inverted.get_ids(number), size)[place]
            stored[i] = faiss.rev_swig_ptr(inverted.get_codes(number), size * width).reshape(size, width)[place]
        known = (rows >= 0) & (rows < len(self._vectors))
        vectors = self._vectors[np.where(known, rows, 0)]
        projected = np.ascontiguousarray(np.vecdot(vectors[:, None], self._axes) + self._origin, dtype=np.float32)
        encoded = np.empty_like(stored)
        with at_most(1):  # several would only wait for each other
            distances, nearest = self._quantizer.search(projected, min(2, int(self._lists.nlist)))
            numbers = lists.astype(np.int64)
            self._lists.encode_vectors(n, faiss.swig_ptr(projected), faiss.swig_ptr(numbers), faiss.swig_ptr(encoded))
        # Of two lists that are equally near, and of two neighbouring codes, rounding decides.
        ties = distances <= distances[:, :1] * (1 + _ROUNDING) + _ROUNDING
        right_list = ((nearest == lists[:, None]) & ties).any(axis=1)
        right_code = (np.abs(encoded.astype(np.int16) - stored) <= 1).all(axis=1)
        return int(np.count_nonzero(~(known & right_list & right_code)))

    @cached_property
    def _list_ends(self) -> IntArray:
        """How many codes there are in each inverted list and those before it, (lists,)."""
        ends: IntArray = np.cumsum([self._lists.invlists.list_size(i) for i in range(self._lists.nlist)])
        return ends

    def _n_probes_among(self, allowed: Allowed, projected: FloatArray, n_probes: int) -> int:
        """Choose how many inverted lists are visited for neighbours among some rows.

        Args:
            allowed: those rows.
            projected: (1, axes) float32, the query.
            n_probes: lists that would do among all rows.
        """
        share = allowed.count / len(self._vectors)
        # The neighbours among one row in ten are farther apart: ten times as many lists find 93 % of them, 30 times
        # as many 98 %. Where the fewest lists do for all rows, fewer would: then 18 times as many find them all.
        n_all = int(self._lists.nlist)
        power = -1.25 if self._n_probes <= MIN_PROBES else -1.5
        n_lists: int = min(n_all, math.ceil(n_probes * share**power))
        if share >= _NEARLY_ALL or n_lists == n_all:
            return n_lists
        n_lists = min(n_all, max(_FEWEST_PROBES, n_lists))
        # A filter that goes with what photos show leaves few rows around some queries. Their neighbours are far off,
        # spread over many lists: visit many more of them the fewer rows there are around the query than elsewhere.
        counts, sizes = self._counted(allowed), self._sampled_sizes
        around = self._quantizer.search(projected, n_probes)[1][0]
        n_around = float(counts[around].sum())
        at_most = n_around + 2 * math.sqrt(n_around) + 1  # it is counted in a sample
        scarcity = float(share * sizes[around].sum() / at_most) ** 4
        if scarcity < _SCARCE:
            return n_lists
        wanted = n_lists * sizes.mean() * share * min(_MOST_SCARCE, scarcity)
        nearest = self._quantizer.search(projected, n_all)[1][0]
        n_needed = int(np.searchsorted(np.cumsum(counts[nearest]), wanted)) + 1
        return max(n_lists, min(n_needed, n_all))

    def _counted(self, allowed: Allowed) -> IntArray:
        """Allowed rows of the sample in each inverted list, (lists,); remembered with the rows."""
        if allowed.in_lists is None:
            lists = self._list_of_sampled[allowed.mask[:: self._stride]]
            allowed.in_lists = np.bincount(lists, minlength=int(self._lists.nlist))
        counts: IntArray = allowed.in_lists
        return counts

    @cached_property
    def _list_of_sampled(self) -> npt.NDArray[np.uint16]:
        """Inverted list of every `_stride`-th row."""
        lists = np.empty(len(self._vectors), dtype=np.uint16)
        inverted = self._lists.invlists
        for number in range(self._lists.nlist):
            if size := inverted.list_size(number):
                lists[faiss.rev_swig_ptr(inverted.get_ids(number), size)] = number
        return lists[:: self._stride].copy()

    @cached_property
    def _sampled_sizes(self) -> IntArray:
        """Rows of the sample in each inverted list, (lists,)."""
        sizes: IntArray = np.bincount(self._list_of_sampled, minlength=self._lists.nlist)
        return sizes


def products(vectors: Vectors, rows: IntArray, query: FloatArray) -> FloatArray:
    """Multiply some rows of a matrix with a query: (rows, dim), (m,), (dim,) -> (m,)."""
    if isinstance(vectors, StoredVectors):
        return vectors.products(rows, query)
    if len(rows) * _GATHER_COST >= len(vectors):
        every: FloatArray = np.vecdot(vectors, query)
        return every[rows]
    chosen = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _GATHERED):
        some = rows[start : start + _GATHERED]
        np.vecdot(vectors[some], query, out=chosen[start : start + len(some)])
    return chosen


def best(scores: FloatArray, rows: IntArray, n: int) -> tuple[FloatArray, IntArray]:
    """Select the `n` highest scores; of those that tie as results show them, the ones of the lowest rows.

    Args:
        scores: (m,) float32.
        rows: (m,) int64, one per score.
        n: how many to keep; all are kept where there are no more.

    Returns:
        scores and rows, (min(n, m),) each, in no order.
    """
    if len(rows) <= n:
        return scores, rows
    chosen = np.argpartition(scores, -n)[-n:]
    may_tie = np.flatnonzero(scores > scores[chosen[0]] - _TIE)  # the first is the lowest that was chosen
    if len(may_tie) > n:
        shown = np.round(scores[may_tie].astype(np.float64), SCORE_DECIMALS)
        chosen = may_tie[np.lexsort((rows[may_tie], -shown))[:n]]
    return scores[chosen], rows[chosen]


class Nearest:
    """The exact nearest neighbours of some queries among rows that come block by block.

    Args:
        queries: (n, dim) float32.
        k: neighbours per query.

    Attributes:
        scores, rows: cosine similarities and rows so far, (n, k) each or less, most similar first.
    """

    def __init__(self, queries: FloatArray, k: int) -> None:
        self._queries = queries
        self._k = k
        self.scores: FloatArray = np.empty((len(queries), 0), dtype=np.float32)
        self.rows: IntArray = np.empty((len(queries), 0), dtype=np.int64)

    def add(self, block: FloatArray, start: int) -> None:
        """Compare with more rows, (m, dim) float32, whose first is number `start`."""
        n = min(self._k, len(block))
        found, places = faiss.knn(self._queries, block, n, metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([self.scores, found], axis=1)
        rows = np.concatenate([self.rows, places + start], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._k]
        self.scores, self.rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def exact_nearest(vectors: Vectors, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """Find the exact nearest neighbours of many queries, in chunks, so that the vectors need not fit into memory.

    Args:
        vectors: (rows, dim) in memory or memory-mapped.
        queries: (n, dim) float32.
        k: neighbours per query, at most `rows`.

    Returns:
        cosine similarities and rows, (n, k) each, most similar first.
    """
    nearest = Nearest(queries, k)
    for start in range(0, len(vectors), CHUNK_ROWS):
        nearest.add(np.ascontiguousarray(vectors[start : start + CHUNK_ROWS]), start)
    return nearest.scores, nearest.rows
