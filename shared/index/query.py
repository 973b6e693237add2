"""Query: what a search compares with the photos of an index: a photo's vector, words, or both."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from shared.array_types import FloatArray
from shared.text.encoder import EncodedText, TextFacts, Words

_RAISED = 0.9  # at most: of those that say all of a query, the most similar are still first


@dataclass(frozen=True)
class WordsQuery:
    """The words of a query.

    Attributes:
        vector: (width,) float32, L2 norm 1, as `EncodedText.vector`.
        weight: of the words' similarity, 0..1; the photos' has the rest.
        expected: (dim,) float32: its product with a photo's vector, plus `offset`, is the similarity of words that is
            expected of a photo whose listing has none.
        offset: see `expected`.
        words: the words themselves, for finding them word for word.
        alone: there is no photo: what is compared with photos is where the words map to.
    """

    vector: FloatArray
    weight: float
    expected: FloatArray
    offset: float
    words: Words
    alone: bool = False

    @classmethod
    def of(cls, text: EncodedText, weight: float, facts: TextFacts, *, alone: bool = False) -> Self:
        """Make the words of a query from an encoded text.

        Args:
            text: encoded.
            weight: 0..1.
            facts: of the encoder.
            alone: there is no photo.
        """
        expected = (np.float32(facts.slope) * text.photo).astype(np.float32)
        # Beside a photo, what has all words would come before what looks like it; of known ones the vector says enough.
        words = text.words._replace(whole=alone or weight == 1)
        return cls(text.vector, weight, expected, facts.offset, words, alone)

    def joined(self, photos: FloatArray, words: FloatArray, verbatim: FloatArray) -> FloatArray:
        """Join what is known of some photos.

        Args:
            photos, words: (m,) similarities.
            verbatim: (m,) how much of the query their listings say word for word, 0..1 (`shared.index.words.postings`).

        Returns:
            (m,) float32: the weighted sum of both similarities, brought towards 1 by what is said word for word.
        """
        both = (1 - self.weight) * photos + self.weight * words
        raised: FloatArray = (both + self.raising(verbatim) * (1 - both)).astype(np.float32)
        return raised

    def raising(self, verbatim: FloatArray) -> FloatArray:
        """How far towards 1 a score is brought, (m,) 0.._RAISED, by what is said word for word."""
        return verbatim * np.float32(_RAISED if self.alone else _RAISED * self.weight)


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        vector: (dim,) float32, L2 norm 1: of a photo, or what words map to where there is none.
        words: None: photos alone are compared.
    """

    vector: FloatArray
    words: WordsQuery | None = None
