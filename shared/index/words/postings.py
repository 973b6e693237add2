"""Postings: which listings have which words, so that what a query says word for word is found word for word.

A text's vector tells what a thing is, and blurs rare words: names of products, of places, of what has never been sold
before. By vectors alone 13 % of 250 words that one or two of 1,412 real listings have found one of them among ten
photos; by postings, all do.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.index.words.word_lists import WordLists
from shared.text.encoder import Words

_MOST_READ = 20_000  # of one search: the commonest words, which tell listings apart least, are passed over
# A word counts by this power of its inverse document frequency. Measured on 1,412 real listings, each unknown to the
# encoder that was asked for it: the only one with a word is among four photos for .97 of queries of it and a word of
# another listing's title, and for .88 with two; with a power of 1 for .79 and .52. With _FEW for .99 and .96.
_RARER = 3
# Words; of fewer, each is meant. Precision@4 of titles alone is .679 then, .683 with _RARER 1 (paired: -.004
# [-.008, .000]), and .669 without postings; with descriptions or photos nothing is lost. Power 4 costs titles .005.
_FEW = 4
_POWER = 4  # of a share said in part; with 2 to 16 precision@4 is the same within .01


class Verbatim(NamedTuple):
    """The listings that have words of a query.

    Attributes:
        listings: (m,) codes, ascending.
        shares: (m,) float32, how much of the query each says word for word, above 0, at most 1.
    """

    listings: IntArray
    shares: FloatArray

    def of(self, listings: npt.NDArray[np.integer]) -> FloatArray:
        """How much of the query some listings say: (n,) codes -> (n,) float32, 0 for those with none of its words."""
        if not len(self.listings):
            return np.zeros(len(listings), dtype=np.float32)
        at = np.minimum(np.searchsorted(self.listings, listings), len(self.listings) - 1)
        found: FloatArray = np.where(self.listings[at] == listings, self.shares[at], np.float32(0))
        return found

    def best(self, n: int) -> IntArray:
        """The `n` listings that say most, or fewer, (m,) in no order."""
        if len(self.listings) <= n:
            return self.listings
        return self.listings[np.argpartition(self.shares, -n)[-n:]]


class WordWeights(NamedTuple):
    """How much the words of a query count, (n,) each.

    Attributes:
        rare: by how rare they are in the index; they sum to 1, of all words of the query.
        new: the same of those that the encoder does not know; 0 of those it knows.
        whole: as of `Words`.
    """

    rare: FloatArray
    new: FloatArray
    whole: bool

    @property
    def read(self) -> IntArray:
        """Positions of the words that matter."""
        found: IntArray = np.flatnonzero((self.rare if self.whole else self.new) > 0)
        return found

    def shares(self, words: IntArray, places: IntArray, n: int) -> FloatArray:
        """How much of the query is said in each of `n` places, (n,) float32.

        All of it counts far more than a part: who writes a word or two looks for these words, but a whole title has
        words in common with other kinds of things. A new word counts in any case: it is all that is known of it; the
        more so, the fewer words there are beside it.

        Args:
            words: (m,) positions of words in the query.
            places: (m,) where each is said.
            n: number of places.
        """
        new = np.bincount(places, self.new[words], minlength=n) ** min(1.0, len(self.new) / _FEW)
        rare = np.bincount(places, self.rare[words], minlength=n) if self.whole else np.zeros(n)
        most: FloatArray = np.minimum(np.maximum(new, rare**_POWER), 1).astype(np.float32)
        return most


class Postings:
    """The words of a snapshot's listings; safe to share between threads.

    Args:
        lists: the listings of each word.
        n_listings: of the snapshot.
    """

    def __init__(self, lists: WordLists, n_listings: int) -> None:
        self._lists = lists
        self._n_listings = n_listings

    def weights(self, words: Words) -> WordWeights:
        """How much the words of a query count, by how many listings have each."""
        return self._weights(words, self._lists.counts(words.hashes))

    def _weights(self, words: Words, counts: IntArray) -> WordWeights:
        rare = np.log((1 + self._n_listings) / (1 + counts)) ** _RARER
        order = np.argsort(counts, kind="stable")
        rare[order[np.cumsum(counts[order]) > _MOST_READ]] = 0
        rare /= max(float(rare.sum()), 1e-12)
        return WordWeights(rare, np.where(words.known, 0, rare), words.whole)

    def find(self, words: Words) -> Verbatim:
        """Find the listings that have words of a query."""
        counts = self._lists.counts(words.hashes)
        weights = self._weights(words, counts)
        read = weights.read
        listings, places = np.unique(self._lists.listings(words.hashes[read]), return_inverse=True)
        return Verbatim(listings, weights.shares(np.repeat(read, counts[read]), places, len(listings)))
