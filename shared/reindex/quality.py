"""Measures a snapshot's search quality on a sample of its own photos, and defines the gates that make it valid."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from shared.artifacts.snapshots import IndexFacts, VectorKind
from shared.catalogue.categories import CataloguePhoto
from shared.jobs.reindex_contract import QualityGate, SnapshotQuality
from shared.reindex.neighbours import Neighbourhood, Searchable
from shared.text.encoder import EncodedText, TextEncoder, texts_of

SAMPLE = 512
MIN_SHARE_OF_LIVE = 0.9
_FEWER = " fewer"
MIN_SELF_RETRIEVAL = 0.99
MIN_RECALL = 0.95
MAX_SAME_VECTORS = 0.5
# Scores of copies of one photo differ in the last bits, and compressed indexes round.
_SAME_SCORE = 1e-4
_SAME_VECTOR = 1e-5
_UNIT = 0.01
_COMPARED = 128  # of the sample, with exact search: 1,280 neighbours
_FEW = 20
_WORDS_DEPTH = 32


def measure(
    searched: Neighbourhood, photos: Sequence[CataloguePhoto], rows: Sequence[int], placeholders: Mapping[str, int]
) -> SnapshotQuality:
    """Measure a snapshot's search quality with a sample of its own photos as queries.

    Args:
        searched: the snapshot.
        photos: one per row.
        rows: the sample, at least one.
        placeholders: by sha256, photos that are left out of precision and sibling recall, as queries and neighbours.
    """
    queries = searched.index.vectors(np.array(rows, dtype=np.int64))
    scores, _ = searched.of(rows)
    exact_scores, _ = searched.index.exact_nearest(queries[:_COMPARED], min(10, len(photos)))
    own = np.einsum("nd,nd->n", queries, queries)
    # Itself, or a copy of it, which is as good; a vector of zeros is as near to every other.
    itself = (np.abs(scores[:, 0] - own) <= _SAME_SCORE) & (np.abs(own - 1) <= _UNIT)
    recalled = scores[:_COMPARED, : exact_scores.shape[1]] >= exact_scores[:, -1:] - _SAME_SCORE
    size_of: dict[str, int] = {}
    for photo in photos:
        if photo.sha256 not in placeholders:
            size_of[photo.listing_id] = size_of.get(photo.listing_id, 0) + 1

    def foreign(row: int, others: Sequence[int]) -> list[int]:
        return [other for other in others if photos[other].listing_id != photos[row].listing_id][:4]

    found = searched.others(
        [row for row in rows if photos[row].sha256 not in placeholders],
        lambda other: None if photos[other].sha256 in placeholders else other,
        lambda row, others: len(foreign(row, others)) == 4,
    )
    precisions: list[float] = []
    siblings: list[bool] = []
    for row, others in found.items():
        if nearest := foreign(row, others):
            precisions.append(sum(photos[other].category == photos[row].category for other in nearest) / len(nearest))
        if size_of[photos[row].listing_id] > 1:
            siblings.append(any(photos[other].listing_id == photos[row].listing_id for other in others[:4]))
    return SnapshotQuality(
        count=len(photos),
        sampled=len(rows),
        precision_at_4=_mean(precisions),
        sibling_recall_at_4=_mean(siblings),
        recall_at_10=_mean(recalled.mean(axis=1).tolist()),
        self_retrieval=_mean(itself.tolist()),
    )


def measure_words(
    index: Searchable, photos: Sequence[CataloguePhoto], rows: Sequence[int], encoder: TextEncoder
) -> dict[str, float | None]:
    """Measure how well the words of listings find photos, by the map from words to photos.

    Args:
        index: the snapshot.
        photos: one per row, with their listings' attributes.
        rows: the sample.
        encoder: of words.

    Returns:
        the figures of `TextIndexFacts`.
    """
    asked: dict[str, tuple[int, EncodedText]] = {}
    for row in rows:
        words = "\n".join(texts_of(photos[row].payload, encoder.facts.attributes).values())
        if photos[row].listing_id not in asked and (encoded := encoder.encode(words)) is not None:
            asked[photos[row].listing_id] = row, encoded
    if not asked:
        return {}
    queries = np.stack([encoded.photo for _, encoded in asked.values()])
    _, found = index.nearest(queries, min(_WORDS_DEPTH, len(photos)))
    precisions, recalled = [], []
    for (listing_id, (row, _)), near in zip(asked.items(), found.tolist(), strict=True):
        there = [other for other in near if other >= 0]
        if foreign := [other for other in there if photos[other].listing_id != listing_id][:4]:
            precisions.append(float(np.mean([photos[o].category == photos[row].category for o in foreign])))
        recalled.append(any(photos[other].listing_id == listing_id for other in there[:10]))
    return {"precision_at_4": _mean(precisions), "recall_at_10": _mean(recalled)}


def gates(
    new: SnapshotQuality,
    live: SnapshotQuality | None,
    *,
    listings: tuple[int, int] = (0, 0),
    words: tuple[int, int] = (0, 0),
    force: bool,
) -> list[QualityGate]:
    """Evaluate the quality gates that make a snapshot valid: self-retrieval, recall, number of photos and of listings.

    Args:
        new: measured quality of the snapshot.
        live: that of the live one, for the number of photos; None: there is none.
        listings: number of listings in the new and in the live snapshot.
        words: number of listings with words, likewise.
        force: pass the gates on numbers in any case.
    """
    conditions = [
        _at_least(
            "self_retrieval",
            new.self_retrieval,
            MIN_SELF_RETRIEVAL,
            "cause: embeddings that are not of length 1, or an index that was not written from them; to do: check the "
            "model's weights (`lookalike bundle list`), then `lookalike reindex --mode all`",
        ),
        _at_least(
            "recall_at_10",
            new.recall_at_10,
            MIN_RECALL,
            "cause: the compressed index looks into too few groups of codes; to do: reindex again, which tunes it anew",
        ),
    ]
    if live is not None:
        conditions += _enough("count", "photos", new.count, live.count, force=force)
        conditions += _enough("words", "listings with words", *words, force=force)
        conditions += _enough("listings", "listings", *listings, force=force)
    return conditions


def losses(conditions: Iterable[QualityGate]) -> list[str]:
    """Return what the passed gates say of numbers that have fallen, for people."""
    return [gate.detail for gate in conditions if gate.passed and _FEWER in gate.detail]


def _enough(name: str, what: str, new: int, live: int, *, force: bool) -> list[QualityGate]:
    """The gate on a number of photos or listings; none if the live snapshot has none."""
    if not live:
        return []
    passed = new >= MIN_SHARE_OF_LIVE * live
    detail = f"{new} {what}, {live} are live" + (f": {live - new}{_FEWER}" if new < live else "")
    detail += f"; at least {MIN_SHARE_OF_LIVE:.0%} are needed"
    if not passed and force:
        detail += ", but this was forced"
    elif not passed:
        detail += (
            f"; cause: {what} are gone, or their rows cannot be read; to do: see with `lookalike clean` which rows are "
            "left out, and why; if they are meant to be gone, `lookalike reindex --force`"
        )
    return [QualityGate(name=name, passed=force or passed, detail=detail)]


def stored_vectors(facts: IndexFacts | None) -> list[QualityGate]:
    """The gate on embeddings that are stored with fewer bits; none where they are stored as they are.

    Args:
        facts: of the snapshot, which say what was measured when it was built.
    """
    if facts is None or facts.vectors is VectorKind.FLOAT32:
        return []
    recall = facts.vectors_recall_at_10
    detail = f"in {facts.vectors}, {recall:.4f} of the ten nearest are found as in float32; {MIN_RECALL} must be"
    return [QualityGate(name="stored_vectors", passed=recall >= MIN_RECALL, detail=detail)]


def distinctness(searched: Neighbourhood, photos: Sequence[CataloguePhoto], rows: Sequence[int]) -> list[QualityGate]:
    """Evaluate the quality gate that refuses a snapshot in which different photos have one and the same vector.

    Args:
        searched: the snapshot.
        photos: one per row.
        rows: the sample.

    Returns:
        the gate; none where there are too few photos to tell.
    """
    if len(rows) < _FEW:
        return []
    scores, found = searched.of(rows)
    own = np.square(searched.index.vectors(np.array(rows, dtype=np.int64))).sum(axis=1)
    same: list[str] = []
    for i, row in enumerate(rows):
        equal = found[i][(scores[i] >= own[i] - _SAME_VECTOR) & (found[i] >= 0)].tolist()
        if any(photos[other].sha256 != photos[row].sha256 for other in equal):
            same.append(photos[row].image_id)
    passed = len(same) <= MAX_SAME_VECTORS * len(rows)
    detail = f"{len(same)} of {len(rows)} photos have the vector of another photo; {MAX_SAME_VECTORS:.0%} may"
    if not passed:
        detail += (
            f"; cause: the model gives different photos the same embedding, or vectors were written twice; for example "
            f"photos {', '.join(same[:5])}; to do: check the model's weights, then `lookalike reindex --mode all`"
        )
    return [QualityGate(name="distinct_vectors", passed=passed, detail=detail)]


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _at_least(name: str, figure: float | None, least: float, advice: str) -> QualityGate:
    measured = "not measured" if figure is None else f"{figure:.4f}"
    passed = figure is None or figure >= least
    detail = f"{measured}; at least {least} is needed"
    return QualityGate(name=name, passed=passed, detail=detail if passed else f"{detail}; {advice}")
