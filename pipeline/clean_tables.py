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
_MAX_COLUMNS = 256
_LAYOUT = "Products.csv, Images.csv, images/"


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
    if not path.is_file():
        raise CatalogueUnusable(f"{path.name} is not a file; a catalogue holds {_LAYOUT}")
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
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    if cells.empty:
        raise CatalogueUnusable(f"{name} is empty")
    if n_overlong := sum(str(warning.message).count("Skipping line") for warning in caught):
        unusable[f"row of {name} with too many fields"] += n_overlong
    header = [text for text in cells.iloc[0] if text]
    if repeated := [column for column in required if header.count(column) > 1]:
        raise CatalogueUnusable(f"{name} has more than one column {', '.join(repeated)}; rename the others")
    width = int(cells.iloc[0].ne("").to_numpy().nonzero()[0].max()) + 1 if header else 0
    if missing := [column for column in required if column not in header]:
        raise CatalogueUnusable(f"{name} lacks the column {', '.join(missing)}; it has {', '.join(header)}")
    rows = cells.iloc[1:]
    torn = rows.iloc[:, width:].ne("").any(axis=1)
    if n_torn := int(torn.sum()):
        unusable[f"row of {name} with too many fields"] += n_torn
    table: pd.DataFrame = rows.loc[~torn & rows.ne("").any(axis=1)].iloc[:, :width]
    table.columns = cells.iloc[0, :width].tolist()
    return table


def _find(directory: Path, name: str) -> Path:
    if not directory.is_dir():
        raise CatalogueUnusable(f"{directory} is not a directory; a catalogue holds {_LAYOUT}")
    found = sorted(path for path in directory.iterdir() if path.name.lower() == name.lower())
    if not found:
        raise CatalogueUnusable(f"{directory} has no {name}; a catalogue holds {_LAYOUT}")
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
    if not folder.is_dir():
        raise CatalogueUnusable(f"{folder.name} is not a directory; a catalogue holds {_LAYOUT}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file():
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
        content = hashlib.sha256(photo.path.read_bytes()).hexdigest()
        fields = (photo.image_id, photo.listing_id, str(photo.category), content)
        digest.update("\x1f".join(fields).encode() + b"\x1e")
    return digest.hexdigest()
