"""ListingTexts: the encoded words of a snapshot's listings, searched together with their photos.

Each listing's vector is stored once, however many photos it has. All of it is memory-mapped; above EXACT_UP_TO listings
a compressed index over the vectors selects candidates, as for photos.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.array_types import BoolArray, FloatArray, IntArray
from shared.artifacts.snapshots import PHOTOS, IndexKind, TextIndexFacts
from shared.index.arrays import CHUNK_ROWS, map_array, write_chunks
from shared.index.query import WordsQuery
from shared.index.vectors.ann import Allowed, CompressedIndex, ExactIndex, RowIndex
from shared.index.vectors.compression import EXACT_UP_TO, compress
from shared.index.words.postings import Postings, Verbatim, WordWeights
from shared.index.words.word_lists import WordListsWriter, open_word_lists
from shared.text.encoder import EncodeListing, Words

TEXTS = "texts.npy"
TEXT_CODES = "texts.faiss"
_BY_LISTING = """
    SELECT coalesce(json, ''), category, min(row) FROM photos LEFT JOIN payloads ON payloads.id = photos.payload
    GROUP BY listing_id ORDER BY listing_id
"""

# Of the ten nearest of 1,412 real texts, 4 bits on 128 of their 141 axes have 0.999 among 25 candidates, 8 on all 1.
_BITS = 4
_TICK_EVERY = 256
_MORE_EXACT = 4  # times as many, as a compressed index gives


def write_texts(
    directory: Path,
    encode: EncodeListing,
    width: int,
    *,
    exact_up_to: int = EXACT_UP_TO,
    threads: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> TextIndexFacts:
    """Encode and write the words of every listing of a snapshot, in the order of its listing codes.

    Args:
        directory: that `write_photos` has written to.
        encode: encodes a listing by its attributes as JSON and its category; None: no words.
        width: of the vectors.
        exact_up_to: more listings than this get a compressed index.
        threads: for building one; 0: one per core.
        tick: called between listings; an exception it raises ends the work.
    """
    with closing(sqlite3.connect(directory / PHOTOS)) as connection:
        (count,) = connection.execute("SELECT count(DISTINCT listing_id) FROM photos").fetchone()
        listings = connection.execute(_BY_LISTING)
        n_before = n_with_words = 0
        lists = WordListsWriter(directory)

        def chunks() -> Iterator[FloatArray]:
            nonlocal n_before, n_with_words
            while page := list(islice(listings, CHUNK_ROWS)):
                texts = np.zeros((len(page), width), dtype=np.float32)
                for place, (payload, category, _) in enumerate(page):
                    if (encoded := encode(payload, category)) is not None:
                        texts[place] = encoded.vector
                        lists.add(encoded.words, n_before + place)
                        n_with_words += 1
                    if place % _TICK_EVERY == 0:
                        tick()
                n_before += len(page)
                yield texts

        write_chunks(directory / TEXTS, np.dtype(np.float32), (count, width), chunks())
    lists.write(tick)
    facts = TextIndexFacts(kind=IndexKind.EXACT, width=width, n_with_words=n_with_words)
    if count <= exact_up_to:
        return facts
    tuned = compress(directory / TEXT_CODES, map_array(directory / TEXTS), bits=_BITS, threads=threads)
    return facts.model_copy(update={"kind": tuned.kind, "n_probes": tuned.n_probes, "n_candidates": tuned.n_candidates})


class ListingTexts:
    """The words of a snapshot's listings; safe to share between threads.

    Args:
        directory: of the snapshot.
        facts: from its manifest.
        listings: (n,) int32, code of each row's listing.

    Raises:
        OSError, ValueError, RuntimeError: a file is missing or damaged, or does not fit the rows.
    """

    def __init__(self, directory: Path, facts: TextIndexFacts, listings: npt.NDArray[np.int32]) -> None:
        compressed = facts.kind is IndexKind.COMPRESSED
        self._texts: FloatArray = map_array(directory / TEXTS, scattered=compressed)
        if self._texts.ndim != 2 or self._texts.shape[1] != facts.width or self._texts.dtype != np.float32:
            raise ValueError(f"{TEXTS} is not of width {facts.width}")
        self.facts = facts
        self._listings = listings
        self._index: RowIndex = ExactIndex(self._texts)
        if compressed:
            self._index = CompressedIndex(
                directory / TEXT_CODES, self._texts, n_probes=facts.n_probes, n_candidates=facts.n_candidates
            )

        lists = open_word_lists(directory)
        self._postings = Postings(lists, len(self._texts)) if lists else None

    def word_weights(self, words: Words) -> WordWeights | None:
        """How much the words of a query count when they are found word for word; None: they are not searched so."""
        return self._postings.weights(words) if self._postings else None

    def verbatim(self, words: Words) -> Verbatim:
        """Find the listings that have words of a query."""
        if self._postings is None:
            return Verbatim(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        return self._postings.find(words)

    def said_by(self, rows: IntArray, words: Words) -> FloatArray:
        """How much of a query's words the listings of some rows say word for word, (n,) -> (n,)."""
        return self.verbatim(words).of(self._listings[rows])

    @cached_property
    def _with_words(self) -> BoolArray:
        """Which listings have words, (listings,)."""
        there = [
            self._texts[start : start + CHUNK_ROWS].any(axis=1) for start in range(0, len(self._texts), CHUNK_ROWS)
        ]
        found: BoolArray = np.concatenate(there)
        return found

    @cached_property
    def _by_listing(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Rows in the order of their listings, and where each listing's begin, with the end after the last."""
        order = np.argsort(self._listings, kind="stable").astype(np.int32)
        counts = np.bincount(self._listings, minlength=len(self._texts))
        return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    def joined(
        self,
        rows: IntArray,
        photos: FloatArray,
        query: WordsQuery,
        verbatim: Verbatim,
        vectors: Callable[[IntArray], FloatArray],
    ) -> FloatArray:
        """Compute how similar some rows are by photo and words.

        Args:
            rows: (m,).
            photos: (m,) their similarities by photo.
            query: the words.
            verbatim: listings that say them word for word.
            vectors: returns the embeddings of rows, (k, dim) float32, for those without words.

        Returns:
            (m,) float32.
        """
        codes = self._listings[rows]
        if 2 * len(rows) >= len(self._texts):
            similar: FloatArray = np.vecdot(self._texts, query.vector)[codes]
            with_words: BoolArray = self._with_words[codes]
        else:
            some, place = np.unique(codes, return_inverse=True)
            texts = self._texts[some]
            similar = np.vecdot(texts, query.vector)[place]
            with_words = np.asarray(texts.any(axis=1))[place]
        without = np.flatnonzero(~with_words)
        if len(without):
            similar[without] = np.vecdot(vectors(rows[without]), query.expected) + np.float32(query.offset)
        return query.joined(photos, similar, verbatim.of(codes))

    def candidates(self, query: WordsQuery, verbatim: Verbatim, n: int, allowed: Allowed | None) -> IntArray:
        """Select the rows of the listings whose words are worth comparing with a query's.

        Args:
            query: the words.
            verbatim: listings that say them word for word.
            n: listings wanted; some times as many are selected.
            allowed: rows that may be found; None: all.

        Returns:
            (m,) int64, ascending.
        """
        listings = None
        if allowed is not None:
            mask = np.zeros(len(self._texts), dtype=bool)
            mask[self._listings[allowed.rows]] = True
            listings = Allowed(mask)
        if isinstance(self._index, CompressedIndex):
            codes = self._index.candidates(query.vector, n, listings)
        else:
            _, codes = self._index.search(query.vector, _MORE_EXACT * n, listings)
        if listings is not None:
            there = listings.mask[verbatim.listings]
            verbatim = Verbatim(verbatim.listings[there], verbatim.shares[there])
        codes = np.union1d(codes, verbatim.best(n))
        order, starts = self._by_listing
        rows = np.concatenate([order[starts[code] : starts[code + 1]] for code in codes.tolist()] or [order[:0]])
        rows = np.sort(rows.astype(np.int64))
        return rows if allowed is None else rows[allowed.mask[rows]]
