"""Word lists: which listings have each word, in two files: a table of the words, and their listings packed.

Of a word's listings, ascending, the first and each one's distance to the one before are written as variable-length
quantities: seven bits a byte, the highest first, the eighth set in all bytes of a number but its last. A word that one
listing in a hundred has takes a byte for each of them.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shared.array_types import IntArray
from shared.index.arrays import map_array, write_array, write_unsized

WORDS, WORD_LISTINGS = "words.npy", "word_listings.npy"
POSTINGS = "postings.npy"  # of versions that an earlier Lookalike wrote
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)
_IN_MEMORY = 1 << 20  # entries of 8 bytes that are sorted together
_BITS, _LONGEST = 7, 5  # a number of 32 bits takes as many bytes at most


class WordLists(Protocol):
    """The listings of each word, memory-mapped; safe to share between threads."""

    def counts(self, hashes: npt.NDArray[np.uint32]) -> IntArray:
        """How many listings have each of some words, (n,) -> (n,)."""
        ...

    def listings(self, hashes: npt.NDArray[np.uint32]) -> IntArray:
        """The codes of the listings that have each of some words, ascending for each, one word after the other."""
        ...


class PackedLists:
    """`WordLists` as `WordListsWriter` writes them.

    Args:
        directory: of the snapshot.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        table, self._packed = map_array(directory / WORDS), map_array(directory / WORD_LISTINGS)
        if table.ndim != 2 or len(table) != len(_Table._fields) or table.dtype not in (np.uint32, np.uint64):
            raise ValueError(f"{WORDS} is not a table of words")
        self._table = _Table(*table)
        n_bytes = int(self._table.ends[-1]) if table.shape[1] else 0
        if self._packed.shape != (n_bytes,) or self._packed.dtype != np.uint8:
            raise ValueError(f"{WORD_LISTINGS} does not hold the listings of {WORDS}")

    def counts(self, hashes: npt.NDArray[np.uint32]) -> IntArray:
        """How many listings have each word; see `WordLists.counts`."""
        places, there = self._found(hashes)
        counts = np.zeros(len(hashes), dtype=np.int64)
        counts[there] = self._table.counts[places[there]]
        return counts

    def listings(self, hashes: npt.NDArray[np.uint32]) -> IntArray:
        """The listings that have each word; see `WordLists.listings`."""
        places, there = self._found(hashes)
        places = places[there]
        ends = self._table.ends[places].tolist()
        starts = np.where(places > 0, self._table.ends[places - 1], 0).tolist()
        parts = [self._packed[start:end] for start, end in zip(starts, ends, strict=True)]
        sums = np.cumsum(_unpacked(np.concatenate(parts or [self._packed[:0]])))
        counts = self._table.counts[places].astype(np.int64)
        lasts = np.cumsum(counts) - 1
        before = np.concatenate([[0], sums[lasts[:-1]]])[: len(places)]
        listings: IntArray = sums - np.repeat(before, counts)
        return listings

    def _found(self, hashes: npt.NDArray[np.uint32]) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Columns of the table, (n,), and whether the word is there."""
        words = self._table.hashes
        places = np.searchsorted(words, hashes.astype(words.dtype))
        if not len(words):
            return places, np.zeros(len(hashes), dtype=bool)
        return places, words[np.minimum(places, len(words) - 1)] == hashes


class _Table(NamedTuple):
    """The rows of the table, a column a word, in the order of their hashes; (words,) uint32, or uint64 from 4 GiB on.

    Attributes:
        hashes: of the words.
        counts: listings that have each.
        ends: where its listings end among all bytes.
    """

    hashes: npt.NDArray[np.uint32 | np.uint64]
    counts: npt.NDArray[np.uint32 | np.uint64]
    ends: npt.NDArray[np.uint32 | np.uint64]


class SortedLists:
    """`WordLists` in one sorted array of 8 bytes for each word of each listing, as an earlier Lookalike wrote them.

    Args:
        path: of (n,) uint64: a word's hash, and a listing's code in the lower half.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._entries: npt.NDArray[np.uint64] = map_array(path)
        if self._entries.ndim != 1 or self._entries.dtype != np.uint64:
            raise ValueError(f"{path.name} is not a list of postings")

    def counts(self, hashes: npt.NDArray[np.uint32]) -> IntArray:
        """How many listings have each word; see `WordLists.counts`."""
        starts, ends = self._bounds(hashes)
        counts: IntArray = ends - starts
        return counts

    def listings(self, hashes: npt.NDArray[np.uint32]) -> IntArray:
        """The listings that have each word; see `WordLists.listings`."""
        starts, ends = self._bounds(hashes)
        entries = [self._entries[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return (np.concatenate(entries or [self._entries[:0]]) & _LOW).astype(np.int64)

    def _bounds(self, hashes: npt.NDArray[np.uint32]) -> tuple[IntArray, IntArray]:
        first = hashes.astype(np.uint64) << _HALF
        return np.searchsorted(self._entries, first), np.searchsorted(self._entries, first | _LOW, side="right")


def open_word_lists(directory: Path) -> WordLists | None:
    """Open the word lists of a snapshot; None: it is of a Lookalike that wrote none.

    Raises:
        OSError, ValueError: a file is damaged.
    """
    if (directory / WORDS).exists():
        return PackedLists(directory)
    return SortedLists(directory / POSTINGS) if (directory / POSTINGS).exists() else None


class WordListsWriter:
    """Collects the words of listings, in the order of their codes, and writes their lists.

    In memory are some 50 MB and the table of the words; the rest waits on disk, 8 bytes for each word of each listing.

    Args:
        directory: of the snapshot.

    Raises:
        OSError: the disk is full or may not be written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._spilled = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self._runs = [0]  # where sorted runs of entries end in it
        self._entries: list[npt.NDArray[np.uint64]] = []
        self._n_entries = 0

    def add(self, words: npt.NDArray[np.uint32], listing: int) -> None:
        """Add the words of a listing: their hashes, (n,), each once, and its code."""
        self._entries.append(words.astype(np.uint64) << _HALF | np.uint64(listing))
        self._n_entries += len(words)
        if self._n_entries >= _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        run = np.concatenate(self._entries or [np.empty(0, dtype=np.uint64)])
        run.sort()
        self._spilled.write(run.data)
        self._runs.append(self._runs[-1] + len(run))
        self._entries, self._n_entries = [], 0

    def write(self, tick: Callable[[], None] = lambda: None) -> None:
        """Write the files; nothing can be added any more.

        Args:
            tick: called now and then; an exception it raises ends the work.
        """
        self._spill()
        columns: list[npt.NDArray[np.uint64]] = []

        def packed() -> Iterator[npt.NDArray[np.uint8]]:
            n_bytes = 0
            for entries in self._parts():
                tick()
                words = entries >> _HALF
                starts = np.flatnonzero(np.diff(words, prepend=words[:1] ^ np.uint64(1)))
                distances = np.diff(entries & _LOW, prepend=np.uint64(0))
                distances[starts] = entries[starts] & _LOW
                sizes, some = _packed(distances)
                ends = n_bytes + np.cumsum(np.add.reduceat(sizes, starts)) if len(starts) else starts
                counts = np.diff(starts, append=len(entries))
                columns.append(np.stack([words[starts], counts.astype(np.uint64), ends.astype(np.uint64)]))
                n_bytes += len(some)
                yield some

        with self._spilled:
            n_bytes = write_unsized(self._directory / WORD_LISTINGS, np.dtype(np.uint8), packed())
        table = np.concatenate(columns, axis=1)
        write_array(self._directory / WORDS, table.astype(np.uint32 if n_bytes <= _LOW else np.uint64))

    def _parts(self) -> Iterator[npt.NDArray[np.uint64]]:
        """All entries in order, in parts that each hold all of some words' entries."""
        n_entries = self._runs[-1]
        if not n_entries:
            yield np.empty(0, dtype=np.uint64)
            return
        self._spilled.flush()
        entries = np.memmap(self._spilled, dtype=np.uint64, mode="r", shape=(n_entries,))
        runs = [entries[start:end] for start, end in zip(self._runs, self._runs[1:], strict=False)]
        # Hashes are evenly spread. A word that most listings have makes its part larger, by 8 bytes for each of them.
        n_parts = -(-n_entries // _IN_MEMORY)
        bounds = [np.uint64(2**32 * i // n_parts << 32) for i in range(1, n_parts)]
        cuts = [[0, *np.searchsorted(run, bounds).tolist(), len(run)] for run in runs]
        for i in range(n_parts):
            part = np.concatenate([run[cut[i] : cut[i + 1]] for run, cut in zip(runs, cuts, strict=True)])
            part.sort()
            yield part


def _packed(numbers: npt.NDArray[np.uint64]) -> tuple[IntArray, npt.NDArray[np.uint8]]:
    """Write numbers below 2^32 as variable-length quantities: how many bytes each takes, (n,), and the bytes."""
    sizes = np.ones(len(numbers), dtype=np.int64)
    for place in range(1, _LONGEST):
        sizes += numbers >= 1 << _BITS * place
    ends = np.cumsum(sizes)
    packed = np.empty(ends[-1] if len(ends) else 0, dtype=np.uint8)
    for place in range(_LONGEST):
        longer = np.flatnonzero(sizes > place)
        seven = numbers[longer] >> np.uint64(_BITS * place) & np.uint64(127)
        packed[ends[longer] - 1 - place] = seven | np.uint64(128 if place else 0)
    return sizes, packed


def _unpacked(packed: npt.NDArray[np.uint8]) -> IntArray:
    """Read what `_packed` wrote."""
    lasts = np.flatnonzero(packed < 128)
    numbers = packed[lasts].astype(np.int64)
    sizes = np.diff(lasts, prepend=-1)
    for place in range(1, _LONGEST):
        longer = np.flatnonzero(sizes > place)
        numbers[longer] += (packed[lasts[longer] - place].astype(np.int64) & 127) << _BITS * place
    return numbers
