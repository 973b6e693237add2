"""Matching: how probable it is that the photo most similar to a query shows the very same thing.

A score alone says little: two washing machines are more similar than two photos of one pair of earrings. What tells is
how far the most similar photo stands out from the next listing, and from all others that are like the query; and that
it does so although the head doubts that it is of the query's kind, as embeddings say of the kind, too.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from shared.array_types import DoubleArray, FloatArray

TARGET_PRECISION = 0.95
SAME = 0.5  # a certain match from here on says that the thing is there, below that it is not
FEATURES = ("lead", "nearness", "log_lead", "doubt")  # as the columns of `match_features`
_SAME_PHOTO = 0.02  # a distance that copies of one photo may have
_LEAD = 0.05  # from about here on a lead that is twice as large counts no longer twice as much
_LEAST_CHANCE = 0.02  # the head is wrong more often than it says


class Matching(BaseModel):
    """The calibration of matches, in the manifest of a bundle.

    Attributes:
        k: photos that a query is compared with; the last of them tells how similar other things are.
        bias, lead, nearness, log_lead, doubt: weights of the features in the logistic function, see `match_features`.
        same_from: of the matches at least this probable, 95 % showed the same thing.
        absent_below: of the queries whose match is less probable, 95 % were of a thing that was not there at all; 0:
            too many things that are there are not recognised for that.
    """

    model_config = ConfigDict(frozen=True)

    k: int = Field(gt=1)
    bias: float
    lead: float = Field(ge=0)
    nearness: float = Field(ge=0)
    log_lead: float = Field(0.0, ge=0)
    doubt: float = Field(0.0, ge=0)
    same_from: float = Field(ge=SAME, le=1)
    absent_below: float = Field(0.0, ge=0, le=SAME)

    def probability(
        self,
        best: DoubleArray | FloatArray,
        of_next_listing: DoubleArray | FloatArray,
        last: DoubleArray | FloatArray,
        chance: DoubleArray | FloatArray,
    ) -> DoubleArray:
        """The probability that the most similar photos of some queries show the same thing as the queries, (n,).

        Args:
            best: (n,) their cosine similarities.
            of_next_listing: (n,) the best of another listing's photo.
            last: (n,) of the `k`-th photo.
            chance: (n,) the probability of their categories by the head's scores of the queries.
        """
        weights = np.array([getattr(self, name) for name in FEATURES])
        by_features = match_features(best, of_next_listing, last, chance) @ weights
        probabilities: DoubleArray = 1 / (1 + np.exp(-(self.bias + by_features)))
        return probabilities

    def certain(self, probability: float) -> bool:
        """Whether a match of some probability can be relied on: either it is the same thing, or that is not there."""
        return probability >= self.same_from or probability < self.absent_below


def match_features(
    best: DoubleArray | FloatArray,
    of_next_listing: DoubleArray | FloatArray,
    last: DoubleArray | FloatArray,
    chance: DoubleArray | FloatArray,
) -> DoubleArray:
    """What the probability of a match goes by.

    After the ratio test of Lowe 2004, "Distinctive Image Features from Scale-Invariant Keypoints", section 7.1. No
    feature depends much on the number of photos in the index.

    Args:
        best, of_next_listing, last, chance: see `Matching.probability`.

    Returns:
        (n, 4): how much more similar the best photo is than that of the next listing; the logarithm of how many
        times as far away the `k`-th is; the first with large ones made smaller; the doubt of the head.
    """
    first, following, far, likely = (
        np.asarray(values, dtype=np.float64) for values in (best, of_next_listing, last, chance)
    )
    lead = first - following
    nearness = np.log((1 + _SAME_PHOTO - np.minimum(far, 1)) / (1 + _SAME_PHOTO - np.minimum(first, 1)))
    log_lead = np.sign(lead) * np.log1p(np.abs(lead) / _LEAD)
    return np.stack([lead, nearness, log_lead, -np.log(likely + _LEAST_CHANCE)], axis=-1)
