"""Retrieval metrics by exact search: precision, average precision and sibling recall of nearest neighbours."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray

_CHUNK_SCORES = 1 << 24  # scores held at once: 64 MiB, whatever the catalogue's size


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each photo, most similar first, without the photo itself.

    Attributes:
        labels: (n,) categories; photos of a listing have the same one.
        listings: (n,) listings, numbered.
        nearest: (n, <= depth) rows of the neighbours.
        foreign: (n, <= depth) rows of the neighbours of other listings; -1 where there are no more of them.
    """

    labels: IntArray
    listings: IntArray
    nearest: IntArray
    foreign: IntArray

    @property
    def with_sibling(self) -> BoolArray:
        """Whether each photo's listing has another photo, (n,)."""
        with_sibling: BoolArray = np.bincount(self.listings)[self.listings] > 1
        return with_sibling

    def precision(self, k: int) -> DoubleArray:
        """Precision at k, (n,): share of the k nearest photos of other listings that have the photo's category.

        nan for a photo without photos of other listings.
        """
        there = self.foreign[:, :k] >= 0
        n_there = there.sum(1)
        return np.where(n_there > 0, self._relevant()[:, :k].sum(1) / np.maximum(n_there, 1), np.nan)

    def average_precision(self) -> DoubleArray:
        """Average precision of the category among photos of other listings, (n,), cut off at the depth searched.

        The denominator is the number of relevant photos, at most the depth; nan without any.
        """
        relevant = self._relevant()
        precision_at = relevant.cumsum(1) / np.arange(1, relevant.shape[1] + 1)
        found = (precision_at * relevant).sum(1)
        n_relevant = np.bincount(self.labels)[self.labels] - np.bincount(self.listings)[self.listings]
        possible = np.minimum(n_relevant, relevant.shape[1])
        return np.where(possible > 0, found / np.maximum(possible, 1), np.nan)

    def sibling_found(self, k: int) -> DoubleArray:
        """Sibling recall at k, (n,): 1 if another photo of the listing is among the k nearest, else 0.

        nan for a photo whose listing has no other.
        """
        hits = (self.listings[self.nearest[:, :k]] == self.listings[:, None]).any(1)
        return np.where(self.with_sibling, hits, np.nan)

    def _relevant(self) -> BoolArray:
        relevant: BoolArray = (self.labels[self.foreign] == self.labels[:, None]) & (self.foreign >= 0)
        return relevant


def find_neighbours(vectors: FloatArray, labels: IntArray, groups: npt.NDArray[np.str_], depth: int) -> Neighbours:
    """Find the nearest neighbours of every photo among all others; on ties the lower row comes first.

    Args:
        vectors: (n, dim), L2 norm 1.
        labels: (n,) categories.
        groups: (n,) listing ids.
        depth: neighbours wanted.
    """
    _, listings = np.unique(groups, return_inverse=True)
    nearest, foreign = [], []
    n = len(vectors)
    chunk = max(1, _CHUNK_SCORES // n)
    for start in range(0, n, chunk):
        rows = np.arange(start, min(start + chunk, n))
        scores = vectors[rows] @ vectors.T  # (chunk, n)
        scores[np.arange(len(rows)), rows] = -np.inf
        nearest.append(_best(scores, min(depth, n - 1)))
        foreign.append(_foreign(scores, listings[rows], listings, depth))
    return Neighbours(labels, listings, np.concatenate(nearest), np.concatenate(foreign))


def foreign_precision(
    queries: FloatArray, labels: IntArray, listings: IntArray, vectors: FloatArray, photos: Neighbours, k: int
) -> DoubleArray:
    """Precision at k of queries that are no photos, such as all photos of a listing: see `Neighbours.precision`.

    Args:
        queries: (m, dim), L2 norm 1.
        labels: (m,) their categories.
        listings: (m,) their listings, numbered as those of the photos.
        vectors: (n, dim) of the photos, L2 norm 1.
        photos: their labels and listings.
        k: neighbours wanted.
    """
    precision = np.empty(len(queries))
    chunk = max(1, _CHUNK_SCORES // len(vectors))
    for start in range(0, len(queries), chunk):
        some = slice(start, start + chunk)
        foreign = _foreign(queries[some] @ vectors.T, listings[some], photos.listings, k)
        there = foreign >= 0
        relevant = (photos.labels[foreign] == labels[some, None]) & there
        n_there = there.sum(1)
        precision[some] = np.where(n_there > 0, relevant.sum(1) / np.maximum(n_there, 1), np.nan)
    return precision


def retrieval_metrics(vectors: FloatArray, labels: IntArray, groups: npt.NDArray[np.str_]) -> dict[str, float | int]:
    """Mean retrieval figures over all photos.

    Args:
        vectors: (n, dim), L2 norm 1.
        labels: (n,) categories.
        groups: (n,) listing ids.

    Returns:
        precision_at_4, sibling_recall_at_1 and _at_4 as far as any photo has them, and n_with_sibling.
    """
    neighbours = find_neighbours(vectors, labels, groups, 4)
    figures = {
        "precision_at_4": mean(neighbours.precision(4)),
        "sibling_recall_at_1": mean(neighbours.sibling_found(1)),
        "sibling_recall_at_4": mean(neighbours.sibling_found(4)),
    }
    known: dict[str, float | int] = {name: value for name, value in figures.items() if value is not None}
    return known | {"n_with_sibling": int(neighbours.with_sibling.sum())}


def mean(values: DoubleArray) -> float | None:
    """Mean of the values that are not nan; None if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _foreign(scores: FloatArray, own: IntArray, listings: IntArray, k: int) -> IntArray:
    """Columns of the k highest scores of other listings than a row's own, best first; -1 where there are no more."""
    scores[own[:, None] == listings] = -np.inf
    best = _best(scores, min(k, len(listings)))
    return np.where(np.take_along_axis(scores, best, 1) > -np.inf, best, -1)


def _best(scores: FloatArray, k: int) -> IntArray:
    """Columns of the k highest scores of each row, best first; of equal ones the lower column.

    A row's columns are split into blocks. The k-th best of the blocks' maxima is at most the k-th best score, so
    lower scores need not be sorted: two passes over memory instead of a sort of every row.
    """
    n_rows, n_columns = scores.shape
    if k == 0:
        return np.empty((n_rows, 0), dtype=np.int64)
    per_block = max(1, n_columns // (16 * k))
    n_blocks = n_columns // per_block
    maxima = scores[:, : n_blocks * per_block].reshape(n_rows, per_block, n_blocks).max(1)
    floor = np.partition(maxima, n_blocks - k, axis=1)[:, n_blocks - k]
    rows, columns = np.nonzero(scores >= floor[:, None])
    order = np.lexsort((-scores[rows, columns], rows))  # stable: equal scores stay in the order of their columns
    starts = np.searchsorted(rows, np.arange(n_rows))
    best: IntArray = columns[order][starts[:, None] + np.arange(k)]
    return best
