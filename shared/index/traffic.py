"""What an index keeps to judge live quality by: a traffic reference, and a digest of each row.

The reference tells what ordinary queries are like: photos of the index whose listings the model did not see. Of each it
has the pixels' features, and the embedding's residual: how it lies to the mean of its nearest neighbours. What is
searched for may change from day to day, and the neighbours with it, but residuals hardly do; photos that are prepared
in another way all lie off to one side.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from shared.array_types import BoolArray, FloatArray, IntArray
from shared.index.arrays import CHUNK_ROWS, map_array, write_array
from shared.photos.images import Pixels
from shared.quality.contract import N_AXES, PIXEL_FEATURES

REFERENCE = "traffic.safetensors"
DIGESTS = "row_digests.npy"
NEIGHBOURS = 10
_MOST_SPREADS = 4.0
_BAR_SPREAD = 0.5  # of a share; a catalogue without any square photo must not make ten of them a surprise


class Audit(NamedTuple):
    """Rows of an index that were compared with what was written.

    Attributes:
        n_rows: that were compared.
        n_damaged: that differ.
    """

    n_rows: int
    n_damaged: int


@dataclass(frozen=True)
class TrafficReference:
    """Mean and spread of ordinary queries' features.

    Attributes:
        mean, spread: (features,) float32, in the order of FEATURES; NaN: not known.
        axes: (N_AXES, dim) float32, the residuals' principal axes.
        pixels: (m, pixel features) float32 of the photos that it was made of.
        sha256s: of their files, m.
    """

    mean: FloatArray
    spread: FloatArray
    axes: FloatArray
    pixels: FloatArray
    sha256s: tuple[str, ...]

    @classmethod
    def of(cls, residuals: FloatArray, pixels: FloatArray, sha256s: tuple[str, ...]) -> "TrafficReference":
        """Make the reference of some photos.

        Args:
            residuals: (n, dim), n > N_AXES.
            pixels: (m, pixel features) of those whose files can be read.
            sha256s: of those.
        """
        centred = residuals - residuals.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:N_AXES].astype(np.float32)  # (axes, dim)
        along = residuals @ axes.T
        unknown = np.full(len(PIXEL_FEATURES), np.nan, np.float32)
        seen = (pixels.mean(axis=0), pixels.std(axis=0)) if len(pixels) else (unknown, unknown)
        mean, spread = (np.concatenate(pair) for pair in zip(seen, (along.mean(0), along.std(0)), strict=True))
        spread[0] = np.where(np.isnan(spread[0]), np.nan, _BAR_SPREAD)
        return cls(mean.astype(np.float32), spread.astype(np.float32), axes, pixels, sha256s)

    def deviations(self, pixels: FloatArray | None, residual: FloatArray) -> tuple[float | None, ...]:
        """How far one query's features lie from the mean, in spreads, in the order of FEATURES.

        Args:
            pixels: (pixel features,), see `pixel_features`; None: not known.
            residual: (dim,), see `residual_of`.
        """
        known = np.full(len(PIXEL_FEATURES), np.nan, np.float32) if pixels is None else pixels
        found = (np.concatenate([known, self.axes @ residual]) - self.mean) / np.maximum(self.spread, 1e-6)
        return tuple(
            None if np.isnan(one) else round(float(one), 3) for one in np.clip(found, -_MOST_SPREADS, _MOST_SPREADS)
        )

    def write(self, directory: Path) -> None:
        """Write it beside the files of an index version."""
        digests = np.frombuffer(bytes.fromhex("".join(self.sha256s)), np.uint8).reshape(-1, 32)
        arrays = {"mean": self.mean, "spread": self.spread, "axes": self.axes, "pixels": self.pixels}
        save_file({**arrays, "sha256s": digests.copy()}, directory / REFERENCE)


def read_reference(directory: Path) -> TrafficReference | None:
    """Read the reference of an index version; None: it was written without one.

    Raises:
        ValueError: the file is damaged.
    """
    if not (directory / REFERENCE).exists():
        return None
    try:
        arrays = load_file(directory / REFERENCE)
        sha256s = tuple(digest.tobytes().hex() for digest in arrays["sha256s"])
        return TrafficReference(arrays["mean"], arrays["spread"], arrays["axes"], arrays["pixels"], sha256s)
    except (SafetensorError, KeyError) as exc:
        raise ValueError(f"{REFERENCE} cannot be read") from exc


def pixel_features(photo: Pixels, fill: int) -> FloatArray:
    """What tells how a photo was prepared, in the order of PIXEL_FEATURES.

    Args:
        photo: (S, S, 3) uint8 RGB.
        fill: grey level of a letterbox's bars.

    Returns:
        (pixel features,) float32: whether there are bars, red over blue, green over both, brightness and contrast, in
        levels of 0 to 255.
    """
    edges = (photo[0], photo[-1], photo[:, 0], photo[:, -1])
    red, green, blue = photo.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    contrast = photo[::2, ::2, 1].std()
    bars = any((edge == fill).all() for edge in edges)
    return np.array([bars, red - blue, green - (red + blue) / 2, (red + green + blue) / 3, contrast], np.float32)


def residual_of(vector: FloatArray, neighbours: FloatArray) -> FloatArray:
    """How an embedding (dim,) lies to the mean of its nearest neighbours' (n, dim): (dim,)."""
    residual: FloatArray = vector - neighbours.mean(axis=0)
    return residual


def write_digests(directory: Path, vectors: FloatArray) -> None:
    """Write the digest of each row of an index version's vectors, (n, dim) float32; they may be memory-mapped."""
    chunks = (
        row_digests(np.asarray(vectors[start : start + CHUNK_ROWS], "<f4"))
        for start in range(0, len(vectors), CHUNK_ROWS)
    )
    write_array(directory / DIGESTS, np.concatenate(list(chunks)))


def read_digests(directory: Path) -> npt.NDArray[np.uint32] | None:
    """Map the digests of an index version; None: it was written without."""
    return map_array(directory / DIGESTS, scattered=True) if (directory / DIGESTS).exists() else None


def row_digests(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """CRC-32 of each row's bytes as it is stored: (n, ...) -> (n,)."""
    content = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    return np.fromiter((zlib.crc32(row.data) for row in content), np.uint32, len(rows))


def changed(digests: npt.NDArray[np.uint32], rows: IntArray, stored: npt.NDArray[Any]) -> BoolArray:
    """Which rows (n,) are not stored (n, ...) any more as they were written: (n,)."""
    differ: BoolArray = digests[rows] != row_digests(stored)
    return differ
