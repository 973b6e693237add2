"""Query: what a search compares with the photos of an index: a photo's vector, words, or both."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from shared.array_types import FloatArray
from shared.text.encoder import EncodedText, TextFacts


@dataclass(frozen=True)
class WordsQuery:
    """The words of a query.

    Attributes:
        vector: (width,) float32, L2 norm 1, as `EncodedText.vector`.
        weight: of the words' similarity, 0..1; the photos' has the rest.
        expected: (dim,) float32: its product with a photo's vector, plus `offset`, is the similarity of words that is
            expected of a photo whose listing has none.
        offset: see `expected`.
        alone: there is no photo: what is compared with photos is where the words map to.
    """

    vector: FloatArray
    weight: float
    expected: FloatArray
    offset: float
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
        return cls(text.vector, weight, expected, facts.offset, alone)

    def joined(self, photos: FloatArray, words: FloatArray) -> FloatArray:
        """Join similarities of photos and of words, (m,) each."""
        both: FloatArray = ((1 - self.weight) * photos + self.weight * words).astype(np.float32)
        return both


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        vector: (dim,) float32, L2 norm 1: of a photo, or what words map to where there is none.
        words: None: photos alone are compared.
    """

    vector: FloatArray
    words: WordsQuery | None = None
