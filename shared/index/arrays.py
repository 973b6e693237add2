"""Arrays in .npy files: written in chunks, opened memory-mapped, so that they may be larger than memory."""

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in map(np.ascontiguousarray, chunks):
            if finite and not np.isfinite(chunk).all():
                raise ValueError(f"{path.name}: not every number is finite")
            file.write(chunk.data)


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
