"""Reads which photos a catalogue has, and of which listings, from its photos' table or from that of its listings."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from shared.attributes.configuration import CONFIGURATION, PhotosChoice
from shared.catalogue.categories import JOINED, is_missing, joined_levels
from shared.catalogue.forms.csv_files import CALLED_BY_FILE
from shared.catalogue.layout import Layout
from shared.catalogue.photo_paths import PhotoPlace, photo_places, place_columns
from shared.catalogue.rows import PRODUCTS, column_key
from shared.catalogue.scan import ENDINGS
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd

_URL = re.compile(r"https?://[^/?#]*(?P<path>[^?#]*)", re.IGNORECASE)
_BEFORE_URL = re.compile(r"[\s,;|]+(?=https?://)", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*[,;|]\s*")
_N_NAMED = 20


class PhotoRow(NamedTuple):
    """A photo as a table has it.

    Attributes:
        row: its number in that table.
        image_id: of the photo; empty: the row has none.
        listing_id: as it stands there.
        place: where the row says that the photo is; None: in a file of its id's name.
    """

    row: int
    image_id: str
    listing_id: str
    place: PhotoPlace | None


def photo_rows(images: "pd.DataFrame", choice: PhotosChoice) -> list[PhotoRow]:
    """Read a photos' table: a photo a row. Without ids it is called as one that a cell of the listings' table names.

    Args:
        images: as `read_table` gives it.
        choice: what `catalogue.toml` says of it.
    """
    if images.attrs.get(CALLED_BY_FILE):
        cells = zip(images.index, images["product_id"], images["id"], strict=True)
        listed = [(int(row), listing, split_photos(cell)) for row, listing, cell in cells]
        unnamed = [PhotoRow(row, "", listing, None) for row, listing, items in listed if not items]
        return [*_photos_in_cells(listed), *unnamed]
    places = photo_places(images, choice)
    rows = zip(images.index, images["id"], images["product_id"], strict=True)
    return [PhotoRow(int(row), image_id, listing, places.get(int(row))) for row, image_id, listing in rows]


def photos_of_listings(products: "pd.DataFrame", layout: Layout) -> "tuple[list[PhotoRow], pd.DataFrame]":
    """Read the photos that the table of listings names: a photo a row, or those in some cells of each.

    A photo that a cell names is called as its file is, without ending; where that does not begin with the listing's id,
    the id is put before it. So two listings may name the same file, and an id stays when other rows come and go.
    Where two photos would have one id all the same, as of "1.jpg" in two folders, the second gets a number.

    Args:
        products: as `read_table` gives it.
        layout: of the catalogue.

    Returns:
        the photos; and the table without the columns that name them.

    Raises:
        CatalogueUnusable: a column that `catalogue.toml` names is not there.
    """
    choice = layout.configuration.photos
    if not choice.columns:
        column = _column("id", choice.id or "id", products, layout)
        first = products.loc[:, ~products.columns.duplicated()]  # of columns with one name, as attributes have it
        images = first.assign(product_id=first["id"], id=first[column])
        named = {column, *place_columns(products, choice)}
        return photo_rows(images, choice), products.drop(columns=named - {"id", "category"})
    columns = list(dict.fromkeys(_column("columns", name, products, layout) for name in choice.columns))
    cells = products.loc[:, columns].to_numpy().tolist()  # of columns with one name all
    listed = [
        (int(row), listing, _items(of_row))
        for row, listing, of_row in zip(products.index, products["id"], cells, strict=True)
    ]
    return list(_photos_in_cells(listed)), products.drop(columns=set(columns) - {"id", "category"})


def _column(entry: str, name: str, products: "pd.DataFrame", layout: Layout) -> str:
    """What a column of the listings' file is called in the table that was read of it."""
    listings = layout.configuration.listings
    known = {column_key(listings.id): "id", column_key(listings.category or "category"): "category"}
    if name in products or (found := known.get(column_key(name), "")) in products:
        return name if name in products else found
    alike = [column for column in products.columns if column_key(column) == column_key(name)]
    if len(alike) == 1:
        return str(alike[0])
    shown = ", ".join(products.columns[:_N_NAMED])
    told = f"{CONFIGURATION}: photos.{entry}: {layout.names[PRODUCTS]} has no column {name}"
    raise CatalogueUnusable(f"{told}; it has {shown}")


def _photos_in_cells(listed: Sequence[tuple[int, str, list[str]]]) -> Iterator[PhotoRow]:
    """The photos of rows that each have a listing's id and the names, paths or URLs of photos."""
    n_items = Counter(_file_name(item) for item in {item for _, _, items in listed for item in items})
    seen: set[tuple[str, str]] = set()
    taken: set[str] = set()
    for row, listing_id, items in listed:
        for item in items:
            if (listing_id, item) in seen:
                continue
            seen.add((listing_id, item))
            file_name = _file_name(item)
            named = _image_id(listing_id, file_name)
            others = (f"{named}-{n}" for n in count(2))  # for "1.jpg" in another folder
            image_id = next(one for one in chain([named], others) if one not in taken)
            taken.add(image_id)
            name = file_name if n_items[file_name] == 1 else ""
            if _URL.match(item):
                place = PhotoPlace(url=item, name=name)
            elif "/" in item or "\\" in item:
                place = PhotoPlace(item, "", is_sure=True)
            else:
                place = PhotoPlace(name=item)
            yield PhotoRow(row, image_id, listing_id, place)


def _items(cells: Sequence[str]) -> list[str]:
    return [item for cell in cells for item in split_photos(cell)]


def split_photos(cell: str) -> list[str]:
    """Split what a cell says of photos: names, paths or URLs between commas, semicolons or bars, or a list in JSON.

    A comma within a URL, or in the name of a file whose ending follows it, separates nothing.
    """
    if is_missing(cell):
        return []
    if cell.startswith("["):
        joined = joined_levels(cell)
        if joined != cell:
            return [item for item in joined.split(JOINED) if item]
    if _URL.match(cell):
        return [item.strip(" ,;|") for item in _BEFORE_URL.split(cell)]
    items = [item for item in _BETWEEN.split(cell) if item]
    n_endings = sum(item.lower().endswith(ENDINGS) for item in items)
    return items if n_endings in (0, len(items)) else [cell]


def _file_name(item: str) -> str:
    path = unquote(url["path"]) if (url := _URL.match(item)) else item
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _image_id(listing_id: str, file_name: str) -> str:
    ending = next((ending for ending in ENDINGS if file_name.lower().endswith(ending)), "")
    stem = file_name[: len(file_name) - len(ending)]
    named = stem if stem.startswith(listing_id) else f"{listing_id}-{stem}" if stem else listing_id
    return named.replace("/", "_")
