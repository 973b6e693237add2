"""Batches, learning rates and losses on examples small enough to check by hand."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.training.network.loop import _lr_factor
from pipeline.training.network.objectives import Mixture, _soft_targets, contrast, draw_mixture
from pipeline.training.network.samples import Samples
from pipeline.training.recipes import RECIPES, Recipe
from shared.catalogue.categories import CataloguePhoto
from shared.model.bundle import Split

PHOTOS = [CataloguePhoto(f"p{n}", f"l{n // 2}", n // 2 % 3, Path("unused.jpg"), str(n)) for n in range(40)]
SPLIT = Split(train=frozenset(f"l{n}" for n in range(16)), validation=frozenset(["l16", "l17"]))
SAMPLES = Samples.of(PHOTOS, {f"l{n}": f"topic {n % 5}" for n in range(20)}, SPLIT)
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", RECIPES)
def test_an_epoch_has_every_training_photo_once_and_no_other(name: str) -> None:
    recipe = dataclasses.replace(RECIPES[name], batch=10)
    batches = SAMPLES.epoch(3, recipe, seed=1)
    assert sorted(row for batch in batches for row, _ in batch) == list(range(32))
    assert {len(batch) for batch in batches} == {8}
    assert batches == SAMPLES.epoch(3, recipe, seed=1)
    assert batches != SAMPLES.epoch(4, recipe, seed=1)
    assert batches != SAMPLES.epoch(3, recipe, seed=2)


def test_cached_views_are_all_that_epochs_ask_for() -> None:
    recipe = RECIPES["head"]
    cached = set(SAMPLES.cached_views(recipe))
    assert {view for epoch in range(9) for batch in SAMPLES.epoch(epoch, recipe, 1) for view in batch} <= cached
    assert cached >= {(row, 0) for row in (32, 33, 34, 35)}
    assert not {row for row, _ in cached} & {36, 37, 38, 39}  # what is measured on is not even looked at


def test_without_a_cache_every_epoch_has_views_of_its_own() -> None:
    seen = [{view for batch in SAMPLES.epoch(epoch, RECIPES["seed"], 1) for _, view in batch} for epoch in range(3)]
    assert seen == [{1}, {2}, {3}]


def test_where_pairs_are_trained_photos_of_a_listing_share_a_batch() -> None:
    for batch in SAMPLES.epoch(0, Recipe("pairs", n_trained_stages=1, epochs=1, batch=8, pairs=1), seed=1):
        listings = [PHOTOS[row].listing_id for row, _ in batch]
        assert all(listings.count(listing) == 2 for listing in listings)


def test_smoothing_goes_to_categories_that_have_photos() -> None:
    targets = _soft_targets(np.array([0, 2, 2]), 4, 0.1, CPU)
    np.testing.assert_allclose(targets[2], [0.05, 0, 0.95, 0], atol=1e-6)
    np.testing.assert_allclose(_soft_targets(np.array([1]), 2, 0.0, CPU), np.eye(2))


def test_a_mixed_photo_is_mostly_itself() -> None:
    shares = [draw_mixture(0.2, 4, np.random.default_rng(seed)).share for seed in range(50)]
    assert all(0.5 <= share <= 1 for share in shares)
    assert len(set(shares)) > 1
    mixed = Mixture(0.75, torch.tensor([1, 0])).of(torch.tensor([[4.0], [8.0]]))
    assert mixed.flatten().tolist() == [5.0, 7.0]
    batch = torch.ones(3)
    assert draw_mixture(0, 3, np.random.default_rng(0)).of(batch) is batch


def test_contrast_is_the_mean_log_share_of_the_siblings() -> None:
    x = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    # Photos 0 and 1 are one listing, alike (1), and unlike photo 2 (0); photo 2 has no sibling.
    expected = -math.log(math.exp(2) / (math.exp(2) + 1))
    assert float(contrast(x, torch.tensor([5, 5, 9]), 0.5)) == pytest.approx(expected, rel=1e-6)


def test_contrast_without_siblings_is_nothing_and_can_be_learnt_from() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    loss = contrast(x, torch.tensor([1, 2, 3]), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_contrast_falls_as_siblings_draw_near() -> None:
    torch.manual_seed(0)
    x, listings = torch.randn(16, 8), torch.arange(16) // 2
    nearer = x + 0.5 * x.reshape(8, 2, 8).flip(1).reshape(16, 8)
    assert contrast(nearer, listings, 0.1) < contrast(x, listings, 0.1)


def test_pairs_and_mixtures_exclude_one_another() -> None:
    with pytest.raises(ValueError, match="mixup"):
        Recipe("both", n_trained_stages=1, epochs=1, pairs=1, mixup=0.2)


def test_learning_rates_rise_and_then_fall_to_nothing() -> None:
    recipe = Recipe("any", n_trained_stages=1, epochs=1, warmup=0.1, cosine=True)
    assert _lr_factor(recipe, 0.05) == pytest.approx(0.5)
    assert _lr_factor(recipe, 0.1) == pytest.approx(1)
    assert _lr_factor(recipe, 0.55) == pytest.approx(0.5)
    assert _lr_factor(recipe, 1.0) == pytest.approx(0)
    assert {_lr_factor(RECIPES["seed"], done) for done in (0, 0.3, 1)} == {1.0}
