"""Calibration: temperatures that are known are found again, and too little data is said to be too little"""

import numpy as np
import pytest

from pipeline.training.calibration.classifier import (
    TARGET_ACCURACY,
    Calibration,
    abstention,
    abstention_by_level,
    answers,
    calibrate,
    fit_temperature,
    negative_log_likelihood,
)
from shared.array_types import FloatArray, IntArray
from shared.catalogue.hierarchy import hierarchy_of


def drawn(n: int, *, surer: float = 1.0, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Scores whose softmax is the truth, then made `surer` times as sure, and labels drawn from that truth."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 13)) * 2
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels = np.array([rng.choice(13, p=row) for row in chances])
    return (scores * surer).astype(np.float32), labels


def confident(probabilities: list[float], right: list[bool]) -> tuple[FloatArray, IntArray]:
    """Scores whose best category is the first, with these probabilities."""
    p = np.array(probabilities)[:, None]
    return np.log(np.concatenate([p, np.repeat((1 - p) / 12, 12, 1)], 1)).astype(np.float32), 1 - np.array(right)


@pytest.mark.parametrize("surer", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_what_made_scores_surer(surer: float) -> None:
    scores, labels = drawn(3000, surer=surer)
    # The standard error of the fit on 3,000 photos is about 2 %.
    assert fit_temperature(scores, labels) == pytest.approx(surer, rel=0.08)


def test_no_other_temperature_is_more_likely() -> None:
    scores, labels = drawn(300, surer=2)
    fitted = fit_temperature(scores, labels)
    least = negative_log_likelihood(scores, labels, fitted)
    assert all(negative_log_likelihood(scores, labels, fitted * by) > least for by in (0.5, 0.9, 1.1, 2))


def test_answers_stay_what_they_are_at_any_temperature() -> None:
    scores, labels = drawn(100)
    (warm, correct), (cold, same) = answers(scores, labels, 5.0), answers(scores, labels, 0.2)
    assert (correct == same).all()
    assert (warm < cold).all()


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        pytest.param(np.zeros((0, 13)), [], id="no photos"),
        pytest.param(np.zeros((60, 13)), [0, 1] * 30, id="scores that say nothing"),
        pytest.param(np.eye(13)[[0, 1] * 30], [0, 1] * 30, id="never wrong"),
        pytest.param(np.eye(13)[[0, 1] * 30] * 50, [1, 0] * 30, id="never right"),
    ],
)
def test_without_a_best_temperature_it_is_one(scores: FloatArray, labels: list[int]) -> None:
    assert fit_temperature(scores.astype(np.float32), np.array(labels, dtype=np.int64)) == 1.0


def test_a_category_that_the_head_can_never_answer_does_not_decide_the_temperature() -> None:
    scores, labels = drawn(3000, surer=2)
    scores[:30, 12] = -1e4
    labels[:30] = 12
    # Thirty certain mistakes make it less sure, and no more.
    assert 2 < fit_temperature(scores, labels) < 4


def test_abstention_answers_as_much_as_the_target_allows() -> None:
    n_sure, n_unsure = 30, 40
    probabilities = np.linspace(0.95, 0.3, n_sure + n_unsure).tolist()
    right = [True] * n_sure + [False, True] * (n_unsure // 2)
    scores, labels = confident(probabilities, right)
    threshold = abstention(scores, labels, 1.0)
    answered = np.array(probabilities) >= threshold - 1e-6
    # After 30 right and k pairs it is (30 + k) / (30 + 2k) >= 0.8 up to k = 10; one more wrong answer breaks it.
    assert answered.sum() == 50
    assert np.array(right)[answered].mean() == pytest.approx(TARGET_ACCURACY)


def test_equally_sure_answers_are_given_together_or_not_at_all() -> None:
    scores, labels = confident([0.9] * 30 + [0.5] * 40, [True] * 30 + [True] * 5 + [False] * 35)
    # The first five of the forty would do, but nothing tells them from the rest.
    assert abstention(scores, labels, 1.0) == pytest.approx(0.9, abs=1e-6)


def test_when_all_answers_reach_the_target_none_is_a_guess() -> None:
    scores, labels = confident([0.4] * 100, [True] * 85 + [False] * 15)
    assert abstention(scores, labels, 1.0) == 0.0


def test_when_no_probability_reaches_the_target_the_target_is_the_limit() -> None:
    scores, labels = confident(np.linspace(0.9, 0.3, 100).tolist(), [False, True] * 50)
    assert abstention(scores, labels, 1.0) == TARGET_ACCURACY


@pytest.mark.parametrize("labels", [[], [3], [3] * 200, [1, 2] * 10], ids=["none", "one", "one category", "twenty"])
def test_of_too_little_to_calibrate_on_only_answers_as_sure_as_the_target_are_no_guesses(labels: list[int]) -> None:
    messages: list[str] = []
    truth = np.array(labels, dtype=np.int64)
    scores = np.random.default_rng(0).normal(size=(len(labels), 80)).astype(np.float32)
    assert calibrate(scores, truth, messages.append) == Calibration(1.0, TARGET_ACCURACY)
    assert "not calibrated" in messages[0]
    assert f"below probability {TARGET_ACCURACY}" in messages[0]
    of_levels = calibrate(scores, truth, messages.append, TWO_LEVELS)
    assert of_levels == Calibration(1.0, TARGET_ACCURACY, (TARGET_ACCURACY,))


def test_what_was_found_is_said() -> None:
    messages: list[str] = []
    found = calibrate(*drawn(500, surer=3), messages.append)
    assert f"{found.temperature:.3f}" in messages[0]
    assert 0 < found.abstain_below < 1


def drawn_of_two_levels(n: int, seed: int) -> tuple[FloatArray, IntArray]:
    """Scores of ten roots with eight categories each, whose softmax is the truth, and labels drawn from that truth."""
    rng = np.random.default_rng(seed)
    scores = np.repeat(rng.normal(size=(n, 10)) * 2, 8, axis=1) + rng.normal(size=(n, 80)) * 4
    shares = np.exp(scores).cumsum(axis=1)
    labels = (rng.random((n, 1)) * shares[:, -1:] > shares).sum(axis=1)
    return scores.astype(np.float32), labels


TWO_LEVELS = hierarchy_of(tuple(f"root {root} / {leaf}" for root in range(10) for leaf in range(8)))


def test_a_level_is_calibrated_on_the_photos_that_no_deeper_one_was_certain_of() -> None:
    assert TWO_LEVELS is not None
    scores, labels = drawn_of_two_levels(3000, seed=0)
    found = calibrate(scores, labels, lambda _: None, TWO_LEVELS)
    [root_below] = found.abstain_below_by_level
    scores, labels = drawn_of_two_levels(20_000, seed=1)
    whole, _ = answers(scores, labels, found.temperature)
    chances = np.exp(scores / found.temperature)
    roots = TWO_LEVELS.levels[0].probabilities((chances / chances.sum(axis=1, keepdims=True)).astype(np.float32))
    left = whole < found.abstain_below

    def accuracy(threshold: float) -> float:
        answered = left & (roots.max(axis=1) >= threshold)
        return float((roots.argmax(axis=1) == labels // 8)[answered].mean())

    # The threshold is fitted on about 210 answers: 0.8 +- 0.03, and more for the choice of the lowest that will do.
    assert accuracy(root_below) == pytest.approx(TARGET_ACCURACY, abs=0.06)
    assert accuracy(found.abstain_below) < 0.72  # that of whole paths would promise too much


def test_a_level_that_too_few_photos_are_left_to_asks_for_the_target() -> None:
    assert TWO_LEVELS is not None
    scores, labels = drawn_of_two_levels(200, seed=0)
    assert abstention_by_level(scores, labels, 1.0, 0.0, TWO_LEVELS) == (TARGET_ACCURACY,)
    assert abstention_by_level(scores[:19], labels[:19], 1.0, 1.0, TWO_LEVELS) == (TARGET_ACCURACY,)


def test_what_was_found_of_each_level_is_said() -> None:
    messages: list[str] = []
    found = calibrate(*drawn_of_two_levels(500, seed=2), messages.append, TWO_LEVELS)
    assert f"cut after level 1 below {found.abstain_below_by_level[0]:.3f}" in messages[0]
