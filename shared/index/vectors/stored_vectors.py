"""StoredVectors: the copy of the embeddings that candidates are re-ranked with, as they are or in one byte a number.

In int8, the space is turned first so that no column holds much more than the others, and each row has steps of its own:

    codes = round(turned(vector - mean) / factor)        # mean of all rows, factor of each

An embedding that was read back gets the same codes again from the same codebook, so that a reindex which takes over
embeddings adds no error to them.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import VectorKind
from shared.index.arrays import map_array, write_array

VECTORS = "vectors.npy"
CODEBOOK = "codebook.npy"
FLOAT32_UP_TO = 1 << 31
_STEPS = 127
_SEED = 17
_MIXED = 64
_IN_CACHE = 256  # rows
_GATHERED = 1024  # rows at a time: their copy stays in the processor's cache

Rows = IntArray | slice | list[int]


@dataclass(frozen=True)
class Codebook:
    """What int8 codes of embeddings mean.

    Attributes:
        mean: (dim,) float32 of the embeddings.
        signs: (2, dim) float32, 1 or -1 at random: they and Walsh-Hadamard transforms turn the space.
    """

    mean: FloatArray
    signs: FloatArray

    @classmethod
    def of(cls, sample: FloatArray) -> Self:
        """Make the codebook of some embeddings, (n, dim) float32, n >= 1."""
        signs = 2 * np.random.default_rng(_SEED).integers(2, size=(2, sample.shape[1])) - 1
        return cls(sample.mean(axis=0, dtype=np.float64).astype(np.float32), signs.astype(np.float32))

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what `write` wrote; raises OSError or ValueError where it is missing or damaged."""
        mean, *signs = map_array(directory / CODEBOOK)
        return cls(np.array(mean), np.array(signs))

    def write(self, directory: Path) -> None:
        """Write it beside the vectors."""
        write_array(directory / CODEBOOK, np.concatenate([self.mean[None], self.signs]))

    def turned(self, vectors: FloatArray) -> FloatArray:
        """Turn the space, (n, dim) -> (n, dim): lengths and products stay what they are."""
        turned: FloatArray = vectors * self.signs[0]
        _mix(turned)
        if turned.shape[1] % _MIXED:  # the last columns were left out
            turned *= self.signs[1]
            _mix(turned[:, ::-1])
        return turned

    def turned_back(self, turned: FloatArray) -> FloatArray:
        """Undo `turned`; what is given is written to."""
        if turned.shape[1] % _MIXED:
            _mix(turned[:, ::-1])
            turned *= self.signs[1]
        _mix(turned)
        turned *= self.signs[0]
        return turned


def _mix(vectors: FloatArray) -> None:
    """Mix columns that lie far apart, by Walsh-Hadamard transforms of _MIXED; in place, and a second time undoes it.

    Args:
        vectors: (n, dim); of the columns, the last that are too few for one more in each transform are left.
    """
    n, dimension = vectors.shape
    n_mixed = min(_MIXED, 1 << (dimension.bit_length() - 1))
    width = dimension // n_mixed
    some = vectors[:, : n_mixed * width]
    some[:] = np.matmul(_hadamard(n_mixed), some.reshape(n, n_mixed, width)).reshape(some.shape)


@cache
def _hadamard(size: int) -> FloatArray:
    """The matrix (size, size) of the transform, its own inverse; size is a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / math.sqrt(2)
    return matrix.astype(np.float32)


class Codec:
    """Turns embeddings into rows of the copy, and back.

    Args:
        kind: of the copy.
        dimension: of the embeddings.
        codebook: for int8.

    Attributes:
        kind, codebook: as given.
        dtype: of what is stored.
        width: numbers of that type a row has, as the rest of an array's shape.
    """

    def __init__(self, kind: VectorKind, dimension: int, codebook: Codebook | None = None) -> None:
        self.kind = kind
        self.codebook = codebook
        self.dtype: np.dtype[Any] = np.dtype(kind.value)
        self.width: tuple[int, ...] = (dimension,)
        if kind is VectorKind.INT8:
            # One record a row: a row that is read alone is one place on the disk.
            self.dtype, self.width = np.dtype([("factor", "<f4"), ("codes", "i1", (dimension,))]), ()

    def encode(self, vectors: FloatArray) -> npt.NDArray[Any]:
        """Turn embeddings (n, dim) float32 into rows of the copy, (n,) + `width`."""
        if self.codebook is None:
            return vectors.astype(self.dtype, copy=False)
        stored = np.empty(len(vectors), self.dtype)
        for start in range(0, len(vectors), _IN_CACHE):
            some = stored[start : start + _IN_CACHE]
            steps = self.codebook.turned(vectors[start : start + _IN_CACHE] - self.codebook.mean)
            factors = np.maximum(steps.max(axis=1), -steps.min(axis=1)) / _STEPS
            steps *= (1 / np.where(factors > 0, factors, 1))[:, None]
            some["factor"], some["codes"] = factors, np.rint(steps, out=steps)
        return stored

    def decode(self, stored: npt.NDArray[Any]) -> FloatArray:
        """Turn rows of the copy into embeddings, (n, dim) float32."""
        if self.codebook is None:
            return stored.astype(np.float32, copy=False)
        vectors: FloatArray = stored["codes"].astype(np.float32)
        for start in range(0, len(vectors), _IN_CACHE):
            some = vectors[start : start + _IN_CACHE]
            some *= stored["factor"][start : start + _IN_CACHE, None]
            some[:] = self.codebook.turned_back(some)
            some += self.codebook.mean
        return vectors


class StoredVectors:
    """The embeddings of a snapshot, read from a copy of lower precision as an array of float32 is.

    Args:
        rows: (n,) + the codec's width, memory-mapped.
        codec: that made them.

    Attributes:
        codec: as given.
        shape: (n, dim) of the embeddings.
    """

    def __init__(self, rows: npt.NDArray[Any], codec: Codec) -> None:
        self.codec = codec
        self._rows = rows
        self.shape: tuple[int, int] = (len(rows), (codec.width or codec.dtype["codes"].shape)[0])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Rows) -> FloatArray:
        return self.codec.decode(self._rows[rows])

    def raw(self, rows: Rows) -> npt.NDArray[Any]:
        """Rows as they are stored."""
        return self._rows[rows]

    def products(self, rows: IntArray, query: FloatArray) -> FloatArray:
        """Multiply some rows with a query: (m,), (dim,) -> (m,)."""
        found, codebook = np.empty(len(rows), dtype=np.float32), self.codec.codebook
        turned, offset = (query, 0.0) if codebook is None else (codebook.turned(query[None])[0], codebook.mean @ query)
        for start in range(0, len(rows), _GATHERED):
            stored = self._rows[rows[start : start + _GATHERED]]
            if codebook is None:
                some = np.vecdot(stored.astype(np.float32), turned)
            else:
                some = np.vecdot(stored["codes"].astype(np.float32), turned) * stored["factor"] + np.float32(offset)
            found[start : start + len(stored)] = some
        return found


Vectors = FloatArray | StoredVectors


def open_vectors(directory: Path, kind: VectorKind, shape: tuple[int, int], *, scattered: bool = False) -> Vectors:
    """Open the embeddings of a snapshot memory-mapped.

    Args:
        directory: of the snapshot.
        kind: of the copy, from its manifest.
        shape: (n, dim) that they must have.
        scattered: see `map_array`.

    Raises:
        OSError, ValueError: a file is missing, damaged, or of another shape or type.
    """
    codebook = Codebook.read(directory) if kind is VectorKind.INT8 else None
    codec = Codec(kind, shape[1], codebook)
    rows = map_array(directory / VECTORS, scattered=scattered)
    if rows.shape != (shape[0], *codec.width) or rows.dtype != codec.dtype:
        raise ValueError(f"{VECTORS} does not hold {shape[0]} embeddings of {shape[1]} numbers in {kind}")
    if codebook is not None and (codebook.mean.shape, codebook.signs.shape) != ((shape[1],), (2, shape[1])):
        raise ValueError(f"{CODEBOOK} is not of dimension {shape[1]}")
    return rows if kind is VectorKind.FLOAT32 else StoredVectors(rows, codec)


def raw_rows(vectors: Vectors, rows: Rows) -> npt.NDArray[Any]:
    """Rows as they are stored, which digests are of."""
    return vectors.raw(rows) if isinstance(vectors, StoredVectors) else vectors[rows]


def kinds_for(n_rows: int, dimension: int, wanted: VectorKind | None) -> tuple[VectorKind, ...]:
    """The copies to try in turn, until one finds what the embeddings themselves find.

    Args:
        n_rows, dimension: of the embeddings.
        wanted: the first one; None: float32 as long as that is less than FLOAT32_UP_TO bytes, else int8.
    """
    if wanted is None:
        wanted = VectorKind.INT8 if 4 * n_rows * dimension > FLOAT32_UP_TO else VectorKind.FLOAT32
    finer = (VectorKind.INT8, VectorKind.FLOAT16, VectorKind.FLOAT32)
    return finer[finer.index(wanted) :]
