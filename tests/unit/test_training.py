"""Split, head and figures on examples small enough to check by hand."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline import train
from pipeline.evaluate import evaluate, retrieval_metrics
from pipeline.train import Head, fit_head, held_out_listings
from shared.catalogue import CATEGORIES, CataloguePhoto
from shared.vision.answers import probabilities
from shared.vision.embedder import Embeddings, FloatArray


def catalogue(listings_per_category: list[int], photos_per_listing: int = 2) -> list[CataloguePhoto]:
    """So many listings in each of the first categories."""
    listings = [(c, n) for c, n_listings in enumerate(listings_per_category) for n in range(n_listings)]
    return [
        CataloguePhoto(f"p{c}-{n}-{photo}", f"l{c}-{n}", c, Path("unused.jpg"))
        for c, n in listings
        for photo in range(photos_per_listing)
    ]


# Split


BALANCED = catalogue([10] * 13)


def test_a_fifth_of_the_listings_is_held_out() -> None:
    assert len(held_out_listings(BALANCED)) == 26


def test_no_listing_is_on_both_sides() -> None:
    held_out = held_out_listings(BALANCED)
    seen = {photo.listing_id for photo in BALANCED if photo.listing_id not in held_out}
    assert held_out | seen == {photo.listing_id for photo in BALANCED}
    assert len(held_out) + len(seen) == 130


def test_photos_of_a_listing_stay_together_however_many_there_are() -> None:
    rng = random.Random(3)
    photos = [
        CataloguePhoto(f"p{listing}-{n}", f"l{listing}", listing % 13, Path("unused.jpg"))
        for listing in range(130)
        for n in range(rng.randint(1, 9))
    ]
    held_out = held_out_listings(photos)
    assert held_out <= {photo.listing_id for photo in photos}
    # A fifth, give or take what uneven listings make of it.
    assert 13 <= len(held_out) <= 39


def test_every_category_is_held_out_in_equal_parts() -> None:
    categories = {photo.listing_id: photo.category for photo in BALANCED}
    counts = Counter(categories[listing] for listing in held_out_listings(BALANCED))
    assert counts == dict.fromkeys(range(13), 2)


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    assert held_out_listings(BALANCED, seed=5) == held_out_listings(BALANCED, seed=5)
    assert held_out_listings(BALANCED, seed=5) != held_out_listings(BALANCED, seed=6)


@pytest.mark.parametrize("n_listings", [1, 5, 9])
def test_below_ten_listings_nothing_is_held_out(n_listings: int) -> None:
    assert held_out_listings(catalogue([n_listings], photos_per_listing=20)) == frozenset()


@pytest.mark.parametrize(
    "listings_per_category",
    [
        pytest.param([10], id="one category"),
        pytest.param([1] * 13, id="one listing in each"),
        pytest.param([2] * 13, id="two listings in each"),
        pytest.param([30, 1, 2], id="one large and two tiny"),
    ],
)
@pytest.mark.parametrize("photos_per_listing", [1, 2])
def test_categories_too_small_to_stratify_still_give_a_split_without_a_warning(
    listings_per_category: list[int], photos_per_listing: int
) -> None:
    photos = catalogue(listings_per_category, photos_per_listing)
    held_out = held_out_listings(photos)  # warnings are errors in these tests
    n_listings = sum(listings_per_category)
    # A fifth, rounded either way.
    assert n_listings // 5 <= len(held_out) <= n_listings // 5 + 1


# Head


def clusters(categories: list[int], n_each: int = 20, dim: int = 32, seed: int = 0) -> tuple[FloatArray, list[int]]:
    """Well separated features, each column of another scale and offset as pooled features have."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((13, dim)) * 5
    labels = [category for category in categories for _ in range(n_each)]
    features = centres[labels] + rng.standard_normal((len(labels), dim)) * 0.5
    scaled: FloatArray = (features * rng.uniform(0.01, 3, dim) + rng.uniform(-2, 2, dim)).astype(np.float32)
    return scaled, labels


def head_scores(head: Head, features: FloatArray) -> FloatArray:
    """What the network's linear layer gives: (n, dim) -> (n, 13)."""
    scores: FloatArray = features @ head.weight.T + head.bias
    return scores


@pytest.mark.parametrize(
    "categories",
    [pytest.param([4], id="one"), pytest.param([7, 2], id="two"), pytest.param(list(range(13)), id="all")],
)
def test_separable_features_are_separated_and_absent_categories_never_win(categories: list[int]) -> None:
    features, labels = clusters(categories)
    head = fit_head(features, labels)
    assert (head.weight.shape, head.bias.shape) == ((13, 32), (13,))
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head_scores(head, features).argmax(1).tolist() == labels
    # Not even features far outside of what was seen make an absent category win.
    strange = np.random.default_rng(1).standard_normal((200, 32)).astype(np.float32) * 100
    assert set(head_scores(head, strange).argmax(1).tolist()) <= set(categories)


@pytest.mark.parametrize("categories", [[0, 12], [3, 5, 8], list(range(13))])
def test_the_folded_layer_equals_the_standardised_model(categories: list[int]) -> None:
    features, labels = clusters(categories)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=train._C, max_iter=300)).fit(features, labels)
    folded = probabilities(head_scores(fit_head(features, labels), features))
    # Two separate runs of an optimiser that stops at a gradient of 1e-4, then float32.
    np.testing.assert_allclose(folded[:, sorted(categories)], model.predict_proba(features), atol=2e-3)
    absent = sorted(set(range(13)) - set(categories))
    assert (folded[:, absent] == 0).all()


def test_scale_and_offset_of_the_features_do_not_change_the_scores() -> None:
    features, labels = clusters(list(range(13)))
    moved = features * np.float32(8) + np.float32(4)
    one, other = head_scores(fit_head(features, labels), features), head_scores(fit_head(moved, labels), moved)
    # Standardising takes both out; what remains is float32 and where the optimiser stops.
    np.testing.assert_allclose(one, other, atol=5e-3)


def test_a_feature_that_is_always_zero_leaves_the_scores_finite() -> None:
    features, labels = clusters([0, 1, 2])
    features[:, 5] = 0
    head = fit_head(features, labels)
    assert np.isfinite(head.weight).all()
    assert head_scores(head, features).argmax(1).tolist() == labels


# Figures


def on_a_circle(degrees: list[float]) -> FloatArray:
    """(n, 2) unit vectors: the nearer in degrees, the more similar."""
    radians = np.deg2rad(degrees)
    vectors: FloatArray = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    return vectors


def photo(listing_id: str, category: int) -> CataloguePhoto:
    return CataloguePhoto(f"p-{listing_id}-{category}", listing_id, category, Path("unused.jpg"))


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
EXAMPLE_PHOTOS = [photo(listing, category) for _, listing, category in EXAMPLE]
EXAMPLE_VECTORS = on_a_circle([degree for degree, _, _ in EXAMPLE])


def figures(
    photos: list[CataloguePhoto], vectors: FloatArray, held_out: frozenset[str] = frozenset()
) -> dict[str, float | int]:
    scores = np.zeros((len(photos), 13), dtype=np.float32)
    return evaluate(photos, Embeddings(vectors, scores), held_out)


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
    monkeypatch.setattr("pipeline.evaluate._CHUNK_ROWS", 3)
    assert figures(EXAMPLE_PHOTOS, EXAMPLE_VECTORS) == pytest.approx(whole)


def test_a_photos_own_listing_does_not_count_for_precision() -> None:
    photos = [photo("a", 0)] * 5 + [photo("b", 1)] * 5
    metrics = figures(photos, on_a_circle([0, 1, 2, 3, 4, 10, 11, 12, 13, 14]))
    assert metrics["precision_at_4"] == 0
    assert metrics["sibling_recall_at_1"] == metrics["sibling_recall_at_4"] == 1


def test_precision_divides_by_what_there_is_when_fewer_than_four_others_exist() -> None:
    photos = [photo("a", 0), photo("b", 0), photo("c", 1)]
    # a: b yes, c no; b: a yes, c no; c: none of two.
    assert figures(photos, on_a_circle([0, 1, 2]))["precision_at_4"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_photos_of_one_listing_have_siblings_but_no_precision() -> None:
    metrics = figures([photo("a", 0)] * 6, on_a_circle([0, 1, 2, 3, 4, 5]))
    assert "precision_at_4" not in metrics
    assert metrics["n_with_sibling"] == 6
    assert metrics["sibling_recall_at_1"] == metrics["sibling_recall_at_4"] == 1


def test_a_single_photo_has_no_neighbour_figures() -> None:
    metrics = figures([photo("a", 0)], on_a_circle([0]))
    assert metrics == {"n_photos": 1, "n_held_out": 0, "n_with_sibling": 0}


def test_single_photos_of_two_listings_have_precision_but_no_siblings() -> None:
    metrics = figures([photo("a", 0), photo("b", 0)], on_a_circle([0, 1]))
    assert metrics == {"n_photos": 2, "n_held_out": 0, "n_with_sibling": 0, "precision_at_4": 1}


def test_a_photo_identical_to_its_sibling_never_counts_itself() -> None:
    listings = np.array(["a", "a", "b", "b", "c"])
    vectors = on_a_circle([0, 0, 0, 0, 0])
    metrics = retrieval_metrics(vectors, np.zeros(5, dtype=int), listings)
    # All alike: whatever the order, the own photo is not among the four others.
    assert metrics["sibling_recall_at_4"] == 1
    assert metrics["precision_at_4"] == 1


def test_accuracy_counts_only_held_out_photos() -> None:
    photos = [photo("a", 0), photo("b", 1), photo("b", 1), photo("c", 2), photo("d", 2)]
    predicted = [5, 1, 2, 2, 7]  # a and d are wrong, and seen
    scores = np.eye(13, dtype=np.float32)[predicted]
    metrics = evaluate(photos, Embeddings(on_a_circle([0, 1, 2, 3, 4]), scores), frozenset({"b", "c"}))
    assert (metrics["n_photos"], metrics["n_held_out"]) == (5, 3)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    # Category 1: precision 1, recall 1/2, F1 2/3. Category 2: precision 1/2, recall 1, F1 2/3.
    assert metrics["macro_f1"] == pytest.approx(2 / 3)


def test_without_held_out_listings_no_accuracy_is_claimed() -> None:
    metrics = figures(EXAMPLE_PHOTOS, EXAMPLE_VECTORS, frozenset({"of another catalogue"}))
    assert metrics["n_held_out"] == 0
    assert not {"accuracy", "macro_f1"} & metrics.keys()


def test_every_category_can_be_fitted_and_named() -> None:
    features, labels = clusters(list(range(len(CATEGORIES))), n_each=3)
    best = head_scores(fit_head(features, labels), features).argmax(1)
    assert {CATEGORIES[index] for index in best} == set(CATEGORIES)
