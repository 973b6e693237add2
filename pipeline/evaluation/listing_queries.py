"""All photos of a listing as one query, measured against each of its photos alone."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.intervals import Figures, Interval, bootstrap
from pipeline.evaluation.retrieval import Neighbours, foreign_precision
from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from shared.model.embedder import Embeddings, joined

_NEAREST = 4


class Gain(Figures):
    """A figure of one photo and of all photos of its listing together, both as means over the same photos."""

    one_photo: float
    all_photos: float
    difference: Interval  # of the second less the first


class ListingQueries(Figures):
    """Figures of unseen listings of several photos."""

    n_listings: int
    n_photos: int
    accuracy: Gain
    precision_at_4: Gain | None  # own listing excluded; None: there is no other


Answer = Callable[[Embeddings, npt.NDArray[np.str_]], FloatArray]


def by_the_head(embeddings: Embeddings, listings: npt.NDArray[np.str_]) -> FloatArray:
    """Answer by the head's scores alone, (m, n_categories), whatever else is known.

    Args:
        embeddings: of some queries.
        listings: (m,) ids of the listings that they are of.
    """
    return embeddings.scores


def measure_listing_queries(
    embeddings: Embeddings,
    neighbours: Neighbours,
    unseen: BoolArray,
    groups: npt.NDArray[np.str_],
    answered: FloatArray,
    answer: Answer,
) -> ListingQueries | None:
    """Measure how much better a query of all photos of a listing is than one of a single photo.

    Args:
        embeddings: of all photos: vectors (n, dim), scores (n, n_categories).
        neighbours: of all photos.
        unseen: (n,) photos of the listings to measure on.
        groups: (n,) listing ids.
        answered: (n, n_categories) scores that answers to single photos come from.
        answer: returns those of other queries.

    Returns:
        the figures; None if no unseen listing has several photos.
    """
    rows = np.flatnonzero(unseen & neighbours.with_sibling)
    if not len(rows):
        return None
    listings, listing_of = np.unique(neighbours.listings[rows], return_inverse=True)
    photos = [np.flatnonzero(neighbours.listings == listing) for listing in listings]
    together = [joined([Embeddings(embeddings.vectors[some], embeddings.scores[some])]) for some in photos]
    vectors, heads = (np.concatenate(parts) for parts in zip(*together, strict=True))
    scores = answer(Embeddings(vectors, heads), groups[[some[0] for some in photos]])
    labels = neighbours.labels[[some[0] for some in photos]]

    def gain(one: DoubleArray, every: DoubleArray) -> Gain | None:
        return _gain(one[rows], every[listing_of], neighbours.listings[rows])

    accuracy = gain(
        (answered.argmax(axis=1) == neighbours.labels).astype(np.float64),
        (scores.argmax(axis=1) == labels).astype(np.float64),
    )
    assert accuracy is not None  # every photo has an answer
    precision = foreign_precision(vectors, labels, listings, embeddings.vectors, neighbours, _NEAREST)
    return ListingQueries(
        n_listings=len(listings),
        n_photos=len(rows),
        accuracy=accuracy,
        precision_at_4=gain(neighbours.precision(_NEAREST), precision),
    )


def _gain(one: DoubleArray, every: DoubleArray, listings: IntArray) -> Gain | None:
    known = ~np.isnan(one)
    if not known.any():
        return None
    one, every, listings = one[known], every[known], listings[known]
    return Gain(
        one_photo=float(one.mean()), all_photos=float(every.mean()), difference=bootstrap(every - one, listings)
    )
