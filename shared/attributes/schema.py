"""The attributes of a catalogue: their names, types and limits, and values as JSON."""

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

from shared.errors import InvalidRequest

MAX_ATTRIBUTES = 64
MAX_NAME_LENGTH = 64
MAX_TEXT_LENGTH = 20_000
MAX_KEYWORD_LENGTH = 400
MAX_PAYLOAD_BYTES = 64 << 10
CATEGORY = "category"
BUILT_IN = (CATEGORY, "listing_id", "image_id")  # keys of filters that every photo has
_N_NAMED = 12

Values = Mapping[str, JsonValue]  # by attribute name; a missing one has no entry
# In answers: of the types that `AttributeType` names.
ValuesJson = Annotated[
    dict[str, JsonValue],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    {"type": ["string", "number", "boolean"]},
                    {
                        "type": "object",
                        "properties": {"amount": {"type": "number"}, "currency": {"type": "string"}},
                        "required": ["amount", "currency"],
                        "additionalProperties": False,
                    },
                ]
            },
        }
    ),
]


class AttributeType(StrEnum):
    """What the values of an attribute are."""

    NUMBER = "number"  # JSON number
    PRICE = "price"  # {"amount": number, "currency": three letters or ""}
    TEXT = "text"  # prose: shown, and in filters only there or not
    KEYWORD = "keyword"  # a short text that is compared whole
    PLACE = "place"  # "Radstock, Somerset": compared whole or by one of its parts, whatever the case
    TIME = "time"  # ISO 8601
    BOOLEAN = "boolean"  # true or false


NUMERIC = frozenset({AttributeType.NUMBER, AttributeType.PRICE, AttributeType.TIME})  # types that have ranges
CODED = frozenset({AttributeType.KEYWORD, AttributeType.PLACE})  # types whose values are told apart and counted


class ValueCount(BaseModel):
    """A value and the number of listings that have it."""

    model_config = ConfigDict(frozen=True)

    value: str | bool
    count: int


class Attribute(BaseModel):
    """One attribute of a catalogue's listings, and what was found of it when an index was built.

    Attributes:
        name: in answers and filters.
        type: of its values.
        column: of the table that it is read from; empty where `name` is the column.
        currencies: of a price: codes in order of frequency; the first is meant where none is given.
        decimal: of numbers and prices in the table: what stands before the fraction, "." or ",".
        day_first: of times in the table: 3/4/2026 is in April.
        unit: of numbers: what stands behind them in the table, such as "km"; empty: nothing.
        n_listings: that have a value.
        quantiles: of numbers, prices and times (seconds since the epoch): 21 values from the lowest to the highest.
        values: of keywords, places and booleans: the most frequent.
        n_values: how many different ones there are.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    type: AttributeType
    column: str = ""
    currencies: tuple[str, ...] = ()
    decimal: str = "."
    day_first: bool = True
    unit: str = ""
    n_listings: int = 0
    quantiles: tuple[float, ...] = ()
    values: tuple[ValueCount, ...] = Field((), max_length=1000)
    n_values: int = 0


# What is found when an index is built, as before that.
_FOUND: dict[str, object] = {"n_listings": 0, "quantiles": (), "values": (), "n_values": 0, "currencies": ()}


@dataclass(frozen=True)
class AttributeSchema:
    """The attributes of a catalogue, by name.

    Attributes:
        attributes: in the order of the table's columns.
    """

    attributes: tuple[Attribute, ...] = ()

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes)

    def __len__(self) -> int:
        return len(self.attributes)

    @cached_property
    def _by_name(self) -> dict[str, Attribute]:
        return {attribute.name: attribute for attribute in self.attributes}

    def is_that_of(self, described: Sequence[Attribute]) -> bool:
        """Tell whether an index with these attributes was built by this schema, whatever was found of their values."""
        return len(self) == len(described) and all(
            ours.model_copy(update=_FOUND) == theirs.model_copy(update=_FOUND)
            and theirs.currencies[: len(ours.currencies)] == ours.currencies
            for ours, theirs in zip(self, described, strict=True)
        )

    def get(self, name: str) -> Attribute | None:
        """Return an attribute; None: there is none of that name."""
        return self._by_name.get(name)

    def require(self, name: str, where: str) -> Attribute:
        """Return an attribute.

        Args:
            name: of it.
            where: in the request its name stands, for the error.

        Raises:
            InvalidRequest: there is none of that name; names those that there are.
        """
        if found := self._by_name.get(name):
            return found
        raise InvalidRequest(f"{where}: the catalogue has no attribute {name[:MAX_NAME_LENGTH]!r}; it has {self.names}")

    def require_included(self, names: Sequence[str]) -> None:
        """Check the names of attributes that an answer is to carry, `*` for all; raises as `require`."""
        for name in names:
            if name != "*":
                self.require(name, "include")

    def require_countable(self, names: Sequence[str]) -> None:
        """Check the names of facets: `category` and attributes that are no texts.

        Raises:
            InvalidRequest: there is no such attribute, or it is a text.
        """
        for name in names:
            if name != CATEGORY and self.require(name, "facets").type is AttributeType.TEXT:
                raise InvalidRequest(f"facets: {name} is a text, whose values are not counted")

    @property
    def names(self) -> str:
        """The names, for people."""
        shown = list(self._by_name)[:_N_NAMED]
        more = f" and {len(self) - len(shown)} more" if len(self) > len(shown) else ""
        return (", ".join(shown) or "none") + more


NO_ATTRIBUTES = AttributeSchema()


def attribute_name(column: str) -> str:
    """Turn a column's name into an attribute's: "Preis (EUR)" -> "preis_eur"; empty if no letter or digit is left.

    The older service's columns `product_name` and `product_description` are `title` and `description`.
    """
    # A capital I with a dot, as Turkish has it, is a small i with a second dot in small letters.
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", column).lower().replace("i\u0307", "i"))
    # Marks are parts of letters: vowels of Devanagari, tones of Thai.
    kept = (c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in folded)
    name = "_".join("".join(kept).split())[:MAX_NAME_LENGTH]
    return {"product_name": "title", "product_description": "description"}.get(name, name)


def as_payload(values: Values) -> str:
    """Write values as JSON: the same values always give the same text; empty text for none."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if values else ""


def of_payload(payload: str) -> dict[str, JsonValue]:
    """Read values from JSON, as written by `as_payload`."""
    values: dict[str, JsonValue] = json.loads(payload) if payload else {}
    return values
