"""Scores -> what clients read of them: calibrated, rounded, and honest about what is a guess."""

import numpy as np
import pytest

from shared.catalogue.categories import CATEGORIES
from shared.index.answers import category_answer, probabilities
from shared.photos.images import PreprocessSpec
from tests.support.bundles import manifest

SCORES = np.array([0.5, 3.0, 2.0, *(10 * [0.0])], dtype=np.float32)


def test_a_temperature_changes_how_sure_an_answer_is_and_never_which_it_is() -> None:
    answers = [category_answer(SCORES, manifest(PreprocessSpec(), temperature=t)) for t in (0.5, 1, 2, 100)]
    assert {answer.index for answer in answers} == {1}
    assert {answer.name for answer in answers} == {CATEGORIES[1]}
    sure = [answer.probability for answer in answers]
    assert sure == sorted(sure, reverse=True)
    assert sure[-1] == pytest.approx(1 / 13, abs=0.003)  # all alike
    plain = np.exp(SCORES / 2) / np.exp(SCORES / 2).sum()
    assert answers[2].probability == pytest.approx(plain[1], abs=1e-6)  # as they are rounded
    assert probabilities(SCORES * 400, 0.5).sum() == pytest.approx(1)


def test_an_answer_below_the_threshold_is_marked_as_a_guess() -> None:
    chance = category_answer(SCORES, manifest(PreprocessSpec())).probability
    for threshold, certain in ((0.0, True), (chance, True), (chance + 1e-6, False), (1.0, False)):
        assert category_answer(SCORES, manifest(PreprocessSpec(), abstain_below=threshold)).certain is certain
