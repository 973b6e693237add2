"""The photos of a snapshot, one per row: a SQLite table with their metadata, arrays with what searches filter by.

All of it stays on disk, memory-mapped: opening takes as long for a thousand photos as for a million.
"""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.artifacts import Location
from shared.artifacts.snapshots import PHOTOS
from shared.attributes.schema import Values, of_payload
from shared.catalogue.categories import CataloguePhoto, PhotoFile
from shared.errors import IndexDamaged
from shared.index.arrays import map_array, write_array

CATEGORY_CODES = "categories.npy"
LISTING_CODES = "listings.npy"
_PAGE = 10_000
_SELECT = """
    SELECT image_id, listing_id, category, path, sha256 FROM photos WHERE row >= ? AND row < ? ORDER BY row
"""
_SELECT_WITH_PAYLOAD = """
    SELECT image_id, listing_id, category, path, sha256, coalesce(json, '')
    FROM photos LEFT JOIN payloads ON payloads.id = photos.payload WHERE row >= ? AND row < ? ORDER BY row
"""
_PAYLOAD = "SELECT json FROM photos JOIN payloads ON payloads.id = photos.payload WHERE row = ?"
_TABLE = """
    CREATE TABLE photos (
        row INTEGER PRIMARY KEY,
        image_id TEXT NOT NULL,
        listing_id TEXT NOT NULL,
        category INTEGER NOT NULL,
        path TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        payload INTEGER NOT NULL
    );
    CREATE TABLE payloads (id INTEGER PRIMARY KEY, json TEXT NOT NULL)
"""


def write_photos(directory: Path, photos: Iterable[CataloguePhoto], *, root: Location | None = None) -> int:
    """Write the photos' table and return the number of rows.

    Args:
        directory: of the snapshot.
        photos: one per row, in row order; read once.
        root: paths of photos inside it are stored relative to it, others absolute.

    Raises:
        IndexDamaged: two photos have one id.
    """
    connection = sqlite3.connect(directory / PHOTOS)
    try:
        # No journal is needed: nobody reads a directory while it is written, and an unfinished one is deleted.
        connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLE}")
        _insert(connection, photos, root)
        connection.execute("CREATE UNIQUE INDEX photos_by_image ON photos (image_id)")
        connection.execute("CREATE INDEX photos_by_listing ON photos (listing_id)")
        connection.commit()
        return _count(connection)
    except sqlite3.IntegrityError as exc:
        raise IndexDamaged(f"two photos have one id: {exc}") from exc
    finally:
        connection.close()


def write_filters(directory: Path) -> None:
    """Write the arrays that searches filter by: category and listing of each row.

    Args:
        directory: that `write_photos` has written to.
    """
    with closing(sqlite3.connect(directory / PHOTOS)) as connection:
        count = _count(connection)
        categories = (category for (category,) in connection.execute("SELECT category FROM photos ORDER BY row"))
        write_array(directory / CATEGORY_CODES, np.fromiter(categories, dtype=np.int16, count=count))
        write_array(directory / LISTING_CODES, _listing_codes(connection, count))


def _count(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM photos").fetchone()
    return int(count)


def _insert(connection: sqlite3.Connection, photos: Iterable[CataloguePhoto], root: Location | None) -> None:
    """Insert the photos, and the attributes that many of them share once."""
    inside = f"{_address(root)}/" if root else ""
    known: dict[bytes, int] = {hashlib.blake2b(b"", digest_size=16).digest(): 0}
    numbered = enumerate(photos)
    while page := list(islice(numbered, _PAGE)):
        records: list[tuple[int, str, str, int, str, str, int]] = []
        new: list[tuple[int, str]] = []
        for row, photo in page:
            key = hashlib.blake2b(photo.payload.encode(), digest_size=16).digest()
            if (payload := known.get(key)) is None:
                payload = known[key] = len(known)
                new.append((payload, photo.payload))
            path = _address(photo.path).removeprefix(inside)
            records.append((row, photo.image_id, photo.listing_id, photo.category, path, photo.sha256, payload))
        connection.executemany("INSERT INTO payloads VALUES (?, ?)", new)
        connection.executemany("INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?, ?)", records)


def _address(file: PhotoFile | Location) -> str:
    text = str(file)
    return text if "://" in text else os.path.abspath(text)


def _listing_codes(connection: sqlite3.Connection, count: int) -> npt.NDArray[np.int32]:
    """Number the listings: (count,) int32, equal for rows of the same listing."""
    codes = np.empty(count, dtype=np.int32)
    code, last = -1, None
    for row, listing_id in connection.execute("SELECT row, listing_id FROM photos ORDER BY listing_id"):
        code += listing_id != last
        codes[row], last = code, listing_id
    return codes


class PhotoTable:
    """The photos of one version, by row, image and listing; safe to share between threads.

    Args:
        directory: of the snapshot.

    Raises:
        sqlite3.Error: the table is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        # Immutable: SQLite takes no locks and looks for no journal, and the directory may be removed while it is open.
        uri = f"{(directory / PHOTOS).absolute().as_uri()}?immutable=1"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._using = threading.Lock()
        self._count: int = self.fetch("SELECT coalesce(max(row) + 1, 0) FROM photos")[0][0]
        # Snapshots of earlier versions have no attributes.
        self._has_payloads = bool(self.fetch("SELECT 1 FROM sqlite_master WHERE name = 'payloads'"))

    def __del__(self) -> None:
        # A search may still hold a version that is no longer live: the connection is closed with the last reference.
        if connection := vars(self).get("_connection"):
            connection.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[CataloguePhoto]:
        """Iterate over every photo in row order, a page at a time."""
        query = _SELECT_WITH_PAYLOAD if self._has_payloads else _SELECT
        for start in range(0, len(self), _PAGE):
            yield from map(_photo, self.fetch(query, start, start + _PAGE))

    def n_listings(self) -> int:
        """Count the listings."""
        return int(self.fetch("SELECT count(DISTINCT listing_id) FROM photos")[0][0])

    def payloads(self, rows: Sequence[int]) -> list[str]:
        """Return the attributes of some rows as JSON, in the given order; empty text where there are none."""
        if not self._has_payloads:
            return [""] * len(rows)
        return [found[0][0] if (found := self.fetch(_PAYLOAD, row)) else "" for row in rows]

    def values(self, rows: Sequence[int]) -> Iterable[Values]:
        """Return the attributes of some rows, in the given order."""
        return map(of_payload, self.payloads(rows))

    def payload_of(self, listing_id: str) -> str:
        """Return the attributes of a listing as JSON; empty text if it has none."""
        rows = self.of_listing(listing_id)
        return self.payloads(rows[:1])[0] if rows else ""

    def at(self, rows: Sequence[int]) -> list[CataloguePhoto]:
        """Return the photos of some rows without their attributes, in the given order."""
        return [_photo(self.fetch(_SELECT, row, row + 1)[0]) for row in rows]

    def of_image(self, image_id: str) -> int | None:
        """Return the row of an image; None if there is none."""
        found = self.fetch("SELECT row FROM photos WHERE image_id = ?", image_id)
        return int(found[0][0]) if found else None

    def of_listing(self, listing_id: str) -> list[int]:
        """Return the rows of a listing; empty if it has none."""
        return [row for (row,) in self.fetch("SELECT row FROM photos WHERE listing_id = ?", listing_id)]

    def fetch(self, query: str, *values: int | str) -> list[tuple[Any, ...]]:
        """Return the rows that a query gives."""
        with self._using:
            return self._connection.execute(query, values).fetchall()


class PhotoRows(PhotoTable):
    """The photos of one version, with the arrays that searches filter by.

    Attributes:
        categories: (n,) int16, positions of the photos' categories.
        listings: (n,) int32, equal for rows of the same listing.

    Raises:
        OSError, ValueError, sqlite3.Error: a file is missing or damaged, or they do not fit together.
    """

    def __init__(self, directory: Path, n_categories: int) -> None:
        super().__init__(directory)
        self.categories = map_array(directory / CATEGORY_CODES)
        self.listings = map_array(directory / LISTING_CODES)
        if self.categories.shape != (self._count,) or self.listings.shape != (self._count,):
            raise ValueError("files disagree on the number of photos")
        if not ((self.categories >= 0) & (self.categories < n_categories)).all():
            raise ValueError(f"categories are not the {n_categories} known ones")


def _photo(record: Sequence[Any]) -> CataloguePhoto:
    image_id, listing_id, category, path, *rest = record
    return CataloguePhoto(image_id, listing_id, category, Path(path), *rest)
