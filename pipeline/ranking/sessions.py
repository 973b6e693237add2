"""What people chose in searches, as numbers: the features of each result, where it stood, whether it was chosen."""

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from shared.array_types import BoolArray, DoubleArray
from shared.feedback.contract import FeedbackEvent, Impression, JobFeedback
from shared.index.delta.index import DeltaIndex
from shared.index.reranking import RankedQuery, RankedResult, own_listing, ranking_features

_HELD_OUT = 0.3


@dataclass(frozen=True)
class Session:
    """One search with feedback.

    Attributes:
        query: the same for searches for the same thing, as far as that is known.
        features: (n, len(FEATURES)) of the results.
        positions: (n,) where they stood, from 1.
        chosen: (n,) which were chosen: bought or said to be right, if any were, else clicked.
    """

    query: str
    features: DoubleArray
    positions: DoubleArray
    chosen: BoolArray

    @property
    def held_out(self) -> bool:
        """Whether it is for measuring; the same for all searches of one query."""
        return crc32(self.query.encode()) < _HELD_OUT * 2**32


def sessions_of(feedback: Iterable[JobFeedback], index: DeltaIndex) -> list[Session]:
    """Make sessions of the feedback on searches of the index's model.

    Results that the index has no longer are left out, and so are searches of which no two results, or none that was
    chosen, are left. Attributes are those that the listings have now.

    Args:
        feedback: of any searches.
        index: where the listings' attributes are.
    """
    fingerprint = index.manifest.fingerprint
    made = (_session(one, index) for one in feedback if one.impression.model_fingerprint == fingerprint)
    return [session for session in made if session is not None]


def _session(one: JobFeedback, index: DeltaIndex) -> Session | None:
    impression = one.impression
    chosen = {*one.of(FeedbackEvent.RIGHT), *one.of(FeedbackEvent.PURCHASE)} or set(one.of(FeedbackEvent.CLICK))
    there = [(place, shown) for place, shown in enumerate(impression.shown, start=1) if index.photo_of(shown.image_id)]
    was_chosen = np.array([shown.image_id in chosen for _, shown in there], dtype=bool)
    if len(there) < 2 or not was_chosen.any() or was_chosen.all():
        return None
    results = [RankedResult(shown.listing_id, shown.category, shown.score) for _, shown in there]
    query = RankedQuery(impression.text, own_listing(impression, index), impression.categories)
    positions = np.array([place for place, _ in there], dtype=np.float64)
    return Session(_query(impression), ranking_features(results, query, index), positions, was_chosen)


def _query(impression: Impression) -> str:
    """Identifies what was searched for: of a photo that was sent, the results that were found first."""
    if named := impression.image_id or impression.listing_id or impression.text:
        return named
    return " ".join(sorted(shown.image_id for shown in impression.shown[:2]))
