"""HybridIndex: searches photos and the words of their listings as one, by a weighted sum of both similarities."""

import math
import threading
from typing import NamedTuple

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.index.query import Query
from shared.index.vectors.ann import Allowed, CompressedIndex, RowIndex, best, products
from shared.index.vectors.stored_vectors import Vectors
from shared.index.words.listing_texts import ListingTexts

# Times as many listings by their words as neighbours wanted: the best by both are seldom the first by one, least of all
# where words are compared with photos. Measured on 100,000 photos, each with words of its own: recall 0.997.
WIDER, _WIDER_ALONE = 2, 8
_CANDIDATES_EACH = 4  # that a compressed index gives for each neighbour wanted, at least


class _Compared(NamedTuple):
    """What a thread has compared last.

    Attributes:
        query: (dim,), which is not written to.
        n: rows it was searched for.
        scores, rows: as `RowIndex.compare`.
    """

    query: FloatArray
    n: int
    scores: FloatArray
    rows: IntArray


class HybridIndex:
    """Searches the rows of a snapshot by photo, by words, or by both; safe to share between threads.

    Args:
        photos: by whose vectors rows are found.
        vectors: (rows, dim), theirs, as they are stored.
        texts: the words; None: the snapshot has none, and the words of a query are compared with photos only.

    Attributes:
        texts: as given.
        compressed: the photos' index, where it has inverted lists; else None.
    """

    def __init__(self, photos: RowIndex, vectors: Vectors, texts: ListingTexts | None) -> None:
        self._photos = photos
        self._vectors = vectors
        self.texts = texts
        self.compressed = photos if isinstance(photos, CompressedIndex) else None
        self._last = threading.local()

    def near(self, query: FloatArray, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Find about the most similar rows to a photo, at the cost of a search for fewer; as `RowIndex.search`.

        The first are those that a search finds; of the others a compressed index may miss some.
        """
        n_compared = math.ceil(n / _CANDIDATES_EACH) if isinstance(self._photos, CompressedIndex) else n
        return best(*self._compared(query, n_compared, allowed), n)

    def _compared(self, query: FloatArray, n: int, allowed: Allowed | None) -> tuple[FloatArray, IntArray]:
        """Compare a photo with the rows that a search for `n` needs; all votes and searches of one query do it once."""
        if allowed is not None:
            return self._photos.compare(query, n, allowed)
        last: _Compared | None = getattr(self._last, "compared", None)
        if last is None or last.query is not query or last.n < n:
            last = self._last.compared = _Compared(query, n, *self._photos.compare(query, n))
        return last.scores, last.rows

    def damaged_codes(self, n: int, rng: np.random.Generator) -> int | None:
        """Count the damaged codes of rows drawn at random; None: there are no codes. See `CompressedIndex`."""
        return self.compressed.damaged_codes(n, rng) if self.compressed else None

    def search(self, query: Query, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Find the allowed rows most similar to a query; as `RowIndex.search`.

        An exact index compares all rows by both parts; a compressed one takes candidates by each part, and compares
        those by both.
        """
        words = query.words
        if words is None or self.texts is None:
            return best(*self._compared(query.vector, n, allowed), n)
        verbatim = self.texts.verbatim(words.words)
        if isinstance(self._photos, CompressedIndex):
            n_by_words = n * (_WIDER_ALONE if words.alone else WIDER)
            by_words = self.texts.candidates(words, verbatim, n_by_words, allowed)
            rows = np.union1d(self._photos.candidates(query.vector, n, allowed), by_words)
        else:
            rows = np.arange(len(self._vectors)) if allowed is None else allowed.rows
        by_photo = products(self._vectors, rows, query.vector)
        return best(self.texts.joined(rows, by_photo, words, verbatim, self._vectors.__getitem__), rows, n)
