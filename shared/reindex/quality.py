"""Measures a snapshot's search quality on a sample of its own photos, and defines the quality gates of promotion."""

from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.jobs.reindex_contract import QualityGate, SnapshotQuality

SAMPLE = 512
MIN_SHARE_OF_LIVE = 0.9
MIN_SELF_RETRIEVAL = 0.99
MIN_RECALL = 0.95
# On 512 photos the standard error of the differences is about half of it.
MAX_LOSS = 0.02
# Scores of copies of one photo differ in the last bits, and compressed indexes round.
_SAME_SCORE = 1e-4
_DEEP = 32
_COMPARED = 128  # of the sample, with exact search: 1,280 neighbours


class Searchable(Protocol):
    """The part of `VectorIndex` that measurements need."""

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def vectors(self, rows: npt.NDArray[np.int64]) -> FloatArray:
        """Return the embeddings of some rows, (n, dim) float32."""
        ...

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Search as users' searches do; see `VectorIndex.nearest`."""
        ...

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Search by brute force; see `VectorIndex.exact_nearest`."""
        ...


def measure(snapshot: Searchable, photos: Sequence[CataloguePhoto], *, sample: int = SAMPLE) -> SnapshotQuality:
    """Measure a snapshot's search quality with a sample of its own photos as queries.

    The sample is chosen by a hash of the image id, so that two snapshots of the same photos use the same queries.

    Args:
        snapshot: to measure.
        photos: one per row.
        sample: queries at most.
    """
    rows = np.array(sorted(range(len(photos)), key=lambda row: crc32(photos[row].image_id.encode()))[:sample])
    queries = snapshot.vectors(rows)
    scores, found = snapshot.nearest(queries, min(_DEEP, len(photos)))
    exact_scores, _ = snapshot.exact_nearest(queries[:_COMPARED], min(10, len(photos)))
    own = np.einsum("nd,nd->n", queries, queries)
    itself = np.abs(scores[:, 0] - own) <= _SAME_SCORE  # or a copy of it, which is as good
    recalled = scores[:_COMPARED, : exact_scores.shape[1]] >= exact_scores[:, -1:] - _SAME_SCORE
    precisions: list[float] = []
    siblings: list[bool] = []
    size_of: dict[str, int] = {}
    for photo in photos:
        size_of[photo.listing_id] = size_of.get(photo.listing_id, 0) + 1
    for row, neighbours in zip(rows.tolist(), found.tolist(), strict=True):
        photo = photos[row]
        others = [photos[n] for n in neighbours if n >= 0 and n != row]
        foreign = [other for other in others if other.listing_id != photo.listing_id][:4]
        if foreign:
            precisions.append(sum(other.category == photo.category for other in foreign) / len(foreign))
        if size_of[photo.listing_id] > 1:
            siblings.append(any(other.listing_id == photo.listing_id for other in others[:4]))
    return SnapshotQuality(
        count=len(photos),
        sampled=len(rows),
        precision_at_4=_mean(precisions),
        sibling_recall_at_4=_mean(siblings),
        recall_at_10=_mean(recalled.mean(axis=1).tolist()),
        self_retrieval=_mean(itself.tolist()),
    )


def gates(new: SnapshotQuality, live: SnapshotQuality | None, *, force: bool) -> list[QualityGate]:
    """Evaluate the quality gates that make a snapshot valid: self-retrieval, recall and number of photos.

    Args:
        new: measured quality of the snapshot.
        live: that of the live one, for the number of photos; None: there is none.
        force: pass the gate on the number of photos in any case.
    """
    conditions = [
        _at_least("self_retrieval", new.self_retrieval, MIN_SELF_RETRIEVAL),
        _at_least("recall_at_10", new.recall_at_10, MIN_RECALL),
    ]
    if live is not None and live.count:
        share = new.count / live.count
        detail = f"{new.count} photos, {live.count} are live; at least {MIN_SHARE_OF_LIVE:.0%} are needed"
        detail += ", but this was forced" if force and share < MIN_SHARE_OF_LIVE else ""
        conditions.append(QualityGate(name="count", passed=force or share >= MIN_SHARE_OF_LIVE, detail=detail))
    return conditions


def comparisons(new: SnapshotQuality, live: SnapshotQuality | None) -> list[QualityGate]:
    """Evaluate the quality gates that compare a snapshot with the live one; none if there is no live one.

    Args:
        new: measured quality of the snapshot.
        live: that of the live one.
    """
    if live is None:
        return []
    return [
        _no_worse("precision_at_4", new.precision_at_4, live.precision_at_4),
        _no_worse("sibling_recall_at_4", new.sibling_recall_at_4, live.sibling_recall_at_4),
    ]


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _at_least(name: str, figure: float | None, least: float) -> QualityGate:
    measured = "not measured" if figure is None else f"{figure:.4f}"
    return QualityGate(
        name=name, passed=figure is None or figure >= least, detail=f"{measured}; at least {least} is needed"
    )


def _no_worse(name: str, new: float | None, live: float | None) -> QualityGate:
    if new is None or live is None:
        return QualityGate(name=name, passed=True, detail="cannot be compared: there are too few photos")
    detail = f"{new:.4f}, live {live:.4f}; {MAX_LOSS} may be lost"
    return QualityGate(name=name, passed=new >= live - MAX_LOSS, detail=detail)
