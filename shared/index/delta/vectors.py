"""DeltaVectors: the embeddings of photos that were put since a snapshot was built, stored and searched as its own are.

Where the snapshot has inverted lists, photos are sorted into them SEALED at a time; a search compares those in the
lists nearest to its query, and all that came since.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import VectorKind
from shared.index.vector_index import VectorIndex
from shared.index.vectors.stored_vectors import Codec, StoredVectors, Vectors

SEALED = 1024
_INITIAL_CAPACITY = 64


@dataclass(frozen=True)
class _Sealed:
    """The first photos, sorted by the number of their inverted list.

    Attributes:
        numbers: (n,) of the lists, in the order of the positions.
        order: (n,) positions, sorted by list.
        starts: (lists + 1,) where each list begins in `order`.
    """

    numbers: npt.NDArray[np.uint16]
    order: IntArray
    starts: IntArray

    @classmethod
    def of(cls, numbers: npt.NDArray[np.uint16]) -> "_Sealed":
        starts = np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=1 << 16))])
        return cls(numbers, np.argsort(numbers, kind="stable"), starts)


@dataclass(frozen=True)
class PutVectors:
    """The embeddings of the first photos that were put; a search keeps one from start to end.

    Attributes:
        vectors: (n, dim) as they are stored.
    """

    vectors: Vectors
    _snapshot: VectorIndex
    _sealed: _Sealed | None

    def __len__(self) -> int:
        return len(self.vectors)

    def near(self, query: FloatArray, n: int) -> IntArray | None:
        """Positions of those worth comparing with a query for its `n` nearest, (m,); None: all are."""
        if self._sealed is None:
            return None
        lists = self._snapshot.lists_near(query, n)
        if lists is None:
            return None
        bounds = zip(self._sealed.starts[lists].tolist(), self._sealed.starts[lists + 1].tolist(), strict=True)
        found = [self._sealed.order[start:stop] for start, stop in bounds if stop > start]
        return np.concatenate([*found, np.arange(len(self._sealed.order), len(self.vectors))])


class DeltaVectors:
    """Append-only: a search that began before reads the first entries. One thread at a time may write.

    Args:
        snapshot: that the photos were put after.
    """

    def __init__(self, snapshot: VectorIndex) -> None:
        kind = VectorKind.FLOAT32 if snapshot.codebook is None else VectorKind.INT8
        self._snapshot = snapshot
        self._codec = Codec(kind, snapshot.manifest.dimension, snapshot.codebook)
        self._rows: npt.NDArray[Any] = np.zeros((_INITIAL_CAPACITY, *self._codec.width), dtype=self._codec.dtype)
        self._sealed: _Sealed | None = None

    def put(self, position: int, vector: FloatArray | None) -> None:
        """Store the embedding (dim,) of the photo at a position; None: it has none."""
        if position == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[position : position + 1] = 0 if vector is None else self._codec.encode(vector[None])

    def first(self, n: int) -> PutVectors:
        """The embeddings of the first `n` photos, which are there for good."""
        n_sealed = len(self._sealed.numbers) if self._sealed else 0
        new = [
            self._snapshot.lists_of(self._decoded(start, start + SEALED))
            for start in range(n_sealed, n - SEALED + 1, SEALED)
        ]
        if new and new[0] is not None:
            known = [self._sealed.numbers] if self._sealed else []
            self._sealed = _Sealed.of(np.concatenate([*known, *(one for one in new if one is not None)]))
        rows = self._rows[:n]
        vectors = rows if self._codec.kind is VectorKind.FLOAT32 else StoredVectors(rows, self._codec)
        return PutVectors(vectors, self._snapshot, self._sealed)

    def at(self, position: int) -> FloatArray:
        """The embedding (1, dim) of the photo at a position."""
        return self._decoded(position, position + 1)

    def _decoded(self, start: int, stop: int) -> FloatArray:
        return self._codec.decode(self._rows[start:stop])
