"""Raw dump -> labelled photos, with every row that cannot be used counted by reason. Never writes to the dump."""

import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas.errors import EmptyDataError, ParserError, ParserWarning

from shared.catalogue import CATEGORY_INDEX, CataloguePhoto
from shared.errors import CatalogueUnusable

_PRODUCT_COLUMNS = ("id", "category")
_IMAGE_COLUMNS = ("id", "product_id")


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
    n_listings: int
    photos: list[CataloguePhoto]
    unusable: dict[str, int]
    digest: str


def read_catalogue(directory: Path) -> Catalogue:
    """Read `Products.csv`, `Images.csv` and the names in `images/`.

    Raises:
        CatalogueUnusable: a table is missing or lacks a column, or not one usable photo is left.
    """
    unusable: Counter[str] = Counter()
    products = _read_table(directory, "Products.csv", _PRODUCT_COLUMNS, unusable)
    images = _read_table(directory, "Images.csv", _IMAGE_COLUMNS, unusable)
    category_of = _categories(products, unusable)
    photos = _photos(images, category_of, set(products["id"]), _photo_files(directory), unusable)
    if not photos:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in unusable.items()) or "Images.csv has no rows"
        raise CatalogueUnusable(f"no usable photo in {directory} ({reasons})")
    return Catalogue(directory.name, len(category_of), photos, dict(unusable), _digest(photos))


def _read_table(directory: Path, name: str, required: tuple[str, ...], unusable: Counter[str]) -> pd.DataFrame:
    """One table as stripped text, missing values as empty text."""
    path = _find(directory, name)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ParserWarning)
            # Descriptions hold bare carriage returns, quoted or not: only a line feed ends a row.
            table = pd.read_csv(
                path,
                lineterminator="\n",
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                on_bad_lines="warn",
                index_col=False,
            )
    except EmptyDataError as exc:
        raise CatalogueUnusable(f"{name} is empty") from exc
    except (ParserError, UnicodeDecodeError) as exc:
        raise CatalogueUnusable(f"{name} cannot be read as UTF-8 CSV: {exc}") from exc
    if torn := sum(str(warning.message).count("Skipping line") for warning in caught):
        unusable[f"row of {name} with too many fields"] += torn
    table.columns = table.columns.str.strip()
    if missing := [column for column in required if column not in table.columns]:
        raise CatalogueUnusable(f"{name} lacks the column {', '.join(missing)}; it has {', '.join(table.columns)}")
    stripped: pd.DataFrame = table.fillna("").apply(lambda column: column.str.strip())
    return stripped


def _find(directory: Path, name: str) -> Path:
    if not directory.is_dir():
        raise CatalogueUnusable(f"{directory} is not a directory; a catalogue holds Products.csv, Images.csv, images/")
    found = [path for path in directory.iterdir() if path.name.lower() == name.lower()]
    if not found:
        raise CatalogueUnusable(f"{directory} has no {name}; a catalogue holds Products.csv, Images.csv, images/")
    return found[0]


def _categories(products: pd.DataFrame, unusable: Counter[str]) -> dict[str, int]:
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


def _photo_files(directory: Path) -> dict[str, Path]:
    """Files of `images/` by lower-cased name without ending; of twins the first in order of name counts."""
    folder = _find(directory, "images")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            files.setdefault(path.stem.lower(), path)
    return files


def _photos(
    images: pd.DataFrame,
    category_of: dict[str, int],
    listing_ids: set[str],
    files: dict[str, Path],
    unusable: Counter[str],
) -> list[CataloguePhoto]:
    photos: dict[str, CataloguePhoto] = {}
    for image_id, listing_id in zip(images["id"], images["product_id"], strict=True):
        if not image_id:
            unusable["photo without id"] += 1
        elif image_id in photos:
            unusable["photo id repeated"] += 1
        elif listing_id not in listing_ids:
            unusable["photo without listing"] += 1
        elif listing_id not in category_of:
            unusable["photo of an unusable listing"] += 1
        elif image_id.lower() not in files:
            unusable["photo without file"] += 1
        else:
            path = files[image_id.lower()]
            photos[image_id] = CataloguePhoto(image_id, listing_id, category_of[listing_id], path)
    return list(photos.values())


def _digest(photos: list[CataloguePhoto]) -> str:
    digest = hashlib.sha256()
    for photo in photos:
        fields = (photo.image_id, photo.listing_id, str(photo.category), str(photo.path.stat().st_size))
        digest.update("\x1f".join(fields).encode() + b"\x1e")
    return digest.hexdigest()
