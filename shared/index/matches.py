"""Whether the index has the very thing that a query shows: the match of a search result."""

from collections.abc import Collection, Sequence

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.index.delta.index import DeltaIndex
from shared.index.vector_index import SCORE_DECIMALS, LabelledRows
from shared.jobs.answers_contract import Match, Neighbour
from shared.jobs.contract import (
    SearchRequest,
)
from shared.model.embedder import Embeddings
from shared.model.fusion import softmax
from shared.model.matching import Matching

_EVERYTHING = SearchRequest(k=1)  # a search without filters


def find_match(
    query: Embeddings,
    request: SearchRequest,
    index: DeltaIndex,
    matching: Matching,
    own_listings: Collection[str],
    near: LabelledRows | None = None,
    found: Sequence[Neighbour] = (),
) -> Match | None:
    """Judge the photo most similar to a query, among those that the filters allow.

    It is compared with all photos of the index, whatever the filters: what is filtered out still tells how similar
    other things are.

    Args:
        query: of a photo: vectors (1, dim), L2 norm 1, scores (1, n_categories).
        request: its filters.
        index: the snapshot under its pending changes.
        matching: of the model.
        own_listings: listings that the query is of; they are no match.
        near: the photos most similar to the query, if they were searched for without filters and own listings.
        found: what the request finds, if it was searched for by the photo's similarity alone.

    Returns:
        the match; None where the index has fewer than `matching.k` other photos, or the filters allow none.
    """
    if near is None or len(near.scores) < matching.k:
        near = index.labelled(query.vectors[0], matching.k, _EVERYTHING, without=own_listings)
    if len(near.scores) < matching.k:
        return None
    scores, categories, rows = _ordered(near, matching.k)
    best, category, row = scores[:1], categories[:1], rows[:1]
    if request.filter is not None or request.category is not None:
        if hit := next((one for one in found if one.listing_id not in own_listings), None):
            best, row = np.array([hit.score], dtype=np.float32), [hit.row]
            category = np.array([index.manifest.categories.index(hit.category)])
        else:
            best, category, row = _ordered(index.labelled(query.vectors[0], 1, request, without=own_listings), 1)
        if not row:
            return None
    image_id, listing_id = index.ids_of(row[0])
    others = (number for number, one in enumerate(rows) if index.ids_of(one)[1] != listing_id)
    following = next(others, matching.k - 1)
    chance = softmax(query.scores[0])[category]
    probability = matching.probability(best, scores[following : following + 1], scores[-1:], chance).item()
    return Match(
        probability=round(probability, 6),
        certain=matching.certain(probability),
        image_id=image_id,
        listing_id=listing_id,
    )


def _ordered(near: LabelledRows, n: int) -> tuple[FloatArray, IntArray, list[int]]:
    """Scores, categories and rows of the `n` best, best first; copies of one photo tie, and come by row."""
    order = np.lexsort((near.rows, -np.round(near.scores, SCORE_DECIMALS)))[:n]
    return near.scores[order], near.categories[order], near.rows[order].tolist()
