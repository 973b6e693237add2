"""Reads `catalogue.toml`: what the operator says of a catalogue's attributes where the table does not show it."""

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


class _Configuration(BaseModel):
    model_config = ConfigDict(frozen=True)

    attributes: Mapping[str, ColumnChoice] = {}


def parse_configuration(text: str) -> dict[str, ColumnChoice]:
    """Parse the text of `catalogue.toml`.

    Returns:
        what is said of attributes, by name.

    Raises:
        CatalogueUnusable: it is no TOML, says something unknown, or gives one column two names; names the entry.
    """
    try:
        choices = dict(_Configuration.model_validate(tomllib.loads(text), extra="forbid").attributes)
    except tomllib.TOMLDecodeError as exc:
        hint = "" if text.isascii() else '; names with other letters than ASCII\'s need quotes: [attributes."größe"]'
        raise CatalogueUnusable(f"{CONFIGURATION} is no TOML: {exc}{hint}") from exc
    except ValidationError as exc:
        raise CatalogueUnusable(f"{CONFIGURATION}: {_told(exc.errors()[0])}") from exc
    names: dict[str, str] = {}
    for name, choice in choices.items():
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
    return choices


def _told(error: "ErrorDetails") -> str:
    """What is wrong, where, and what is possible there."""
    place, kind = [str(part) for part in error["loc"]], error["type"]
    if kind == "extra_forbidden" and len(place) == 1:
        told = "is not known; what can be said of an attribute stands under [attributes.NAME]"
    elif kind == "extra_forbidden":
        told = f"is not known; possible are {', '.join(ColumnChoice.model_fields)}"
    elif kind == "string_pattern_mismatch":
        told = f"must be a code of three capital letters, such as EUR, not {error['input']}"
    elif len(place) <= 2:
        told = "must be a table: [attributes.NAME]"
    else:
        told = error["msg"]
    return f"{'.'.join(place)}: {told}"
