"""Reads `catalogue.toml`: what the operator says of a catalogue's tables and attributes where they do not show it."""

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.attributes.schema import MAX_NAME_LENGTH, AttributeType, attribute_name
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

CONFIGURATION = "catalogue.toml"


class ColumnChoice(BaseModel):
    """What `[attributes.NAME]` says of one attribute.

    Attributes:
        column: of the table; empty: the one that has the attribute's name.
        type: of its values; None: it is inferred.
        currency: of a price where the table gives none.
        decimal: what stands before the fraction of its numbers; None: it is inferred.
        day_first: whether 3/4/2026 is in April; None: it is inferred.
        skip: the column is no attribute.
    """

    model_config = ConfigDict(frozen=True)

    column: str = ""
    type: AttributeType | None = None
    currency: str = Field("", pattern="^([A-Z]{3})?$")
    decimal: Literal[".", ","] | None = None
    day_first: bool | None = None
    skip: bool = False


class ListingsChoice(BaseModel):
    """What `[listings]` says of the table of listings.

    Attributes:
        table: its file, as it lies below the catalogue's directory; empty: `Products.csv`, or in another form.
        id: its column with the listing's id.
        category: its column with the category; empty: the one of the setting.
        several: what stands between the categories of a listing that has several, of which the first is used; empty:
            none has.
    """

    model_config = ConfigDict(frozen=True)

    table: str = ""
    id: str = Field("id", min_length=1)
    category: str = ""
    several: str = ""


class PhotosChoice(BaseModel):
    """What `[photos]` says of the photos' table, or of the photos that the table of listings names.

    Attributes:
        table: its file, as it lies below the catalogue's directory; may be that of the listings. Empty: `Images.csv`,
            or in another form.
        id: its column with the photo's id; empty: `id`, or where the table has none the column that `path`, else `url`
            names: photos are called as their listing and file are then.
        listing: its column with the listing's id.
        path: its column with the photo's path; empty: `path`, `file` or `filename`.
        url: its column with the photo's URL; empty: `url` or `image_url`.
        columns: of the table of listings, whose cells name the photos of a row; there is no photos' table then.
    """

    model_config = ConfigDict(frozen=True)

    table: str = ""
    id: str = ""
    listing: str = Field("product_id", min_length=1)
    path: str = ""
    url: str = ""
    columns: tuple[str, ...] = ()


class Configuration(BaseModel):
    """What `catalogue.toml` says.

    Attributes:
        attributes: by name.
        listings, photos: where they are.
    """

    model_config = ConfigDict(frozen=True)

    attributes: Mapping[str, ColumnChoice] = {}
    listings: ListingsChoice = ListingsChoice()
    photos: PhotosChoice = PhotosChoice()


def parse_configuration(text: str) -> Configuration:
    """Parse the text of `catalogue.toml`.

    Raises:
        CatalogueUnusable: it is no TOML, says something unknown, or gives one column two names; names the entry.
    """
    try:
        found = Configuration.model_validate(tomllib.loads(text), extra="forbid")
    except tomllib.TOMLDecodeError as exc:
        hint = "" if text.isascii() else '; names with other letters than ASCII\'s need quotes: [attributes."größe"]'
        raise CatalogueUnusable(f"{CONFIGURATION} is no TOML: {exc}{hint}") from exc
    except ValidationError as exc:
        raise CatalogueUnusable(f"{CONFIGURATION}: {_told(exc.errors()[0])}") from exc
    if found.photos.columns and found.photos.table:
        raise CatalogueUnusable(
            f"{CONFIGURATION}: photos.table and photos.columns exclude each other: the columns are those of the "
            "listings' table"
        )
    names: dict[str, str] = {}
    for name, choice in found.attributes.items():
        if name != attribute_name(name) or len(name) > MAX_NAME_LENGTH:
            raise CatalogueUnusable(
                f"{CONFIGURATION}: attributes.{name}: a name has small letters, digits and underscores, such as "
                f"{attribute_name(name) or 'price'}; `column` says which column is meant"
            )
        if choice.column and names.setdefault(choice.column, name) != name:
            raise CatalogueUnusable(
                f"{CONFIGURATION}: attributes.{names[choice.column]} and attributes.{name} are both the column "
                f"{choice.column}; a column is one attribute"
            )
    return found


def _told(error: "ErrorDetails") -> str:
    """What is wrong, where, and what is possible there."""
    place, kind = [str(part) for part in error["loc"]], error["type"]
    sections: dict[str, type[BaseModel]] = {"listings": ListingsChoice, "photos": PhotosChoice}
    section = sections.get(place[0], ColumnChoice)
    if kind == "extra_forbidden" and len(place) == 1:
        told = "is not known; possible are [listings], [photos] and, for each attribute, [attributes.NAME]"
    elif kind == "extra_forbidden":
        told = f"is not known; possible are {', '.join(section.model_fields)}"
    elif kind == "string_pattern_mismatch":
        told = f"must be a code of three capital letters, such as EUR, not {error['input']}"
    elif section is ColumnChoice and len(place) <= 2:
        told = "must be a table: [attributes.NAME]"
    elif len(place) == 1:
        told = f"must be a table: [{place[0]}]"
    elif kind == "tuple_type":
        told = 'must be a list of names: ["IMAGE1", "IMAGE2"]'
    else:
        told = error["msg"]
    return f"{'.'.join(place)}: {told}"
