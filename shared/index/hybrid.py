"""HybridIndex: searches photos and the words of their listings as one, by a weighted sum of both similarities."""

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.index.ann import Allowed, CompressedIndex, RowIndex, best, products
from shared.index.listing_texts import ListingTexts
from shared.index.query import Query

WIDER = 4  # times as many neighbours by each part: the best by both are seldom among the very first by one


class HybridIndex:
    """Searches the rows of a snapshot by photo, by words, or by both; safe to share between threads.

    Args:
        photos: by whose vectors rows are found.
        vectors: (rows, dim) float32, theirs; may be memory-mapped.
        texts: the words; None: the snapshot has none, and the words of a query are compared with photos only.
    """

    def __init__(self, photos: RowIndex, vectors: FloatArray, texts: ListingTexts | None) -> None:
        self._photos = photos
        self._vectors = vectors
        self._texts = texts

    def search(self, query: Query, n: int, allowed: Allowed | None = None) -> tuple[FloatArray, IntArray]:
        """Find the allowed rows most similar to a query; as `RowIndex.search`.

        An exact index compares all rows by both parts; a compressed one takes candidates by each part, and compares
        those by both.
        """
        words = query.words
        if words is None or self._texts is None:
            return self._photos.search(query.vector, n, allowed)
        if isinstance(self._photos, CompressedIndex):
            by_photo = self._photos.candidates(query.vector, WIDER * n, allowed)
            rows = np.union1d(by_photo, self._texts.candidates(words, WIDER * n, allowed))
        else:
            rows = np.arange(len(self._vectors)) if allowed is None else allowed.rows
        similar = self._texts.similarities(rows, words, self._vectors.__getitem__)
        return best(words.joined(products(self._vectors, rows, query.vector), similar), rows, n)
