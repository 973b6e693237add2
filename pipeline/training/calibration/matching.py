"""Calibrate on validation listings how probable it is that the most similar photo shows the same thing.

Each photo whose thing the catalogue has another photo of is asked twice: once as the catalogue is, where another photo
of its listing may be found, and once without that thing.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from pipeline.training.calibration.classifier import lowest_threshold
from pipeline.training.calibration.fusion import Labelled
from pipeline.training.split import joined_listings, linked_listings
from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from shared.catalogue.categories import CataloguePhoto
from shared.duplicates.looks import Look, look_of
from shared.duplicates.search import CANDIDATE_SCORE, same_pictures, sorted_pair
from shared.duplicates.verdicts import Pair
from shared.errors import InputError
from shared.exhaustion import raise_exhaustion
from shared.model.bundle import Split
from shared.model.fusion import softmax
from shared.model.matching import FEATURES, SAME, TARGET_PRECISION, Matching, match_features
from shared.progress import ReportProgress

_K = 40  # as many as vote, so that one search serves both
_MIN_PHOTOS = 50  # fewer do not decide anything
_CHUNK = 512
_RIDGE = 1.0  # on standardised features, so that things which are never confused do not make weights infinite


class MatchCases(NamedTuple):
    """Searches whose truth is known.

    Attributes:
        best, of_next_listing, last, chance: (n,) see `Matching.probability`.
        same: (n,) whether the most similar photo shows the same thing.
        present: (n,) whether the index has another photo of the thing.
        things: (n,) number of the thing that each query shows.
    """

    best: FloatArray
    of_next_listing: FloatArray
    last: FloatArray
    chance: FloatArray
    same: BoolArray
    present: BoolArray
    things: IntArray

    @property
    def evidence(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """The arguments of `Matching.probability`."""
        return self.best, self.of_next_listing, self.last, self.chance


class FittedMatching(NamedTuple):
    """Two calibrations of the same matches.

    Attributes:
        by_doubt: by all that tells; searches answer by it.
        by_lead: by what earlier builds know, for them.
    """

    by_doubt: Matching
    by_lead: Matching


def match_cases(
    labelled: Labelled,
    photos: Sequence[CataloguePhoto],
    rows: IntArray,
    k: int = _K,
    pairs: Sequence[tuple[str, str]] = (),
) -> MatchCases | None:
    """Search for some photos twice, with their thing in the catalogue and without it.

    Listings that share a picture show one thing, also where its files differ.

    Args:
        labelled: the catalogue.
        photos: one a row.
        rows: (m,) of the queries; those without another photo of their thing are left out.
        k: neighbours of each.
        pairs: listings that were said to show one thing.

    Returns:
        (n,) cases, two a query; None where there are none, or fewer than `k` photos of other things.
    """
    things = _things(photos, pairs)
    things = _things(photos, [*pairs, *_copies(labelled, photos, things, rows)])
    counts = np.bincount(things)
    rows = rows[counts[things[rows]] > 1]
    if not len(rows) or len(things) - counts.max() < k:
        return None
    (vectors, head), cases = labelled.embeddings, []
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
            chance = softmax(head[some])[np.arange(len(some)), labelled.labels[near[:, 0]]]
            cases.append(MatchCases(scores[:, 0], next_scores, scores[:, -1], chance, same, there, things[some]))
    return MatchCases(*(np.concatenate(parts) for parts in zip(*cases, strict=True)))


def _things(photos: Sequence[CataloguePhoto], pairs: Iterable[tuple[str, str]]) -> IntArray:
    """The number of the thing that each photo shows, as far as files and pairs of listings tell."""
    linked = linked_listings(photos)
    representative = {photo.listing_id: thing for photo, thing in zip(photos, linked, strict=True)}
    joined = joined_listings(linked, ((representative[one], representative[other]) for one, other in pairs))
    _, things = np.unique([joined[thing] for thing in linked], return_inverse=True)
    return things


def _copies(
    labelled: Labelled, photos: Sequence[CataloguePhoto], things: IntArray, rows: IntArray
) -> list[tuple[str, str]]:
    """Pairs of listings in which some photos and the most similar ones of other things are one picture.

    If a relisted picture, resized or recompressed, counted as another thing, the surest matches would count as wrong.
    """
    vectors, similar = labelled.embeddings.vectors, dict[Pair, float]()
    shown = {photo.sha256: photo for photo in photos}
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        scores = np.where(things[some][:, None] == things, -np.inf, vectors[some] @ vectors.T)
        for row, other, score in zip(some, scores.argmax(axis=1), scores.max(axis=1), strict=True):
            if score >= CANDIDATE_SCORE:
                similar[sorted_pair(photos[row].sha256, photos[other].sha256)] = float(score)

    def read(pictures: Iterable[str]) -> dict[str, Look]:
        looks = {sha256: _look(shown[sha256]) for sha256 in pictures}
        return {sha256: look for sha256, look in looks.items() if look is not None}

    found = same_pictures(similar, read, lambda *told: None)
    return [(shown[one].listing_id, shown[other].listing_id) for one, other in found]


def _look(photo: CataloguePhoto) -> Look | None:
    try:
        content = photo.path.read_bytes()
        return look_of(content) if hashlib.sha256(content).hexdigest() == photo.sha256 else None
    except (OSError, InputError) as exc:  # it changed or vanished since it was embedded
        raise_exhaustion(exc)
        return None


def fit_matching(
    labelled: Labelled,
    photos: Sequence[CataloguePhoto],
    split: Split,
    report_progress: ReportProgress,
    same: Sequence[tuple[str, str]] = (),
) -> FittedMatching | None:
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
    by_lead = calibrate_matching(cases, _K, ("lead", "nearness"))
    absent = f"not there below {matching.absent_below:.3f}" if matching.absent_below else "never certain that not there"
    report_progress(
        f"matches: calibrated on {len(cases.same) // 2} validation photos; another photo of the thing comes first for "
        f"{cases.same[cases.present].mean():.3f}; certain from {matching.same_from:.3f}, {absent}"
    )
    return FittedMatching(matching, by_lead)


def calibrate_matching(cases: MatchCases, k: int, by: Sequence[str] = ("log_lead", "nearness", "doubt")) -> Matching:
    """Fit the probability of a match, monotone in each feature, and the thresholds of certainty.

    Args:
        cases: that nothing else was fitted on.
        k: neighbours that were asked for.
        by: names of the features.
    """
    columns = [FEATURES.index(name) for name in by]
    features, same = match_features(*cases.evidence)[:, columns], cases.same.astype(np.float64)
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    scaled = (features - centre) / spread

    def loss(weights: DoubleArray) -> tuple[float, DoubleArray]:
        logits = weights[0] + scaled @ weights[1:]
        wrong = 1 / (1 + np.exp(-logits)) - same
        value = (np.logaddexp(0, logits) - same * logits).sum() + _RIDGE / 2 * (weights[1:] ** 2).sum()
        return float(value), np.array([wrong.sum(), *(wrong @ scaled + _RIDGE * weights[1:])])

    bounds = [(None, None), *[(0, None) for _ in by]]
    found = minimize(loss, np.array([0.0, *[1.0 for _ in by]]), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = dict.fromkeys(FEATURES, 0.0) | dict(zip(by, (found[1:] / spread).tolist(), strict=True))
    matching = Matching(k=k, bias=float(found[0] - found[1:] @ (centre / spread)), same_from=1.0, **weights)
    chances = matching.probability(*cases.evidence)
    # By what was right, and by what should be: a few cases may have been lucky.
    limits = (lowest_threshold(chances, outcome, TARGET_PRECISION) for outcome in (cases.same, chances))
    same_from = max(TARGET_PRECISION if limit is None else limit for limit in limits)
    absent = lowest_threshold(1 - chances, ~cases.present, TARGET_PRECISION)
    absent_below = 0.0 if absent is None else float(np.nextafter(1 - absent, 1))
    return matching.model_copy(update={"same_from": max(SAME, same_from), "absent_below": min(SAME, absent_below)})
