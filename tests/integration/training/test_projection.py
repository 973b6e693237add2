"""The projection: siblings found although photos of one thing differ much, and nothing kept that finds no more."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluation.evaluate import evaluate
from pipeline.training.projection import _principal_axes, fit_projection
from shared.array_types import FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.model.bundle import Split
from shared.model.embedder import Embeddings, normalised
from shared.model.network import NORMALISATION, Network
from shared.settings import Backbone

N_LISTINGS = 120


@pytest.fixture
def network() -> Network:
    """One that pools few values, which is all that these tests take of it."""
    torch.manual_seed(0)
    made = Network(Backbone.EFFICIENTNET_LITE0, NORMALISATION[Backbone.EFFICIENTNET_LITE0])
    made.features.trunk.levels = (240, 80)
    made.head = nn.Linear(240, 13)
    return made


def photos(n_each: int = 2) -> list[CataloguePhoto]:
    return [
        CataloguePhoto(f"{listing}-{n}", f"l{listing}", listing % 4, Path("unused"), f"{listing:032x}{n:032x}")
        for listing in range(N_LISTINGS)
        for n in range(n_each)
    ]


def split() -> Split:
    ids = [f"l{listing}" for listing in range(N_LISTINGS)]
    return Split(train=frozenset(ids[:80]), validation=frozenset(ids[80:100]), test=frozenset(ids[100:]))


def pooled(network: Network, catalogue: list[CataloguePhoto], *, lighting: float) -> FloatArray:
    """Things that differ in a few faint directions, in photos that differ much more in a few others."""
    rng = np.random.default_rng(3)
    width = sum(network.features.trunk.levels)
    of_things, of_light = rng.standard_normal((6, width)), rng.standard_normal((6, width))
    things = rng.standard_normal((N_LISTINGS, 6))
    rows = [int(photo.listing_id[1:]) for photo in catalogue]
    light = rng.standard_normal((len(rows), 6)) * lighting
    values: FloatArray = (things[rows] @ of_things + light @ of_light).astype(np.float32)
    return values + rng.standard_normal(values.shape).astype(np.float32) * 0.1


def unseen_siblings_found(network: Network, catalogue: list[CataloguePhoto], values: FloatArray) -> float:
    with torch.inference_mode():
        vectors, scores = (part.numpy() for part in network.answer(torch.from_numpy(values)))
    return evaluate(catalogue, Embeddings(normalised(vectors), scores), split()).summary()["unseen_sibling_recall_at_1"]


def test_what_photos_of_one_thing_differ_by_no_longer_hides_the_thing(network: Network) -> None:
    catalogue = photos()
    values = pooled(network, catalogue, lighting=3)
    before = unseen_siblings_found(network, catalogue, values)
    notes = fit_projection(network, catalogue, values, split())
    assert notes["projection"] == "kept"
    assert unseen_siblings_found(network, catalogue, values) > before + 0.3


def test_the_head_s_probabilities_bring_a_category_together(network: Network) -> None:
    catalogue = photos()
    values = pooled(network, catalogue, lighting=5)
    for row, photo in enumerate(catalogue):
        values[row, photo.category] += 1000  # which the first outputs of the head read
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(13, network.head.in_features) * 0.01)
        network.head.bias.zero_()
    values[:, :13] -= 500
    notes = fit_projection(network, catalogue, values, split())
    assert notes["projection"] == "kept"
    assert float(notes["projected_precision_at_4"]) > 0.99


def test_without_pairs_there_is_nothing_to_learn_from(network: Network) -> None:
    catalogue = photos(n_each=1)
    notes = fit_projection(network, catalogue, pooled(network, catalogue, lighting=1), split())
    assert network.projection is None
    assert notes == {"projection": "none: 0 pairs of one listing to learn from, 20 photos to choose by"}


def test_without_validation_there_is_nothing_to_choose_by(network: Network) -> None:
    catalogue = photos()
    everything = Split(train=split().listings)
    notes = fit_projection(network, catalogue, pooled(network, catalogue, lighting=1), everything)
    assert network.projection is None
    assert notes == {"projection": "none: 120 pairs of one listing to learn from, 0 photos to choose by"}


def test_a_projection_that_finds_no_more_is_not_kept(network: Network) -> None:
    catalogue = photos()
    values = pooled(network, catalogue, lighting=0)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([1.0] + [0.0] * 12))
    values[:, :4] += np.eye(4, dtype=np.float32)[[photo.category for photo in catalogue]] * 1000
    notes = fit_projection(network, catalogue, values, split())
    assert network.projection is None
    assert str(notes["projection"]).startswith("none: it finds no more")


def test_a_projection_travels_with_the_weights(network: Network) -> None:
    catalogue = photos()
    values = pooled(network, catalogue, lighting=5)
    fit_projection(network, catalogue, values, split())
    other = Network(Backbone.EFFICIENTNET_LITE0, NORMALISATION[Backbone.EFFICIENTNET_LITE0])
    other.head = nn.Linear(240, 13)
    other.load_tensors(network.tensors())
    assert other.embedding_dim == network.embedding_dim
    with torch.inference_mode():
        for one, same in zip(
            network.answer(torch.from_numpy(values)), other.answer(torch.from_numpy(values)), strict=True
        ):
            assert torch.equal(one, same)


def test_fewer_photos_than_columns_have_the_same_axes_as_many() -> None:
    few = np.random.default_rng(5).standard_normal((20, 50)) * np.linspace(1, 3, 50)
    spread, axes = _principal_axes(few)
    of_many, their_axes = _principal_axes(np.concatenate([few, np.zeros((40, 50))]))
    assert np.allclose(of_many, [*spread, *[0] * 30])
    assert np.allclose(np.abs(axes.T @ their_axes[:, :20]), np.eye(20))
    assert np.allclose(few @ axes @ axes.T, few)
