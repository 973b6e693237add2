"""Matches: probabilities of being the same thing, on things drawn so that the truth is known."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.intervals import bootstrap
from pipeline.evaluation.matches import evaluate_matches, measure_matches
from pipeline.training.calibration.fusion import Labelled
from pipeline.training.calibration.matching import MatchCases, calibrate_matching, fit_matching, match_cases
from shared.array_types import DoubleArray, FloatArray, IntArray
from shared.catalogue.categories import CataloguePhoto
from shared.model.bundle import POOLED, Split
from shared.model.embedder import Embeddings, normalised
from shared.model.matching import Matching
from tests.support.copies import jpeg, scene

N_THINGS = 1200
DIM = 24


def drawn(spread: tuple[float, float], seed: int = 1) -> tuple[Labelled, list[CataloguePhoto]]:
    """Two photos of each thing: some things look the same in both, others hardly do; `spread` is least and most."""
    rng = np.random.default_rng(seed)
    things = normalised(rng.normal(size=(N_THINGS, DIM)).astype(np.float32))
    noise = rng.normal(size=(2 * N_THINGS, DIM)) * np.repeat(rng.uniform(*spread, N_THINGS), 2)[:, None] / DIM**0.5
    vectors = normalised((np.repeat(things, 2, axis=0) + noise).astype(np.float32))
    photos = [CataloguePhoto(f"p{i}", f"l{i // 2}", 0, Path("x.jpg"), f"{i:064x}") for i in range(2 * N_THINGS)]
    scores = np.zeros((len(photos), 2), dtype=np.float32)
    return Labelled.of(photos, Embeddings(vectors, scores), POOLED), photos


SPLIT = Split(
    validation=frozenset(f"l{i}" for i in range(400)),
    test=frozenset(f"l{i}" for i in range(400, 800)),
    train=frozenset(f"l{i}" for i in range(800, N_THINGS)),
)


def of_catalogue(
    labelled: Labelled, photos: list[CataloguePhoto], rows: IntArray
) -> tuple[Labelled, list[CataloguePhoto]]:
    """A part of a catalogue."""
    some = [photos[row] for row in rows]
    vectors, scores = labelled.embeddings
    return Labelled.of(some, Embeddings(vectors[rows], scores[rows]), POOLED), some


@pytest.fixture(scope="module")
def hard() -> tuple[Labelled, list[CataloguePhoto], Matching]:
    labelled, photos = drawn((0.3, 1.3))
    said: list[str] = []
    matching = fit_matching(labelled, photos, SPLIT, said.append)
    assert matching is not None
    assert "calibrated on 800 validation photos" in said[0]
    return labelled, photos, matching.by_doubt


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_probabilities_are_right_on_unseen_things_and_in_an_index_of_another_size(
    hard: tuple[Labelled, list[CataloguePhoto], Matching], share: float
) -> None:
    labelled, photos, matching = hard
    first = 2 * 400 if share < 1 else 0  # of the things that are unseen
    part, some = of_catalogue(labelled, photos, np.arange(first, first + int(share * len(photos))))
    unseen = np.isin(part.listings, sorted(SPLIT.test))
    found = evaluate_matches(part, some, matching, unseen)
    assert found is not None
    assert found.n_queries == 2 * unseen.sum()
    assert 0.3 < found.found_first < 0.9
    # Exact probabilities measure about .02 on so many queries.
    assert found.ece < 0.05
    assert found.ece_interval.low < found.ece < found.ece_interval.high
    assert found.same.coverage > 0.1
    assert found.same.precision is not None
    assert found.same.precision > 0.92


def test_that_a_thing_is_missing_is_certain_only_where_those_that_are_there_are_recognised(
    hard: tuple[Labelled, list[CataloguePhoto], Matching],
) -> None:
    assert hard[2].absent_below == 0
    labelled, photos = drawn((0.2, 0.5))
    fitted = fit_matching(labelled, photos, SPLIT, lambda line: None)
    assert fitted is not None
    matching = fitted.by_doubt
    found = evaluate_matches(labelled, photos, matching, np.isin(labelled.listings, sorted(SPLIT.test)))
    assert found is not None
    assert found.absent.coverage > 0.45
    assert found.absent.precision is not None
    assert found.absent.precision > 0.95
    assert found.summary()["no_match_coverage_at_95"] == found.absent.coverage
    assert 0 < matching.absent_below <= 0.5 <= matching.same_from


def drawn_cases(truth: Matching, n: int = 4_000, *, backwards: bool = False) -> MatchCases:
    """Searches whose outcome is drawn by a calibration."""
    rng = np.random.default_rng(3)
    last, best, chance = rng.uniform(0.2, 0.4, n), rng.uniform(0.4, 1.0, n), rng.uniform(0.0, 1.0, n)
    following = rng.uniform(last, best)
    chances = truth.probability(best, following, last, chance)
    same = rng.random(n) < (1 - chances if backwards else chances)
    one, other, far, likely = (values.astype(np.float32) for values in (best, following, last, chance))
    return MatchCases(one, other, far, likely, same, same, np.arange(n))


def test_weights_are_those_that_the_truth_was_drawn_by_and_never_negative() -> None:
    truth = Matching(k=40, bias=-4.0, lead=0.0, nearness=1.0, log_lead=1.5, doubt=0.7, same_from=1.0)
    cases = drawn_cases(truth)
    found = calibrate_matching(cases, 40)
    assert (found.bias, found.nearness, found.lead) == pytest.approx((-4.0, 1.0, 0.0), abs=0.6)
    assert (found.log_lead, found.doubt) == pytest.approx((1.5, 0.7), abs=0.3)
    figures = measure_matches(cases, found)
    assert figures.ece < 2 * figures.ece_if_exact + 0.01
    assert figures.same.precision == pytest.approx(0.95, abs=0.03)
    backwards = calibrate_matching(drawn_cases(truth, backwards=True), 40)
    assert (backwards.log_lead, backwards.nearness, backwards.doubt) == (0, 0, 0)


def test_a_match_that_the_head_doubts_is_surer_and_earlier_builds_have_a_calibration_without_that() -> None:
    truth = Matching(k=40, bias=-4.0, lead=0.0, nearness=1.0, log_lead=1.5, doubt=1.2, same_from=1.0)
    cases = drawn_cases(truth)
    by_doubt, by_lead = calibrate_matching(cases, 40), calibrate_matching(cases, 40, ("lead", "nearness"))

    def losses(matching: Matching) -> DoubleArray:
        chances = matching.probability(*cases.evidence)
        return -np.log(np.where(cases.same, chances, 1 - chances))

    gain = losses(by_lead) - losses(by_doubt)
    assert bootstrap(gain, cases.things).low > 0.01
    assert (by_lead.log_lead, by_lead.doubt) == (0, 0)
    assert measure_matches(cases, by_lead).ece < 0.05
    likely, doubted = (by_doubt.probability(*(np.array([x]) for x in (0.8, 0.7, 0.4, c))).item() for c in (0.9, 0.05))
    assert doubted > likely + 0.1


def test_listings_that_share_a_photo_show_one_thing() -> None:
    labelled, photos = drawn((0.2, 0.5))
    twice = CataloguePhoto("copy", "l0 again", 0, Path("x.jpg"), photos[0].sha256)
    vectors: FloatArray = np.concatenate([labelled.embeddings.vectors, labelled.embeddings.vectors[:1]])
    scores = np.zeros((len(vectors), 2), dtype=np.float32)
    cases = match_cases(
        Labelled.of([*photos, twice], Embeddings(vectors, scores), POOLED), [*photos, twice], np.arange(1)
    )
    assert cases is not None
    assert cases.present.tolist() == cases.same.tolist() == [True, False]
    assert cases.best[0] == pytest.approx(1)


def test_a_picture_that_was_stored_anew_for_another_listing_shows_the_same_thing(tmp_path: Path) -> None:
    labelled, photos = drawn((0.2, 0.5))
    pictures = [scene(seed) for seed in (1, 2)]
    stored = [tmp_path / f"{name}.jpg" for name in ("one", "anew", "other")]
    for path, content in zip(stored, (jpeg(pictures[0]), jpeg(pictures[0], 40), jpeg(pictures[1])), strict=True):
        path.write_bytes(content)
    files = [
        CataloguePhoto(f"f{row}", f"f{row}", 0, path, hashlib.sha256(path.read_bytes()).hexdigest())
        for row, path in enumerate(stored)
    ]
    # The two listings of one picture have no photo else; the third one's photo is as similar, and another picture.
    vectors = np.concatenate([np.repeat(labelled.embeddings.vectors[:1], 3, axis=0), labelled.embeddings.vectors[200:]])
    scores = np.zeros((len(vectors), 2), dtype=np.float32)

    def cases(some: list[CataloguePhoto]) -> MatchCases | None:
        shown = [*some, *photos[200:]]
        rows = Labelled.of(shown, Embeddings(vectors[3 - len(some) :], scores[3 - len(some) :]), POOLED)
        return match_cases(rows, shown, np.arange(len(some)))

    found = cases(files[:2])
    assert found is not None
    assert found.same.tolist() == found.present.tolist() == [True, True, False, False]
    assert cases(files[1:]) is None
    stored[1].write_bytes(b"another file")  # which is not the one that was embedded
    assert cases(files[:2]) is None


def test_too_few_photos_calibrate_nothing() -> None:
    labelled, photos = drawn((0.2, 0.5))
    said: list[str] = []
    few = Split(validation=frozenset(f"l{i}" for i in range(20)))
    assert fit_matching(labelled, photos, few, said.append) is None
    assert fit_matching(*of_catalogue(labelled, photos, np.arange(30)), SPLIT, said.append) is None
    single = of_catalogue(labelled, photos, np.arange(0, len(photos), 2))
    assert fit_matching(*single, SPLIT, said.append) is None
    assert said == 3 * ["matches: not calibrated, too few validation listings have several photos"]


def test_listings_said_to_show_one_thing_are_one_where_matches_are_calibrated() -> None:
    labelled, photos = drawn((0.3, 1.3))
    relisted = [one if row % 2 == 0 else replace(one, listing_id=f"again-{row}") for row, one in enumerate(photos)]
    found = Labelled.of(relisted, labelled.embeddings, POOLED)
    assert match_cases(found, relisted, np.arange(800)) is None  # each listing has one photo
    pairs = [(photos[row].listing_id, f"again-{row}") for row in range(1, 800, 2)]
    cases = match_cases(found, relisted, np.arange(800), pairs=pairs)
    assert cases is not None
    assert len(cases.same) == 2 * 800
    assert cases.same[cases.present].mean() > 0.4
