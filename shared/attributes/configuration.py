"""Reads `catalogue.toml`: what the operator says of a catalogue's attributes where the table does not show it."""

import tomllib
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.attributes.schema import MAX_NAME_LENGTH, AttributeType, attribute_name
from shared.errors import CatalogueUnusable

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
        CatalogueUnusable: it is no TOML, or says something unknown; names the entry.
    """
    try:
        choices = dict(_Configuration.model_validate(tomllib.loads(text), extra="forbid").attributes)
    except tomllib.TOMLDecodeError as exc:
        raise CatalogueUnusable(f"{CONFIGURATION} is no TOML: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CatalogueUnusable(f"{CONFIGURATION}: {place}: {first['msg'].removeprefix('Value error, ')}") from exc
    for name in choices:
        if name != attribute_name(name) or len(name) > MAX_NAME_LENGTH:
            raise CatalogueUnusable(
                f"{CONFIGURATION}: attributes.{name}: a name has small letters, digits and underscores, such as "
                f"{attribute_name(name) or 'price'}; `column` says which column is meant"
            )
    return choices
