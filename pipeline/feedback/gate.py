"""The gate before corrected labels: are they likelier than the table's, by what photos show, and is nothing worse?

The first question tells good corrections from random ones far better than any figure of validation photos: most of
those are the same either way.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from pipeline.feedback.lessons import Lessons
from pipeline.training.head import fit_head
from shared.array_types import FloatArray, IntArray
from shared.reindex.paired import compare_pairs

DISTRUSTED = "refused: of its keys, all say what photos do not show"
REFUSED = "refused: they do not make the model better"
_MIN_LISTINGS = 4  # of one key, or of all, that something is concluded from
# Of a category without a photo to train on, too, so that no single photo decides.
_LEAST = float(np.log(1e-4))


class Judgement(NamedTuple):
    """What may be trained on, and why, for people."""

    lessons: Lessons
    detail: str


def judge_labels(
    lessons: Lessons,
    features: FloatArray,
    labels: IntArray,
    listings: npt.NDArray[np.str_],
    *,
    train: IntArray,
    validation: IntArray,
    n_categories: int,
) -> Judgement:
    """Take from the lessons the labels that do no good.

    A logistic head, fitted by the table on training listings that nobody corrected, says how much likelier a corrected
    category is than the table's for each corrected photo. Keys for whose corrections that is not the case on average
    are left out; of the others it must be, by more than chance. Then heads fitted by the table and with the corrections
    are compared on validation photos, whose categories must not become less likely by more than chance.

    Args:
        lessons: with labels.
        features: (n, dim) pooled features of photos before training.
        labels: (n,) categories by the table.
        listings: (n,) ids.
        train, validation: rows.
        n_categories: of the catalogue.
    """
    corrected = np.array([listings[row] in lessons.labels for row in train], dtype=bool)
    witnesses, asked = train[~corrected], train[corrected]
    if not len(witnesses):
        return Judgement(lessons.without_labels(REFUSED), "no training listing is left to judge them by")

    def log_likelihoods(fitted: IntArray, by: IntArray, of: IntArray, *said: IntArray) -> list[FloatArray]:
        head = fit_head(features[fitted], by[fitted].tolist(), n_categories)
        logs = np.maximum(log_softmax(features[of] @ head.weight.T + head.bias, axis=1), _LEAST)
        return [logs[np.arange(len(of)), each[of]] for each in said]

    taught = _taught(lessons, labels, listings)
    said, table = log_likelihoods(witnesses, labels, asked, taught, labels)
    gains = _of_listings((said - table).tolist(), listings[asked])
    lessons = lessons.without_labels(DISTRUSTED, _distrusted(lessons, gains))
    kept = np.array([listing in lessons.labels for listing in listings[asked]], dtype=bool)
    found = compare_pairs(said[kept].tolist(), table[kept].tolist(), listings[asked][kept].tolist())
    if found is None:
        return Judgement(lessons.without_labels(REFUSED), f"fewer than {_MIN_LISTINGS} listings to judge them by")
    detail = f"by photos {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}] nats likelier than the table's"
    if found.low <= 0:
        return Judgement(lessons.without_labels(REFUSED), detail)
    taught = _taught(lessons, labels, listings)
    if len(validation):
        (now,), (then,) = (log_likelihoods(train, by, validation, labels) for by in (taught, labels))
        if unseen := compare_pairs(now.tolist(), then.tolist(), listings[validation].tolist()):
            detail += f", validation photos {unseen.mean:+.3f} [{unseen.low:+.3f}, {unseen.high:+.3f}]"
            if unseen.high < 0:
                return Judgement(lessons.without_labels(REFUSED), detail)
    return Judgement(lessons, detail)


def _taught(lessons: Lessons, labels: IntArray, listings: npt.NDArray[np.str_]) -> IntArray:
    """The categories (n,) of photos by the lessons, elsewhere by the table."""
    said = [lessons.labels.get(listing, label) for listing, label in zip(listings, labels, strict=True)]
    return np.array(said, dtype=np.int64)


def _of_listings(gains: list[float], listings: npt.NDArray[np.str_]) -> dict[str, float]:
    of_listing: dict[str, list[float]] = defaultdict(list)
    for listing, gain in zip(listings.tolist(), gains, strict=True):
        of_listing[listing].append(gain)
    return {listing: float(np.mean(of_photos)) for listing, of_photos in of_listing.items()}


def _distrusted(lessons: Lessons, gains: dict[str, float]) -> set[str]:
    """Listings whose label comes from keys alone that are worse than the table on average."""
    of_key: dict[str, list[float]] = defaultdict(list)
    for listing, gain in gains.items():
        for key in lessons.keys[listing]:
            of_key[key].append(gain)
    worse = {key for key, of_its in of_key.items() if len(of_its) >= _MIN_LISTINGS and np.mean(of_its) <= 0}
    return {listing for listing in gains if worse.issuperset(lessons.keys[listing])}
