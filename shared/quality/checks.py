"""Checks of the last shadowed searches: whether the index lost recall, is damaged, or queries are not what they were.

Recall and drift are means of many searches, so each check asks for more than chance can do. It looks at the last 50,
100, 200 and 400 searches after each search. The bound of each look is such that all looks of 10,000 searches together,
at every feature, alarm falsely with a probability of FALSE_ALARMS at most (Bonferroni; means of 50 and more are taken
for normal). Drift must exceed TOLERANCE besides: real queries are never quite like the photos of an index.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from shared.array_types import DoubleArray
from shared.quality.contract import FEATURES, CheckState, QualityCheck, ShadowedSearch

WINDOW = 400
LOOKS = (50, 100, 200, WINDOW)
FALSE_ALARMS, PER_SEARCHES = 1e-3, 10_000
TOLERANCE = 0.5  # of the spread of a feature; see docs/performance.md for what real photos do
LEAST_RECALL = 0.95  # as the quality gate of a reindex asks
_LEAST_SPREAD = 0.5  # of deviations: fewer different queries than that are chance
_LEAST_RECALL_SPREAD = 0.1  # of one search's recall
_BOUND = NormalDist().inv_cdf(1 - FALSE_ALARMS / (PER_SEARCHES * len(LOOKS) * (len(FEATURES) + 1)) / 2)

_RECALL_ADVICE = "reindex, which tunes the index anew: `lookalike reindex --mode all`"
_DAMAGE_ADVICE = "`lookalike index verify` names the file; `lookalike reindex --mode all` writes all anew"
_DRIFT_ADVICE = (
    "see whether clients or the service changed how photos are cropped, coloured or scaled before they are embedded"
)


class Shift(NamedTuple):
    """How far a feature's mean lies from the reference.

    Attributes:
        name: of the feature.
        mean: in units of its spread.
        surely: by how much at least, if chance is allowed for.
        n: searches that it was seen in.
    """

    name: str
    mean: float
    surely: float
    n: int


def shifts(searches: Sequence[ShadowedSearch]) -> list[Shift]:
    """How far each feature that is known lies from the reference: by the look at which that is surest.

    Args:
        searches: newest first, of one model.
    """
    if len(searches) < LOOKS[0]:
        return []
    rows = np.array([search.deviations for search in searches[:WINDOW]], dtype=np.float64)  # None becomes NaN
    found: dict[str, Shift] = {}
    for look in _looks(len(rows)):
        known = np.isfinite(rows[:look])
        n = known.sum(axis=0)
        seen = np.where(known, rows[:look], 0.0)
        mean = seen.sum(axis=0) / np.maximum(n, 1)
        spread = np.sqrt(np.maximum((seen**2).sum(axis=0) / np.maximum(n, 1) - mean**2, _LEAST_SPREAD**2))
        surely = np.abs(mean) - _BOUND * spread / np.sqrt(np.maximum(n, 1))
        for number in np.flatnonzero(n >= LOOKS[0]).tolist():
            shift = Shift(FEATURES[number], float(mean[number]), float(surely[number]), int(n[number]))
            if shift.name not in found or shift.surely > found[shift.name].surely:
                found[shift.name] = shift
    return list(found.values())


def check(searches: Sequence[ShadowedSearch], version: str) -> list[QualityCheck]:
    """Check the last shadowed searches of a model.

    Args:
        searches: newest first, of the model of the version; only the first WINDOW count.
        version: of the index that is live. Its recall and damage are its own; drift is that of all its model's.
    """
    own = [search for search in searches[:WINDOW] if search.version == version]
    return [_recall(own), _damage(own), _drift(searches)]


def _recall(searches: Sequence[ShadowedSearch]) -> QualityCheck:
    recalls = np.array([search.recall for search in searches], dtype=np.float64)
    if len(recalls) < LOOKS[0]:
        return _unknown("recall", len(recalls), f"fewer than {LOOKS[0]} searches of this version were shadowed")
    lost = [
        look
        for look in _looks(len(recalls))
        if recalls[:look].mean() + _BOUND * _spread(recalls[:look]) / math.sqrt(look) < LEAST_RECALL
    ]
    detail = f"recall@10 {recalls.mean():.3f} in the last {len(recalls)} searches; at least {LEAST_RECALL} is expected"
    if not lost:
        return QualityCheck(name="recall", state=CheckState.FINE, n_searches=len(recalls), detail=detail)
    detail = f"recall@10 {recalls[: lost[0]].mean():.3f} in the last {lost[0]} searches; {_RECALL_ADVICE}"
    return QualityCheck(name="recall", state=CheckState.ALARM, n_searches=len(recalls), detail=detail)


def _damage(searches: Sequence[ShadowedSearch]) -> QualityCheck:
    n_audited = sum(search.n_audited for search in searches)
    n_damaged = sum(search.n_damaged for search in searches)
    if not searches:
        return _unknown("damage", 0, "no search of this version was shadowed")
    if not n_audited:
        return _unknown("damage", len(searches), "nothing was audited; an index of an earlier Lookalike has no digests")
    detail = f"{n_damaged} of {n_audited} rows audited are not what was written"
    if n_damaged:
        detail += f": {_DAMAGE_ADVICE}"
    state = CheckState.ALARM if n_damaged else CheckState.FINE
    return QualityCheck(name="damage", state=state, n_searches=len(searches), detail=detail)


def _drift(searches: Sequence[ShadowedSearch]) -> QualityCheck:
    found, n = shifts(searches), min(len(searches), WINDOW)
    if n < LOOKS[0]:
        return _unknown("drift", n, f"fewer than {LOOKS[0]} searches were shadowed")
    if not found:
        few = f"fewer than {LOOKS[0]} of them can be compared: an index of fewer than 48 listings, or of an earlier "
        return _unknown("drift", n, few + "Lookalike, has no reference, and searches by several photos are left out")
    most = max(found, key=lambda shift: abs(shift.mean))
    drifted = sorted((shift for shift in found if shift.surely > TOLERANCE), key=lambda shift: -shift.surely)
    if not drifted:
        detail = f"queries lie {abs(most.mean):.2f} spreads from the reference at most ({most.name})"
        return QualityCheck(name="drift", state=CheckState.FINE, n_searches=n, detail=detail)
    named = ", ".join(f"{shift.name} by {shift.mean:+.2f}" for shift in drifted[:5])
    detail = f"queries are not like the photos of the index, in units of their spread: {named}; {_DRIFT_ADVICE}"
    return QualityCheck(name="drift", state=CheckState.ALARM, n_searches=n, detail=detail)


def _looks(n: int) -> list[int]:
    return [look for look in LOOKS if look <= n]


def _spread(recalls: DoubleArray) -> float:
    return max(float(recalls.std()), _LEAST_RECALL_SPREAD)


def _unknown(name: str, n: int, detail: str) -> QualityCheck:
    return QualityCheck(name=name, state=CheckState.UNKNOWN, n_searches=n, detail=detail)
