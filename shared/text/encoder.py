"""TextEncoder: turns the words of a listing or a query into a vector, into category scores, and into a photo's vector.

It was fitted on the catalogue's own words (`pipeline/training/text.py`) and is a few arrays in the model bundle: which
features there are and how rare each is (TF-IDF), the axes that a text is reduced to, a linear classifier, and a linear
map into the space of the photos' embeddings. Applying it takes numpy alone and well under a millisecond.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from shared.array_types import FloatArray, IntArray
from shared.errors import BundleDamaged
from shared.model.fusion import softmax
from shared.text.cleaning import TextRules
from shared.text.features import Features, Hashes, features
from shared.text.sentences import SentenceEncoder, SentenceFacts

# Of a listing's own category beside what its words say of it, in its vector. Measured on 282 unseen listings with photo
# and title: 0, 0.5, 0.7 and 1 give precision@4 .69, .69, .70 and .70; a wrong label should not hide what words say.
_LABEL = 0.7
# Of the words that no listing had, with a sentence encoder, which knows what they mean: a sofa is found as couch.
_UNMEANT = 0.5
N_STRANGE = 32  # places for words that are not known
TEXT = "text.safetensors"  # the encoder's arrays, in a bundle
_ARRAYS = ("words", "letters", "rarity", "axes", "classes", "class_bias", "to_photo", "to_photo_bias")


class TextFacts(BaseModel):
    """What the manifest of a bundle says of its text encoder; part of the fingerprint.

    Attributes:
        attributes: names of the listing's attributes that are its words, in their order.
        sha256: of TEXT.
        dimension: of a text's vector.
        evidence: weight of the category's probabilities in that vector, beside 1 for the words themselves.
        temperature: by which category scores are divided before the softmax.
        slope, offset: similarity of words that is expected of a photo without words, by that of its mapped photo.
        rules: what is removed from a text first.
        sentences: a sentence encoder whose vectors are features, too; None: there is none.
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
    # Left out where there is none: such a bundle has the fingerprint that it had before there were any.
    sentences: SentenceFacts | None = Field(None, exclude_if=lambda facts: facts is None)


class EncodedText(NamedTuple):
    """What a text encoder makes of one text.

    Attributes:
        vector: (width,) float32, L2 norm 1; compared with those of listings by inner product.
        scores: (n_categories,) float32, before softmax.
        photo: (dim,) float32, L2 norm 1: compared with embeddings of photos.
        known: whether any of its words or their letters are known; else scores and photo say nothing of it.
    """

    vector: FloatArray
    scores: FloatArray
    photo: FloatArray
    known: bool = True


def strange(found: Features, words: Hashes) -> tuple[FloatArray, float]:
    """Place the words of a text that are not known, as rare ones and new ones are, by their hashes.

    Two texts have such a word in common as surely as a known one; of different words the places hardly ever agree.

    Args:
        found: features of the text.
        words: hashes of the words that are known, sorted.

    Returns:
        (N_STRANGE,) float32, L2 norm 1, or zeros; and which share of the text's words they are.
    """
    every = np.unique(found.words[: found.n_words])
    at = np.minimum(np.searchsorted(words, every), max(0, len(words) - 1))
    unknown = every[words[at] != every] if len(words) else every
    placed = np.zeros(N_STRANGE, dtype=np.float32)
    if len(unknown):
        signs = 1 - 2 * (unknown >> np.uint64(63)).astype(np.float32)
        np.add.at(placed, (unknown % np.uint64(N_STRANGE)).astype(np.int64), signs)
        placed /= max(float(np.linalg.norm(placed)), 1e-12)
    return placed, len(unknown) / max(1, len(every))


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
            `classes` have a row more for each number of its vectors.
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
        named: Any = arrays
        self._words: Hashes = named["words"]
        self._letters: Hashes = named["letters"]
        self._rarity: FloatArray = named["rarity"]
        self._axes: npt.NDArray[np.float16] = named["axes"]
        self._classes: npt.NDArray[np.float16] = named["classes"]
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
        return N_STRANGE + self.facts.dimension + len(self._bias)

    def encode(self, text: str) -> EncodedText | None:
        """Encode a text as a person writes it.

        Returns:
            None where there is no word in it: it is empty, or all boilerplate.
        """
        cleaned = self.facts.rules.clean(text)
        found = features(cleaned)
        rows, weight = weigh(found, self._words, self._letters, self._rarity)
        known = len(rows) > 0
        unknown, share = strange(found, self._words)
        if not known and not share:
            return None
        if self._sentences is not None:
            rows, weight = self._sentences.join(cleaned, rows, weight, len(self._rarity))
            share *= _UNMEANT
        meaning = weight @ self._axes[rows].astype(np.float32)
        scores = (weight @ self._classes[rows].astype(np.float32) + self._bias).astype(np.float32)
        chances = softmax(scores, self.facts.temperature)
        meaning = meaning / max(float(np.linalg.norm(meaning)), 1e-12)
        evidence = self.facts.evidence * np.sqrt(chances)
        said = [unknown * np.sqrt(share), meaning * np.sqrt(1 - share), evidence]
        vector = np.concatenate(said).astype(np.float32)
        vector /= np.float32(max(float(np.linalg.norm(vector)), 1e-12))
        photo = (vector[N_STRANGE:] @ self.to_photo + self.to_photo_bias).astype(np.float32)
        photo /= np.float32(max(float(np.linalg.norm(photo)), 1e-12))
        return EncodedText(vector, scores, photo, known=known)

    def of_listing(self, payload: str, category: int) -> FloatArray | None:
        """Encode the words of a listing: (width,) float32, or None if it has none that are known.

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
        return with_evidence(encoded.vector, chances)
