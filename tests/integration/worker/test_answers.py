"""Scores -> what clients read of them: calibrated, rounded, and honest about what is a guess."""

import json

import numpy as np
import pytest

from shared.catalogue.categories import CATEGORIES
from shared.index.answers import category_answer
from shared.jobs.answers_contract import CategoryAnswer
from shared.model.fusion import Evidence, softmax
from shared.photos.images import PreprocessSpec
from tests.support.manifests import manifest

SCORES = np.array([0.5, 3.0, 2.0, *(10 * [0.0])], dtype=np.float32)


def test_a_temperature_changes_how_sure_an_answer_is_and_never_which_it_is() -> None:
    answers = [category_answer(Evidence(SCORES), manifest(PreprocessSpec(), temperature=t)) for t in (0.5, 1, 2, 100)]
    assert {answer.index for answer in answers} == {1}
    assert {answer.name for answer in answers} == {CATEGORIES[1]}
    sure = [answer.probability for answer in answers]
    assert sure == sorted(sure, reverse=True)
    assert sure[-1] == pytest.approx(1 / 13, abs=0.003)  # all alike
    plain = np.exp(SCORES / 2) / np.exp(SCORES / 2).sum()
    assert answers[2].probability == pytest.approx(plain[1], abs=1e-6)  # as they are rounded
    assert softmax(SCORES * 400, 0.5).sum() == pytest.approx(1)


def test_an_answer_below_the_threshold_is_marked_as_a_guess() -> None:
    chance = category_answer(Evidence(SCORES), manifest(PreprocessSpec())).probability
    for threshold, certain in ((0.0, True), (chance, True), (chance + 1e-6, False), (1.0, False)):
        assert category_answer(Evidence(SCORES), manifest(PreprocessSpec(), abstain_below=threshold)).certain is certain


PATHS = ("Boats / Sail", "Boats / Motor", "Cars / Vans", "Tents")
PATH_SCORES = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))


def path_answer(**changed: object) -> CategoryAnswer:
    return category_answer(Evidence(PATH_SCORES), manifest(PreprocessSpec(), categories=PATHS, **changed))


@pytest.mark.parametrize(
    ("abstain_below", "by_level", "expected"),
    [
        (0.5, (0.9,), {"name": "Boats / Sail", "path": ["Boats", "Sail"], "probability": 0.5}),
        (0.6, (0.7,), {"name": "Boats", "path": ["Boats"], "probability": 0.8}),
        (0.6, (), {"name": "Boats", "path": ["Boats"], "probability": 0.8}),
        (0.6, (0.9,), None),
        (0.9, (), None),
    ],
)
def test_of_categories_that_are_paths_the_answer_says_how_much_of_it_is_certain(
    abstain_below: float, by_level: tuple[float, ...], expected: object
) -> None:
    answer = path_answer(abstain_below=abstain_below, abstain_below_by_level=by_level)
    assert answer.model_dump()["certain_path"] == expected
    assert (answer.name, answer.certain) == ("Boats / Sail", abstain_below <= 0.5)
    stored = CategoryAnswer.model_validate_json(answer.model_dump_json())
    assert (stored, stored.model_dump_json()) == (answer, answer.model_dump_json())


def test_of_categories_of_one_level_it_says_what_it_always_did() -> None:
    answer = category_answer(Evidence(SCORES), manifest(PreprocessSpec(), abstain_below=1.0))
    assert list(json.loads(answer.model_dump_json())) == ["name", "index", "probability", "certain", "top"]
    assert CategoryAnswer.model_validate_json(answer.model_dump_json()).model_dump_json() == answer.model_dump_json()
