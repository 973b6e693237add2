"""Reads a raw dump into labelled photos, and lists every unusable row with its reason; never writes to the dump."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shared.artifacts import Location
from shared.artifacts.files import ObjectFile
from shared.attributes.schema import NO_ATTRIBUTES, AttributeSchema
from shared.catalogue.attributes import ListingAttributes, read_attributes
from shared.catalogue.categories import (
    OLDER_CATEGORIES,
    ROOTS,
    CataloguePhoto,
    Categories,
    CategorySource,
    PhotoFile,
    joined_levels,
)
from shared.catalogue.choice import OWN_CATEGORIES, CategoryChoice
from shared.catalogue.forms.csv_files import read_table
from shared.catalogue.layout import LAYOUT, find_layout
from shared.catalogue.listing_rows import label_listings
from shared.catalogue.photo_files import FetchPhotos, FileProblem, PhotoFiles
from shared.catalogue.photo_listings import Listings, odd_listing
from shared.catalogue.photo_rows import PhotoRow, photo_rows, photos_of_listings
from shared.catalogue.rows import IMAGES, PRODUCTS, RowProblem, long_id, with_names
from shared.catalogue.scan import PhotoDigests, Scan, Stat, scan
from shared.catalogue.spoiled_ids import SPOILED_PHOTO
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    pass


_DETAIL_CHARS = 240


@dataclass(frozen=True)
class Catalogue:
    """The usable part of a dump.

    Attributes:
        name: the directory's or prefix's name, for people.
        directory: the dump.
        n_listings: listings with an id and a known category, with or without photos.
        photos: labelled photos in the order of Images.csv.
        rejected: rows left out.
        odd: rows that are used although something about them is wrong, and what was assumed of a table.
        categories: that the photos' categories are positions in.
        source: where in the table they stand.
        attributes: of the listings; each photo carries its listing's values.
        table_names: what PRODUCTS and IMAGES are called in reports.
        paths: the category of each listing in `n_listings` as the table has it, by id; of a list its levels joined.
        listing_rows: the row of each listing in `n_listings`, by id.
        photo_rows: the row of each photo, by id.
        digest: SHA-256 over the photos, their listings, categories and attributes.
    """

    name: str
    directory: Location
    n_listings: int
    photos: list[CataloguePhoto]
    rejected: tuple[RowProblem, ...]
    digest: str
    odd: tuple[RowProblem, ...] = ()
    categories: Categories = OLDER_CATEGORIES
    source: CategorySource = ROOTS
    attributes: AttributeSchema = NO_ATTRIBUTES
    table_names: Mapping[str, str] = field(default_factory=lambda: {PRODUCTS: PRODUCTS, IMAGES: IMAGES})
    paths: Mapping[str, str] = field(default_factory=dict)
    listing_rows: Mapping[str, int] = field(default_factory=dict)
    photo_rows: Mapping[str, int] = field(default_factory=dict)

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
        rows = (*self.rejected, *with_names(rejected, self.table_names))
        left = replace(self, photos=photos, rejected=rows, digest=_digest(photos, self.attributes))
        if not photos:
            counts = left.unusable
            reasons = (
                ", ".join(f"{reason}: {n}" for reason, n in counts.items()) or f"{self.table_names[IMAGES]} has no rows"
            )
            told = (row for row in left.rejected if row.detail)
            row = max(told, key=lambda row: counts[row.reason], default=None)
            example = f"; {row.table} row {row.row}: {row.detail}" if row else ""
            raise CatalogueUnusable(f"no usable photo in {self.directory} ({reasons}{example[:_DETAIL_CHARS]})")
        return left


class _Tables(NamedTuple):
    """The two tables, as far as they can be used."""

    listing_ids: frozenset[str]
    category_of: dict[str, int]  # by listing id
    images: list[PhotoRow]
    rejected: list[RowProblem]
    odd: list[RowProblem]
    categories: Categories
    attributes: ListingAttributes
    paths: dict[str, str]  # category as written, by listing id
    listing_rows: dict[str, int]  # by listing id
    names: dict[str, str]


class _Labelled(NamedTuple):
    """A photo with its row in Images.csv and its file's address and metadata."""

    row: int
    photo: CataloguePhoto
    file: tuple[str, Stat]


def read_catalogue(
    directory: Location, wanted: CategoryChoice = OWN_CATEGORIES, *, fetch: FetchPhotos | None = None
) -> Catalogue:
    """Read a dump: `Products.csv`, `Images.csv`, or as Parquet or JSON Lines, and the photos in `images/`.

        catalogue = read_catalogue(Path("dump"))
        print(len(catalogue.photos), catalogue.unusable)

    Args:
        directory: of the dump.
        wanted: which categories it is to be read with; by default those that it has.
        fetch: fetches photos that are there by URL only.

    Raises:
        CatalogueUnusable: a table is missing or lacks a column, or no usable photo is left.
        StoreUnavailable: the object store does not answer.
    """
    return CatalogueReader().read(directory, wanted=wanted, fetch=fetch)


class CatalogueReader:
    """Reads a catalogue repeatedly, each time only the tables and photos that changed since.

    Args:
        file: JSON file that keeps the photos' digests for the next process; None: in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._digests = PhotoDigests(file)
        self._tables: tuple[Mapping[str, Stat], CategoryChoice, _Tables] | None = None

    def digest(self, found: Scan) -> str | None:
        """Return the catalogue's digest if no file in `found` has changed since it was read; else None.

        None too where photos were there by URL only: whether those have changed their hosts must be asked.
        """
        return self._digests.catalogue_digest(found)

    def read(
        self,
        directory: Location,
        found: Scan | None = None,
        *,
        wanted: CategoryChoice = OWN_CATEGORIES,
        fetch: FetchPhotos | None = None,
    ) -> Catalogue:
        """Read the catalogue; see `read_catalogue`.

        Args:
            directory: of the dump.
            found: its listing, if one was just made; None: list the files now.
            wanted: which categories it is to be read with.
            fetch: fetches photos that are there by URL only.
        """
        found = found or scan_catalogue(directory)
        tables = self._current_tables(directory, found, wanted)
        files = PhotoFiles(found, ((one.place and one.place.name) or one.image_id for one in tables.images))
        listings = Listings(tables.listing_ids, (one.listing_id for one in tables.images))
        places = (
            (image_id, place)
            for _, image_id, listing, place in tables.images
            if place and place.url and listings.find(listing) in tables.category_of
        )
        has_urls = files.fetch(places, fetch)
        open_file = partial(_file, directory, files)
        labelled, rejected, odd = _photos(tables, files, listings, open_file)
        contents = self._digests.read([one.file for one in labelled], open_file)
        unreadable = [
            RowProblem("photo file cannot be read", IMAGES, one.row, one.photo.image_id)
            for one, sha256 in zip(labelled, contents, strict=True)
            if not sha256
        ]
        photos = [replace(one.photo, sha256=sha256) for one, sha256 in zip(labelled, contents, strict=True)]
        catalogue = Catalogue(
            directory.name,
            directory,
            len(tables.category_of),
            photos,
            with_names((*tables.rejected, *rejected), tables.names),
            "",
            with_names((*tables.odd, *odd), tables.names),
            tables.categories,
            wanted.source,
            tables.attributes.schema,
            tables.names,
            tables.paths,
            tables.listing_rows,
            {one.photo.image_id: one.row for one in labelled},
        ).without(unreadable)
        self._digests.remember(found, "" if unreadable or has_urls else catalogue.digest)
        return catalogue

    def _current_tables(self, directory: Location, found: Scan, wanted: CategoryChoice) -> _Tables:
        """Read the tables, unless they are as they were."""
        if self._tables is None or self._tables[:2] != (found.tables, wanted):
            self._tables = found.tables, wanted, _read_tables(directory, wanted)
        tables = self._tables[2]
        if not (found.has_folder or any(one.place for one in tables.images)):
            where = "or names its photos in a column path or url"
            raise CatalogueUnusable(f"{directory} has no images; a catalogue holds {LAYOUT}, {where}")
        return tables


@contextmanager
def _permitted() -> Iterator[None]:
    """Raise CatalogueUnusable, with who may not read what, for what a dump's permissions forbid."""
    try:
        yield
    except PermissionError as exc:
        raise CatalogueUnusable(
            f"{exc.filename} may not be read by user {os.geteuid()}; let others read it: chmod -R a+rX"
        ) from exc


@_permitted()
def scan_catalogue(directory: Location) -> Scan:
    """List the files of a catalogue, without opening any.

    Args:
        directory: of the dump.

    Raises:
        CatalogueUnusable: a table is missing, or may not be read.
        StoreUnavailable: the object store does not answer.
    """
    layout = find_layout(directory)
    tables = [layout.products, layout.images]
    tables += [layout.configuration_file] if layout.configuration_file else []
    folder = layout.folder
    for path in tables:
        if isinstance(path, Path) and not path.is_file():
            raise CatalogueUnusable(f"{path.name} is not a file; a catalogue holds {LAYOUT}")
    if isinstance(folder, Path) and not folder.is_dir():
        raise CatalogueUnusable(f"{folder.name} is not a directory; a catalogue holds {LAYOUT}")
    return scan(directory, tables, folder)


@_permitted()
def _read_tables(directory: Location, wanted: CategoryChoice) -> _Tables:
    rejected: list[RowProblem] = []
    odd: list[RowProblem] = []
    layout = find_layout(directory)
    products = read_table(layout, PRODUCTS, rejected, odd, wanted.source)
    if layout.is_one_table:
        images, products = photos_of_listings(products, layout)
    else:
        images = photo_rows(read_table(layout, IMAGES, rejected, odd), layout.configuration.photos)
    categories = wanted.categories(products["category"], rejected)
    category_of, rows = label_listings(products, categories, rejected, odd, has_photos=layout.is_one_table)
    if layout.is_one_table:
        with_photos = {one.listing_id for one in images}
        without = (one for one in rows.items() if one[0] not in with_photos)
        odd += [RowProblem("listing that names no photo", PRODUCTS, row, listing_id) for listing_id, row in without]
    choices = layout.configuration.attributes
    return _Tables(
        listing_ids=frozenset(products["id"]),
        category_of=category_of,
        images=images,
        rejected=rejected,
        odd=odd,
        categories=categories,
        attributes=read_attributes(choices, products, rows, odd, wanted.attributes, called=layout.names[PRODUCTS]),
        paths=dict(zip(rows, map(joined_levels, products.loc[list(rows.values()), "category"]), strict=True)),
        listing_rows=rows,
        names=layout.names,
    )


def _file(directory: Location, files: PhotoFiles, address: str) -> Path | ObjectFile:
    """The file of an address in a `Scan`, or of a photo that was fetched."""
    if fetched := files.fetched_file(address):
        return fetched
    if isinstance(directory, Path):
        return Path(address)
    return directory / address.removeprefix(f"{directory.url}/")


def _photos(
    tables: _Tables, files: PhotoFiles, listings: Listings, open_file: Callable[[str], PhotoFile]
) -> tuple[list[_Labelled], list[RowProblem], list[RowProblem]]:
    """The labelled photos, the rows that are left out, and the odd ones."""
    photos: dict[str, _Labelled] = {}
    rejected: list[RowProblem] = []
    odd: list[RowProblem] = []
    for row, image_id, written, place in tables.images:
        value = detail = ""
        listing_id = listings.find(written)
        if not image_id:
            reason = "photo without id"
        elif image_id in photos:
            reason = "photo id repeated"
        elif isinstance(listing_id, FileProblem):
            value, (reason, detail) = written, listing_id
        elif listing_id not in tables.category_of:
            reason = "photo of an unusable listing"
        elif isinstance(file := files.find(image_id, place), FileProblem):
            reason, detail = file
        else:
            read_as, payload = file.read_as or image_id, tables.attributes.payloads[listing_id]
            category = tables.category_of[listing_id]
            photo = CataloguePhoto(read_as, listing_id, category, open_file(file.address), payload=payload)
            photos[image_id] = _Labelled(row, photo, (file.address, file.stat))
            odd += long_id(IMAGES, row, read_as)
            if read_as != image_id:
                odd.append(RowProblem(SPOILED_PHOTO, IMAGES, row, image_id, image_id, f"read as {read_as}"))
            if file.odd:
                odd.append(RowProblem(file.odd.reason, IMAGES, row, image_id, detail=file.odd.detail))
            if listing_id != written:
                reason, detail = odd_listing(written, listing_id)
                odd.append(RowProblem(reason, IMAGES, row, image_id, written, detail))
            continue
        rejected.append(RowProblem(reason, IMAGES, row, image_id, value, detail))
    return list(photos.values()), rejected, odd


def _digest(photos: list[CataloguePhoto], attributes: AttributeSchema) -> str:
    digest = hashlib.sha256("".join(f"{one.name}\x1f{one.type}\x1e" for one in attributes).encode())
    for photo in photos:
        fields = [photo.image_id, photo.listing_id, str(photo.category), photo.sha256]
        fields += [photo.payload] if photo.payload else []
        digest.update("\x1f".join(fields).encode() + b"\x1e")
    return digest.hexdigest()
