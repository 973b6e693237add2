"""Raw dump -> labelled photos, with every row that cannot be used counted by reason. Never writes to the dump."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shared.catalogue import CATEGORY_INDEX, CataloguePhoto
from shared.errors import CatalogueUnusable
from shared.indexing.scan import PhotoDigests, Scan, Stat, scan

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd

_PRODUCTS, _IMAGES = "Products.csv", "Images.csv"
_PRODUCT_COLUMNS = ("id", "category")
_IMAGE_COLUMNS = ("id", "product_id")
_MAX_COLUMNS = 256
_LAYOUT = f"{_PRODUCTS}, {_IMAGES}, images/"


@dataclass(frozen=True)
class Catalogue:
    """The usable part of a dump.

    Attributes:
        name: the directory's name, for people.
        n_listings: listings with an id and a known category, whether or not they have photos.
        photos: labelled photos in the order of Images.csv.
        unusable: rows left out, by reason.
        digest: changes when a photo, its listing or its category does.
    """

    name: str
    directory: Path
    n_listings: int
    photos: list[CataloguePhoto]
    unusable: dict[str, int]
    digest: str


class _Tables(NamedTuple):
    """The two tables, as far as they can be used."""

    listing_ids: frozenset[str]
    category_of: dict[str, int]  # by listing id
    images: list[tuple[str, str]]  # image id, listing id
    unusable: Counter[str]


def read_catalogue(directory: Path) -> Catalogue:
    """Read `Products.csv`, `Images.csv` and the photos in `images/`.

    Raises:
        CatalogueUnusable: a table is missing or lacks a column, or not one usable photo is left.
    """
    return CatalogueReader().read(directory)


class CatalogueReader:
    """Reads a catalogue, and the next time only what has changed of it.

    Args:
        file: where the photos' digests are kept for the next process; None: nowhere.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._digests = PhotoDigests(file)
        self._tables: tuple[Mapping[Path, Stat], _Tables] | None = None

    def digest(self, found: Scan) -> str | None:
        """The digest of a catalogue in which not one file has changed since it was read; else None."""
        return self._digests.catalogue_digest(found)

    def read(self, directory: Path, found: Scan | None = None) -> Catalogue:
        """See `read_catalogue`.

        Args:
            found: its files, if they have just been looked at.
        """
        found = found or scan_catalogue(directory)
        if self._tables is None or self._tables[0] != found.tables:
            self._tables = found.tables, _read_tables(directory)
        tables = self._tables[1]
        unusable = tables.unusable.copy()
        labelled = _photos(tables, found, unusable)
        contents = self._digests.read([found.photos[photo.image_id.lower()] for photo in labelled])
        photos = [replace(photo, sha256=sha256) for photo, sha256 in zip(labelled, contents, strict=True) if sha256]
        if n_unreadable := len(labelled) - len(photos):
            unusable["photo file cannot be read"] += n_unreadable
        if not photos:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in unusable.items()) or f"{_IMAGES} has no rows"
            raise CatalogueUnusable(f"no usable photo in {directory} ({reasons})")
        digest = _digest(photos)
        self._digests.remember(found, "" if n_unreadable else digest)
        return Catalogue(directory.name, directory, len(tables.category_of), photos, dict(unusable), digest)


def scan_catalogue(directory: Path) -> Scan:
    """The files of a catalogue.

    Raises:
        CatalogueUnusable: a table or `images/` is missing.
    """
    tables = [_find(directory, name) for name in (_PRODUCTS, _IMAGES)]
    folder = _find(directory, "images")
    for path in tables:
        if not path.is_file():
            raise CatalogueUnusable(f"{path.name} is not a file; a catalogue holds {_LAYOUT}")
    if not folder.is_dir():
        raise CatalogueUnusable(f"{folder.name} is not a directory; a catalogue holds {_LAYOUT}")
    return scan(tables, folder)


def _read_tables(directory: Path) -> _Tables:
    unusable: Counter[str] = Counter()
    products = _read_table(directory, _PRODUCTS, _PRODUCT_COLUMNS, unusable)
    images = _read_table(directory, _IMAGES, _IMAGE_COLUMNS, unusable)
    return _Tables(
        listing_ids=frozenset(products["id"]),
        category_of=_categories(products, unusable),
        images=list(zip(images["id"], images["product_id"], strict=True)),
        unusable=unusable,
    )


def _read_table(directory: Path, name: str, required: tuple[str, ...], unusable: Counter[str]) -> "pd.DataFrame":
    """One table as stripped text, missing values as empty text."""
    import pandas as pd
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    path = _find(directory, name)
    try:
        # Descriptions hold bare carriage returns, quoted or not: only a line feed ends a row. Columns to spare show
        # which rows have too many fields; pandas would cut or shift those to fit.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ParserWarning)
            cells = pd.read_csv(
                path,
                lineterminator="\n",
                header=None,
                names=range(_MAX_COLUMNS),
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                on_bad_lines="warn",
            )
    except EmptyDataError as exc:
        raise CatalogueUnusable(f"{name} is empty") from exc
    except (ParserError, UnicodeDecodeError) as exc:
        raise CatalogueUnusable(f"{name} cannot be read as UTF-8 CSV: {exc}") from exc
    if cells.empty:
        raise CatalogueUnusable(f"{name} is empty")
    if n_overlong := sum(str(warning.message).count("Skipping line") for warning in caught):
        unusable[f"row of {name} with too many fields"] += n_overlong
    header = cells.iloc[0].fillna("").str.strip()
    named = [text for text in header if text]
    if repeated := [column for column in required if named.count(column) > 1]:
        raise CatalogueUnusable(f"{name} has more than one column {', '.join(repeated)}; rename the others")
    if missing := [column for column in required if column not in named]:
        raise CatalogueUnusable(f"{name} lacks the column {', '.join(missing)}; it has {', '.join(named)}")
    width = max(position for position, text in enumerate(header, 1) if text)
    # Most of the columns to spare are empty; only rows with something in them need a closer look.
    spare = cells.iloc[1:, width:].fillna("")
    torn = (spare != "").any(axis=1)
    torn[torn] = (_stripped(spare[torn]) != "").any(axis=1)
    if n_torn := int(torn.sum()):
        unusable[f"row of {name} with too many fields"] += n_torn
    rows = _stripped(cells.iloc[1:, :width][~torn])
    table: pd.DataFrame = rows.loc[(rows != "").any(axis=1)]
    table.columns = header[:width].tolist()
    return table


def _stripped(cells: "pd.DataFrame") -> "pd.DataFrame":
    stripped: pd.DataFrame = cells.fillna("").apply(lambda column: column.str.strip())
    return stripped


def _find(directory: Path, name: str) -> Path:
    if not directory.is_dir():
        raise CatalogueUnusable(f"{directory} is not a directory; a catalogue holds {_LAYOUT}")
    found = sorted(path for path in directory.iterdir() if path.name.lower() == name.lower())
    if not found:
        raise CatalogueUnusable(f"{directory} has no {name}; a catalogue holds {_LAYOUT}")
    return found[0]


def _categories(products: "pd.DataFrame", unusable: Counter[str]) -> dict[str, int]:
    """Class index by listing id, for the listings that have both."""
    roots = products["category"].str.split("/").str[0].str.strip()
    category_of: dict[str, int] = {}
    for listing_id, root in zip(products["id"], roots, strict=True):
        if not listing_id:
            unusable["listing without id"] += 1
        elif listing_id in category_of:
            unusable["listing id repeated"] += 1
        elif root not in CATEGORY_INDEX:
            unusable["listing without category" if not root else "listing of unknown category"] += 1
        else:
            category_of[listing_id] = CATEGORY_INDEX[root]
    return category_of


def _photos(tables: _Tables, found: Scan, unusable: Counter[str]) -> list[CataloguePhoto]:
    photos: dict[str, CataloguePhoto] = {}
    for image_id, listing_id in tables.images:
        if not image_id:
            unusable["photo without id"] += 1
        elif image_id in photos:
            unusable["photo id repeated"] += 1
        elif listing_id not in tables.listing_ids:
            unusable["photo without listing"] += 1
        elif listing_id not in tables.category_of:
            unusable["photo of an unusable listing"] += 1
        elif image_id.lower() not in found.photos:
            unusable["photo without file"] += 1
        else:
            path, _ = found.photos[image_id.lower()]
            photos[image_id] = CataloguePhoto(image_id, listing_id, tables.category_of[listing_id], Path(path))
    return list(photos.values())


def _digest(photos: list[CataloguePhoto]) -> str:
    digest = hashlib.sha256()
    for photo in photos:
        fields = (photo.image_id, photo.listing_id, str(photo.category), photo.sha256)
        digest.update("\x1f".join(fields).encode() + b"\x1e")
    return digest.hexdigest()
