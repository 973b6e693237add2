"""Nearest neighbours of sampled photos of one index version, searched once for all measurements of its quality."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol
from zlib import crc32

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.catalogue.categories import CataloguePhoto

DEEP = 32
_DEEPEST = 4096
_MANY_LISTINGS = 3


class Searchable(Protocol):
    """The part of `VectorIndex` that measurements need."""

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def vectors(self, rows: IntArray) -> FloatArray:
        """Return the embeddings of some rows, (n, dim) float32."""
        ...

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search as users' searches do; see `VectorIndex.nearest`."""
        ...

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search by brute force; see `VectorIndex.exact_nearest`."""
        ...


class Neighbourhood:
    """Neighbours of an index's own rows; each row is searched once, and deeper only where that is asked for.

    Args:
        index: to search.
    """

    def __init__(self, index: Searchable) -> None:
        self.index = index
        self._found: dict[int, tuple[FloatArray, IntArray]] = {}

    def search(self, rows: Iterable[int], k: int = DEEP) -> None:
        """Search for the neighbours of rows that have not been searched for yet, all at once.

        Args:
            rows: to search for.
            k: neighbours for each; the index's size where that is less.
        """
        k = min(k, len(self.index))
        missing = sorted({row for row in rows if row not in self._found or len(self._found[row][1]) < k})
        if not missing:
            return
        scores, found = self.index.nearest(self.index.vectors(np.array(missing, dtype=np.int64)), k)
        self._found.update(zip(missing, zip(scores, found, strict=True), strict=True))

    def of(self, rows: Sequence[int]) -> tuple[FloatArray, IntArray]:
        """Return what searches for some rows found, as `VectorIndex.nearest` does, DEEP neighbours for each.

        Args:
            rows: at least one; themselves among the neighbours.
        """
        self.search(rows)
        k = min(DEEP, len(self.index))
        return np.stack([self._found[row][0][:k] for row in rows]), np.stack([self._found[row][1][:k] for row in rows])

    def others(
        self, rows: Iterable[int], translate: Callable[[int], int | None], enough: Callable[[int, list[int]], bool]
    ) -> dict[int, list[int]]:
        """Collect the neighbours of rows that can be used, nearest first, searching deeper until there are enough.

        Args:
            rows: to collect for; never their own neighbours.
            translate: what a neighbour's row is called in the result; None: it cannot be used.
            enough: given a row and what has been collected for it, whether that suffices.
        """
        collected: dict[int, list[int]] = {}
        pending, k = list(rows), DEEP
        while pending:
            self.search(pending, k)
            for row in pending:
                collected[row] = usable = []
                for neighbour in self._found[row][1].tolist():
                    if neighbour >= 0 and neighbour != row and (name := translate(neighbour)) is not None:
                        usable.append(name)
                        if enough(row, usable):
                            break
            if k >= min(len(self.index), _DEEPEST):
                break
            pending = [row for row in pending if not enough(row, collected[row])]
            k *= 4
        return collected


def sampling_order(photos: Sequence[CataloguePhoto]) -> list[int]:
    """Order rows by a hash of the image id, so that versions of one catalogue are measured on the same photos.

    Args:
        photos: one per row.
    """
    hashes = np.fromiter((crc32(photo.image_id.encode()) for photo in photos), dtype=np.int64, count=len(photos))
    order: list[int] = np.argsort(hashes, kind="stable").tolist()
    return order


def same_in_many_listings(photos: Sequence[CataloguePhoto]) -> dict[str, int]:
    """Find the files that many listings show, such as a placeholder: how many listings, by sha256.

    Neighbours of such photos say nothing of a model.

    Args:
        photos: one per row.
    """
    n_copies = Counter(photo.sha256 for photo in photos)
    listings: dict[str, set[str]] = {sha256: set() for sha256, n in n_copies.items() if sha256 and n >= _MANY_LISTINGS}
    if listings:
        for photo in photos:
            if photo.sha256 in listings:
                listings[photo.sha256].add(photo.listing_id)
    return {sha256: len(found) for sha256, found in listings.items() if len(found) >= _MANY_LISTINGS}
