"""How good the model is: category accuracy on listings it has never seen, and whether neighbours make sense."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

from shared.catalogue import CataloguePhoto
from shared.vision.embedder import Embeddings, FloatArray

_CHUNK_ROWS = 1024


def evaluate(
    photos: Sequence[CataloguePhoto], embeddings: Embeddings, held_out: frozenset[str]
) -> dict[str, float | int]:
    """Every figure of one catalogue under one model.

    Args:
        photos: one per row.
        embeddings: vectors (n, dim), scores (n, 13).
        held_out: listings the head has not seen; classification counts only their photos. Empty: none is known to
            be unseen, and no accuracy is reported.

    Returns:
        accuracy and macro_f1 (held-out photos), precision_at_4 (share of the four nearest photos of other listings
        that have the query's category), sibling_recall_at_1 and _at_4 (photos of listings with more than one photo
        that find another photo of their listing), and the counts behind them.
    """
    labels = np.array([photo.category for photo in photos])
    groups = np.array([photo.listing_id for photo in photos])
    unseen = np.array([photo.listing_id in held_out for photo in photos], dtype=bool)
    metrics: dict[str, float | int] = {"n_photos": len(photos), "n_held_out": int(unseen.sum())}
    if unseen.any():
        predicted = embeddings.scores[unseen].argmax(axis=1)
        metrics["accuracy"] = float((predicted == labels[unseen]).mean())
        metrics["macro_f1"] = float(f1_score(labels[unseen], predicted, average="macro", zero_division=0))
    return metrics | retrieval_metrics(embeddings.vectors, labels, groups)


def retrieval_metrics(
    vectors: FloatArray, labels: npt.NDArray[np.int_], groups: npt.NDArray[np.str_]
) -> dict[str, float | int]:
    """Neighbour quality by exact search of every photo among all the others.

    Args:
        vectors: (n, dim), L2 norm 1.
        labels: (n,) categories.
        groups: (n,) listing ids.
    """
    precisions: list[float] = []
    sibling_hits: list[npt.NDArray[np.bool_]] = []
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    for start in range(0, len(vectors), _CHUNK_ROWS):
        rows = np.arange(start, min(start + _CHUNK_ROWS, len(vectors)))
        scores = vectors[rows] @ vectors.T  # (chunk, n)
        scores[np.arange(len(rows)), rows] = -np.inf
        same_listing = group_of[rows][:, None] == group_of[None]
        with_sibling = sizes[group_of[rows]] > 1
        nearest = _best(scores, 4)
        sibling_hits.append(np.take_along_axis(same_listing, nearest, 1)[with_sibling])
        others = np.where(same_listing, -np.inf, scores)
        nearest = _best(others, 4)
        valid = np.take_along_axis(others, nearest, 1) > -np.inf
        same_category = (labels[nearest] == labels[rows][:, None]) & valid
        precisions += (same_category.sum(1)[valid.any(1)] / valid.sum(1)[valid.any(1)]).tolist()
    metrics: dict[str, float | int] = {}
    if precisions:
        metrics["precision_at_4"] = float(np.mean(precisions))
    siblings = np.concatenate(sibling_hits)
    metrics["n_with_sibling"] = len(siblings)
    if len(siblings):
        metrics["sibling_recall_at_1"] = float(siblings[:, 0].mean())
        metrics["sibling_recall_at_4"] = float(siblings.any(1).mean())
    return metrics


def _best(scores: FloatArray, k: int) -> npt.NDArray[np.int_]:
    """Columns of the k highest scores of each row, best first."""
    k = min(k, scores.shape[1])
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def describe_metrics(metrics: Mapping[str, float | int | str]) -> str:
    """One line for people: each figure with its name."""
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics.items()
    )
