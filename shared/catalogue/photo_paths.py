"""Finds the photo files that a table names by path: below `images/` or the catalogue's directory, never outside."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shared.attributes.configuration import CONFIGURATION, PhotosChoice
from shared.catalogue.scan import ENDINGS, Scan
from shared.catalogue.spoiled_ids import by_key, caseless, composed
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd

_PATH_COLUMNS = ("path", "file", "filename")
_URL_COLUMNS = ("url", "image_url")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/|~/")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SEVERAL = re.compile(r"[|;,]|^\[.*\]$")
ONE_A_ROW = "a row names one photo: write a row for each"
_N_NAMED = 4


class PhotoPlace(NamedTuple):
    """Where a row of the photos' table says that its photo is.

    Attributes:
        path: of its file.
        column: that has the path.
        url: from which it can be fetched where there is no file.
        name: of its file, with or without ending, in whatever folder; empty: the photo's id.
        is_sure: whether the path must be there: columns called `file` may hold the name of something else.
    """

    path: str = ""
    column: str = ""
    url: str = ""
    name: str = ""
    is_sure: bool = False


class PathProblem(NamedTuple):
    """Why a path leads to no photo.

    Attributes:
        reason: one of a fixed set of texts.
        detail: for people.
        is_missing: whether there is just no such file.
    """

    reason: str
    detail: str
    is_missing: bool = False


def is_several(text: str) -> bool:
    """Whether an id or path that is not there may be a list of several: "a.jpg|b.jpg", '["a.jpg", "b.jpg"]'."""
    return _SEVERAL.search(text) is not None


def place_columns(images: "pd.DataFrame", choice: PhotosChoice) -> list[str]:
    """The columns of a photos' table that say where photos are."""
    named = {choice.path, choice.url} if choice.path or choice.url else set()
    return [one for one in images.columns if one in named or one.lower() in (*_PATH_COLUMNS, *_URL_COLUMNS)]


def photo_places(images: "pd.DataFrame", choice: PhotosChoice) -> dict[int, PhotoPlace]:
    """Read where photos are from the columns that say it; of several columns the first that is filled counts.

    Args:
        images: the photos' table.
        choice: what `catalogue.toml` says of these columns.

    Raises:
        CatalogueUnusable: a column that `catalogue.toml` names is not there.

    Returns:
        by row number, for the rows that say it.
    """
    places: dict[int, PhotoPlace] = {}
    paths, urls = _configured(images, "path", choice.path), _configured(images, "url", choice.url)
    for row, column, path in _cells(images, paths or _PATH_COLUMNS):
        is_sure = column in paths or column.lower() == _PATH_COLUMNS[0]
        places.setdefault(row, PhotoPlace(path, column, is_sure=is_sure))
    for row, _, url in _cells(images, urls or _URL_COLUMNS):
        place = places.get(row, PhotoPlace())
        if not place.url:
            places[row] = place._replace(url=url)
    return places


def _configured(images: "pd.DataFrame", entry: str, column: str) -> tuple[str, ...]:
    if column and column not in images:
        shown = ", ".join(images.columns)
        raise CatalogueUnusable(f"{CONFIGURATION}: photos.{entry}: there is no column {column}; there is {shown}")
    return (column,) if column else ()


def _cells(images: "pd.DataFrame", wanted: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Row, column and text of the cells that are filled, in the order of the wanted columns."""
    for name in wanted:
        for position, column in enumerate(images.columns):
            if name in (column, column.lower()):
                yield from ((int(str(row)), column, text) for row, text in images.iloc[:, position].items() if text)


class PhotoPaths:
    """Finds files by path, told from `images/` or from the catalogue's directory.

    Args:
        found: the listing of the catalogue.
    """

    def __init__(self, found: Scan) -> None:
        self._found = found
        self._similar: list[dict[str, list[str]]] = []  # made when the first path is not there
        self._inside: tuple[str, ...] | None = None

    def find(self, path: str) -> str | PathProblem:
        """Return the address of the file at a path, or why there is none."""
        if _URL.match(path):
            return PathProblem("photo path leads out of the catalogue", f"{path} is a URL; name the column url")
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        if _ABSOLUTE.match(path.replace("\\", "/")) or ".." in parts:
            advice = "write it as it is below images/, or below the catalogue's directory"
            return PathProblem("photo path leads out of the catalogue", f"{path} is not inside; {advice}")
        relative = "/".join(parts)
        addresses = [address for address in self._addresses(relative) if address in self._found.files]
        addresses = addresses or self._alike(relative)
        if len(addresses) > 1:
            there = ", ".join(sorted(map(self._shown, addresses))[:_N_NAMED])
            return PathProblem("photo file is ambiguous", f"looked for {path}; there is {there}")
        if not addresses:
            return PathProblem("photo without file", self._missing(path, relative), is_missing=True)
        if addresses[0] in self._found.links and not self._is_inside(addresses[0]):
            return PathProblem("photo path leads out of the catalogue", f"{path} is a link that leads out of it")
        return addresses[0]

    def _addresses(self, relative: str) -> Iterator[str]:
        yield f"{self._found.folder}/{relative}"
        yield f"{self._found.root}/{relative}"

    def _alike(self, relative: str) -> list[str]:
        """The files that differ in Unicode form only, else in case."""
        if not self._similar:
            self._similar = [by_key(key, self._found.files) for key in (composed, caseless)]
        for key, files in zip((composed, caseless), self._similar, strict=True):
            if found := [file for address in self._addresses(relative) for file in files.get(key(address), [])]:
                return found
        return []

    def _is_inside(self, address: str) -> bool:
        if self._inside is None:
            tops = self._found.root, self._found.folder
            self._inside = tuple(os.path.join(os.path.realpath(top), "") for top in tops)
        return os.path.realpath(address).startswith(self._inside)

    def _missing(self, path: str, relative: str) -> str:
        looked_for = f"looked for {path} below images/ and the catalogue's directory"
        if is_several(path):
            return f"{looked_for}; {ONE_A_ROW}"
        if not relative.lower().endswith(ENDINGS):
            return f"{looked_for}; only {', '.join(ENDINGS)} are read"
        if "://" not in self._found.root and any(Path(address).is_file() for address in self._addresses(relative)):
            return f"{looked_for}; it lies in a folder that is a link, hidden, or a system's, where photos are not read"
        return looked_for

    def _shown(self, address: str) -> str:
        return address.removeprefix(f"{self._found.root}/")
