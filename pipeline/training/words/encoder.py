"""Fit a text encoder on the words of a catalogue's own listings, in closed form; nothing is downloaded.

TF-IDF over words, pairs of words and runs of letters (shared/text/features.py); a ridge regression on them classifies;
their principal axes, with the category's probabilities, are a text's vector; and a regularised canonical correlation
analysis (Hotelling 1936) of listings' words and photos maps words into the space of photos.

Each listing is fitted twice, with its title alone and with all of its words, because queries come as both.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import svds

from pipeline.training.calibration.classifier import fit_temperature, negative_log_likelihood
from pipeline.training.words.boilerplate import ListingText, learn_rules
from pipeline.training.words.sentences import Sentences
from shared.array_types import DoubleArray, FloatArray, IntArray
from shared.attributes.schema import AttributeSchema, AttributeType, of_payload
from shared.catalogue.categories import CataloguePhoto
from shared.model.bundle import Split
from shared.model.embedder import normalised
from shared.progress import ReportProgress
from shared.text.cleaning import TextRules
from shared.text.encoder import APART, SIGNS, TEXT, TextEncoder, TextFacts, texts_of, weigh
from shared.text.features import features
from shared.text.sentences import SentenceEncoder

# Measured on 1,412 real listings: 64 to 256 axes are equally good for categories, more find more of a listing's photos.
_AXES = 128
_EVIDENCE = 0.8  # of the probabilities in a vector: 0, 0.5, 0.8, 1.2 give precision@4 .62, .65, .67, .67 with a photo
_RIDGE = 1.0  # of the classifier
_SHRINKAGE = 1.0  # of both covariances, times their mean variance
_MIN_LISTINGS = 20
_MOST_LISTINGS = 6_000  # that are fitted on; more make neither words nor axes better, and the solving slow
_MOST_FEATURES = 65_536
_MOST_WEIGHTS = 1 << 25  # of the classifier: with many categories there are fewer features
_SURER = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
_UNSEEN_TEMPERATURE = 0.12  # of a ridge regression's scores, where there are no listings to calibrate on
_COMPARED = 512  # titles with the words of all listings
_SAME = 1e-6  # a spread of similarities that is none
_SEED = 17
_OFFER = (AttributeType.PLACE, AttributeType.TIME)  # say where and when a thing is offered, not what it is


def words_of(schema: AttributeSchema) -> tuple[str, ...]:
    """The attributes that are a listing's words: its texts, in their order."""
    return tuple(one.name for one in schema if one.type is AttributeType.TEXT)


@dataclass(frozen=True)
class Texts:
    """The words of a catalogue's listings, by listing id, of those that have any.

    Attributes:
        titles: the first of a listing's texts, which is shortest and says what the thing is.
        words: all of them.
        payloads: attributes as JSON.
    """

    titles: Mapping[str, str]
    words: Mapping[str, str]
    payloads: Mapping[str, str]

    @classmethod
    def of(cls, photos: Sequence[CataloguePhoto], names: Sequence[str]) -> "Texts":
        """Read them from photos; `names` are the attributes that are words."""
        payloads = {photo.listing_id: photo.payload for photo in reversed(photos)}
        texts = {one: texts for one, payload in payloads.items() if (texts := texts_of(payload, names))}
        titles = {one: next(iter(found.values())) for one, found in texts.items()}
        return cls(titles, {one: "\n".join(found.values()) for one, found in texts.items()}, payloads)


@dataclass(frozen=True)
class FittedText:
    """A text encoder that was fitted.

    Attributes:
        encoder: to encode with.
        content: its arrays, as the bundle's file TEXT.
        files: of the bundle, by name: that one, and those of the sentence encoder.
        notes: what was found, by name.
    """

    encoder: TextEncoder
    content: bytes
    files: Mapping[str, bytes]
    notes: Mapping[str, float | str]


def fit_text(
    photos: Sequence[CataloguePhoto],
    vectors: FloatArray,
    split: Split,
    schema: AttributeSchema,
    n_categories: int,
    paths: Mapping[str, str],
    report_progress: ReportProgress,
    sentences: Sentences | None = None,
) -> FittedText | None:
    """Fit a text encoder on the training listings of a catalogue.

    Args:
        photos: one a row, with their listings' attributes.
        vectors: (n, dim) float32, their embeddings, L2 norm 1.
        split: training listings are fitted on, validation listings calibrate.
        schema: of the attributes; those that are texts are a listing's words.
        n_categories: of the catalogue.
        paths: category path by listing id, to find it in the words.
        report_progress: receives one line.
        sentences: a sentence encoder, whose vectors become features beside the words.

    Returns:
        None where the catalogue has too few words to fit on.
    """
    names = words_of(schema)
    listings = _listings(photos, schema)
    trained = sorted(one for one in listings if one in split.train)
    if len(trained) < _MIN_LISTINGS or len({listings[one].category for one in trained}) < 2:
        if names:
            report_progress(f"words: none, {len(trained)} training listings have some and {_MIN_LISTINGS} are needed")
        return None
    if len(trained) > _MOST_LISTINGS:
        chosen = np.random.default_rng(_SEED).choice(len(trained), _MOST_LISTINGS, replace=False)
        trained = sorted(np.array(trained)[chosen].tolist())
    learnt = learn_rules(
        [ListingText(listings[one].texts, listings[one].others, paths.get(one, ""), listings[one].category)
         for one in trained]
    )  # fmt: skip
    fitted_on = [listings[one] for one in trained]
    encoder = sentences.encoder if sentences else None
    facts, arrays = _fit_to_categories(fitted_on, names, learnt.rules, n_categories, encoder, vectors.shape[1])
    facts = facts.model_copy(update=_calibration(TextEncoder(facts, arrays, encoder), listings, split))
    pairs = _Pairs.of(TextEncoder(facts, arrays, encoder), photos, listings, split.train)
    arrays["to_photo"], arrays["to_photo_bias"] = _map_to_photos(pairs, vectors)
    slope, offset = _expectation(TextEncoder(facts, arrays, encoder), pairs, vectors)
    # Of an array in another order the bytes would be written as they lie in memory.
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    digest = hashlib.sha256(content).hexdigest()
    facts = facts.model_copy(update={"slope": slope, "offset": offset, "sha256": digest})
    notes = {**learnt.notes, **_with_and_without(fitted_on, listings, split, learnt.rules, n_categories)}
    report_progress(
        f"words: {len(listings)} listings have some ({', '.join(names)}), {len(arrays['rarity'])} features; "
        + "; ".join(f"{name}: {value}" for name, value in notes.items())
    )
    files = {TEXT: content, **(sentences.files if sentences else {})}
    return FittedText(TextEncoder(facts, arrays, encoder), content, files, notes)


@dataclass(frozen=True)
class _Listing:
    """A listing with words.

    Attributes:
        texts: by name of the attribute.
        others: its other attributes' values as text, by name.
    """

    category: int
    texts: Mapping[str, str]
    others: Mapping[str, str]

    @property
    def title(self) -> str:
        """The first of its texts, which is shortest and says what the thing is."""
        return next(iter(self.texts.values()))

    @property
    def words(self) -> str:
        """All of its texts."""
        return "\n".join(self.texts.values())


def _listings(photos: Sequence[CataloguePhoto], schema: AttributeSchema) -> dict[str, _Listing]:
    """The listings that have words, by id, in the order of their photos."""
    names = words_of(schema)
    found: dict[str, _Listing] = {}
    for photo in photos:
        if photo.listing_id in found:
            continue
        values = of_payload(photo.payload)
        if texts := texts_of(photo.payload, names):
            others = {one.name: str(values[one.name]) for one in schema if one.type in _OFFER and one.name in values}
            found[photo.listing_id] = _Listing(photo.category, texts, others)
    return found


@dataclass(frozen=True)
class _Vocabulary:
    """The features that are known, and how rare they are.

    Attributes:
        words, letters: hashes, sorted.
        rarity: (words and letters,) float32, inverse document frequency.
    """

    words: npt.NDArray[np.uint64]
    letters: npt.NDArray[np.uint64]
    rarity: FloatArray

    @classmethod
    def of(cls, texts: Sequence[str], most: int) -> "_Vocabulary":
        """Keep the features that at least two texts have; of too many the most frequent."""
        found = [features(text) for text in texts]
        hashes, counts, kinds = [], [], []
        for kind, of_kind in enumerate(([one.words for one in found], [one.letters for one in found])):
            every = np.concatenate([np.unique(some) for some in of_kind])
            some, often = np.unique(every, return_counts=True)
            repeated = often >= 2
            hashes.append(some[repeated])
            counts.append(often[repeated])
            kinds.append(np.full(int(repeated.sum()), kind))
        hashed, often, kind_of = np.concatenate(hashes), np.concatenate(counts), np.concatenate(kinds)
        kept = np.sort(np.argsort(-often, kind="stable")[:most])
        rarity = (np.log((1 + len(texts)) / (1 + often[kept])) + 1).astype(np.float32)
        return cls(hashed[kept][kind_of[kept] == 0], hashed[kept][kind_of[kept] == 1], rarity)

    def weigh(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """The weighted features of texts, (n, features), as `TextEncoder` weighs them."""
        rows = [weigh(features(text), self.words, self.letters, self.rarity) for text in texts]
        ends = np.cumsum([0, *(len(places) for places, _ in rows)])
        places = np.concatenate([places for places, _ in rows])
        weights = np.concatenate([weights for _, weights in rows]).astype(np.float64)
        return sparse.csr_matrix((weights, places, ends), shape=(len(texts), len(self.rarity)))


def _fit_to_categories(
    fitted_on: Sequence[_Listing],
    names: tuple[str, ...],
    rules: TextRules,
    n_categories: int,
    sentences: SentenceEncoder | None,
    photo_dim: int,
) -> tuple[TextFacts, dict[str, npt.NDArray[np.generic]]]:
    """Find features, axes and classifier; nothing is calibrated yet, and every text is mapped to no photo."""
    vocabulary, weighted, classes, bias = _read(fitted_on, rules, n_categories, sentences)
    axes = _axes(weighted)
    facts = TextFacts(
        attributes=names,
        dimension=axes.shape[1],
        evidence=_EVIDENCE,
        temperature=1.0,
        slope=0.0,
        offset=0.0,
        rules=rules,
        sentences=sentences.facts if sentences else None,
        padding=0,
    )
    arrays: dict[str, npt.NDArray[np.generic]] = {
        SIGNS: np.empty(0, dtype=np.uint8),
        APART: np.empty(0, dtype=np.uint8),
        "words": vocabulary.words,
        "letters": vocabulary.letters,
        "rarity": vocabulary.rarity,
        "axes": axes.astype(np.float16),
        "classes": classes.astype(np.float16),
        "class_bias": bias.astype(np.float32),
        "to_photo": np.zeros((axes.shape[1] + n_categories, photo_dim), dtype=np.float32),
        "to_photo_bias": np.zeros(photo_dim, dtype=np.float32),
    }
    return facts, arrays


def _read(
    listings: Sequence[_Listing], rules: TextRules, n_categories: int, sentences: SentenceEncoder | None = None
) -> tuple[_Vocabulary, sparse.csr_matrix, DoubleArray, DoubleArray]:
    """Read the words and the titles of listings, as the rules leave them.

    Returns:
        what features there are; those of all words, then those of all titles, (2 n, features), with those of the
        sentence encoder last; weights and bias of a classifier of both.
    """
    texts = [rules.clean(one.words) for one in listings] + [rules.clean(one.title) for one in listings]
    vocabulary = _Vocabulary.of(texts[: len(listings)], min(_MOST_FEATURES, _MOST_WEIGHTS // n_categories))
    weighted = vocabulary.weigh(texts)
    if sentences is not None:
        vectors = np.stack([sentences.encode(text) for text in texts]) * np.float64(sentences.facts.weight)
        weighted = sparse.hstack([weighted, sparse.csr_matrix(vectors)], format="csr")
    labels = np.array([one.category for one in listings] * 2, dtype=np.int64)
    return vocabulary, weighted, *_classifier(weighted, labels, n_categories)


def _with_and_without(
    fitted_on: Sequence[_Listing],
    listings: Mapping[str, _Listing],
    split: Split,
    rules: TextRules,
    n_categories: int,
) -> dict[str, float | str]:
    """How often the words of validation listings' titles tell the category, as the rules leave them and as written."""
    asked = [one for listing_id, one in sorted(listings.items()) if listing_id in split.validation]
    if not asked:
        return {}
    labels = np.array([one.category for one in asked])
    found: dict[str, float | str] = {}
    for name, some in (("cleaned", rules), ("as written", TextRules())):
        vocabulary, _, classes, bias = _read(fitted_on, some, n_categories)
        scores = vocabulary.weigh([some.clean(one.title) for one in asked]) @ classes + bias
        found[f"category told by titles {name}"] = round(float((scores.argmax(axis=1) == labels).mean()), 3)
    return found


def _classifier(weighted: sparse.csr_matrix, labels: IntArray, n_categories: int) -> tuple[DoubleArray, DoubleArray]:
    """Ridge regression on the categories: weights (features, n_categories) and bias (n_categories,)."""
    wanted = np.eye(n_categories)[labels]
    bias = wanted.mean(0)
    products = (weighted @ weighted.T).toarray()
    products[np.diag_indices_from(products)] += _RIDGE
    solved = cho_solve(cho_factor(products, overwrite_a=True, lower=True), wanted - bias)
    weights: DoubleArray = weighted.T @ solved
    return weights, bias


def _axes(weighted: sparse.csr_matrix) -> DoubleArray:
    """The principal axes of the features, (features, <= _AXES), widest first."""
    n_axes = min(_AXES, min(weighted.shape) - 1)
    _, spread, axes = svds(weighted, k=n_axes, v0=np.ones(min(weighted.shape)), solver="arpack")
    by_spread: DoubleArray = axes[np.argsort(-spread)].T
    # The sign of an axis is arbitrary, and differs between machines.
    signs = np.sign(by_spread[np.abs(by_spread).argmax(0), np.arange(n_axes)])
    signed: DoubleArray = by_spread * signs
    return signed


def _calibration(encoder: TextEncoder, listings: Mapping[str, _Listing], split: Split) -> dict[str, float]:
    """The `temperature` of category scores and how much `surer` they are of more words, by unseen titles and words."""
    unseen = [one for listing_id, one in sorted(listings.items()) if listing_id in split.validation]
    asked = [(encoder.encode(text), one.category) for one in unseen for text in (one.title, one.words)]
    known = [(found, category) for found, category in asked if found is not None]
    if not known:
        return {"temperature": _UNSEEN_TEMPERATURE}
    scores = np.stack([found.scores for found, _ in known])
    labels = np.array([category for _, category in known], dtype=np.int64)
    n_words = np.array([[max(1, found.n_words)] for found, _ in known], dtype=np.float32)

    def loss(surer: float) -> tuple[float, float, float]:
        grown = scores * n_words ** np.float32(surer)
        temperature = fit_temperature(grown, labels)
        return negative_log_likelihood(grown, labels, temperature), surer, temperature

    _, surer, temperature = min(map(loss, _SURER))
    return {"temperature": temperature, "surer": surer}


@dataclass(frozen=True)
class _Pairs:
    """Photos of some listings with the encoded titles and words of their listings.

    Attributes:
        rows: (m,) of photos whose listing has words.
        titles, words: (m, width) float32; zeros where nothing is known.
    """

    rows: IntArray
    titles: FloatArray
    words: FloatArray

    @classmethod
    def of(
        cls,
        encoder: TextEncoder,
        photos: Sequence[CataloguePhoto],
        listings: Mapping[str, _Listing],
        side: frozenset[str],
    ) -> "_Pairs":
        rows = [row for row, photo in enumerate(photos) if photo.listing_id in side and photo.listing_id in listings]
        if len(rows) > _MOST_LISTINGS:
            rows = np.random.default_rng(_SEED).choice(rows, _MOST_LISTINGS, replace=False).tolist()
        known: dict[str, tuple[FloatArray, FloatArray]] = {}
        nothing = np.zeros(encoder.width, dtype=np.float32)
        for row in rows:
            if (listing_id := photos[row].listing_id) not in known:
                one = listings[listing_id]
                both = (encoder.encode(one.title), encoder.encode(one.words))
                title, words = (nothing if found is None else found.vector for found in both)
                known[listing_id] = (title, words)
        pairs = [known[photos[row].listing_id] for row in rows]
        return cls(np.array(rows, dtype=np.int64), np.stack([t for t, _ in pairs]), np.stack([w for _, w in pairs]))


def _map_to_photos(pairs: _Pairs, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit the map from words to photos: weights (width, dim) and bias (dim,), both float32."""
    words = np.concatenate([pairs.titles, pairs.words]).astype(np.float64)
    seen = np.concatenate([vectors[pairs.rows]] * 2).astype(np.float64)
    centre = words.mean(0)
    words, seen = words - centre, seen - seen.mean(0)
    whiten_words, whiten_seen = _whitening(words.T @ words / len(words)), _whitening(seen.T @ seen / len(seen))
    left, correlation, right = np.linalg.svd(
        whiten_words @ (words.T @ seen / len(words)) @ whiten_seen, full_matrices=False
    )
    weights = whiten_words @ (left * correlation) @ right @ whiten_seen
    return weights.astype(np.float32), (-centre @ weights).astype(np.float32)


def _whitening(covariance: DoubleArray) -> DoubleArray:
    variance, axes = np.linalg.eigh(covariance)
    spread = np.maximum(variance, 0) + _SHRINKAGE * max(float(variance.mean()), 1e-12)
    whitening: DoubleArray = axes / np.sqrt(spread) @ axes.T
    return whitening


def _expectation(encoder: TextEncoder, pairs: _Pairs, vectors: FloatArray) -> tuple[float, float]:
    """Slope and offset of the line by which words' similarity goes with that of the mapped words and the photo."""
    asked = np.random.default_rng(_SEED).permutation(len(pairs.rows))[:_COMPARED]
    mapped = normalised(pairs.titles[asked] @ encoder.to_photo + encoder.to_photo_bias)
    expected = (mapped @ vectors[pairs.rows].T).ravel().astype(np.float64)
    similar = (pairs.titles[asked] @ pairs.words.T).ravel().astype(np.float64)
    if np.ptp(expected) < _SAME:  # no line goes through one point
        return 0.0, float(similar.mean())
    slope, offset = np.polyfit(expected, similar, 1)
    return float(slope), float(offset)
