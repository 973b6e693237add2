"""Neighbour figures: on examples small enough to check by hand, and against a sort of everything"""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.retrieval import find_neighbours, retrieval_metrics
from shared.array_types import FloatArray, IntArray


def on_a_circle(degrees: list[float]) -> FloatArray:
    """(n, 2) unit vectors: the nearer in degrees, the more similar."""
    radians = np.deg2rad(degrees)
    vectors: FloatArray = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    return vectors


#            degree listing category
EXAMPLE = [
    (0, "a", 0),
    (1, "a", 0),
    (3, "b", 0),
    (6, "c", 1),
    (10, "d", 0),
    (15, "c", 1),
    (21, "e", 1),
    (90, "b", 0),
]
EXAMPLE_PHOTOS = [(listing, category) for _, listing, category in EXAMPLE]
EXAMPLE_VECTORS = on_a_circle([degree for degree, _, _ in EXAMPLE])


def figures(photos: list[tuple[str, int]], vectors: FloatArray) -> dict[str, float | int]:
    listings, labels = zip(*photos, strict=True)
    return retrieval_metrics(vectors, np.array(labels), np.array(listings))


def test_neighbour_figures_of_a_hand_computed_example() -> None:
    metrics = figures(EXAMPLE_PHOTOS, EXAMPLE_VECTORS)
    # The four nearest photos of other listings, by degree:
    #   0 a0: 3 b0, 6 c1, 10 d0, 15 c1  -> 2/4        10 d0: 6 c1, 15 c1, 3 b0, 1 a0    -> 2/4
    #   1 a0: 3 b0, 6 c1, 10 d0, 15 c1  -> 2/4        15 c1: 10 d0, 21 e1, 3 b0, 1 a0   -> 1/4
    #   3 b0: 1 a0, 0 a0, 6 c1, 10 d0   -> 3/4        21 e1: 15 c1, 10 d0, 6 c1, 3 b0   -> 2/4
    #   6 c1: 3 b0, 10 d0, 1 a0, 0 a0   -> 0/4        90 b0: 21 e1, 15 c1, 10 d0, 6 c1  -> 1/4
    assert metrics["precision_at_4"] == pytest.approx(13 / 32)
    # a, b and c have two photos each. Nearest of all: 0->1 yes, 1->0 yes, 3->1 no, 6->3 no, 15->10 no, 90->21 no.
    assert metrics["n_with_sibling"] == 6
    assert metrics["sibling_recall_at_1"] == pytest.approx(2 / 6)
    # Within four: 6 finds 3, 10, 1 and 0, not 15; 15 finds 10, 21, 6: yes; 3 and 90 never find each other.
    assert metrics["sibling_recall_at_4"] == pytest.approx(3 / 6)


def test_figures_do_not_depend_on_the_order_of_the_photos() -> None:
    order = np.random.default_rng(2).permutation(len(EXAMPLE))
    shuffled = figures([EXAMPLE_PHOTOS[i] for i in order], EXAMPLE_VECTORS[order])
    assert shuffled == pytest.approx(figures(EXAMPLE_PHOTOS, EXAMPLE_VECTORS))


def test_figures_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = figures(EXAMPLE_PHOTOS, EXAMPLE_VECTORS)
    monkeypatch.setattr("pipeline.evaluation.retrieval._CHUNK_SCORES", 3 * len(EXAMPLE))
    assert figures(EXAMPLE_PHOTOS, EXAMPLE_VECTORS) == pytest.approx(whole)


def test_a_photos_own_listing_does_not_count_for_precision() -> None:
    photos = [("a", 0)] * 5 + [("b", 1)] * 5
    metrics = figures(photos, on_a_circle([0, 1, 2, 3, 4, 10, 11, 12, 13, 14]))
    assert metrics["precision_at_4"] == 0
    assert metrics["sibling_recall_at_1"] == metrics["sibling_recall_at_4"] == 1


def test_precision_divides_by_what_there_is_when_fewer_than_four_others_exist() -> None:
    photos = [("a", 0), ("b", 0), ("c", 1)]
    # a: b yes, c no; b: a yes, c no; c: none of two.
    assert figures(photos, on_a_circle([0, 1, 2]))["precision_at_4"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_photos_of_one_listing_have_siblings_but_no_precision() -> None:
    metrics = figures([("a", 0)] * 6, on_a_circle([0, 1, 2, 3, 4, 5]))
    assert "precision_at_4" not in metrics
    assert metrics["n_with_sibling"] == 6
    assert metrics["sibling_recall_at_1"] == metrics["sibling_recall_at_4"] == 1


def test_a_single_photo_has_no_neighbour_figures() -> None:
    metrics = figures([("a", 0)], on_a_circle([0]))
    assert metrics == {"n_with_sibling": 0}


def test_single_photos_of_two_listings_have_precision_but_no_siblings() -> None:
    metrics = figures([("a", 0), ("b", 0)], on_a_circle([0, 1]))
    assert metrics == {"n_with_sibling": 0, "precision_at_4": 1}


def test_a_photo_identical_to_its_sibling_never_counts_itself() -> None:
    listings = np.array(["a", "a", "b", "b", "c"])
    vectors = on_a_circle([0, 0, 0, 0, 0])
    metrics = retrieval_metrics(vectors, np.zeros(5, dtype=int), listings)
    # All alike: whatever the order, the own photo is not among the four others.
    assert metrics["sibling_recall_at_4"] == 1
    assert metrics["precision_at_4"] == 1


def test_average_precision_of_a_hand_computed_example() -> None:
    labels, listings = np.array([category for _, _, category in EXAMPLE]), np.array([name for _, name, _ in EXAMPLE])
    found = find_neighbours(EXAMPLE_VECTORS, labels, listings, 4).average_precision()
    # 0 a0: relevant at ranks 1 and 3 of four, and three photos of category 0 are of other listings: (1 + 2/3) / 3.
    assert found[0] == pytest.approx((1 + 2 / 3) / 3)
    # 21 e1: relevant at ranks 1 and 3; two are of category 1: (1 + 2/3) / 2.
    assert found[6] == pytest.approx((1 + 2 / 3) / 2)
    # 6 c1: nothing relevant among four, though there is e.
    assert found[3] == 0


def test_what_no_photo_of_another_listing_shares_has_no_average_precision() -> None:
    found = find_neighbours(on_a_circle([0, 1, 2]), np.array([0, 0, 1]), np.array(["a", "b", "c"]), 4)
    assert np.isnan(found.average_precision()).tolist() == [False, False, True]


def by_sorting(vectors: FloatArray, listings: npt.NDArray[np.str_], depth: int) -> tuple[IntArray, IntArray]:
    """The same neighbours by a stable sort of every row."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, : min(depth, len(vectors) - 1)]
    scores[listings[:, None] == listings] = -np.inf
    foreign = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return nearest, np.where(np.take_along_axis(scores, foreign, 1) > -np.inf, foreign, -1)


@settings(max_examples=150)
@given(
    n=st.integers(1, 300), depth=st.integers(1, 12), n_listings=st.integers(1, 40), n_values=st.integers(1, 4),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_neighbours_are_those_of_a_stable_sort_however_many_are_alike(
    n: int, depth: int, n_listings: int, n_values: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Few whole values: products are exact, and many are equal.
    vectors = rng.integers(0, n_values, (n, 3)).astype(np.float32)
    listings = rng.integers(0, n_listings, n).astype(str)
    found = find_neighbours(vectors, np.zeros(n, dtype=np.int64), listings, depth)
    nearest, foreign = by_sorting(vectors, listings, depth)
    np.testing.assert_array_equal(found.nearest, nearest)
    np.testing.assert_array_equal(found.foreign, foreign)
