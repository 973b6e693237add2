"""Fit the 13-way head on the catalogue's own labels, over the trunk's frozen features."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from shared.catalogue import CATEGORIES, CataloguePhoto
from shared.vision.embedder import FloatArray

# Measured on 2,527 real photos, 3 of 5 folds: 1e-4 0.437, 1e-3 0.491, 1e-2 0.487, 1e-1 0.471 accuracy.
_C = 3e-3
_N_FOLDS = 5


@dataclass(frozen=True)
class Head:
    """A linear classifier on pooled features."""

    weight: FloatArray  # (13, dim)
    bias: FloatArray  # (13,)


def held_out_listings(photos: Sequence[CataloguePhoto], *, seed: int = 17) -> frozenset[str]:
    """A fifth of the listings, stratified by category; all photos of a listing stay on one side.

    With too few listings to stratify, nothing is held out and no accuracy can be stated.
    """
    labels = [photo.category for photo in photos]
    listings = [photo.listing_id for photo in photos]
    if len(set(listings)) < 2 * _N_FOLDS:
        return frozenset()
    # Where every category is smaller than the number of folds there is nothing to stratify.
    tiny = max(Counter(labels).values()) < _N_FOLDS
    splitter = (GroupKFold if tiny else StratifiedGroupKFold)(_N_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a small category cannot be on every side
        _, held_out = next(iter(splitter.split(np.zeros(len(photos)), labels, listings)))
    return frozenset(listings[i] for i in held_out)


def fit_head(features: FloatArray, labels: Sequence[int]) -> Head:
    """Multinomial logistic regression on standardised features, folded into one linear layer.

    Args:
        features: (n, dim) pooled features, not normalised.
        labels: n positions in CATEGORIES; a category without a photo gets a score that never wins.
    """
    present = sorted(set(labels))
    mean, std = features.mean(0), features.std(0) + 1e-6
    weight = np.zeros((len(CATEGORIES), features.shape[1]), dtype=np.float64)
    bias = np.full(len(CATEGORIES), -1e4)
    if len(present) == 1:
        bias[present[0]] = 0.0
        return Head(weight.astype(np.float32), bias.astype(np.float32))
    model = LogisticRegression(C=_C, max_iter=300).fit((features - mean) / std, np.asarray(labels))
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps one row for two classes
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weight[present] = coefficients / std
    bias[present] = intercepts - weight[present] @ mean
    return Head(weight.astype(np.float32), bias.astype(np.float32))
