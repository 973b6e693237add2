"""Choose on validation listings how head, neighbours and words are joined; see `shared.model.fusion`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.training.calibration.classifier import calibrate, fit_temperature, negative_log_likelihood, uncalibrated
from pipeline.training.words.encoder import Texts
from shared.array_types import BoolArray, FloatArray, IntArray
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.catalogue.hierarchy import hierarchy_of
from shared.model.bundle import PROJECTED, Split
from shared.model.embedder import Embeddings
from shared.model.fusion import Answering, Fusion, Vote, joined_logs, photo_logs, softmax, text_logs
from shared.progress import ReportProgress
from shared.text.encoder import EncodedText, TextEncoder, with_evidence

_K = 40  # voters
_SHARPNESS = (0.05, 0.1, 0.2)
_VOTE_WEIGHTS = (0.25, 0.5, 0.75)
_WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of words
_MIN_PHOTOS = 50  # fewer do not decide anything
_CHUNK = 512
_MOST_QUERIES = 2_000
_CUTOFF = 4
_SEED = 17


class Neighbourhood(NamedTuple):
    """The nearest photos of other listings of some photos.

    Attributes:
        scores: (m, k) similarities; -inf where there are no more.
        rows: (m, k).
    """

    scores: FloatArray
    rows: IntArray


@dataclass(frozen=True)
class Labelled:
    """A catalogue's photos with their embeddings, to search among.

    Attributes:
        embeddings: vectors (n, dim), scores (n, n_categories).
        labels: (n,) categories.
        listings: (n,) ids.
        projected: whether the vectors say of the category, too.
    """

    embeddings: Embeddings
    labels: IntArray
    listings: npt.NDArray[np.str_]
    projected: bool = False

    @classmethod
    def of(cls, photos: Sequence[CataloguePhoto], embeddings: Embeddings, layer: str) -> "Labelled":
        """Make one of photos, one a row; `layer` is the manifest's embedding layer."""
        labels = np.array([photo.category for photo in photos], dtype=np.int64)
        return cls(embeddings, labels, np.array([photo.listing_id for photo in photos]), layer == PROJECTED)

    def of_rows(self, rows: IntArray) -> tuple[Embeddings, npt.NDArray[np.str_]]:
        """Some photos as queries, with their listings."""
        vectors, scores = self.embeddings
        return Embeddings(vectors[rows], scores[rows]), self.listings[rows]

    def similarities(self, queries: Embeddings, listings: npt.NDArray[np.str_]) -> FloatArray:
        """Similarities of some queries with all photos, (m, n); -inf with those of their own listing."""
        similar: FloatArray = queries.vectors @ self.embeddings.vectors.T
        similar[listings[:, None] == self.listings] = -np.inf
        return similar

    def neighbours(self, queries: Embeddings, listings: npt.NDArray[np.str_], k: int = _K) -> Neighbourhood:
        """The `k` nearest photos of other listings."""
        k = min(k, len(self.labels))
        found, where = [np.empty((0, k), np.float32)], [np.empty((0, k), np.int64)]
        for start in range(0, len(listings), _CHUNK):
            some = slice(start, start + _CHUNK)
            similar = self.similarities(Embeddings(queries.vectors[some], queries.scores[some]), listings[some])
            best = np.argpartition(-similar, k - 1, axis=1)[:, :k]
            where.append(best)
            found.append(np.take_along_axis(similar, best, 1))
        return Neighbourhood(np.concatenate(found), np.concatenate(where))

    def votes(self, near: Neighbourhood, vote: Vote) -> FloatArray:
        """Shares of the votes for each category, (m, n_categories)."""
        n_categories = self.embeddings.scores.shape[1]
        shares = []
        for scores, rows in zip(near.scores, near.rows, strict=True):
            there = np.isfinite(scores)
            shares.append(vote.shares(scores[there], self.labels[rows[there]], n_categories))
        return np.stack(shares) if shares else np.empty((0, n_categories), np.float32)

    def photo_logs(
        self, queries: Embeddings, listings: npt.NDArray[np.str_], temperature: float, vote: Vote | None
    ) -> FloatArray:
        """The joined logarithms of head and vote for some queries, as they are answered; (m, n_categories)."""
        votes = self.votes(self.neighbours(queries, listings, vote.k), vote) if vote else None
        return photo_logs(queries.scores, votes, temperature, vote)


@dataclass(frozen=True)
class Worded:
    """The words of a catalogue's listings, encoded, to search among and to ask with.

    Attributes:
        encoder: that encoded them.
        texts: the words themselves.
        listing_of: (n,) number of each photo's listing.
        ids: of the listings.
        vectors: (n_listings, width) of all words of each; zeros where there are none.
    """

    encoder: TextEncoder
    texts: Texts
    listing_of: IntArray
    ids: npt.NDArray[np.str_]
    vectors: FloatArray

    @classmethod
    def of(cls, encoder: TextEncoder, photos: Sequence[CataloguePhoto], labelled: Labelled) -> "Worded":
        """Encode the words of the listings that photos, one a row, are of."""
        texts = Texts.of(photos, encoder.facts.attributes)
        ids, listing_of = np.unique(labelled.listings, return_inverse=True)
        nothing = np.zeros(encoder.width, dtype=np.float32)
        category = np.zeros(len(ids), dtype=np.int64)
        category[listing_of] = labelled.labels
        vectors = [
            encoder.of_listing(texts.payloads.get(one, ""), label)
            for one, label in zip(ids.tolist(), category.tolist(), strict=True)
        ]
        stacked = np.stack([nothing if one is None else one.vector for one in vectors])
        return cls(encoder, texts, listing_of, ids, stacked)

    def asked(self, rows: IntArray, texts: Mapping[str, str]) -> tuple[IntArray, list[EncodedText]]:
        """The photos among some whose listing has known words, and those words encoded, once a listing."""
        known: dict[str, EncodedText | None] = {}
        kept, encoded = [], []
        for row in rows.tolist():
            listing_id = str(self.ids[self.listing_of[row]])
            if listing_id not in known:
                known[listing_id] = self.encoder.encode(texts.get(listing_id, ""))
            if (one := known[listing_id]) is not None:
                kept.append(row)
                encoded.append(one)
        return np.array(kept, dtype=np.int64), encoded

    def similarities(
        self, labelled: Labelled, encoded: Sequence[EncodedText], chances: FloatArray | None = None
    ) -> FloatArray:
        """How similar the words of some queries are to each photo's listing's, (m, n), as searches compare them.

        Args:
            labelled: the photos.
            encoded: the words of each query.
            chances: (m, n_categories) probabilities that the queries carry instead of those of their words.
        """
        facts = self.encoder.facts
        vectors = [one.vector for one in encoded]
        if chances is not None:
            vectors = [with_evidence(vector, some) for vector, some in zip(vectors, chances, strict=True)]
        similar: FloatArray = (np.stack(vectors) @ self.vectors.T)[:, self.listing_of]
        with_words: BoolArray = np.asarray(self.vectors.any(axis=1))
        without = np.flatnonzero(~with_words[self.listing_of])
        if len(without):
            mapped = np.stack([one.photo for one in encoded])
            similar[:, without] = facts.slope * mapped @ labelled.embeddings.vectors[without].T + facts.offset
        return similar

    def compared(
        self, labelled: Labelled, rows: IntArray, encoded: Sequence[EncodedText], chances: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Similarities of photos and of words, (m, n) each, for queries with both, as searches compare them.

        Args:
            labelled: the photos.
            rows: (m,) of the queries.
            encoded: their words.
            chances: (m, n_categories) by both, which both vectors carry.
        """
        queries, listings = labelled.of_rows(rows)
        if labelled.projected:
            vectors = [with_evidence(vector, some) for vector, some in zip(queries.vectors, chances, strict=True)]
            queries = Embeddings(np.stack(vectors), queries.scores)
        return labelled.similarities(queries, listings), self.similarities(labelled, encoded, chances)


def fit_fusion(
    labelled: Labelled,
    split: Split,
    worded: Worded | None,
    categories: Categories,
    report_progress: ReportProgress,
) -> tuple[float, Fusion]:
    """Choose weights and calibrate every kind of answer on the validation listings.

    Args:
        labelled: the catalogue; a photo's own listing does not vote.
        split: validation listings decide.
        worded: the words; None: the catalogue has none.
        categories: of the catalogue.
        report_progress: receives what was found, as lines.

    Returns:
        the head's temperature, and the fusion.
    """
    rows = np.flatnonzero(np.isin(labelled.listings, sorted(split.validation)))
    labels, hierarchy = labelled.labels[rows], hierarchy_of(categories.names)
    scores = labelled.embeddings.scores[rows]

    def answering(logs: FloatArray, truth: IntArray, what: str) -> Answering:
        found = calibrate(logs, truth, lambda line: report_progress(f"{what}: {line}"), hierarchy)
        return Answering(**found._asdict())

    enough = len(rows) >= _MIN_PHOTOS and len(np.unique(labels)) > 1
    temperature = fit_temperature(scores, labels) if enough else 1.0
    vote = _choose_vote(labelled, rows, temperature, report_progress) if enough else None
    photo = labelled.photo_logs(*labelled.of_rows(rows), temperature, vote)
    fusion = Fusion(vote=vote, photo=answering(photo, labels, "photo"))
    if worded is None:
        return temperature, fusion
    facts = worded.encoder.facts
    asked = [worded.asked(rows, texts) for texts in (worded.texts.titles, worded.texts.words)]
    kept = np.concatenate([some for some, _ in asked])
    encoded = [one for _, some in asked for one in some]
    if len(kept) < _MIN_PHOTOS or len(np.unique(labelled.labels[kept])) == 1:
        unknown = Answering(**uncalibrated(hierarchy)._asdict())
        return temperature, fusion.model_copy(update={"words_weight": 0.5, "words": unknown, "both": unknown})
    words = text_logs(np.stack([one.scores for one in encoded]), facts.temperature)
    photo, truth = photo[np.searchsorted(rows, kept)], labelled.labels[kept]

    def loss(weight: float) -> float:
        logs = joined_logs(photo, words, weight)
        return negative_log_likelihood(logs, truth, fit_temperature(logs, truth))

    weight = min(_WEIGHTS, key=loss)
    both = joined_logs(photo, words, weight)
    calibrated = answering(both, truth, "photo and words")
    chances = softmax(both, calibrated.temperature)
    together, alone = _search_weights(labelled, worded, kept, encoded, chances)
    accuracy = [float((logs.argmax(1) == truth).mean()) for logs in (photo, words, both)]
    report_progress(
        f"words weigh {weight:g} beside the photo in categories (accuracy {accuracy[0]:.3f} by photo, "
        f"{accuracy[1]:.3f} by words, {accuracy[2]:.3f} by both), {together:g} in searches, {alone:g} without a photo"
    )
    return temperature, fusion.model_copy(
        update={
            "words_weight": weight,
            "words": answering(words, truth, "words"),
            "both": calibrated,
            "text_weight": together,
            "text_weight_alone": alone,
        }
    )


def _choose_vote(
    labelled: Labelled, rows: IntArray, temperature: float, report_progress: ReportProgress
) -> Vote | None:
    """The vote by which answers are most probable; None where it makes them less probable, or fewer of them right."""
    queries, listings = labelled.of_rows(rows)
    near, labels, scores = labelled.neighbours(queries, listings), labelled.labels[rows], queries.scores

    def quality(vote: Vote | None) -> tuple[float, float]:
        logs = photo_logs(scores, labelled.votes(near, vote) if vote else None, temperature, vote)
        return negative_log_likelihood(logs, labels, 1.0), float((logs.argmax(1) == labels).mean())

    tried = [Vote(k=_K, sharpness=sharpness, weight=weight) for sharpness in _SHARPNESS for weight in _VOTE_WEIGHTS]
    found = {vote: quality(vote) for vote in tried}
    best = min(tried, key=lambda vote: found[vote][0])
    (loss, accuracy), (head_loss, head_accuracy) = found[best], quality(None)
    kept = loss < head_loss and accuracy >= head_accuracy
    report_progress(
        f"vote of the {_K} nearest photos: {'kept' if kept else 'none'}; accuracy {accuracy:.3f} with it, "
        f"{head_accuracy:.3f} without"
    )
    return best if kept else None


def _search_weights(
    labelled: Labelled, worded: Worded, rows: IntArray, encoded: Sequence[EncodedText], chances: FloatArray
) -> tuple[float, float]:
    """The weights of words in searches with a photo and without one that find most photos of the category."""
    found = np.zeros((2, len(_WEIGHTS)))
    chosen = np.random.default_rng(_SEED).permutation(len(rows))[:_MOST_QUERIES]
    for start in range(0, len(chosen), _CHUNK):
        some = chosen[start : start + _CHUNK]
        asked = [encoded[i] for i in some]
        mapped = np.stack([one.photo for one in asked]) @ labelled.embeddings.vectors.T
        alone = mapped, worded.similarities(labelled, asked)
        own = labelled.listings[rows[some]][:, None] == labelled.listings
        for kind, (photos, words) in enumerate((worded.compared(labelled, rows[some], asked, chances[some]), alone)):
            for number, weight in enumerate(_WEIGHTS):
                joined = (1 - weight) * photos + weight * words
                joined[own] = -np.inf
                best = np.argpartition(-joined, _CUTOFF - 1, axis=1)[:, :_CUTOFF]
                found[kind, number] += (labelled.labels[best] == labelled.labels[rows[some]][:, None]).sum()
    with_photo, without = (float(_WEIGHTS[number]) for number in found.argmax(axis=1))
    return with_photo, without
