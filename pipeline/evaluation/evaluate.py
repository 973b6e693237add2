"""Evaluate a bundle on a catalogue: classification of unseen photos, calibration, and retrieval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from pipeline.evaluation.intervals import Figures, Interval, bootstrap
from pipeline.evaluation.listing_queries import Answer, ListingQueries, by_the_head, measure_listing_queries
from pipeline.evaluation.matches import MatchFigures
from pipeline.evaluation.retrieval import Neighbours, find_neighbours, mean
from pipeline.evaluation.word_figures import WordsFigures
from pipeline.training.calibration.classifier import answers, negative_log_likelihood
from shared.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from shared.catalogue.categories import OLDER_CATEGORIES, CataloguePhoto, Categories
from shared.model.bundle import Split
from shared.model.embedder import Embeddings

METRICS = "metrics.json"  # a bundle's Evaluation, in its directory
DEPTH = 100  # of the mean average precision
_CUTOFFS = (1, 4, 10)
_N_BINS = 15
_N_COVERAGES = 20

SPLIT_UNKNOWN = "what the bundle was fitted on is not known: the figures on unseen photos may flatter it"
NOTHING_UNSEEN = "the bundle was fitted on every listing here: nothing is known of photos it has not seen"
ONE_CATEGORY = "all unseen photos are of one category: their accuracy says nothing of the others"


class CategoryFigures(Figures):
    """Precision, recall and F1 of one category; n: its photos."""

    name: str
    n: int
    precision: float
    recall: float
    f1: float


class ReliabilityBin(Figures):
    """One bin of a reliability diagram; all bins hold equally many photos."""

    n: int
    confidence: float
    accuracy: float


class Coverage(Figures):
    """Coverage and accuracy when only photos of at least some probability are answered."""

    threshold: float
    coverage: float  # share of photos answered
    accuracy: float  # of those


class Reliability(Figures):
    """Calibration of the probabilities at one temperature."""

    nll: float  # nats
    ece: float  # expected calibration error, 15 bins of equal mass
    bins: list[ReliabilityBin]


class Classification(Figures):
    """Classification figures of unseen photos."""

    n_photos: int
    n_listings: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    top_3: float
    majority: float  # accuracy of always answering the category most frequent among the photos seen
    chance: float  # accuracy of guessing among all
    confusion: list[list[int]]  # rows: the photo's category; columns: the answer
    categories: list[CategoryFigures]
    uncalibrated: Reliability
    calibrated: Reliability
    abstention: list[Coverage]


class Retrieval(Figures):
    """Retrieval figures by exact search among all photos of the catalogue; keys are numbers of neighbours k."""

    n_queries: int
    n_with_sibling: int
    precision: dict[int, float]  # own listing excluded: share that has the query's category
    sibling_recall: dict[int, float]  # of the queries whose listing has another photo: share that find it
    mean_average_precision: float | None  # of the category, own listing excluded, down to DEPTH neighbours


class Evaluation(Figures):
    """Every figure of a bundle on a catalogue; a bundle keeps its own in METRICS."""

    n_photos: int
    n_listings: int
    temperature: float
    classification: Classification | None  # None: no photo is unseen
    unseen: Retrieval  # queries: unseen photos
    every: Retrieval  # queries: all photos
    listing_queries: ListingQueries | None = None  # None: no unseen listing has several photos, or not measured
    words: WordsFigures | None = None  # None: the model knows no words, or no unseen listing has any
    matches: MatchFigures | None = None  # None: they are not calibrated, or no unseen listing has several photos
    notes: list[str]  # what a reader should know before trusting it

    def summary(self) -> dict[str, float | int]:
        """The figures of a bundle's manifest; those that could not be measured are left out."""
        figures: dict[str, float | int | None] = {"n_photos": self.n_photos, "n_held_out": self.unseen.n_queries}
        if found := self.classification:
            figures |= {
                "accuracy": found.accuracy,
                "accuracy_low": found.accuracy_interval.low,
                "accuracy_high": found.accuracy_interval.high,
                "macro_f1": found.macro_f1,
                "top_3": found.top_3,
                "majority": found.majority,
                "chance": found.chance,
                "ece": found.calibrated.ece,
            }
        for prefix, queries in (("unseen_", self.unseen), ("", self.every)):
            figures |= {
                f"{prefix}precision_at_4": queries.precision.get(4),
                f"{prefix}sibling_recall_at_1": queries.sibling_recall.get(1),
                f"{prefix}sibling_recall_at_4": queries.sibling_recall.get(4),
            }
        figures |= {f"unseen_map_at_{DEPTH}": self.unseen.mean_average_precision}
        figures |= {"n_with_sibling": self.every.n_with_sibling}
        figures |= self.words.summary() if self.words else {}
        figures |= self.matches.summary() if self.matches else {}
        return {name: value for name, value in figures.items() if value is not None}


class Difference(Figures):
    """Difference of one figure between two bundles on the same photos."""

    difference: float
    interval: Interval


@dataclass(frozen=True)
class Measured:
    """An evaluation with its values for each photo, so that two can be compared."""

    evaluation: Evaluation
    unseen: BoolArray  # (n,)
    listings: IntArray  # (n,) numbered
    per_photo: dict[str, DoubleArray]  # by name in the summary: (n,) each, nan where it does not apply


def evaluate(
    photos: Sequence[CataloguePhoto],
    embeddings: Embeddings,
    split: Split,
    *,
    temperature: float = 1.0,
    categories: Categories = OLDER_CATEGORIES,
    answer: Answer = by_the_head,
) -> Evaluation:
    """Evaluate embeddings of a catalogue's photos by one bundle.

    A photo is unseen if its listing is in neither the training nor the validation split: a test listing, or new since.

    Args:
        photos: one per row.
        embeddings: vectors (n, dim), scores (n, n_categories).
        split: of the bundle.
        temperature: of the bundle, for calibration.
        categories: that it tells apart.
        answer: returns the scores that answers come from.
    """
    return measure(photos, embeddings, split, temperature=temperature, categories=categories, answer=answer).evaluation


def measure(
    photos: Sequence[CataloguePhoto],
    embeddings: Embeddings,
    split: Split,
    *,
    temperature: float = 1.0,
    categories: Categories = OLDER_CATEGORIES,
    answer: Answer = by_the_head,
) -> Measured:
    """Evaluate as `evaluate` does, and keep the values for each photo."""
    labels = np.array([photo.category for photo in photos], dtype=np.int64)
    seen = split.train | split.validation
    unseen = np.array([photo.listing_id not in seen for photo in photos], dtype=bool)
    groups = np.array([photo.listing_id for photo in photos])
    neighbours = find_neighbours(embeddings.vectors, labels, groups, DEPTH)
    listings, scores = neighbours.listings, answer(embeddings, groups)
    classification = None
    if unseen.any():
        classification = _classify(
            scores[unseen], labels[unseen], listings[unseen], labels[~unseen], temperature, categories
        )
    notes = [
        note
        for note, applies in (
            (SPLIT_UNKNOWN, not split.listings),
            (NOTHING_UNSEEN, not unseen.any()),
            (ONE_CATEGORY, unseen.any() and len(np.unique(labels[unseen])) == 1),
        )
        if applies
    ]
    evaluation = Evaluation(
        n_photos=len(photos),
        n_listings=int(listings.max()) + 1,
        temperature=temperature,
        classification=classification,
        unseen=_retrieve(neighbours, unseen),
        every=_retrieve(neighbours, np.ones_like(unseen)),
        listing_queries=measure_listing_queries(embeddings, neighbours, unseen, groups, scores, answer),
        notes=notes,
    )
    per_photo = {
        "accuracy": (scores.argmax(axis=1) == labels).astype(np.float64),
        "unseen_precision_at_4": neighbours.precision(4),
        "unseen_sibling_recall_at_1": neighbours.sibling_found(1),
        "unseen_sibling_recall_at_4": neighbours.sibling_found(4),
    }
    return Measured(evaluation, unseen, listings, per_photo)


def joint_split(splits: Sequence[Split]) -> Split:
    """Union of several bundles' splits; on the listings outside of it the bundles can be compared."""
    return Split(
        train=frozenset().union(*(split.train for split in splits)),
        validation=frozenset().union(*(split.validation for split in splits)),
        test=frozenset().union(*(split.test for split in splits)),
    )


def compare(new: Measured, old: Measured) -> dict[str, Difference]:
    """Compare two bundles on photos that neither has seen, by paired bootstrap.

    Args:
        new: measured with the `joint_split` of both.
        old: measured on the same photos with the same split.

    Returns:
        new minus old, by name of the figure.
    """
    differences = {}
    for name, values in new.per_photo.items():
        difference = values - old.per_photo[name]
        counted = new.unseen & ~np.isnan(difference)
        if counted.any():
            interval = bootstrap(difference[counted], new.listings[counted])
            differences[name] = Difference(difference=float(difference[counted].mean()), interval=interval)
    return differences


def describe_metrics(metrics: Mapping[str, float | int | str]) -> str:
    """Format metrics as one line of text: each figure with its name."""
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics.items()
    )


def _classify(
    scores: FloatArray,
    labels: IntArray,
    listings: IntArray,
    seen_labels: IntArray,
    temperature: float,
    categories: Categories,
) -> Classification:
    best = np.argsort(-scores, axis=1, kind="stable")
    predicted, correct = best[:, 0], best[:, 0] == labels
    every = np.arange(len(categories))
    known = seen_labels if len(seen_labels) else labels
    per_category = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    return Classification(
        n_photos=len(labels),
        n_listings=len(np.unique(listings)),
        accuracy=float(correct.mean()),
        accuracy_interval=bootstrap(correct.astype(np.float64), listings),
        macro_f1=float(f1_score(labels, predicted, average="macro", zero_division=0)),
        top_3=float((best[:, :3] == labels[:, None]).any(1).mean()),
        majority=float((labels == np.bincount(known).argmax()).mean()),
        chance=1 / len(categories),
        confusion=confusion_matrix(labels, predicted, labels=every).tolist(),
        categories=[
            CategoryFigures(name=name, n=int(n), precision=float(precision), recall=float(recall), f1=float(f1))
            for name, precision, recall, f1, n in zip(categories, *per_category, strict=True)
        ],
        uncalibrated=reliability(scores, labels, 1.0),
        calibrated=reliability(scores, labels, temperature),
        abstention=_abstain(*answers(scores, labels, temperature)),
    )


def reliability(scores: FloatArray, labels: IntArray, temperature: float) -> Reliability:
    """Measure how far probabilities are from how often answers are right.

    Args:
        scores: (n, n_categories) before the softmax, n >= 1.
        labels: (n,) categories.
        temperature: that scores are divided by.
    """
    confidence, correct = answers(scores, labels, temperature)
    order = np.argsort(confidence, kind="stable")
    bins = [
        ReliabilityBin(n=len(rows), confidence=float(confidence[rows].mean()), accuracy=float(correct[rows].mean()))
        for rows in np.array_split(order, min(_N_BINS, len(order)))
    ]
    ece = sum(found.n * abs(found.accuracy - found.confidence) for found in bins) / len(order)
    return Reliability(nll=negative_log_likelihood(scores, labels, temperature), ece=ece, bins=bins)


def _abstain(confidence: DoubleArray, correct: BoolArray) -> list[Coverage]:
    order = np.argsort(-confidence, kind="stable")
    n_answered = np.unique(np.ceil(np.linspace(0, 1, _N_COVERAGES + 1)[1:] * len(order)).astype(int))
    return [
        Coverage(
            threshold=float(confidence[order[n - 1]]),
            coverage=float(n / len(order)),
            accuracy=float(correct[order[:n]].mean()),
        )
        for n in n_answered.tolist()
    ]


def _retrieve(neighbours: Neighbours, queries: BoolArray) -> Retrieval:
    def averages(figure: Callable[[int], DoubleArray]) -> dict[int, float]:
        found = {k: mean(figure(k)[queries]) for k in _CUTOFFS}
        return {k: value for k, value in found.items() if value is not None}

    return Retrieval(
        n_queries=int(queries.sum()),
        n_with_sibling=int((neighbours.with_sibling & queries).sum()),
        precision=averages(neighbours.precision),
        sibling_recall=averages(neighbours.sibling_found),
        mean_average_precision=mean(neighbours.average_precision()[queries]),
    )
