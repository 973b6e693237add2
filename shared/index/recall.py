"""Recall of one search against exact search, at a cost that does not grow with the index."""

import numpy as np

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexKind
from shared.index.delta.index import DeltaIndex
from shared.jobs.answers_contract import Neighbour

_COMPARED_BYTES = 1 << 26  # of vectors: 10 ms
_TIE = 1e-4  # scores of copies of one photo differ in the last bits, and compressed indexes round


def recall_of(index: DeltaIndex, query: FloatArray, found: list[Neighbour], rng: np.random.Generator) -> float:
    """Share of a query's exact nearest photos that a search without filters found.

    In a large index, the query is compared with as many rows in a row, from a random one on, as make 64 MiB, and a row
    of them that was missed stands for as many as there are such stretches. The mean of many queries is right; of a
    single one it is 1 as a rule, and may be far below 0.

    Args:
        index: that was searched.
        query: (dim,) float32, L2 norm 1.
        found: by the search, best first.
        rng: chooses the rows.

    Raises:
        IndexUnavailable, IndexDamaged: as `VectorIndex.search`.
    """
    if not found:
        return 1.0
    scores = np.array([neighbour.score for neighbour in found])
    missed, share = _better(index, query, {neighbour.row for neighbour in found}, scores[-1] + _TIE, rng)
    missed = np.sort(missed)[::-1]
    rank = np.arange(len(missed)) + (scores[None] >= missed[:, None] - _TIE).sum(axis=1)  # among all that are known
    return 1 - float((rank < len(found)).sum()) / (share * len(found))


def _better(
    index: DeltaIndex, query: FloatArray, found: set[int], least: float, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Scores above `least` that rows of the snapshot have which were not found, and the share of rows looked at."""
    snapshot, left_out = index.snapshot, found | set(index.hidden_rows.tolist())
    facts = snapshot.manifest.index
    if facts and facts.kind is IndexKind.MILVUS:
        top, near = snapshot.exact_nearest(query[None], len(found) + len(left_out))
        rows, scores, share = near[0], top[0], 1.0
    else:
        start, stop, share = _stretch(len(snapshot), max(1, _COMPARED_BYTES // (4 * len(query))), rng)
        rows, scores = np.arange(start, stop), np.vecdot(snapshot.vectors(slice(start, stop)), query)
    above = np.flatnonzero(scores > least)
    missed = [place for place in above.tolist() if int(rows[place]) not in left_out]
    return scores[missed], share


def _stretch(n_rows: int, n: int, rng: np.random.Generator) -> tuple[int, int, float]:
    """First and last but one of about `n` rows, and the chance that a row is among them, which is the same for all."""
    if n >= n_rows:
        return 0, n_rows, 1.0
    start = int(rng.integers(1 - n, n_rows))
    return max(0, start), min(n_rows, start + n), n / (n_rows + n - 1)
