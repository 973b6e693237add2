"""Finds duplicates in an index: neighbours by embedding are the candidates, and their thumbnails are compared.

Pictures are compared once, in however many photos they are. Knows nothing of jobs, files and verdicts.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.catalogue.decode import ahead
from shared.cores import n_cores
from shared.duplicates.alignment import agreement, alike, reduce_greys
from shared.duplicates.groups import Evidence
from shared.duplicates.looks import Look, hash_distance, tints_agree
from shared.duplicates.verdicts import Pair
from shared.index.delta.live_photos import LivePhotos
from shared.index.vector_index import rounded
from shared.jobs.duplicates_contract import DuplicateLabel

# Measured with Lite0 on 2,527 real photos: of the copies that were cropped, bordered or watermarked, 98 of 100 are
# that similar to their originals, and among the eight nearest photos.
CANDIDATE_SCORE = 0.6
_NEIGHBOURS = 10
# How many are asked for where photos that were replaced or deleted are among the nearest of the snapshot.
_NEIGHBOURS_OF_CROWDED = 40
_ROWS_AT_ONCE = 1024
_LOOKS_AT_ONCE = 2000
_COMPARED_AT_ONCE = 512

# A pair of pictures, and which thumbnail of the one is compared with which of the other.
_Comparison = tuple[Pair, int, int]
ReadLooks = Callable[[Iterable[str]], Mapping[str, Look]]
T = TypeVar("T")
Tell = Callable[[str, int, int], None]  # stage, done, total


def similar_pictures(live: LivePhotos, wanted: Collection[int], tell: Tell) -> dict[Pair, float]:
    """Find pairs of pictures, in photos of different listings, whose embeddings are similar.

    Args:
        live: the photos.
        wanted: rows of the photos whose neighbours are looked for.
        tell: called now and then.

    Returns:
        cosine similarity by the pictures' SHA-256, sorted; CANDIDATE_SCORE or more.
    """
    n_rows = len(live.snapshot)
    keys: dict[str, int] = {}
    of_picture = np.array([keys.setdefault(photo.sha256, len(keys)) for photo in live.photos], dtype=np.int64)
    names: dict[str, int] = {}
    of_listing = np.array([names.setdefault(photo.listing_id, len(names)) for photo in live.photos], dtype=np.int64)
    hidden = np.zeros(len(live.photos), dtype=np.bool_)
    hidden[list(live.hidden)] = True
    # A photo that was put again and again would have no neighbours but what it was before.
    put_rows = n_rows + np.flatnonzero(~hidden[n_rows:])
    found: dict[tuple[int, int], float] = {}
    ordered = sorted(wanted)
    for start in range(0, len(ordered), _ROWS_AT_ONCE):
        tell("searching", start, len(ordered))
        some = np.array(ordered[start : start + _ROWS_AT_ONCE], dtype=np.int64)
        queries = np.concatenate([live.snapshot.vectors(some[some < n_rows]), live.put[some[some >= n_rows] - n_rows]])
        scores, rows = _nearest(live, hidden, put_rows, np.ascontiguousarray(queries, dtype=np.float32))
        ones = np.broadcast_to(some[:, None], rows.shape)
        pairs = (scores >= CANDIDATE_SCORE) & (rows >= 0)
        ones, others, scores = ones[pairs], rows[pairs], scores[pairs]
        kept = (of_listing[ones] != of_listing[others]) & (of_picture[ones] != of_picture[others]) & ~hidden[others]
        a, b = of_picture[ones[kept]], of_picture[others[kept]]
        low, high = np.minimum(a, b).tolist(), np.maximum(a, b).tolist()
        found.update(zip(zip(low, high, strict=True), rounded(scores[kept]), strict=True))
    tell("searching", len(ordered), len(ordered))
    sha256s = list(keys)
    return {sorted_pair(sha256s[a], sha256s[b]): score for (a, b), score in found.items()}


def same_pictures(similar: Mapping[Pair, float], read: ReadLooks, tell: Tell) -> dict[Pair, Evidence]:
    """Find out which similar pictures are the same one.

    Args:
        similar: cosine similarity by the pictures' SHA-256.
        read: returns the looks of some pictures, as far as they could be had.
        tell: called now and then.
    """
    small: dict[str, list[FloatArray]] = defaultdict(list)  # one a thumbnail
    for some in _parts(sorted({sha256 for pair in similar for sha256 in pair}), _LOOKS_AT_ONCE):
        shown = [(sha256, thumbnail.grey) for sha256, look in read(some).items() for thumbnail in look.thumbnails]
        if shown:
            for (sha256, _), reduced in zip(shown, reduce_greys(np.stack([grey for _, grey in shown])), strict=True):
                small[sha256].append(reduced)
    comparisons = [
        (pair, one, other)
        for pair in similar
        for one, other in _thumbnails_compared(len(small[pair[0]]), len(small[pair[1]]))
    ]
    if not comparisons:
        return {}
    worth = np.concatenate(
        [
            alike(
                np.stack([small[pair[0]][one] for pair, one, _ in some]),
                np.stack([small[pair[1]][other] for pair, _, other in some]),
            )
            for some in _parts(comparisons, _LOOKS_AT_ONCE)
        ]
    )
    comparisons = sorted(comparisons[i] for i in np.flatnonzero(worth.any(axis=1)).tolist())
    parts = list(_parts(comparisons, _COMPARED_AT_ONCE))
    same: dict[Pair, Evidence] = {}
    with ThreadPoolExecutor(n_cores(), thread_name_prefix="compare") as pool:
        n_ahead = 2 * n_cores()
        for number, (_, confirmed) in enumerate(
            ahead(pool, lambda part: _compare(part, similar, read), parts, n_ahead=n_ahead)
        ):
            tell("comparing", number * _COMPARED_AT_ONCE, len(comparisons))
            for pair, evidence in confirmed:
                same.setdefault(pair, evidence)
    tell("comparing", len(comparisons), len(comparisons))
    return same


def compare_looks(one: Look, others: Sequence[Look]) -> list[Evidence | None]:
    """Compare one picture with some others; None for those that are other pictures. Their scores are left 0."""
    looks = {"": one} | {str(number): other for number, other in enumerate(others)}
    pairs = {("", str(number)): 0.0 for number in range(len(others))}
    found = same_pictures(pairs, lambda wanted: {name: looks[name] for name in wanted}, lambda *told: None)
    return [found.get(pair) for pair in pairs]


def _thumbnails_compared(n: int, n_others: int) -> Iterator[tuple[int, int]]:
    """Which of a picture's thumbnails are compared with which of another's: each with the one without frame."""
    return ((one, other) for one in range(n) for other in range(n_others) if not one or not other)


def _compare(
    comparisons: Sequence[_Comparison], similar: Mapping[Pair, float], read: ReadLooks
) -> Iterator[tuple[Pair, Evidence]]:
    looks = read({sha256 for pair, *_ in comparisons for sha256 in pair})
    both = [(looks[pair[0]].thumbnails[one], looks[pair[1]].thumbnails[other]) for pair, one, other in comparisons]
    found = agreement(np.stack([one.grey for one, _ in both]), np.stack([other.grey for _, other in both]))
    return iter(
        [
            (pair, _evidence(looks, pair, similar[pair], float(correlation), mirrored=bool(mirrored)))
            for (pair, *_), (one, other), same, correlation, mirrored in zip(comparisons, both, *found, strict=True)
            if same and tints_agree(one, other)
        ]
    )


def _evidence(looks: Mapping[str, Look], pair: Pair, score: float, correlation: float, *, mirrored: bool) -> Evidence:
    distance = hash_distance(looks[pair[0]].dhash, looks[pair[1]].dhash, mirrored=mirrored)
    return Evidence(DuplicateLabel.SAME_PICTURE, score, round(correlation, 3), distance, mirrored)


def _nearest(
    live: LivePhotos, hidden: npt.NDArray[np.bool_], put_rows: IntArray, queries: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Nearest photos of the snapshot, and of those put since, in some rows (m,).

    Returns:
        similarities and rows, (n, k) each; -1 where there are fewer.
    """
    scores, rows = _nearest_of_snapshot(live, hidden, queries)
    if not len(put_rows):
        return scores, rows
    n_put = min(_NEIGHBOURS + 1, len(put_rows))
    of_put = queries @ live.put[put_rows - len(live.snapshot)].T  # (n, m)
    best: npt.NDArray[np.intp] = np.argpartition(-of_put, n_put - 1, axis=1)[:, :n_put]
    rows = np.concatenate([rows, put_rows[best]], axis=1)
    return np.concatenate([scores, np.take_along_axis(of_put, best, axis=1)], axis=1), rows


def _nearest_of_snapshot(
    live: LivePhotos, hidden: npt.NDArray[np.bool_], queries: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Nearest photos of the snapshot; more of them to a query whose neighbours are partly replaced or deleted."""
    n_rows = len(live.snapshot)
    scores, rows = live.snapshot.nearest(queries, min(_NEIGHBOURS + 1, n_rows))
    crowded = np.flatnonzero(((rows >= 0) & hidden[rows]).any(axis=1))
    if not len(crowded) or n_rows <= rows.shape[1]:
        return scores, rows
    more_scores, more_rows = live.snapshot.nearest(queries[crowded], min(_NEIGHBOURS_OF_CROWDED + 1, n_rows))
    missing = ((0, 0), (0, more_rows.shape[1] - rows.shape[1]))
    scores, rows = np.pad(scores, missing), np.pad(rows, missing, constant_values=-1)
    scores[crowded], rows[crowded] = more_scores, more_rows
    return scores, rows


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def sorted_pair(one: str, other: str) -> Pair:
    """Sort two names."""
    return (one, other) if one < other else (other, one)
