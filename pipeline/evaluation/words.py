"""Evaluate words: categories and searches by photo, by words, and by both, on unseen listings, each query both ways."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.evaluate import Measured, measure, reliability
from pipeline.evaluation.intervals import bootstrap
from pipeline.evaluation.matches import evaluate_matches
from pipeline.evaluation.word_figures import Figure, WordsFigures
from pipeline.training.calibration.fusion import Labelled, Worded
from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.model.bundle import BundleManifest, Split
from shared.model.embedder import Embeddings
from shared.model.fusion import Answering, joined_logs, softmax, text_logs

_CUTOFF, _DEPTH = 4, 10


def measure_served(
    labelled: Labelled,
    photos: Sequence[CataloguePhoto],
    manifest: BundleManifest,
    split: Split,
    categories: Categories,
    worded: Worded | None,
) -> Measured:
    """Evaluate a bundle's answers as they are served: with the vote of the neighbours, with words, and matches.

    Args:
        labelled: the catalogue.
        photos: one a row.
        manifest: of the bundle.
        split: listings that it was fitted and chosen on.
        categories: that it tells apart.
        worded: the catalogue's words; None: the model knows none.
    """
    fusion = manifest.fusion
    if fusion is None:
        return measure(photos, labelled.embeddings, split, temperature=manifest.temperature, categories=categories)

    def answer(queries: Embeddings, listings: npt.NDArray[np.str_]) -> FloatArray:
        return labelled.photo_logs(queries, listings, manifest.temperature, fusion.vote)

    measured = measure(
        photos, labelled.embeddings, split, temperature=fusion.photo.temperature, categories=categories, answer=answer
    )
    words = evaluate_words(labelled, worded, manifest, measured.unseen) if worded else None
    matching, unseen = manifest.matches, measured.unseen
    matches = evaluate_matches(labelled, photos, matching, unseen) if matching else None
    return replace(measured, evaluation=measured.evaluation.model_copy(update={"words": words, "matches": matches}))


def evaluate_words(
    labelled: Labelled, worded: Worded, manifest: BundleManifest, unseen: BoolArray
) -> WordsFigures | None:
    """Evaluate queries of unseen listings with photo, title, all words, and both, by their vectors alone: what listings
    say word for word is left out.

    Args:
        labelled: the catalogue.
        worded: its words.
        manifest: of the bundle, with its fusion.
        unseen: (n,) photos of listings that nothing was fitted or chosen on.

    Returns:
        None where no unseen photo has words.
    """
    fusion = manifest.fusion
    assert fusion is not None  # a bundle with words has one
    candidates = np.flatnonzero(unseen)
    with_title, _ = worded.asked(candidates, worded.texts.titles)
    with_words, _ = worded.asked(candidates, worded.texts.words)
    rows = np.intersect1d(with_title, with_words)
    if not len(rows):
        return None
    truth, listings = labelled.labels[rows], worded.listing_of[rows]

    def figure(values: DoubleArray | BoolArray) -> Figure:
        numbers = values.astype(np.float64)
        return Figure(value=float(numbers.mean()), interval=bootstrap(numbers, listings))

    photo = labelled.photo_logs(*labelled.of_rows(rows), manifest.temperature, fusion.vote)
    logs: dict[str, tuple[FloatArray, Answering]] = {"photo": (photo, fusion.photo)}
    similar: dict[str, FloatArray] = {"photo": labelled.similarities(*labelled.of_rows(rows))}
    to_photos: dict[str, FloatArray] = {}
    vectors = labelled.embeddings.vectors
    for name, texts in (("title", worded.texts.titles), ("words", worded.texts.words)):
        _, encoded = worded.asked(rows, texts)
        words = text_logs(np.stack([one.scores for one in encoded]), worded.encoder.facts.temperature)
        logs[name] = words, fusion.words
        logs[f"photo_and_{name}"] = joined_logs(photo, words, fusion.words_weight or 0.5), fusion.both
        like = worded.similarities(labelled, encoded)
        chances = softmax(logs[f"photo_and_{name}"][0], fusion.both.temperature)
        seen, said = worded.compared(labelled, rows, encoded, chances)
        mapped = np.stack([one.photo for one in encoded]) @ vectors.T
        similar[name] = (1 - fusion.text_weight_alone) * mapped + fusion.text_weight_alone * like
        similar[f"photo_and_{name}"] = (1 - fusion.text_weight) * seen + fusion.text_weight * said
        similar[f"{name}_to_photos"] = to_photos[f"{name}_to_photos"] = mapped
    right = {kind: (found.argmax(1) == truth).astype(np.float64) for kind, (found, _) in logs.items()}
    gains = {}
    for name in ("title", "words"):
        better = max(("photo", name), key=lambda kind: right[kind].mean())
        gains[f"photo_and_{name}"] = figure(right[f"photo_and_{name}"] - right[better])
    own: BoolArray = np.asarray(labelled.listings[rows][:, None] == labelled.listings)
    return WordsFigures(
        n_photos=len(rows),
        n_listings=len(np.unique(listings)),
        accuracy={kind: figure(values) for kind, values in right.items()},
        accuracy_gain=gains,
        ece={kind: reliability(found, truth, by.temperature).ece for kind, (found, by) in logs.items()},
        precision_at_4={kind: figure(_precision(one, own, labelled.labels, truth)) for kind, one in similar.items()},
        found_at_10={kind: figure(_found(one[:, candidates], own[:, candidates])) for kind, one in to_photos.items()},
    )


def _precision(similar: FloatArray, own: BoolArray, labels: IntArray, truth: IntArray) -> DoubleArray:
    foreign = np.where(own, -np.inf, similar)
    best = np.argpartition(-foreign, _CUTOFF - 1, axis=1)[:, :_CUTOFF]
    precision: DoubleArray = (labels[best] == truth[:, None]).mean(axis=1)
    return precision


def _found(similar: FloatArray, own: BoolArray) -> BoolArray:
    depth = min(_DEPTH, similar.shape[1])
    best = np.argpartition(-similar, depth - 1, axis=1)[:, :depth]
    found: BoolArray = np.asarray(np.take_along_axis(own, best, 1).any(axis=1))
    return found
