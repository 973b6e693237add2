"""Fits a re-ranker and the bias of positions together, and measures orders as if every position were looked at.

Of a search it is known which results were chosen, given that some were. Results at position p are looked at with
probability e(p), and those that are, are chosen with a probability in proportion to exp(w x). So the expected number of
choices of a result is c e(p) exp(w x), with a c of each search that is of no interest. Fixed-effects Poisson regression
(Hausman, Hall and Griliches 1984, "Econometric models for count data with an application to the patents-R&D
relationship") fits w and e without c, whatever the choices of one search have to do with one another. It tells position
from similarity, although results come in the order of that, because the same similarity stands at many positions.
Serving leaves e(p) out, as of results whose position is not decided yet.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from pipeline.ranking.sessions import Session
from shared.array_types import DoubleArray
from shared.artifacts.rerankers import RankingWeights
from shared.index.reranking import FEATURES

DEPTH = 4
_RIDGE = 1.0  # on weights of standardised features
_LEAST_EXAMINED = 0.05  # a choice counts twenty times as much as one at the first position, at most
_CONSTANT = 1e-9
_POSITIONS = 20  # later ones are looked at as often as this

Order = Callable[[Session], Sequence[int]]


class Fit(NamedTuple):
    """What was fitted.

    Attributes:
        weights: of the features.
        examined: how often each of the first positions is looked at beside the first one, never more often than the
            one before.
    """

    weights: RankingWeights
    examined: tuple[float, ...]

    def examination(self, positions: DoubleArray) -> DoubleArray:
        """How often results at some positions are looked at beside the first one, (n,) in [_LEAST_EXAMINED, 1]."""
        seen: DoubleArray = np.array(self.examined)[np.minimum(positions, _POSITIONS).astype(int) - 1]
        return np.maximum(seen, _LEAST_EXAMINED)


def fit_choices(sessions: Sequence[Session]) -> Fit:
    """Fit the weights of the features and the bias of positions with a ridge on the weights.

    Args:
        sessions: at least one.
    """
    centred = [session.features - session.features.mean(axis=0) for session in sessions]
    spread = np.sqrt(np.mean(np.concatenate(centred) ** 2, axis=0))
    scale = np.where(spread > _CONSTANT, 1 / np.maximum(spread, _CONSTANT), 0)  # what never differs says nothing
    positions = np.concatenate([session.positions for session in sessions])
    later = -(positions[:, None] > np.arange(1, _POSITIONS)).astype(np.float64)  # than each of the first ones
    terms = np.concatenate([np.concatenate(centred) * scale, later], axis=1)  # (results, features + positions - 1)
    starts = np.cumsum([0, *(len(session.chosen) for session in sessions[:-1])])
    counts = np.diff([*starts, len(terms)])
    chosen = np.concatenate([session.chosen for session in sessions]).astype(np.float64)
    n_chosen = np.add.reduceat(chosen, starts)
    n_features = len(FEATURES)

    def loss(theta: DoubleArray) -> tuple[float, DoubleArray]:
        worth = terms @ theta
        worth = worth - np.repeat(np.maximum.reduceat(worth, starts), counts)
        odds = np.exp(worth)
        totals = np.add.reduceat(odds, starts)
        wrong = odds * np.repeat(n_chosen / totals, counts) - chosen
        ridge = np.concatenate([_RIDGE * theta[:n_features], np.zeros(_POSITIONS - 1)])
        value = n_chosen @ np.log(totals) - chosen @ worth + theta @ ridge / 2
        return float(value), wrong @ terms + ridge

    bounds = n_features * [(None, None)] + (_POSITIONS - 1) * [(0, None)]
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = np.round(found[:n_features] * scale, 9).tolist()
    examined = np.exp(-np.cumsum([0, *found[n_features:]])).tolist()
    return Fit(RankingWeights(**dict(zip(FEATURES, weights, strict=True))), tuple(examined))


def gains(sessions: Sequence[Session], fit: Fit, order: Order) -> list[float]:
    """Estimate what nDCG@4 an order would have, were every position looked at: the mean of the values returned.

    Each choice counts as many times as results at its position are looked at more seldom (inverse propensity, Joachims
    et al. 2017, "Unbiased learning-to-rank with biased feedback"), normalised by the sum of these weights.

    Args:
        sessions: at least one.
        fit: tells how often positions are looked at.
        order: returns the places of a session's results, best first.

    Returns:
        a value of each session.
    """
    weighed, weights = [], []
    for session in sessions:
        ranks = np.empty(len(session.chosen))
        ranks[list(order(session))] = np.arange(1, len(ranks) + 1)
        discounted = np.where(ranks <= DEPTH, 1 / np.log2(1 + ranks), 0)
        weight = session.chosen / fit.examination(session.positions)
        weighed.append(float(weight @ discounted))
        weights.append(float(weight.sum()))
    mean_weight = sum(weights) / len(weights)
    return [value / mean_weight for value in weighed]
