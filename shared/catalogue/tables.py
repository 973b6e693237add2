"""Reads a raw dump into labelled photos, and lists every unusable row with its reason; never writes to the dump."""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shared.artifacts import Location
from shared.artifacts.backend import backend_at
from shared.artifacts.files import ObjectFile
from shared.catalogue.categories import CATEGORY_INDEX, CataloguePhoto, PhotoFile
from shared.catalogue.scan import PhotoDigests, Scan, Stat, scan
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd

PRODUCTS, IMAGES = "Products.csv", "Images.csv"
_REQUIRED = {PRODUCTS: ("id", "category"), IMAGES: ("id", "product_id")}
_MAX_COLUMNS = 256
_SKIPPED = re.compile(r"Skipping line (\d+)")
_LAYOUT = f"{PRODUCTS}, {IMAGES}, images/"


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row of a table cannot be used.

    Attributes:
        reason: one of a fixed set of texts.
        table: file name of the table.
        row: number as a spreadsheet shows it: the header is 1; blank lines do not count.
        row_id: id in the row; empty where it has none, or none that can be read.
        value: the offending value, where there is one.
    """

    reason: str
    table: str
    row: int
    row_id: str = ""
    value: str = ""


@dataclass(frozen=True)
class Catalogue:
    """The usable part of a dump.

    Attributes:
        name: the directory's or prefix's name, for people.
        directory: the dump.
        n_listings: listings with an id and a known category, with or without photos.
        photos: labelled photos in the order of Images.csv.
        rejected: rows left out.
        digest: SHA-256 over the photos, their listings and categories.
    """

    name: str
    directory: Location
    n_listings: int
    photos: list[CataloguePhoto]
    rejected: tuple[RowProblem, ...]
    digest: str

    @property
    def unusable(self) -> dict[str, int]:
        """Number of rows left out, by reason."""
        return dict(Counter(row.reason for row in self.rejected))

    def without(self, rejected: Sequence[RowProblem]) -> "Catalogue":
        """Return a copy of the catalogue with more rows of Images.csv left out.

        Args:
            rejected: the rows, by image id.

        Raises:
            CatalogueUnusable: no photo is left.
        """
        gone = {row.row_id for row in rejected}
        photos = [photo for photo in self.photos if photo.image_id not in gone]
        left = replace(self, photos=photos, rejected=(*self.rejected, *rejected), digest=_digest(photos))
        if not photos:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in left.unusable.items()) or f"{IMAGES} has no rows"
            raise CatalogueUnusable(f"no usable photo in {self.directory} ({reasons})")
        return left


class _Tables(NamedTuple):
    """The two tables, as far as they can be used."""

    listing_ids: frozenset[str]
    category_of: dict[str, int]  # by listing id
    images: list[tuple[int, str, str]]  # row, image id, listing id
    rejected: list[RowProblem]


def read_catalogue(directory: Location) -> Catalogue:
    """Read a dump: `Products.csv`, `Images.csv` and the photos in `images/`.

        catalogue = read_catalogue(Path("dump"))
        print(len(catalogue.photos), catalogue.unusable)

    Args:
        directory: of the dump.

    Raises:
        CatalogueUnusable: a table is missing or lacks a column, or no usable photo is left.
        StoreUnavailable: the object store does not answer.
    """
    return CatalogueReader().read(directory)


class CatalogueReader:
    """Reads a catalogue repeatedly, each time only the tables and photos that changed since.

    Args:
        file: JSON file that keeps the photos' digests for the next process; None: in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._digests = PhotoDigests(file)
        self._tables: tuple[Mapping[str, Stat], _Tables] | None = None

    def digest(self, found: Scan) -> str | None:
        """Return the catalogue's digest if no file in `found` has changed since it was read; else None."""
        return self._digests.catalogue_digest(found)

    def read(self, directory: Location, found: Scan | None = None) -> Catalogue:
        """Read the catalogue; see `read_catalogue`.

        Args:
            directory: of the dump.
            found: its listing, if one was just made; None: list the files now.
        """
        found = found or scan_catalogue(directory)
        if self._tables is None or self._tables[0] != found.tables:
            self._tables = found.tables, _read_tables(directory)
        tables = self._tables[1]
        open_file = partial(_file, directory)
        labelled, rejected = _photos(tables, found, open_file)
        contents = self._digests.read([found.photos[photo.image_id.lower()] for _, photo in labelled], open_file)
        unreadable = [
            RowProblem("photo file cannot be read", IMAGES, row, photo.image_id)
            for (row, photo), sha256 in zip(labelled, contents, strict=True)
            if not sha256
        ]
        photos = [replace(photo, sha256=sha256) for (_, photo), sha256 in zip(labelled, contents, strict=True)]
        rows = (*tables.rejected, *rejected)
        catalogue = Catalogue(directory.name, directory, len(tables.category_of), photos, rows, "").without(unreadable)
        self._digests.remember(found, "" if unreadable else catalogue.digest)
        return catalogue


def scan_catalogue(directory: Location) -> Scan:
    """List the files of a catalogue, without opening any.

    Args:
        directory: of the dump.

    Raises:
        CatalogueUnusable: a table or `images/` is missing.
        StoreUnavailable: the object store does not answer.
    """
    tables = [_find(directory, name) for name in (PRODUCTS, IMAGES)]
    folder = _find(directory, "images")
    for path in tables:
        if isinstance(path, Path) and not path.is_file():
            raise CatalogueUnusable(f"{path.name} is not a file; a catalogue holds {_LAYOUT}")
    if isinstance(folder, Path) and not folder.is_dir():
        raise CatalogueUnusable(f"{folder.name} is not a directory; a catalogue holds {_LAYOUT}")
    return scan(tables, folder)


def _read_tables(directory: Location) -> _Tables:
    rejected: list[RowProblem] = []
    products = read_table(directory, PRODUCTS, rejected)
    images = read_table(directory, IMAGES, rejected)
    return _Tables(
        listing_ids=frozenset(products["id"]),
        category_of=_categories(products, rejected),
        images=list(zip(_rows(images), images["id"], images["product_id"], strict=True)),
        rejected=rejected,
    )


def read_table(directory: Location, name: str, rejected: list[RowProblem]) -> "pd.DataFrame":
    """Read one table of a dump as text.

    Args:
        directory: of the dump.
        name: PRODUCTS or IMAGES.
        rejected: rows with too many fields are appended to it.

    Returns:
        stripped text, missing values as empty text, indexed by row number; named columns only.

    Raises:
        CatalogueUnusable: the table is missing, empty, not UTF-8 CSV, or lacks a column.
    """
    import pandas as pd
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    file, required = _find(directory, name), _REQUIRED[name]
    try:
        # Descriptions hold bare carriage returns, quoted or not: only a line feed ends a row. Surplus columns show
        # which rows have too many fields; pandas would otherwise cut or shift those to fit.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ParserWarning)
            cells = pd.read_csv(
                file if isinstance(file, Path) else BytesIO(file.read_bytes()),
                lineterminator="\n",
                header=None,
                names=range(_MAX_COLUMNS),
                dtype=str,
                keep_default_na=False,
                na_values=[""],
                encoding="utf-8-sig",
                on_bad_lines="warn",
            )
    except EmptyDataError as exc:
        raise CatalogueUnusable(f"{name} is empty") from exc
    except (ParserError, UnicodeDecodeError) as exc:
        raise CatalogueUnusable(f"{name} cannot be read as UTF-8 CSV: {exc}") from exc
    if cells.empty:
        raise CatalogueUnusable(f"{name} is empty")
    cells.index += 1  # the header is row 1
    too_long = [int(line) for warning in caught for line in _SKIPPED.findall(str(warning.message))]
    header = cells.iloc[0].fillna("").str.strip()
    named = [text for text in header if text]
    if repeated := [column for column in required if named.count(column) > 1]:
        raise CatalogueUnusable(f"{name} has more than one column {', '.join(repeated)}; rename the others")
    if missing := [column for column in required if column not in named]:
        raise CatalogueUnusable(f"{name} lacks the column {', '.join(missing)}; it has {', '.join(named)}")
    width = max(position for position, text in enumerate(header, 1) if text)
    # Most surplus columns are empty; only rows with something in them need a closer look.
    spare = cells.iloc[1:, width:].dropna(axis="columns", how="all").fillna("")
    torn = (spare != "").any(axis=1)
    torn[torn] = (_stripped(spare[torn]) != "").any(axis=1)
    too_long += [int(row) for row in torn.index[torn]]
    rejected += [RowProblem(f"row of {name} with too many fields", name, row) for row in too_long]
    rows = _stripped(cells.iloc[1:, :width][~torn])
    table: pd.DataFrame = rows.loc[(rows != "").any(axis=1)]
    table.columns = header[:width].tolist()
    return table


def _stripped(cells: "pd.DataFrame") -> "pd.DataFrame":
    stripped: pd.DataFrame = cells.fillna("").apply(lambda column: column.str.strip())
    return stripped


def _find(directory: Location, name: str) -> Path | ObjectFile:
    if isinstance(directory, Path) and not directory.is_dir():
        raise CatalogueUnusable(f"{directory} is not a directory; a catalogue holds {_LAYOUT}")
    found = [one for one in backend_at(directory).top() if one.lower() == name.lower()]
    if not found:
        raise CatalogueUnusable(f"{directory} has no {name}; a catalogue holds {_LAYOUT}")
    return directory / found[0]


def _file(directory: Location, address: str) -> Path | ObjectFile:
    """The file of an address in a `Scan`."""
    if isinstance(directory, Path):
        return Path(address)
    return directory / address.removeprefix(f"{directory.url}/")


def _rows(table: "pd.DataFrame") -> list[int]:
    return [int(row) for row in table.index]


def _categories(products: "pd.DataFrame", rejected: list[RowProblem]) -> dict[str, int]:
    """Class index by listing id, for the listings that have both."""
    roots = products["category"].str.split("/").str[0].str.strip()
    category_of: dict[str, int] = {}
    for row, listing_id, root in zip(_rows(products), products["id"], roots, strict=True):
        if not listing_id:
            rejected.append(RowProblem("listing without id", PRODUCTS, row))
        elif listing_id in category_of:
            rejected.append(RowProblem("listing id repeated", PRODUCTS, row, listing_id))
        elif root not in CATEGORY_INDEX:
            reason = "listing without category" if not root else "listing of unknown category"
            rejected.append(RowProblem(reason, PRODUCTS, row, listing_id, root))
        else:
            category_of[listing_id] = CATEGORY_INDEX[root]
    return category_of


def _photos(
    tables: _Tables, found: Scan, open_file: Callable[[str], PhotoFile]
) -> tuple[list[tuple[int, CataloguePhoto]], list[RowProblem]]:
    """The labelled photos with their row numbers, and the rows that are left out."""
    photos: dict[str, tuple[int, CataloguePhoto]] = {}
    rejected: list[RowProblem] = []
    for row, image_id, listing_id in tables.images:
        if not image_id:
            reason = "photo without id"
        elif image_id in photos:
            reason = "photo id repeated"
        elif listing_id not in tables.listing_ids:
            reason = "photo without listing"
        elif listing_id not in tables.category_of:
            reason = "photo of an unusable listing"
        elif image_id.lower() not in found.photos:
            reason = "photo without file"
        else:
            file = open_file(found.photos[image_id.lower()][0])
            photos[image_id] = row, CataloguePhoto(image_id, listing_id, tables.category_of[listing_id], file)
            continue
        rejected.append(RowProblem(reason, IMAGES, row, image_id))
    return list(photos.values()), rejected


def _digest(photos: list[CataloguePhoto]) -> str:
    digest = hashlib.sha256()
    for photo in photos:
        fields = (photo.image_id, photo.listing_id, str(photo.category), photo.sha256)
        digest.update("\x1f".join(fields).encode() + b"\x1e")
    return digest.hexdigest()
