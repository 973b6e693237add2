"""TextEncoder: turns the words of a listing or a query into a vector, into category scores, and into a photo's vector.

It was fitted on the catalogue's own words (`pipeline/training/words/encoder.py`) and is a few arrays in the model
bundle: which features there are and how rare each is (TF-IDF), the axes that a text is reduced to, a linear classifier,
and a linear map into the space of the photos' embeddings. Applying it takes numpy alone and well under a millisecond.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from shared.array_types import BoolArray, FloatArray, IntArray
from shared.errors import BundleDamaged
from shared.model.fusion import softmax
from shared.text.cleaning import TextRules
from shared.text.features import Features, Hashes, features
from shared.text.sentences import SentenceEncoder, SentenceFacts

# Of a listing's own category beside what its words say of it, in its vector. Measured on 282 unseen listings with photo
# and title: 0, 0.5, 0.7 and 1 give precision@4 .69, .69, .70 and .70; a wrong label should not hide what words say.
_LABEL = 0.7
TEXT = "text.safetensors"  # the encoder's arrays, in a bundle
# An empty array of that name in TEXT: it was fitted with vowel signs as letters. Earlier builds pass over it.
SIGNS = "vowel_signs"
# The same: words are looked up with letters and numbers apart.
APART = "numbers_apart"
_NONE: Hashes = np.empty(0, dtype=np.uint64)
_ARRAYS = ("words", "letters", "rarity", "axes", "classes", "class_bias", "to_photo", "to_photo_bias")


class TextFacts(BaseModel):
    """What the manifest of a bundle says of its text encoder; part of the fingerprint.

    Attributes:
        attributes: names of the listing's attributes that are its words, in their order.
        sha256: of TEXT.
        dimension: of a text's vector.
        evidence: weight of the category's probabilities in that vector, beside 1 for the words themselves.
        temperature: by which category scores are divided before the softmax.
        surer: power of the number of a text's words by which its category scores grow: more words tell more.
        slope, offset: similarity of words that is expected of a photo without words, by that of its mapped photo.
        rules: what is removed from a text first.
        sentences: a sentence encoder whose vectors are features, too; None: there is none.
        padding: zeros that a vector begins with: in older bundles, whose indexes have something else there.
    """

    model_config = ConfigDict(frozen=True)

    attributes: tuple[str, ...]
    sha256: str = ""
    dimension: int
    evidence: float
    temperature: float
    slope: float
    offset: float
    rules: TextRules
    # Left out of the fingerprint of an older bundle.
    surer: float = Field(0.0, exclude_if=lambda surer: surer == 0)
    # Left out where there is none: such a bundle has the fingerprint that it had before there were any.
    sentences: SentenceFacts | None = Field(None, exclude_if=lambda facts: facts is None)
    # Not in the fingerprint of an older bundle.
    padding: int = Field(32, exclude_if=lambda padding: padding == 32)


class Words(NamedTuple):
    """The words of a text, each once, for finding them word for word.

    Where a script has no spaces, pieces of a few letters count as words: one and two of Chinese and Japanese, two and
    four of Thai, Lao, Burmese and Khmer.

    Attributes:
        hashes: (n,) uint32.
        known: (n,) whether the encoder has seen the word when it was fitted; of others it can only go by their letters.
        whole: whether to say all of them counts, too; else those that are not known alone.
    """

    hashes: npt.NDArray[np.uint32]
    known: BoolArray
    whole: bool = True

    @classmethod
    def of(cls, found: Features, known: Hashes, known_letters: Hashes = _NONE, *, apart: bool = True) -> "Words":
        """Collect the words of a text.

        Args:
            found: features of the text.
            known, known_letters: hashes of the words and runs of letters that are known, sorted.
            apart: False: with numbers as parts of words, as an earlier Lookalike did.
        """
        parts = found.parts
        spaced = found.words[: found.n_words] if parts is None else parts.words
        whole = found.apart if apart else spaced
        words = whole if parts is None else np.concatenate([whole, parts.short, parts.long])
        hashes, first = np.unique((words >> np.uint64(32)).astype(np.uint32), return_index=True)
        if parts is None:
            return cls(hashes, np.isin(words[first], known, assume_unique=True))
        short, long = np.ones(len(parts.short), dtype=bool), np.isin(parts.runs, known_letters)
        return cls(hashes, np.concatenate([np.isin(whole, known), short, long])[first])


class EncodedListing(NamedTuple):
    """What a text encoder makes of the words of a listing.

    Attributes:
        vector: (width,) float32, L2 norm 1.
        words: hashes of its words, (n,) uint32, each once.
    """

    vector: FloatArray
    words: npt.NDArray[np.uint32]


# Encodes the words of a listing, by its attributes as JSON and its category; None: it has no words.
EncodeListing = Callable[[str, int], EncodedListing | None]


class EncodedText(NamedTuple):
    """What a text encoder makes of one text.

    Attributes:
        vector: (width,) float32, L2 norm 1; compared with those of listings by inner product.
        scores: (n_categories,) float32, before softmax.
        photo: (dim,) float32, L2 norm 1: compared with embeddings of photos.
        words: its words.
        known: whether any of its words or their letters are known; else scores and photo say nothing of it.
        n_words: how many different words it has, pieces of words not counted.
    """

    vector: FloatArray
    scores: FloatArray
    photo: FloatArray
    words: Words
    known: bool = True
    n_words: int = 0


def weigh(found: Features, words: Hashes, letters: Hashes, rarity: FloatArray) -> tuple[IntArray, FloatArray]:
    """Find the known features of a text, weighted by TF-IDF; words and letters have the L2 norm 1 each.

    Args:
        found: features of the text.
        words, letters: hashes of the features that are known, sorted.
        rarity: (words and letters,) inverse document frequencies.

    Returns:
        positions (m,) int64 in `rarity`, and weights (m,) float32.
    """
    places, weights = [], []
    start = 0
    for known, hashes in ((words, found.words), (letters, found.letters)):
        some, counts = np.unique(hashes, return_counts=True)
        at = np.searchsorted(known, some)
        there = at < len(known)
        there[there] = known[at[there]] == some[there]
        rows = at[there] + start
        weight = ((1 + np.log(counts[there])) * rarity[rows]).astype(np.float32)
        if len(rows):
            places.append(rows)
            weights.append(weight / np.linalg.norm(weight))
        start += len(known)
    if not places:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    return np.concatenate(places), np.concatenate(weights)


def texts_of(payload: str, names: Sequence[str]) -> dict[str, str]:
    """Return the texts of a listing, by name, in the order of the names.

    Args:
        payload: its attributes as JSON; empty: it has none.
        names: of the attributes that are its words.
    """
    values = json.loads(payload) if payload else {}
    return {name: str(values[name]) for name in names if values.get(name)}


def with_evidence(vector: FloatArray, chances: FloatArray) -> FloatArray:
    """Replace what a vector says of the category, of words as of a projected photo.

    Args:
        vector: (width,) float32, whose last entries are the square roots of probabilities, times their weight.
        chances: (n_categories,) probabilities.

    Returns:
        (width,) float32, of the length that it had.
    """
    before = vector[-len(chances) :]
    scale = np.linalg.norm(before) / max(float(np.linalg.norm(np.sqrt(chances))), 1e-12)
    return np.concatenate([vector[: -len(chances)], np.sqrt(chances) * scale]).astype(np.float32)


class TextEncoder:
    """Encodes texts by the arrays of a bundle; safe to share between threads.

    Args:
        facts: from the bundle's manifest.
        arrays: of TEXT, by name: `words` and `letters` (n,) and (m,) uint64, sorted; `rarity` (n + m,) float32; `axes`
            (n + m, dimension) and `classes` (n + m, n_categories) float16; `class_bias` (n_categories,); `to_photo`
            (dimension + n_categories, dim) and `to_photo_bias` (dim,) float32. With a sentence encoder, `axes` and
            `classes` have a row more for each number of its vectors. SIGNS, APART: see there.
        sentences: the sentence encoder, if the facts name one.

    Attributes:
        facts, to_photo, to_photo_bias: as given.

    Raises:
        BundleDamaged: an array is missing, or they do not fit together.
    """

    def __init__(
        self,
        facts: TextFacts,
        arrays: Mapping[str, npt.NDArray[np.generic]],
        sentences: SentenceEncoder | None = None,
    ) -> None:
        if missing := [name for name in _ARRAYS if name not in arrays]:
            raise BundleDamaged(f"{TEXT} has no {', '.join(missing)}")
        self.facts = facts
        self._sentences = sentences
        self._signs = SIGNS in arrays
        self._apart = APART in arrays
        named: Any = arrays
        self._words: Hashes = named["words"]
        self._letters: Hashes = named["letters"]
        self._rarity: FloatArray = named["rarity"]
        # Turned into float32 once: for each text that took a sixth of the time, of 300 words 0.5 of 3.0 ms.
        self._axes: FloatArray = named["axes"].astype(np.float32)
        self._classes: FloatArray = named["classes"].astype(np.float32)
        self._bias: FloatArray = named["class_bias"]
        self.to_photo: FloatArray = named["to_photo"]
        self.to_photo_bias: FloatArray = named["to_photo_bias"]
        n_features = len(self._words) + len(self._letters)
        shapes = [array.shape for array in (self._rarity, self._axes, self._classes)]
        n_rows = n_features + (sentences.facts.dimension if sentences else 0)
        if shapes != [(n_features,), (n_rows, facts.dimension), (n_rows, len(self._bias))]:
            raise BundleDamaged(f"{TEXT}: the arrays do not fit together: {shapes}")

    @property
    def width(self) -> int:
        """Length of a text's vector."""
        return self.facts.padding + self.facts.dimension + len(self._bias)

    def encode(self, text: str) -> EncodedText | None:
        """Encode a text as a person writes it.

        Returns:
            None where there is no word in it: it is empty, or all boilerplate.
        """
        cleaned = self.facts.rules.clean(text)
        found = features(cleaned, signs=self._signs)
        rows, weight = weigh(found, self._words, self._letters, self._rarity)
        words = Words.of(found, self._words, self._letters, apart=self._apart)
        known = len(rows) > 0
        if not known and not len(words.hashes):
            return None
        if self._sentences is not None:
            rows, weight = self._sentences.join(cleaned, rows, weight, len(self._rarity))
        meaning = weight @ self._axes[rows]
        scores = (weight @ self._classes[rows] + self._bias).astype(np.float32)
        n_words = len(np.unique(found.words[: found.n_words]))
        scores *= np.float32(max(1, n_words) ** self.facts.surer)
        chances = softmax(scores, self.facts.temperature)
        meaning = meaning / max(float(np.linalg.norm(meaning)), 1e-12)
        evidence = self.facts.evidence * np.sqrt(chances)
        said = np.concatenate([meaning, evidence]).astype(np.float32)
        said /= np.float32(max(float(np.linalg.norm(said)), 1e-12))
        photo = (said @ self.to_photo + self.to_photo_bias).astype(np.float32)
        photo /= np.float32(max(float(np.linalg.norm(photo)), 1e-12))
        vector = np.concatenate([np.zeros(self.facts.padding, dtype=np.float32), said])
        return EncodedText(vector, scores, photo, words, known=known, n_words=n_words)

    def of_listing(self, payload: str, category: int) -> EncodedListing | None:
        """Encode the words of a listing; None if it has none.

        Args:
            payload: its attributes as JSON.
            category: its own, which is known and counts more than what its words say of it.
        """
        texts = texts_of(payload, self.facts.attributes)
        encoded = self.encode("\n".join(texts.values())) if texts else None
        if encoded is None:
            return None
        chances = (1 - _LABEL) * softmax(encoded.scores, self.facts.temperature)
        if category < len(chances):
            chances[category] += _LABEL
        return EncodedListing(with_evidence(encoded.vector, chances), encoded.words.hashes)
