"""Categories of several levels: the probabilities of whole paths say how probable each beginning of them is."""

import numpy as np
import pytest

from shared.array_types import FloatArray
from shared.catalogue.categories import MOST_CATEGORIES
from shared.catalogue.hierarchy import Hierarchy, Part, hierarchy_of

NAMES = ("Boats / Sail", "Cars / Vans / Old", "Boats / Motor", "Cars / Vans / New", "Cars / Small", "Tents", "Cars")


def hierarchy(*names: str) -> Hierarchy:
    found = hierarchy_of(names)
    assert found is not None
    return found


def chances(*values: float) -> FloatArray:
    assert sum(values) == pytest.approx(1)
    return np.array(values, dtype=np.float32)


def test_categories_of_one_level_have_no_hierarchy() -> None:
    assert hierarchy_of(("Boats", "Cars/Vans", "Home & Garden")) is None
    assert hierarchy_of(()) is None


def test_probabilities_are_summed_by_the_beginning_of_the_path() -> None:
    roots, second = hierarchy(*NAMES).levels
    assert roots.paths == (("Boats",), ("Cars",))  # nothing lies below Tents
    assert second.paths == (("Cars", "Vans"),)
    each = chances(0.05, 0.1, 0.1, 0.2, 0.15, 0.3, 0.1)
    assert roots.probabilities(each) == pytest.approx([0.15, 0.55])  # with what is in Cars and in nothing below
    assert second.probabilities(each) == pytest.approx([0.3])
    assert roots.path_of.tolist() == [0, 1, 0, 1, 1, -1, 1]
    assert second.path_of.tolist() == [-1, 0, -1, 0, -1, -1, -1]


def test_many_photos_are_summed_as_one_is() -> None:
    drawn = np.random.default_rng(3).dirichlet(np.ones(len(NAMES)), 20).astype(np.float32)
    for level in hierarchy(*NAMES).levels:
        assert np.allclose(level.probabilities(drawn), [level.probabilities(row) for row in drawn])


@pytest.mark.parametrize(
    ("abstain_below", "expected"),
    [
        ((0.5, 0.5), Part(("Cars", "Vans"), 0.6)),
        ((0.5, 0.6), Part(("Cars", "Vans"), 0.6)),  # as much as is asked is enough
        ((0.5, 0.61), Part(("Cars",), 0.8)),
        ((0.8, 1.0), Part(("Cars",), 0.8)),
        ((0.81, 1.0), None),
        ((0.0, 0.0), Part(("Cars", "Vans"), 0.6)),
    ],
)
def test_the_deepest_level_that_reaches_its_threshold_is_certain(
    abstain_below: tuple[float, ...], expected: Part | None
) -> None:
    each = chances(0.1, 0.3, 0.1, 0.3, 0.1, 0.0, 0.1)
    assert hierarchy(*NAMES).deepest_certain(each, abstain_below) == expected


def test_of_equally_probable_paths_the_one_whose_categories_come_first_is_taken() -> None:
    names = ("B / x", "A / x", "A / y", "B / y")
    assert hierarchy(*names).deepest_certain(chances(0.25, 0.25, 0.25, 0.25), (0.5,)) == Part(("B",), 0.5)


def test_a_category_that_nothing_lies_below_is_no_part_of_a_path() -> None:
    # It is a whole path, and was not certain as such.
    assert hierarchy(*NAMES).deepest_certain(chances(0.05, 0, 0.05, 0, 0, 0.9, 0), (0.5, 0.5)) is None


def test_a_part_is_named_as_a_category_is() -> None:
    assert Part(("Cars", "Vans"), 0.6).name == "Cars / Vans"


def test_the_probability_of_a_part_is_never_above_one() -> None:
    names = tuple(f"A / {n}" for n in range(MOST_CATEGORIES))
    each = np.full(MOST_CATEGORIES, np.float32(1.00001 / MOST_CATEGORIES))
    assert hierarchy(*names).deepest_certain(each, (0.9,)) == Part(("A",), 1.0)


def test_the_hierarchy_of_a_model_is_made_once() -> None:
    assert hierarchy_of(NAMES) is hierarchy_of(tuple(NAMES))
