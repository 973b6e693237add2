"""Evaluate matches on unseen listings: is the most similar photo the same thing, and is that known?

Half of the queries' own things are missing from the catalogue: each query is asked once with its thing, once without.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.intervals import Figures, Interval, bootstrap, bootstrap_of
from pipeline.training.calibration.fusion import Labelled
from pipeline.training.calibration.matching import MatchCases, match_cases
from shared.array_types import BoolArray, DoubleArray, IntArray
from shared.catalogue.categories import CataloguePhoto
from shared.model.matching import SAME, Matching

_N_BINS = 10
_N_DRAWS = 200
_SEED = 17


class CertainMatches(Figures):
    """How often one of the two certain answers is given, and right.

    Attributes:
        coverage: share of all queries that get it.
        precision: share of those for which it is true; None: no query gets it.
        interval: of the precision.
    """

    coverage: float
    precision: float | None
    interval: Interval | None


class MatchFigures(Figures):
    """Figures of matches.

    Attributes:
        n_queries: half of them without their thing in the catalogue.
        n_things: that they show.
        found_first: share of the queries whose thing is there for which the most similar photo shows it.
        ece: expected calibration error of the probabilities, 10 bins of equal mass.
        ece_interval: 95 % by bootstrap over things; resampling itself makes it larger.
        ece_if_exact: what would be measured on as many queries if every probability were exactly right.
        same: the answer that the most similar photo shows the same thing.
        absent: the answer that there is no photo of the thing.
    """

    n_queries: int
    n_things: int
    found_first: float
    ece: float
    ece_interval: Interval
    ece_if_exact: float
    same: CertainMatches
    absent: CertainMatches

    def summary(self) -> dict[str, float | None]:
        """The figures of a bundle's manifest."""
        return {
            "match_ece": self.ece,
            "match_coverage_at_95": self.same.coverage,
            "match_precision": self.same.precision,
            "no_match_coverage_at_95": self.absent.coverage,
            "no_match_precision": self.absent.precision,
        }


def evaluate_matches(
    labelled: Labelled, photos: Sequence[CataloguePhoto], matching: Matching, unseen: BoolArray
) -> MatchFigures | None:
    """Evaluate the matches of unseen photos whose thing the catalogue has another photo of; None where there are none.

    Args:
        labelled: the catalogue.
        photos: one a row.
        matching: of the bundle.
        unseen: (n,) photos of listings that nothing was fitted or chosen on.
    """
    cases = match_cases(labelled, photos, np.flatnonzero(unseen), matching.k)
    return None if cases is None else measure_matches(cases, matching)


def measure_matches(cases: MatchCases, matching: Matching) -> MatchFigures:
    """Measure the probabilities and certain answers of a calibration on searches whose truth is known."""
    chances = matching.probability(*cases.evidence)
    return measure_answers(cases, chances, np.array([matching.certain(chance) for chance in chances.tolist()]))


def measure_answers(cases: MatchCases, chances: DoubleArray, certain: BoolArray) -> MatchFigures:
    """Measure answers to searches whose truth is known.

    Args:
        cases: the n searches.
        chances: (n,) the probabilities that were answered.
        certain: (n,) whether they were said to be certain.
    """
    same, yes = cases.same.astype(np.float64), certain & (chances >= SAME)

    def error(rows: IntArray) -> float:
        return _ece(chances[rows], same[rows])

    drawn = np.random.default_rng(_SEED).random((_N_DRAWS, len(chances))) < chances
    return MatchFigures(
        n_queries=len(same),
        n_things=len(np.unique(cases.things)),
        found_first=float(same[cases.present].mean()),
        ece=_ece(chances, same),
        ece_interval=bootstrap_of(error, cases.things),
        ece_if_exact=float(np.mean([_ece(chances, outcomes) for outcomes in drawn])),
        same=_certain(yes, cases.same, cases.things),
        absent=_certain(certain & ~yes, ~cases.present, cases.things),
    )


def _ece(chances: DoubleArray, outcomes: DoubleArray | BoolArray) -> float:
    bins = np.array_split(np.argsort(chances, kind="stable"), min(_N_BINS, len(chances)))
    return sum(len(rows) * abs(float(outcomes[rows].mean() - chances[rows].mean())) for rows in bins) / len(chances)


def _certain(answered: BoolArray, right: BoolArray, things: IntArray) -> CertainMatches:
    if not answered.any():
        return CertainMatches(coverage=0.0, precision=None, interval=None)
    return CertainMatches(
        coverage=float(answered.mean()),
        precision=float(right[answered].mean()),
        interval=bootstrap(right[answered].astype(np.float64), things[answered]),
    )
