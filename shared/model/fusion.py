"""Fusion: how the head, the nearest labelled photos and the words of a query become one category with a probability.

The parts are calibrated each for itself and joined by weights that were chosen on validation photos; what comes out is
calibrated again as a whole (`pipeline/training/calibration/fusion.py`).
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from shared.array_types import FloatArray, IntArray

_LEAST = 1e-9  # a probability that is nothing still has a logarithm


class Part(StrEnum):
    """What of a query an answer goes by."""

    PHOTO = "photo"
    WORDS = "words"


class Answering(BaseModel):
    """How sure an answer is, by which parts the query has: `pipeline.training.calibration.classifier.Calibration`."""

    model_config = ConfigDict(frozen=True)

    temperature: float = Field(1.0, gt=0)
    abstain_below: float = Field(0.0, ge=0, le=1)
    abstain_below_by_level: tuple[float, ...] = ()


class Vote(BaseModel):
    """The vote of a photo's nearest labelled neighbours in the index.

    Attributes:
        k: neighbours that vote.
        sharpness: similarity by which a neighbour's voice is 1/e of the nearest one's.
        weight: of the vote, 0..1, beside the head's probabilities.
    """

    model_config = ConfigDict(frozen=True)

    k: int = Field(gt=0)
    sharpness: float = Field(gt=0)
    weight: float = Field(gt=0, le=1)

    def shares(self, scores: FloatArray, categories: IntArray, n_categories: int) -> FloatArray:
        """Count the voices for each category.

        Args:
            scores: (m,) similarities of the neighbours.
            categories: (m,) theirs.
            n_categories: of the model.

        Returns:
            (n_categories,) float32 that sum to 1; zeros without neighbours.
        """
        if not len(scores):
            return np.zeros(n_categories, dtype=np.float32)
        voices = np.exp((scores - scores.max()) / self.sharpness)
        shares = np.bincount(categories, voices, minlength=n_categories)
        normalised: FloatArray = (shares / shares.sum()).astype(np.float32)
        return normalised


class Fusion(BaseModel):
    """The weights of the parts, in the manifest of a bundle.

    Attributes:
        vote: None: on validation photos the head alone is better.
        words_weight: of the words' log-probabilities, 0..1, beside the photo's; None: the catalogue has no words.
        photo, words, both: calibration of the answers to a photo, to words, and to both.
        text_weight: of the words, 0..1, in the similarity of a search with both; and `text_weight_alone` without photo.
    """

    model_config = ConfigDict(frozen=True)

    vote: Vote | None = None
    words_weight: float | None = None
    photo: Answering = Answering()
    words: Answering = Answering()
    both: Answering = Answering()
    text_weight: float = Field(0.5, ge=0, le=1)
    text_weight_alone: float = Field(0.5, ge=0, le=1)


class Evidence(NamedTuple):
    """What is known of the category of one query; at least one of `scores` and `text_scores`.

    Attributes:
        scores: (n_categories,) of the head, before softmax; None: the query has no photo.
        votes: (n_categories,) shares of the neighbours' votes; None: they do not vote.
        text_scores: (n_categories,) of the text encoder, before softmax; None: the query has no words that are known.
    """

    scores: FloatArray | None
    votes: FloatArray | None = None
    text_scores: FloatArray | None = None


def softmax(scores: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Turn scores into probabilities: softmax of scores / temperature over the last axis.

    Temperature scaling: arXiv:1706.04599, section 4.2.

    Args:
        scores: (..., n_categories) float32, before softmax.
        temperature: above 0.

    Returns:
        (..., n_categories) float32 that sum to 1 over the last axis.
    """
    shifted = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    chances: FloatArray = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return chances


def photo_logs(scores: FloatArray, votes: FloatArray | None, temperature: float, vote: Vote | None) -> FloatArray:
    """Join head and vote: the logarithms of their mean probabilities.

    Args:
        scores: (..., n_categories) of the head, before softmax.
        votes: (..., n_categories) shares; zeros where no neighbour votes. None: there is no vote.
        temperature: of the head.
        vote: its weight; None: there is no vote.

    Returns:
        (..., n_categories) float32.
    """
    chances = softmax(scores, temperature)
    if vote is not None and votes is not None:
        cast = votes.sum(axis=-1, keepdims=True) > 0
        chances = np.where(cast, (1 - vote.weight) * chances + vote.weight * votes, chances)
    logs: FloatArray = np.log(np.maximum(chances, _LEAST)).astype(np.float32)
    return logs


def text_logs(scores: FloatArray, temperature: float) -> FloatArray:
    """The logarithms of the words' probabilities, (..., n_categories), from the text encoder's scores."""
    logs: FloatArray = np.log(np.maximum(softmax(scores, temperature), _LEAST)).astype(np.float32)
    return logs


def joined_logs(photo: FloatArray, words: FloatArray, words_weight: float) -> FloatArray:
    """Join photo and words: (..., n_categories) logarithms each, by a weighted sum."""
    joined: FloatArray = ((1 - words_weight) * photo + words_weight * words).astype(np.float32)
    return joined
