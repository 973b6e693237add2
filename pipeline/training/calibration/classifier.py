"""Calibrate a classifier: temperature scaling, and the probability below which an answer counts as a guess.

Fitted on validation photos, because a head is overconfident on the photos it was fitted on.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from shared.catalogue.hierarchy import Hierarchy
from shared.progress import ReportProgress

TARGET_ACCURACY = 0.8
_MIN_PHOTOS = 50  # fewer say little of how sure a head may be
_MIN_ANSWERED = 20  # a handful of lucky answers is no accuracy
_WIDEST = 20.0  # a temperature outside 1/20..20 means that the scores say nothing, or all there is to say


class Calibration(NamedTuple):
    """What calibration found, as the bundle's manifest keeps it.

    Attributes:
        temperature: scores are divided by it before the softmax.
        abstain_below: answers of lower probability count as guesses.
        abstain_below_by_level: of each level above the categories, the root's first: where the category is a guess, so
            is a path cut at that level, of lower probability; nothing where categories have one level.
    """

    temperature: float = 1.0
    abstain_below: float = 0.0
    abstain_below_by_level: tuple[float, ...] = ()


def calibrate(
    scores: FloatArray, labels: IntArray, report_progress: ReportProgress, hierarchy: Hierarchy | None = None
) -> Calibration:
    """Fit temperature and abstention thresholds of a head.

    Where there are too few photos, the temperature is 1, and answers count as more than guesses where they say of
    themselves that they reach TARGET_ACCURACY.

    Args:
        scores: (n, n_categories) of photos that the head was not fitted on.
        labels: (n,) their categories.
        report_progress: receives what was found, as one line.
        hierarchy: of the categories, if they have several levels.
    """
    if len(labels) < _MIN_PHOTOS or len(np.unique(labels)) == 1:
        report_progress(
            f"not calibrated: {len(labels)} validation photos of {len(np.unique(labels))} categories say too little; "
            f"a guess below probability {TARGET_ACCURACY}"
        )
        return uncalibrated(hierarchy)
    temperature = fit_temperature(scores, labels)
    abstain_below = abstention(scores, labels, temperature)
    by_level: tuple[float, ...] = ()
    found = f"temperature {temperature:.3f}, a guess below probability {abstain_below:.3f}"
    if hierarchy:
        by_level = abstention_by_level(scores, labels, temperature, abstain_below, hierarchy)
        found += "".join(f", cut after level {level} below {limit:.3f}" for level, limit in enumerate(by_level, 1))
    report_progress(f"calibrated on {len(labels)} validation photos: {found}")
    return Calibration(temperature, abstain_below, by_level)


def uncalibrated(hierarchy: Hierarchy | None) -> Calibration:
    """What holds where too few photos say how sure a head of these categories may be."""
    return Calibration(1.0, TARGET_ACCURACY, (TARGET_ACCURACY,) * (len(hierarchy.levels) if hierarchy else 0))


def fit_temperature(scores: FloatArray, labels: IntArray) -> float:
    """Find the temperature of least negative log-likelihood.

    After Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
        scores: (n, n_categories).
        labels: (n,).

    Returns:
        the temperature; 1.0 where there is none: without photos, or where scores say nothing or are never wrong.
    """
    if len(labels) == 0:
        return 1.0
    widest = np.log(_WIDEST)
    # Convex in 1/T, so one valley in log T.
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(scores, labels, float(np.exp(log_t))),
        bounds=(-widest, widest),
        method="bounded",
    )
    return 1.0 if abs(found.x) > 0.99 * widest else float(np.exp(found.x))


def abstention(scores: FloatArray, labels: IntArray, temperature: float, *, target: float = TARGET_ACCURACY) -> float:
    """Find the lowest threshold at which all answers of at least that probability reach the target accuracy.

    Args:
        scores: (n, n_categories).
        labels: (n,).
        temperature: that scores are divided by.
        target: accuracy, 0..1.

    Returns:
        the threshold, 0..1; 0 where all answers together reach the target; the target itself where no threshold does,
        because answers of a calibrated probability of at least the target are expected to reach it.
    """
    return _or_target(lowest_threshold(*answers(scores, labels, temperature), target), target)


def abstention_by_level(
    scores: FloatArray, labels: IntArray, temperature: float, abstain_below: float, hierarchy: Hierarchy
) -> tuple[float, ...]:
    """Find for each level above the categories the lowest threshold at which the answers given there reach the target.

    A level answers only for photos that no deeper level was certain of. These are the harder ones: at the threshold of
    whole paths fewer of the answers would be right. So each level has its own, found on the photos that are left to it.

    Args:
        scores: (n, n_categories).
        labels: (n,).
        temperature: that scores are divided by.
        abstain_below: the threshold of whole paths.
        hierarchy: of the categories.

    Returns:
        thresholds, 0..1, the root's first; TARGET_ACCURACY at a level that too few photos are left to.
    """
    chances: FloatArray = softmax(scores / temperature, axis=1).astype(np.float32)
    left = chances.max(axis=1, initial=0.0) < abstain_below
    found = []
    for level in reversed(hierarchy.levels):
        sums = level.probabilities(chances)
        confidence, correct = sums.max(axis=1).astype(np.float64), sums.argmax(axis=1) == level.path_of[labels]
        enough = np.count_nonzero(left) >= _MIN_ANSWERED
        reached = lowest_threshold(confidence[left], correct[left], TARGET_ACCURACY) if enough else None
        threshold = _or_target(reached, TARGET_ACCURACY)
        left &= confidence < threshold
        found.append(threshold)
    return tuple(reversed(found))


def lowest_threshold(confidence: DoubleArray, correct: BoolArray | DoubleArray, target: float) -> float | None:
    """Find the lowest confidence from which on answers reach a target accuracy.

    Args:
        confidence: (n,) of each answer.
        correct: (n,) whether it is right, or the probability that it is.
        target: accuracy, 0..1.

    Returns:
        the threshold; 0 where all answers together reach the target, None where too few do.
    """
    order = np.argsort(-confidence, kind="stable")
    confidence, accuracy = confidence[order], correct[order].cumsum() / np.arange(1, len(order) + 1)
    last_of_its_value = np.append(confidence[1:] < confidence[:-1], True)
    reached = np.flatnonzero((accuracy >= target) & last_of_its_value)
    reached = reached[reached >= _MIN_ANSWERED - 1]
    if not len(reached):
        return None
    return 0.0 if reached[-1] == len(order) - 1 else float(confidence[reached[-1]])


def _or_target(threshold: float | None, target: float) -> float:
    # Answers of a calibrated probability of at least the target are expected to reach it.
    return target if threshold is None else threshold


def answers(scores: FloatArray, labels: IntArray, temperature: float) -> tuple[DoubleArray, BoolArray]:
    """Probability of each photo's best category, and whether that category is right; (n,) each.

    Args:
        scores: (n, n_categories).
        labels: (n,).
        temperature: that scores are divided by.
    """
    confidence = np.exp(log_softmax(scores.astype(np.float64) / temperature, axis=1)).max(axis=1, initial=0.0)
    return confidence, scores.argmax(axis=1) == labels


def negative_log_likelihood(scores: FloatArray, labels: IntArray, temperature: float) -> float:
    """Mean negative log-likelihood over photos, in nats; probabilities are clipped to at least 1e-12."""
    logs = log_softmax(scores.astype(np.float64) / temperature, axis=1)[np.arange(len(labels)), labels]
    # A head that was fitted without one photo of a category never answers it, by a score of -10,000.
    return float(-np.maximum(logs, np.log(1e-12)).mean())
