"""Scores -> probabilities that mean what they say, and below which one an answer is a guess.

BundleInputs on the validation side: on what a head was fitted on it is surer than it should be. Knows no model.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from shared.progress import ReportProgress

TARGET_ACCURACY = 0.8
_MIN_PHOTOS = 50  # fewer say little of how sure a head may be
_MIN_ANSWERED = 20  # a handful of lucky answers is no accuracy
_WIDEST = 20.0  # a temperature outside 1/20..20 means that the scores say nothing, or all there is to say


class Calibration(NamedTuple):
    """For the manifest."""

    temperature: float = 1.0
    abstain_below: float = 0.0


def calibrate(scores: FloatArray, labels: IntArray, report_progress: ReportProgress) -> Calibration:
    """Temperature and abstention of one head, or neither where too little is known.

    Args:
        scores: (n, 13) of photos that the head was not fitted on.
        labels: (n,) their categories.
        report_progress: receives what was found, as one line.
    """
    if len(labels) < _MIN_PHOTOS or len(np.unique(labels)) == 1:
        report_progress(
            f"not calibrated: {len(labels)} validation photos of {len(np.unique(labels))} categories say too little"
        )
        return Calibration()
    temperature = fit_temperature(scores, labels)
    abstain_below = abstention(scores, labels, temperature)
    found = f"temperature {temperature:.3f}, a guess below probability {abstain_below:.3f}"
    report_progress(f"calibrated on {len(labels)} validation photos: {found}")
    return Calibration(temperature, abstain_below)


def fit_temperature(scores: FloatArray, labels: IntArray) -> float:
    """The temperature of least negative log-likelihood (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    1.0 where there is no such temperature: without photos, or where scores say nothing or are never wrong.
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
    """The lowest probability from which on the answers reach the target accuracy together.

    Returns:
        0 where all answers together reach it; the target itself where no probability gets there, for that is what a
        calibrated probability promises.
    """
    confidence, correct = answers(scores, labels, temperature)
    if len(labels) < _MIN_ANSWERED:
        return 0.0
    order = np.argsort(-confidence, kind="stable")
    confidence, accuracy = confidence[order], correct[order].cumsum() / np.arange(1, len(order) + 1)
    last_of_its_value = np.append(confidence[1:] < confidence[:-1], True)
    reached = np.flatnonzero((accuracy >= target) & last_of_its_value)
    reached = reached[reached >= _MIN_ANSWERED - 1]
    if not len(reached):
        return target
    return 0.0 if reached[-1] == len(order) - 1 else float(confidence[reached[-1]])


def answers(scores: FloatArray, labels: IntArray, temperature: float) -> tuple[DoubleArray, BoolArray]:
    """Per photo: probability of its best category, and whether that is right."""
    confidence = np.exp(log_softmax(scores.astype(np.float64) / temperature, axis=1)).max(axis=1, initial=0.0)
    return confidence, scores.argmax(axis=1) == labels


def negative_log_likelihood(scores: FloatArray, labels: IntArray, temperature: float) -> float:
    """Mean over photos, in nats; a photo counts as if its category had a probability of at least 1e-12."""
    logs = log_softmax(scores.astype(np.float64) / temperature, axis=1)[np.arange(len(labels)), labels]
    # A head that was fitted without one photo of a category never answers it, by a score of -10,000.
    return float(-np.maximum(logs, np.log(1e-12)).mean())
