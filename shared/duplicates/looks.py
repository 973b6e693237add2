"""What photos look like: a small grey thumbnail and a hash of each, computed once and kept by the file's SHA-256."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.duplicates.alignment import SIDE_PX
from shared.errors import ArtifactUnwritable
from shared.photos.images import open_photo, upright

_WORKING_PX = 192  # the longer side of what a thumbnail is made from: decoders give it for little
_PLAIN_LEVELS = 14  # within which a margin is of one colour: JPEG blurs its edge
_MARGIN_NOISE = 0.02  # of a margin's pixels may differ more
_FRAMED = 0.6  # of the pixels within a frame differ from it
_BLUR_PX = 4  # over which its edge may be spread
_LEAST_LEFT = 0.25  # of a side: else what looks like a margin is the picture
_TINT_LEVELS = 8.0  # copies of real photos differ by up to 7
_VERSION = 2  # of how looks are made
_AT_ONCE = 500
_BUSY_S = 30
_LOOKS = "SELECT sha256, greys, tints, dhash FROM looks WHERE sha256 IN (SELECT value FROM json_each(?))"
_KNOWN = "SELECT sha256 FROM looks WHERE sha256 IN (SELECT value FROM json_each(?))"
_TABLE = """
    DROP TABLE IF EXISTS looks;
    CREATE TABLE looks (sha256 TEXT PRIMARY KEY, greys BLOB, tints TEXT, dhash TEXT) WITHOUT ROWID
"""


class Thumbnail(NamedTuple):
    """A small grey picture.

    Attributes:
        grey: (SIDE_PX, SIDE_PX) uint8.
        tint: mean Cb and Cr of what it shows, 0..255.
    """

    grey: npt.NDArray[np.uint8]
    tint: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Look:
    """What a photo looks like.

    Attributes:
        thumbnails: without frame; of a photo that has one, then also with it: once a copy of a framed photo is turned
            or framed again, the inner frame is a part of the picture.
        dhash: 128 bits in hexadecimal, see `dhash`.
    """

    thumbnails: tuple[Thumbnail, ...]
    dhash: str


def look_of(photo: bytes) -> Look:
    """Compute the look of a photo.

    Raises:
        InputError: it cannot be decoded; see `shared.photos.images.decode_photo`.
    """
    return look_of_image(upright(open_photo(photo), _WORKING_PX))


def look_of_image(image: Image.Image) -> Look:
    """Compute the look of an upright RGB image."""
    inner = image.crop(_without_margins(np.asarray(image)))
    shown = (inner,) if inner.size == image.size else (inner, image)
    return Look(tuple(map(_thumbnail, shown)), dhash(image))


def _thumbnail(image: Image.Image) -> Thumbnail:
    grey = image.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    _, blue, red = np.asarray(image.convert("YCbCr")).reshape(-1, 3).mean(axis=0).tolist()
    return Thumbnail(np.asarray(grey), (blue, red))


def tints_agree(one: Thumbnail, other: Thumbnail) -> bool:
    """Tell whether two pictures may be copies by their colour: shops show one thing in many colours, else the same."""
    return max(abs(a - b) for a, b in zip(one.tint, other.tint, strict=True)) <= _TINT_LEVELS


def dhash(image: Image.Image) -> str:
    """Compute a difference hash, after N. Krawetz, "Kind of Like That" (2013).

    Returns:
        128 bits in hexadecimal: whether brightness rises from each cell of an 8 x 8 grid to the next one along its row
        (64 bits), and to the next one down its column (64 bits).
    """
    grey = image.convert("L")
    along = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))
    down = np.asarray(grey.resize((8, 9), Image.Resampling.LANCZOS))
    return np.packbits(np.stack([along[:, 1:] > along[:, :-1], down[1:] > down[:-1]])).tobytes().hex()


def hash_distance(one: str, other: str, *, mirrored: bool = False) -> int:
    """Count the bits in which two difference hashes differ, of 128; of a mirrored pair, after mirroring the second."""
    first, second = (
        np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).reshape(2, 8, 8) for text in (one, other)
    )
    if mirrored:
        second = np.stack([1 - second[0, :, ::-1], second[1, :, ::-1]])  # what rose along a row now falls
    return int(np.count_nonzero(first != second))


def _without_margins(rgb: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Find the box of an (h, w, 3) picture that leaves out margins of one colour."""
    height, width, _ = rgb.shape
    top, bottom = _margins(rgb)
    left, right = _margins(rgb[top : height - bottom].transpose(1, 0, 2))
    if height - top - bottom < _LEAST_LEFT * height:
        top = bottom = 0
    if width - left - right < _LEAST_LEFT * width:
        left = right = 0
    return left, top, width - right, height - bottom


def _margins(rgb: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Count the rows of one colour at the beginning and at the end of an (h, w, 3) picture."""

    def margin(rows: npt.NDArray[np.uint8]) -> int:
        colour = np.median(rows[0], axis=0)
        differs = (np.abs(rows - colour) > _PLAIN_LEVELS).any(axis=2).mean(axis=1)
        if not (n_plain := int((differs > _MARGIN_NOISE).argmax())):
            return 0
        # The frame of a picture ends along all of its length, over few pixels; the ground of a cut-out does not.
        inner = differs[n_plain : n_plain + _BLUR_PX]
        return n_plain + 1 if inner.max() >= _FRAMED else 0

    return margin(rgb), margin(rgb[::-1])


class LookCache:
    """Looks of photos by the SHA-256 of their files, in a file of this machine; several processes may share it.

        cache = LookCache(settings.home / "looks.sqlite")
        looks = cache.read(sha256s)

    Its methods raise ArtifactUnwritable where the disk is full or may not be written.

    Args:
        path: of the file; made where it is missing, and made anew where it is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, sha256s: Iterable[str]) -> dict[str, Look]:
        """Return the looks that are known, by SHA-256."""
        return {
            sha256: Look(
                tuple(
                    map(
                        Thumbnail,
                        np.frombuffer(greys, np.uint8).reshape(-1, SIDE_PX, SIDE_PX),
                        map(tuple, json.loads(tints)),
                    )
                ),
                bits,
            )
            for sha256, greys, tints, bits in self._select(_LOOKS, sha256s)
        }

    def known(self, sha256s: Iterable[str]) -> set[str]:
        """Tell of which photos the look is known."""
        return {sha256 for (sha256,) in self._select(_KNOWN, sha256s)}

    def write(self, looks: Iterable[tuple[str, Look]]) -> None:
        """Keep looks by SHA-256."""
        rows = [
            (
                sha256,
                b"".join(one.grey.tobytes() for one in look.thumbnails),
                json.dumps([one.tint for one in look.thumbnails]),
                look.dhash,
            )
            for sha256, look in looks
        ]
        with self._connected() as connection:
            connection.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?)", rows)

    def prune(self, wanted: Iterable[str]) -> None:
        """Forget the looks of all photos but these."""
        with self._connected() as connection:
            connection.execute("CREATE TEMP TABLE wanted (sha256 TEXT PRIMARY KEY)")
            connection.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((sha256,) for sha256 in wanted))
            connection.execute("DELETE FROM looks WHERE sha256 NOT IN (SELECT sha256 FROM wanted)")

    def _select(self, query: str, sha256s: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        wanted = list(sha256s)
        with self._connected() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                yield from connection.execute(query, (json.dumps(some),))

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction."""
        try:
            with closing(self._open()) as connection, connection:
                yield connection
        except (sqlite3.Error, OSError) as exc:
            raise ArtifactUnwritable(f"{self._path.name} cannot be used: {exc}") from exc

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._prepared()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # it is damaged, and can be made anew
            self._path.unlink(missing_ok=True)
            return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")  # what a power cut takes is made anew
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                connection.executescript(f"{_TABLE}; PRAGMA user_version = {_VERSION}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection
