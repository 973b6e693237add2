"""Arrays in .npy files: written in chunks, opened memory-mapped, so that they may be larger than memory."""

import math
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

CHUNK_ROWS = 8192  # in memory at a time: 64 MB of vectors at 2048 dimensions


def write_array(path: Path, array: npt.NDArray[Any], *, finite: bool = True) -> None:
    """Write an array as .npy, in C order, `CHUNK_ROWS` rows at a time.

    Args:
        path: replaced if it exists.
        array: (n, ...); may be memory-mapped and larger than memory.
        finite: whether every number must be; else NaN may stand for one that there is not.

    Raises:
        ValueError: a number in it is not finite, and must be.
        OSError: the disk is full or may not be written.
    """
    chunks = (array[start : start + CHUNK_ROWS] for start in range(0, len(array), CHUNK_ROWS))
    write_chunks(path, array.dtype, array.shape, chunks, finite=finite)


def write_chunks(
    path: Path,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    chunks: Iterable[npt.NDArray[Any]],
    *,
    finite: bool = True,
) -> None:
    """Write an array as .npy from its chunks, which need not be in memory together.

    Args:
        path: replaced if it exists.
        dtype, shape: of the whole.
        chunks: of some rows each, in order, together of that shape.
        finite: see `write_array`.

    Raises:
        ValueError, OSError: as `write_array`.
    """
    # Not through a memory map: on a full disk that ends the process instead of raising an error.
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in map(np.ascontiguousarray, chunks):
            if finite and not np.isfinite(chunk).all():
                raise ValueError(f"{path.name}: not every number is finite")
            file.write(chunk.data)


def write_unsized(path: Path, dtype: np.dtype[Any], chunks: Iterable[npt.NDArray[Any]]) -> int:
    """Write an array (n,) as .npy from its chunks, when nobody knows yet how many numbers they are.

    Args:
        path: replaced if it exists.
        dtype: of the whole.
        chunks: (m,) each, in order.

    Returns:
        how many numbers there are.

    Raises:
        OSError: the disk is full or may not be written.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (0,)})
        n = sum(file.write(chunk.data) for chunk in chunks) // dtype.itemsize
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (n,)})  # padded, so that it takes the same room
    return n


def map_array(path: Path, *, scattered: bool = False) -> npt.NDArray[Any]:
    """Open the array of a .npy file memory-mapped: only the pages that are accessed are read.

    Args:
        path: as written by `write_array`.
        scattered: single rows will be read at random. Read-ahead would then fetch 25 MB for 50 of them instead of
            0.6, and evict pages that are in use.

    Raises:
        OSError, ValueError: no such file, or it is truncated or damaged.
    """
    array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if scattered:
        array.base.madvise(mmap.MADV_RANDOM)
    return np.asarray(array)


class RowFile:
    """An .npy file that grows by blocks of rows, and goes on after a process was killed where it was known to be.

        with RowFile(path, np.dtype(np.float32), (n, 2048), done=rows_known_to_be_there) as file:
            file.append(block)

    Args:
        path: the file.
        dtype, shape: of the whole, once it is there.
        done: rows to keep of what is there; 0: it is begun anew.

    Raises:
        ValueError: fewer rows than that are there.
        OSError: the disk is full or may not be written.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], *, done: int = 0) -> None:
        self._file = path.open("r+b" if done else "wb")
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        end = self._file.tell() + done * dtype.itemsize * math.prod(shape[1:])
        if path.stat().st_size < end and done:
            self._file.close()
            raise ValueError(f"{path.name} is shorter than it was")
        self._file.seek(end)
        self._file.truncate()

    def append(self, block: npt.NDArray[Any]) -> None:
        """Write the next rows."""
        self._file.write(np.ascontiguousarray(block).view(np.uint8).data)

    def sync(self) -> None:
        """Return when what was written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
