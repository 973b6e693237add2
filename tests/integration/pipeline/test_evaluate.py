"""Figures of a bundle, on examples small enough to check by hand"""

from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.evaluate import (
    NOTHING_UNSEEN,
    ONE_CATEGORY,
    SPLIT_UNKNOWN,
    Classification,
    Evaluation,
    compare,
    evaluate,
    joint_split,
    measure,
)
from pipeline.evaluation.intervals import bootstrap
from shared.array_types import FloatArray
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.model.bundle import Split
from shared.model.embedder import Embeddings


def photo(listing_id: str, category: int) -> CataloguePhoto:
    return CataloguePhoto(f"p-{listing_id}-{category}", listing_id, category, Path("unused.jpg"))


def vectors(n: int, seed: int = 0) -> FloatArray:
    drawn = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    lengths: FloatArray = np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn / lengths


def answering(categories: list[int], score: float = 1.0) -> FloatArray:
    scores: FloatArray = np.eye(13, dtype=np.float32)[categories] * np.float32(score)
    return scores


PHOTOS = [photo("a", 0), photo("b", 1), photo("b", 1), photo("c", 2), photo("d", 2)]
SPLIT = Split(train=frozenset("a"), validation=frozenset("d"), test=frozenset("b"))  # c came later


def example(split: Split = SPLIT) -> Evaluation:
    predicted = [5, 1, 2, 2, 7]  # a and d are wrong, and seen
    return evaluate(PHOTOS, Embeddings(vectors(5), answering(predicted)), split)


def classified(evaluation: Evaluation) -> Classification:
    assert evaluation.classification is not None
    return evaluation.classification


def test_accuracy_counts_photos_that_are_held_out_or_new_and_not_those_chosen_on() -> None:
    metrics = example().summary()
    assert (metrics["n_photos"], metrics["n_held_out"]) == (5, 3)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    # Category 1: precision 1, recall 1/2, F1 2/3. Category 2: precision 1/2, recall 1, F1 2/3.
    assert metrics["macro_f1"] == pytest.approx(2 / 3)


def test_the_confusion_and_the_table_say_which_category_was_answered_what() -> None:
    found = classified(example())
    confusion = np.array(found.confusion)
    assert (confusion[1, 1], confusion[1, 2], confusion[2, 2], confusion.sum()) == (1, 1, 1, 3)
    assert [(c.name, c.n, c.precision, c.recall) for c in found.categories[:3]] == [
        (CATEGORIES[0], 0, 0, 0),
        (CATEGORIES[1], 2, 1, 0.5),
        (CATEGORIES[2], 1, 0.5, 1),
    ]


def test_the_right_category_among_the_three_best_counts_for_top_3() -> None:
    scores = np.tile(np.arange(13, 0, -1, dtype=np.float32), (4, 1))  # answers 0, then 1, then 2
    photos = [photo(str(n), category) for n, category in enumerate((0, 2, 3, 12))]
    found = evaluate(photos, Embeddings(vectors(4), scores), Split(test=frozenset("0123")))
    assert classified(found).top_3 == pytest.approx(2 / 4)


def test_the_majority_is_that_of_the_photos_seen() -> None:
    split = Split(train=frozenset("abc"), test=frozenset("de"))
    photos = [photo("a", 1), photo("b", 1), photo("c", 2), photo("d", 2), photo("e", 1), photo("d", 2)]
    found = classified(evaluate(photos, Embeddings(vectors(6), answering([0] * 6)), split))
    assert found.majority == pytest.approx(1 / 3)
    assert found.chance == pytest.approx(1 / 13)


def test_calibration_error_is_the_distance_between_being_sure_and_being_right() -> None:
    # A score of log(12) against zeros is a probability of 1/2; three of four are right.
    photos = [photo(str(n), category) for n, category in enumerate((0, 0, 0, 1))]
    embeddings = Embeddings(vectors(4), answering([0] * 4, float(np.log(12))))
    found = classified(evaluate(photos, embeddings, Split(test=frozenset("0123"))))
    # Each photo is a bin of its own: three times 1/2 too unsure, once 1/2 too sure.
    assert found.calibrated.ece == pytest.approx(0.5)
    assert found.calibrated.nll == pytest.approx((3 * np.log(2) + np.log(24)) / 4)
    assert found.calibrated == found.uncalibrated


def test_a_temperature_changes_probabilities_and_no_answers() -> None:
    photos = [photo(str(n), n % 2) for n in range(40)]
    embeddings = Embeddings(vectors(40), answering([n % 3 for n in range(40)], 9.0))
    split = Split(test=frozenset(photo.listing_id for photo in photos))
    warm, plain = (classified(evaluate(photos, embeddings, split, temperature=t)) for t in (4.0, 1.0))
    assert warm.uncalibrated == plain.calibrated
    assert warm.calibrated.nll < plain.calibrated.nll
    assert warm.confusion == plain.confusion


def test_fewer_answers_are_surer_ones_and_all_of_them_give_the_accuracy() -> None:
    photos = [photo(str(n), n % 13) for n in range(100)]
    rng = np.random.default_rng(0)
    scores = answering([n % 13 for n in range(100)]) + rng.normal(size=(100, 13)).astype(np.float32)
    split = Split(test=frozenset(photo.listing_id for photo in photos))
    found = classified(evaluate(photos, Embeddings(vectors(100), scores), split))
    thresholds = [point.threshold for point in found.abstention]
    assert thresholds == sorted(thresholds, reverse=True)
    assert found.abstention[-1].coverage == 1
    assert found.abstention[-1].accuracy == pytest.approx(found.accuracy)
    assert len(found.abstention) == 20


def test_neighbours_of_unseen_photos_are_looked_for_among_all() -> None:
    # b's photos lie on those of a and c, both of other categories; a and c lie on each other's category.
    photos = [photo("a", 0), photo("c", 0), photo("b", 1), photo("b", 1)]
    directions = np.deg2rad([0, 5, 1, 80])
    on_a_circle = np.stack([np.cos(directions), np.sin(directions)], axis=1).astype(np.float32)
    split = Split(train=frozenset("ac"), test=frozenset("b"))
    metrics = evaluate(photos, Embeddings(on_a_circle, answering([0] * 4)), split).summary()
    assert metrics["unseen_precision_at_4"] == 0
    assert metrics["precision_at_4"] == pytest.approx((1 / 3 + 1 / 3) / 4)
    assert (metrics["unseen_sibling_recall_at_1"], metrics["unseen_sibling_recall_at_4"]) == (0, 1)


def test_without_unseen_listings_no_accuracy_is_claimed() -> None:
    evaluation = example(Split(train=frozenset("abcd")))
    metrics = evaluation.summary()
    assert evaluation.classification is None
    assert metrics["n_held_out"] == 0
    assert not {"accuracy", "macro_f1", "unseen_precision_at_4"} & metrics.keys()
    assert "precision_at_4" in metrics
    assert evaluation.notes == [NOTHING_UNSEEN]


def test_a_head_of_unknown_origin_is_measured_on_everything_and_that_is_said() -> None:
    evaluation = example(Split())
    assert evaluation.summary()["n_held_out"] == 5
    assert evaluation.notes == [SPLIT_UNKNOWN]


def test_unseen_photos_of_one_category_are_said_to_say_little() -> None:
    assert example(Split(train=frozenset("abd"))).notes == [ONE_CATEGORY]


def test_a_single_photo_can_be_measured() -> None:
    evaluation = evaluate([photo("a", 3)], Embeddings(vectors(1), answering([3])), Split(test=frozenset("a")))
    metrics = evaluation.summary()
    assert (metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"]) == (1, 1, 1)
    assert "precision_at_4" not in metrics


def test_an_evaluation_is_the_same_when_it_is_read_again_and_when_it_is_made_again() -> None:
    assert Evaluation.model_validate_json(example().model_dump_json()) == example()


# Intervals


def test_the_interval_of_independent_photos_is_that_of_the_textbook() -> None:
    right = (np.arange(400) < 200).astype(np.float64)
    found = bootstrap(right, np.arange(400))
    # 1.96 * sqrt(0.25 / 400) = 0.049; the bootstrap's own noise is a few thousandths.
    assert found.low == pytest.approx(0.451, abs=0.008)
    assert found.high == pytest.approx(0.549, abs=0.008)


def test_photos_that_are_all_alike_in_a_listing_count_as_one() -> None:
    right = (np.arange(100) < 50).astype(np.float64)
    alone, together = bootstrap(right, np.arange(100)), bootstrap(np.repeat(right, 4), np.repeat(np.arange(100), 4))
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_the_interval_is_the_same_every_time() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values, np.arange(50)) == bootstrap(values, np.arange(50))


# Two bundles


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    photos = [photo(str(n), n % 13) for n in range(300)]
    split = Split(test=frozenset(photo.listing_id for photo in photos))
    rng = np.random.default_rng(0)
    wrong = rng.random(300) < 0.5  # both are wrong on the same photos, and the older one on some more
    worse = wrong | (rng.random(300) < 0.1)
    new, old = (
        measure(photos, Embeddings(vectors(300), answering([(n + mistaken[n]) % 13 for n in range(300)])), split)
        for mistaken in (wrong, worse)
    )
    found = compare(new, old)
    accuracy = found["accuracy"]
    assert accuracy.difference == pytest.approx(worse.mean() - wrong.mean())
    assert accuracy.interval.low > 0
    assert classified(new.evaluation).accuracy_interval.low < classified(old.evaluation).accuracy_interval.high
    assert found["unseen_precision_at_4"].difference == 0
    assert "unseen_sibling_recall_at_4" not in found  # no listing has two photos
    assert found.keys() <= new.evaluation.summary().keys()


def test_two_bundles_are_compared_where_neither_has_looked() -> None:
    first = Split(train=frozenset("ab"), validation=frozenset("c"), test=frozenset("de"))
    second = Split(train=frozenset("d"), validation=frozenset("f"), test=frozenset("ab"))
    split = joint_split([first, second])
    assert set("abcdefg") - split.train - split.validation == set("eg")


def test_a_query_of_all_photos_of_a_listing_stands_beside_one_of_each() -> None:
    e = np.eye(4, dtype=np.float32)
    # Each photo of `a` alone is most like four of another category; what both show, four of its own have.
    rows = [e[0], e[1], *4 * [e[0] + e[1]], *4 * [2 * e[0] + e[2]], *4 * [2 * e[1] + e[2]]]
    photos = [photo("a", 0), photo("a", 0), *(photo(f"n{n}", int(n > 3)) for n in range(12))]
    scores = answering([0, 1, *12 * [0]])
    scores[0] *= 2  # surer than the photo that is wrong
    unit = np.stack([row / np.linalg.norm(row) for row in rows])
    split = Split(train=frozenset(f"n{n}" for n in range(12)), test=frozenset("a"))
    evaluation = evaluate(photos, Embeddings(unit, scores), split)
    found = evaluation.listing_queries
    assert found is not None
    assert (found.n_listings, found.n_photos) == (1, 2)
    assert (found.accuracy.one_photo, found.accuracy.all_photos) == (0.5, 1)
    assert found.precision_at_4 is not None
    assert (found.precision_at_4.one_photo, found.precision_at_4.all_photos) == (0, 1)
    assert found.precision_at_4.difference.low == 1
    assert Evaluation.model_validate_json(evaluation.model_dump_json()).listing_queries == found
    assert example().listing_queries is not None  # of b
    assert example(Split(train=frozenset("b"))).listing_queries is None
