"""What photos look like: a small grey thumbnail and a hash of each, computed once and kept by the file's SHA-256."""

import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.duplicates.alignment import SIDE_PX
from shared.photos.images import open_photo, upright

_WORKING_PX = 192  # the longer side of what a thumbnail is made from: decoders give it for little
_PLAIN_LEVELS = 14  # within which a margin is of one colour: JPEG blurs its edge
_MARGIN_NOISE = 0.02  # of a margin's pixels may differ more
_FRAMED = 0.6  # of the pixels within a frame differ from it
_BLUR_PX = 4  # over which its edge may be spread
_LEAST_LEFT = 0.25  # of a side: else what looks like a margin is the picture
_VERSION = 1  # of how looks are made
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Look:
    """What a photo looks like.

    Attributes:
        grey: (SIDE_PX, SIDE_PX) uint8, without plain margins.
        dhash: 128 bits in hexadecimal, see `dhash`.
    """

    grey: npt.NDArray[np.uint8]
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
    grey = inner.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    return Look(np.asarray(grey), dhash(image))


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

    Args:
        path: of the file; made where it is missing, and made anew where it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()

    def read(self, sha256s: Iterable[str]) -> dict[str, Look]:
        """Return the looks that are known, by SHA-256."""
        wanted = list(sha256s)
        found: dict[str, Look] = {}
        with closing(self._connect()) as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                query = f"SELECT sha256, grey, dhash FROM looks WHERE sha256 IN ({','.join('?' * len(some))})"  # noqa: S608 - question marks
                for sha256, grey, bits in connection.execute(query, some):
                    found[sha256] = Look(np.frombuffer(grey, np.uint8).reshape(SIDE_PX, SIDE_PX), bits)
        return found

    def known(self) -> set[str]:
        """Return the SHA-256 of every photo whose look is known."""
        with closing(self._connect()) as connection:
            return {sha256 for (sha256,) in connection.execute("SELECT sha256 FROM looks")}

    def write(self, looks: Iterable[tuple[str, Look]]) -> None:
        """Keep looks by SHA-256."""
        rows = [(sha256, look.grey.tobytes(), look.dhash) for sha256, look in looks]
        with self._writing, closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # it can be made anew
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            with connection:
                connection.execute("DROP TABLE IF EXISTS looks")
                connection.execute("CREATE TABLE looks (sha256 TEXT PRIMARY KEY, grey BLOB, dhash TEXT) WITHOUT ROWID")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
        return connection
