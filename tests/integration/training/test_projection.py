"""The projection: siblings found although photos of one thing differ much, and nothing kept that finds no more."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.evaluate import evaluate
from pipeline.training.head import Head, Heads
from pipeline.training.projection import _principal_axes, fit_projection
from shared.array_types import FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.model.bundle import Split
from shared.model.embedder import Embeddings, normalised

N_LISTINGS = 120


LEVELS = (240, 80)  # few, which is all that these tests need


@pytest.fixture
def head() -> Head:
    rng = np.random.default_rng(1)
    return Head(
        (rng.uniform(-1, 1, (13, 240)) / 15).astype(np.float32), (rng.uniform(-1, 1, 13) / 15).astype(np.float32)
    )


def photos(n_each: int = 2) -> list[CataloguePhoto]:
    return [
        CataloguePhoto(f"{listing}-{n}", f"l{listing}", listing % 4, Path("unused"), f"{listing:032x}{n:032x}")
        for listing in range(N_LISTINGS)
        for n in range(n_each)
    ]


def split() -> Split:
    ids = [f"l{listing}" for listing in range(N_LISTINGS)]
    return Split(train=frozenset(ids[:80]), validation=frozenset(ids[80:100]), test=frozenset(ids[100:]))


def pooled(catalogue: list[CataloguePhoto], *, lighting: float) -> FloatArray:
    """Things that differ in a few faint directions, in photos that differ much more in a few others."""
    rng = np.random.default_rng(3)
    width = sum(LEVELS)
    of_things, of_light = rng.standard_normal((6, width)), rng.standard_normal((6, width))
    things = rng.standard_normal((N_LISTINGS, 6))
    rows = [int(photo.listing_id[1:]) for photo in catalogue]
    light = rng.standard_normal((len(rows), 6)) * lighting
    values: FloatArray = (things[rows] @ of_things + light @ of_light).astype(np.float32)
    return values + rng.standard_normal(values.shape).astype(np.float32) * 0.1


def unseen_siblings_found(heads: Heads, catalogue: list[CataloguePhoto], values: FloatArray) -> float:
    vectors, scores = heads.answer(values)
    return evaluate(catalogue, Embeddings(normalised(vectors), scores), split()).summary()["unseen_sibling_recall_at_1"]


def test_what_photos_of_one_thing_differ_by_no_longer_hides_the_thing(head: Head) -> None:
    catalogue = photos()
    values = pooled(catalogue, lighting=3)
    before = unseen_siblings_found(Heads(head), catalogue, values)
    heads, notes = fit_projection(head, LEVELS, catalogue, values, split())
    assert notes["projection"] == "kept"
    assert unseen_siblings_found(heads, catalogue, values) > before + 0.3


def test_the_head_s_probabilities_bring_a_category_together() -> None:
    catalogue = photos()
    values = pooled(catalogue, lighting=5)
    for row, photo in enumerate(catalogue):
        values[row, photo.category] += 1000  # which the first outputs of the head read
    head = Head(np.eye(13, 240, dtype=np.float32) * np.float32(0.01), np.zeros(13, np.float32))
    values[:, :13] -= 500
    _, notes = fit_projection(head, LEVELS, catalogue, values, split())
    assert notes["projection"] == "kept"
    assert float(notes["projected_precision_at_4"]) > 0.99


def test_without_pairs_there_is_nothing_to_learn_from(head: Head) -> None:
    catalogue = photos(n_each=1)
    heads, notes = fit_projection(head, LEVELS, catalogue, pooled(catalogue, lighting=1), split())
    assert heads.projection is None
    assert notes == {"projection": "none: 0 pairs of one listing to learn from, 20 photos to choose by"}


def test_without_validation_there_is_nothing_to_choose_by(head: Head) -> None:
    catalogue = photos()
    everything = Split(train=split().listings)
    heads, notes = fit_projection(head, LEVELS, catalogue, pooled(catalogue, lighting=1), everything)
    assert heads.projection is None
    assert notes == {"projection": "none: 120 pairs of one listing to learn from, 0 photos to choose by"}


def test_a_projection_that_finds_no_more_is_not_kept() -> None:
    catalogue = photos()
    values = pooled(catalogue, lighting=0)
    head = Head(np.zeros((13, 240), np.float32), np.eye(13, dtype=np.float32)[0])
    values[:, :4] += np.eye(4, dtype=np.float32)[[photo.category for photo in catalogue]] * 1000
    heads, notes = fit_projection(head, LEVELS, catalogue, values, split())
    assert heads.projection is None
    assert str(notes["projection"]).startswith("none: it finds no more")


def test_a_projection_travels_with_the_weights(head: Head) -> None:
    catalogue = photos()
    values = pooled(catalogue, lighting=5)
    heads, _ = fit_projection(head, LEVELS, catalogue, values, split())
    other = Heads.of(heads.tensors())
    assert other.embedding_dim == heads.embedding_dim
    for one, same in zip(heads.answer(values), other.answer(values), strict=True):
        assert np.array_equal(one, same)


def test_fewer_photos_than_columns_have_the_same_axes_as_many() -> None:
    few = np.random.default_rng(5).standard_normal((20, 50)) * np.linspace(1, 3, 50)
    spread, axes = _principal_axes(few)
    of_many, their_axes = _principal_axes(np.concatenate([few, np.zeros((40, 50))]))
    assert np.allclose(of_many, [*spread, *[0] * 30])
    assert np.allclose(np.abs(axes.T @ their_axes[:, :20]), np.eye(20))
    assert np.allclose(few @ axes @ axes.T, few)


def test_pairs_from_feedback_are_learned_from_where_they_find_more_and_left_out_where_they_do_not(
    head: Head,
) -> None:
    catalogue = photos(3)  # of which two are in other listings, as relisted things are
    values = pooled(catalogue, lighting=3)
    alone = [
        replace(photo, listing_id=f"{photo.listing_id}-{row % 3}") if row // 3 < 60 else photo
        for row, photo in enumerate(catalogue)
    ]
    ids = {photo.listing_id for photo in alone}
    train = frozenset(one for one in ids if int(one[1:].split("-")[0]) < 80)
    apart = Split(train=train, validation=split().validation, test=split().test)
    right = [(f"l{n}-0", f"l{n}-{other}") for n in range(60) for other in (1, 2)]
    rng = np.random.default_rng(1)
    wrong = [(f"l{rng.integers(60)}-0", f"l{rng.integers(60)}-1") for _ in right]
    told = {}
    for name, pairs in (("none", []), ("right", right), ("wrong", wrong)):
        _, told[name] = fit_projection(head, LEVELS, alone, values, apart, pairs)
    found = "projected_sibling_recall_at_4"
    assert "projection_pairs" not in told["none"]
    assert told["right"]["projection_pairs"] == "used"
    assert float(told["right"][found]) > float(told["none"][found])
    assert told["wrong"] == {**told["none"], "projection_pairs": "left out: more is found without them"}
