"""DeltaTexts: the encoded words of photos that were put since a snapshot was built, in the order of the change log."""

import numpy as np

from shared.array_types import FloatArray
from shared.index.query import WordsQuery
from shared.index.vectors.ann import products
from shared.index.vectors.stored_vectors import Vectors
from shared.index.words.postings import WordWeights
from shared.text.encoder import EncodeListing, Words

_INITIAL_CAPACITY = 64


class DeltaTexts:
    """Append-only: a search that began before reads the first entries. One thread at a time may `keep`.

    Args:
        encode: encodes the words of a listing; None: there are no words.
        width: of a text's vector in the snapshot; 0: it has no words.
    """

    def __init__(self, encode: EncodeListing | None, width: int) -> None:
        self._encode = encode if width else None
        self._vectors: FloatArray = np.zeros((_INITIAL_CAPACITY, width), dtype=np.float32)
        self._places: dict[int, list[int]] = {}  # positions of the photos whose words have such a hash

    def keep(self, position: int, payload: str, category: int) -> None:
        """Encode the words of the photo at a position, by its listing's attributes as JSON and its category."""
        if position == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
        text = self._encode(payload, category) if self._encode else None
        self._vectors[position] = 0 if text is None else text.vector
        for word in [] if text is None else text.words.tolist():
            self._places.setdefault(word, []).append(position)

    def forget_from(self, position: int) -> None:
        """Forget the words of the photos at a position and behind it, which will be kept anew."""
        self._places = {
            word: kept for word, places in self._places.items() if (kept := [at for at in places if at < position])
        }

    def joined(
        self, photos: FloatArray, vectors: Vectors, query: WordsQuery, weights: WordWeights | None
    ) -> FloatArray:
        """Compute how similar the first photos are by photo and words, (n,) float32.

        Args:
            photos: (n,) their similarities by photo.
            vectors: (n, dim) their embeddings, as they are stored.
            query: the words.
            weights: how much each word counts when it is found word for word; None: they are not searched so.
        """
        similar = products(vectors, np.arange(len(vectors)), query.expected) + np.float32(query.offset)
        texts = self._vectors[: len(photos)]
        if texts.shape[1]:
            with_words = texts.any(axis=1)
            similar[with_words] = np.vecdot(texts[with_words], query.vector)
        return query.joined(photos, similar, self.verbatim(len(photos), query.words, weights))

    def verbatim(self, n: int, words: Words, weights: WordWeights | None) -> FloatArray:
        """How much of a query's words each of the first `n` photos says word for word, (n,) float32, 0..1."""
        if weights is None:
            return np.zeros(n, dtype=np.float32)
        said = [(i, at) for i, word in enumerate(words.hashes.tolist()) for at in self._places.get(word, ()) if at < n]
        of_word, places = np.array(said, dtype=np.int64).reshape(-1, 2).T
        return weights.shares(of_word, places, n)
