"""Bootstrap intervals over listings, and the base of all models of figures."""

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict

from shared.array_types import DoubleArray, IntArray

_N_RESAMPLES = 2000
_DRAWN_AT_ONCE = 1 << 16  # listings; more do not fit a processor's cache


class Figures(BaseModel):
    """Figures that were measured."""

    model_config = ConfigDict(frozen=True)


class Interval(Figures):
    """95 % bootstrap interval over listings, because photos of one listing are not independent."""

    low: float
    high: float


def bootstrap(values: DoubleArray, listings: IntArray, *, seed: int = 17) -> Interval:
    """Bootstrap interval of the mean of values: listings are resampled with all their photos.

    Args:
        values: (n,) one per photo, n >= 1.
        listings: (n,) numbers of their listings.
        seed: of the resampling.
    """
    _, listing_of = np.unique(listings, return_inverse=True)
    sums, counts = np.bincount(listing_of, weights=values), np.bincount(listing_of)
    random = np.random.default_rng(seed)
    n, n_at_once = len(sums), max(1, _DRAWN_AT_ONCE // len(sums))  # for few listings, calls take longer than sums
    means = [
        sums[drawn].sum(1) / counts[drawn].sum(1)
        for start in range(0, _N_RESAMPLES, n_at_once)
        for drawn in [random.integers(0, n, (min(n_at_once, _N_RESAMPLES - start), n))]
    ]
    return _interval(np.concatenate(means))


def bootstrap_of(figure: Callable[[IntArray], float], listings: IntArray, *, seed: int = 17) -> Interval:
    """Bootstrap interval of a figure that is no mean: listings are resampled with all their photos.

    Args:
        figure: returns it for some photos, by their numbers.
        listings: (n,) numbers of their listings, n >= 1.
        seed: of the resampling.
    """
    order = np.argsort(listings, kind="stable")
    photos = np.split(order, np.flatnonzero(np.diff(listings[order])) + 1)
    random = np.random.default_rng(seed)
    draws = (random.integers(0, len(photos), len(photos)) for _ in range(_N_RESAMPLES // 4))
    return _interval(np.array([figure(np.concatenate([photos[i] for i in drawn])) for drawn in draws]))


def _interval(figures: DoubleArray) -> Interval:
    low, high = np.percentile(figures, (2.5, 97.5))
    return Interval(low=float(low), high=float(high))
