"""Calibrate on validation listings how probable it is that the most similar photo shows the same thing.

Each photo whose thing the catalogue has another photo of is asked twice: once as the catalogue is, where another photo
of its listing may be found, and once without that thing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from pipeline.training.calibrate import lowest_threshold
from pipeline.training.fusion import Labelled
from pipeline.training.split import joined_listings, linked_listings
from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from shared.catalogue.categories import CataloguePhoto
from shared.model.bundle import Split
from shared.model.matching import TARGET_PRECISION, Matching, match_features
from shared.progress import ReportProgress

_K = 40  # as many as vote, so that one search serves both
_MIN_PHOTOS = 50  # fewer do not decide anything
_CHUNK = 512
_RIDGE = 1.0  # on standardised features, so that things which are never confused do not make weights infinite


class MatchCases(NamedTuple):
    """Searches whose truth is known.

    Attributes:
        best, of_next_listing, last: (n,) similarities, see `Matching.probability`.
        same: (n,) whether the most similar photo shows the same thing.
        present: (n,) whether the index has another photo of the thing.
        things: (n,) number of the thing that each query shows.
    """

    best: FloatArray
    of_next_listing: FloatArray
    last: FloatArray
    same: BoolArray
    present: BoolArray
    things: IntArray

    @property
    def similarities(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The arguments of `Matching.probability`."""
        return self.best, self.of_next_listing, self.last


def match_cases(
    labelled: Labelled,
    photos: Sequence[CataloguePhoto],
    rows: IntArray,
    k: int = _K,
    pairs: Sequence[tuple[str, str]] = (),
) -> MatchCases | None:
    """Search for some photos twice, with their thing in the catalogue and without it.

    Listings that share a photo show one thing.

    Args:
        labelled: the catalogue.
        photos: one a row.
        rows: (m,) of the queries; those without another photo of their thing are left out.
        k: neighbours of each.
        pairs: listings that were said to show one thing.

    Returns:
        (n,) cases, two a query; None where there are none, or fewer than `k` photos of other things.
    """
    linked = linked_listings(photos)
    representative = {photo.listing_id: thing for photo, thing in zip(photos, linked, strict=True)}
    joined = joined_listings(linked, ((representative[one], representative[other]) for one, other in pairs))
    _, things = np.unique([joined[thing] for thing in linked], return_inverse=True)
    counts = np.bincount(things)
    rows = rows[counts[things[rows]] > 1]
    if not len(rows) or len(things) - counts.max() < k:
        return None
    vectors, cases = labelled.embeddings.vectors, []
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        similar = vectors[some] @ vectors.T
        similar[np.arange(len(some)), some] = -np.inf
        own: BoolArray = np.asarray(things[some][:, None] == things)
        for present in (True, False):
            asked = similar if present else np.where(own, -np.inf, similar)
            near = np.argpartition(-asked, k - 1, axis=1)[:, :k]
            near = np.take_along_axis(near, np.argsort(-np.take_along_axis(asked, near, 1), axis=1, kind="stable"), 1)
            scores, listings = np.take_along_axis(asked, near, 1), labelled.listings[near]
            other = listings != listings[:, :1]
            following = np.where(other.any(axis=1), other.argmax(axis=1), k - 1)
            same: BoolArray = np.asarray(things[near[:, 0]] == things[some])
            next_scores = scores[np.arange(len(some)), following]
            there = np.full(len(some), present)
            cases.append(MatchCases(scores[:, 0], next_scores, scores[:, -1], same, there, things[some]))
    return MatchCases(*(np.concatenate(parts) for parts in zip(*cases, strict=True)))


def fit_matching(
    labelled: Labelled,
    photos: Sequence[CataloguePhoto],
    split: Split,
    report_progress: ReportProgress,
    same: Sequence[tuple[str, str]] = (),
) -> Matching | None:
    """Calibrate matches on the validation listings; None where they have too few listings of several photos.

    Args:
        labelled: the catalogue.
        photos: one a row.
        split: of the bundle.
        report_progress: receives what was found, as one line.
        same: validation listings that were said to show one thing.
    """
    rows = np.flatnonzero(np.isin(labelled.listings, sorted(split.validation)))
    cases = match_cases(labelled, photos, rows, pairs=same)
    if cases is None or len(cases.same) < 2 * _MIN_PHOTOS or not cases.same.any():
        report_progress("matches: not calibrated, too few validation listings have several photos")
        return None
    matching = calibrate_matching(cases, _K)
    absent = f"not there below {matching.absent_below:.3f}" if matching.absent_below else "never certain that not there"
    report_progress(
        f"matches: calibrated on {len(cases.same) // 2} validation photos; another photo of the thing comes first for "
        f"{cases.same[cases.present].mean():.3f}; certain from {matching.same_from:.3f}, {absent}"
    )
    return matching


def calibrate_matching(cases: MatchCases, k: int) -> Matching:
    """Fit the probability of a match, monotone in both features, and the thresholds of certainty.

    Args:
        cases: that nothing else was fitted on.
        k: neighbours that were asked for.
    """
    features, same = match_features(*cases.similarities), cases.same.astype(np.float64)
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    scaled = (features - centre) / spread

    def loss(weights: DoubleArray) -> tuple[float, DoubleArray]:
        logits = weights[0] + scaled @ weights[1:]
        wrong = 1 / (1 + np.exp(-logits)) - same
        value = (np.logaddexp(0, logits) - same * logits).sum() + _RIDGE / 2 * (weights[1:] ** 2).sum()
        return float(value), np.array([wrong.sum(), *(wrong @ scaled + _RIDGE * weights[1:])])

    bounds = [(None, None), (0, None), (0, None)]
    found = minimize(loss, np.array([0.0, 1.0, 1.0]), jac=True, method="L-BFGS-B", bounds=bounds).x
    lead, nearness = (found[1:] / spread).tolist()
    matching = Matching(
        k=k, bias=float(found[0] - found[1:] @ (centre / spread)), lead=lead, nearness=nearness, same_from=1.0
    )
    chances = matching.probability(*cases.similarities)
    # By what was right, and by what should be: a few cases may have been lucky.
    limits = (lowest_threshold(chances, outcome, TARGET_PRECISION) for outcome in (cases.same, chances))
    same_from = max(TARGET_PRECISION if limit is None else limit for limit in limits)
    absent = lowest_threshold(1 - chances, ~cases.present, TARGET_PRECISION)
    absent_below = 0.0 if absent is None else float(np.nextafter(1 - absent, 1))
    return matching.model_copy(update={"same_from": max(0.5, same_from), "absent_below": min(0.5, absent_below)})
