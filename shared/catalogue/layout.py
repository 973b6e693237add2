"""Finds a catalogue's tables and its folder of photos, under the names that its `catalogue.toml` gives them."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.artifacts.files import ObjectFile
from shared.attributes.configuration import CONFIGURATION, Configuration, parse_configuration
from shared.catalogue.forms.encodings import SAVE_AS
from shared.catalogue.proposals import JSON_LINES, TABLES, TEXTS, advice_on, propose
from shared.catalogue.rows import IMAGES, PRODUCTS
from shared.errors import CatalogueUnusable

LAYOUT = f"{PRODUCTS}, {IMAGES}, images/"
_FORMS = (".csv", ".parquet", ".jsonl", ".ndjson")


class Layout(NamedTuple):
    """The files of a catalogue besides its photos.

    Attributes:
        configuration: what its `catalogue.toml` says.
        products: its table of listings.
        images: its photos' table; the same one where the table of listings names the photos, too.
        folder: with its photos; None: there is none.
        configuration_file: None: there is none.
    """

    configuration: Configuration
    products: Path | ObjectFile
    images: Path | ObjectFile
    folder: Path | ObjectFile | None
    configuration_file: Path | ObjectFile | None

    @property
    def names(self) -> dict[str, str]:
        """What PRODUCTS and IMAGES are called in reports: with the ending that the file has, or as configured."""
        listings, photos = self.configuration.listings.table, self.configuration.photos.table
        products = listings or _called(self.products, PRODUCTS)
        return {PRODUCTS: products, IMAGES: products if self.is_one_table else photos or _called(self.images, IMAGES)}

    @property
    def is_one_table(self) -> bool:
        """Whether the table of listings names the photos, too."""
        return str(self.products) == str(self.images)


def _called(file: Path | ObjectFile, name: str) -> str:
    return f"{name.partition('.')[0]}{Path(str(file)).suffix.lower()}"


def is_parquet(called: str) -> bool:
    """Whether a table of this name is read as Parquet."""
    return called.lower().endswith(".parquet")


def is_json_lines(called: str) -> bool:
    """Whether a table of this name is read as JSON Lines."""
    return called.lower().endswith(JSON_LINES)


def find_layout(directory: Location) -> Layout:
    """Find the files of a catalogue, without opening any but `catalogue.toml`.

    Args:
        directory: of the dump.

    Raises:
        CatalogueUnusable: a table is missing, there in two forms, or in one that is not read, or `catalogue.toml`
            cannot be used; says what to do.
        StoreUnavailable: the object store does not answer.
    """
    if isinstance(directory, Path) and not directory.is_dir():
        raise CatalogueUnusable(f"{directory} is not a directory; a catalogue holds {LAYOUT}")
    top = backend_at(directory).top()
    file = _any_case(directory, top, CONFIGURATION)
    configuration = _read(file) if file else Configuration()
    listings, photos = configuration.listings, configuration.photos
    products = (
        _named(directory, "listings", listings.table) if listings.table else _find(directory, top, PRODUCTS, None)
    )
    if photos.columns:
        images = products
    elif photos.table:
        images = _named(directory, "photos", photos.table)
    else:
        images = _find(directory, top, IMAGES, products)
    return Layout(configuration, products, images, _any_case(directory, top, "images"), file)


def _any_case(directory: Location, top: list[str], name: str) -> Path | ObjectFile | None:
    return next((directory / one for one in top if one.lower() == name), None)


def _read(file: Path | ObjectFile) -> Configuration:
    try:
        return parse_configuration(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise CatalogueUnusable(f"{CONFIGURATION} is not UTF-8; save it so") from exc


def _named(directory: Location, section: str, table: str) -> Path | ObjectFile:
    """The table that `catalogue.toml` names, below the catalogue's directory."""
    told = f"{CONFIGURATION}: {section}.table: {table}"
    if table.startswith(("/", "~")) or "\\" in table or ".." in table.split("/"):
        raise CatalogueUnusable(f"{told} is not inside the catalogue; write it as it lies below {directory}")
    if not table.lower().endswith(TABLES):
        raise CatalogueUnusable(f"{told} is not read: {_advice(table)}")
    file = directory / table
    if not file.is_file():
        raise CatalogueUnusable(f"{told} is not there; write it as it lies below {directory}")
    return file


def _find(directory: Location, top: list[str], name: str, listings: Path | ObjectFile | None) -> Path | ObjectFile:
    """A table under its own name, whatever its form and the case of its name."""
    stem = name.partition(".")[0].lower()
    alike = [one for one in top if one.lower().partition(".")[0] == stem and "." in one]
    forms = {one: one.lower().removeprefix(stem) for one in alike}
    found = [one for one in alike if forms[one] in _FORMS] or [one for one in alike if forms[one] in TEXTS]
    if len(found) > 1:
        raise CatalogueUnusable(f"{directory} has {' and '.join(found)}; leave one of them there")
    if not found:
        told = f"{directory} has no {name}; a catalogue holds {LAYOUT} (the same as {', '.join(_FORMS[1:])})"
        hint = f"{alike[0]} is not read: {_advice(alike[0])}" if alike else _proposal(directory, top, listings)
        raise CatalogueUnusable(f"{told}; {hint}" if hint else told)
    return directory / found[0]


def _proposal(directory: Location, top: list[str], listings: Path | ObjectFile | None) -> str:
    names = [one for one in top if "." in one and one.lower() != CONFIGURATION]
    if isinstance(directory, Path):
        folders = [one for one in top if one.lower() != "images" and (directory / one).is_dir()]
        names = [name for name in names if (directory / name).is_file()]
        for folder in folders:
            with suppress(OSError):  # a folder that may not be read proposes nothing
                names += sorted(f"{folder}/{file.name}" for file in (directory / folder).iterdir() if file.is_file())
    return propose(directory, names, listings)


def _advice(file_name: str) -> str:
    """What to do about a table whose ending is none of those that are read."""
    if file_name.lower().endswith(JSON_LINES):
        return "write one JSON object a line into a .jsonl"
    return advice_on(file_name) or SAVE_AS
