"""The head on examples small enough to check by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.training import head as head_module
from pipeline.training.head import Head, fit_head
from shared.array_types import FloatArray
from shared.catalogue.categories import CATEGORIES
from shared.model.fusion import softmax

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
    head = fit_head(features, labels, len(CATEGORIES))
    assert (head.weight.shape, head.bias.shape) == ((13, 32), (13,))
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head_scores(head, features).argmax(1).tolist() == labels
    # Not even features far outside of what was seen make an absent category win.
    strange = np.random.default_rng(1).standard_normal((200, 32)).astype(np.float32) * 100
    assert set(head_scores(head, strange).argmax(1).tolist()) <= set(categories)


@pytest.mark.parametrize("categories", [[0, 12], [3, 5, 8], list(range(13))])
def test_the_folded_layer_equals_the_standardised_model(categories: list[int]) -> None:
    features, labels = clusters(categories)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=head_module._C, max_iter=300)).fit(features, labels)
    compacted = softmax(head_scores(fit_head(features, labels, len(CATEGORIES)), features))
    # Two separate runs of an optimiser that stops at a gradient of 1e-4, then float32.
    np.testing.assert_allclose(compacted[:, sorted(categories)], model.predict_proba(features), atol=2e-3)
    absent = sorted(set(range(13)) - set(categories))
    assert (compacted[:, absent] == 0).all()


def test_scale_and_offset_of_the_features_do_not_change_the_scores() -> None:
    features, labels = clusters(list(range(13)))
    moved = features * np.float32(8) + np.float32(4)
    one, other = (
        head_scores(fit_head(features, labels, len(CATEGORIES)), features),
        head_scores(fit_head(moved, labels, len(CATEGORIES)), moved),
    )
    # Standardising takes both out; what remains is float32 and where the optimiser stops.
    np.testing.assert_allclose(one, other, atol=5e-3)


def test_a_feature_that_is_always_zero_leaves_the_scores_finite() -> None:
    features, labels = clusters([0, 1, 2])
    features[:, 5] = 0
    head = fit_head(features, labels, len(CATEGORIES))
    assert np.isfinite(head.weight).all()
    assert head_scores(head, features).argmax(1).tolist() == labels


def test_every_category_can_be_fitted_and_named() -> None:
    features, labels = clusters(list(range(len(CATEGORIES))), n_each=3)
    best = head_scores(fit_head(features, labels, len(CATEGORIES)), features).argmax(1)
    assert {CATEGORIES[index] for index in best} == set(CATEGORIES)
