"""Ranks listings by all their photos: by the most similar one, or by the mean over all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.index.query import WordsQuery
from shared.index.vector_index import rounded
from shared.jobs.answers_contract import Neighbour
from shared.jobs.contract import ListingScore, SearchRequest

# Ranked by the mean over their photos, the best listings are sought among so many of the best by a single photo.
_LISTINGS_A_NEIGHBOUR = 4
_MOST_LISTINGS = 1_000


@dataclass(frozen=True)
class ListingPhotos:
    """The photos of some listings.

    Attributes:
        rows: of the snapshot, int64.
        positions: in the delta.
        listings: (n,) which of the listings each photo belongs to: those in `rows` first, then those in `positions`.
    """

    rows: IntArray
    positions: list[int]
    listings: IntArray


def best_listings(
    query: FloatArray,
    request: SearchRequest,
    words: WordsQuery | None,
    search: Callable[[SearchRequest], list[Neighbour]],
    photos_of: Callable[[Sequence[str]], ListingPhotos],
    vectors_of: Callable[[ListingPhotos], FloatArray],
    verbatim: Callable[[IntArray], FloatArray],
) -> list[Neighbour]:
    """Find the listings of the best scores; by the mean as exact as the search is, among `_MOST_LISTINGS`.

    Args:
        query: (dim,) float32, L2 norm 1.
        request: its `k`, `listing_score` and `min_score`.
        words: of the query.
        search: finds the best photo of each of the best listings.
        photos_of: returns all photos of some listings.
        vectors_of: returns the embeddings (n, dim) of such photos.
        verbatim: returns how much of the words the listings of some rows say word for word.

    Returns:
        the most similar photo of each listing, with the listing's score and the number of its photos.
    """
    by_mean = request.listing_score is ListingScore.MEAN
    n_asked = (_LISTINGS_A_NEIGHBOUR if by_mean else 1) * request.k
    while True:
        found = search(request.model_copy(update={"k": n_asked}))
        if not found:
            return []
        photos = photos_of([one.listing_id for one in found])
        counts = np.bincount(photos.listings, minlength=len(found))
        scores = [one.score for one in found]
        if by_mean:
            similar = np.vecdot(vectors_of(photos), query)
            behind = _highest(similar, photos.listings, len(found)) - np.bincount(photos.listings, similar) / counts
            # The photos of a listing have its words in common: what differs between them is the photos' part.
            if words:
                raising = words.raising(verbatim(np.array([one.row for one in found])))
                behind *= (1 - words.weight) * (1 - raising)
            scores = rounded(np.array(scores) - behind)
        order = sorted(range(len(found)), key=lambda i: (-scores[i], found[i].row))[: request.k]
        # A listing's mean is at most the score of its best photo, so that those not found are no better than this.
        if len(found) < n_asked or n_asked >= _MOST_LISTINGS or scores[order[-1]] >= found[-1].score:
            break
        n_asked *= 4
    return [
        found[i].model_copy(update={"rank": rank, "score": scores[i], "listing_photos": int(counts[i])})
        for rank, i in enumerate(order, start=1)
        if request.min_score is None or scores[i] >= request.min_score
    ]


def _highest(similar: FloatArray, listings: IntArray, n: int) -> FloatArray:
    """The highest similarity of each of `n` listings: (m,), (m,) -> (n,)."""
    highest = np.full(n, -np.inf, dtype=np.float32)
    np.maximum.at(highest, listings, similar)
    return highest
