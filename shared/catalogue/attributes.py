"""Reads the attributes of a catalogue's listings from the columns of its table, and tells what of them is odd."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from shared.attributes.configuration import CONFIGURATION, ColumnChoice
from shared.attributes.inference import infer
from shared.attributes.schema import MAX_PAYLOAD_BYTES, Attribute, AttributeSchema, as_payload, attribute_name
from shared.attributes.values import EXPECTED, NOTHING, parse_text
from shared.catalogue.forms.typed_tables import NUMBERS
from shared.catalogue.rows import PRODUCTS, RowProblem
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd

_NOT_ATTRIBUTES = frozenset({"id", "category"})
_SHOWN_CHARS = 80


class ListingAttributes(NamedTuple):
    """The attributes of a catalogue.

    Attributes:
        schema: their names and types.
        payloads: values as JSON, by listing id.
    """

    schema: AttributeSchema
    payloads: Mapping[str, str]


def read_attributes(
    choices: Mapping[str, ColumnChoice],
    products: "pd.DataFrame",
    listing_rows: Mapping[str, int],
    odd: list[RowProblem],
    known: tuple[Attribute, ...] = (),
    *,
    called: str,
) -> ListingAttributes:
    """Read the attributes of a catalogue's listings.

    Args:
        choices: what `catalogue.toml` says of attributes, by name.
        products: the table of listings, as `read_table` gives it.
        listing_rows: row of each listing that is used, by id.
        odd: columns and values that are left out, and what was assumed, are appended to it.
        known: attributes of the live index.
        called: what the table is called in errors.

    Raises:
        CatalogueUnusable: `catalogue.toml` names a column that is not there.
    """
    rows = products.loc[list(listing_rows.values())]
    repeated = rows.columns.duplicated()
    odd += [
        RowProblem(
            "column without a name of its own", PRODUCTS, 1, "", name, _detail(name, "left out but for the first")
        )
        for name in map(str, rows.columns[repeated].unique())
    ]
    rows = rows.loc[:, ~repeated]
    columns = {str(name): rows[name].tolist() for name in rows.columns if name not in _NOT_ATTRIBUTES}
    for name, choice in choices.items():
        if choice.column and choice.column not in columns:
            raise CatalogueUnusable(
                f"{CONFIGURATION}: attributes.{name}: {called} has no column {choice.column} for attributes; "
                f"it has {', '.join(columns) or 'none'}"
            )
    numbers = products.attrs.get(NUMBERS, frozenset())
    odd += _without_column(choices, columns)
    schema, notes = infer(columns, choices, AttributeSchema(known), numbers=numbers)
    odd += [RowProblem(note.reason, PRODUCTS, 1, "", note.value or note.column, _detail(note.column, note.detail))
            for note in notes]  # fmt: skip
    ids, numbers = rows["id"].tolist(), [int(row) for row in rows.index]
    values: dict[str, dict[str, object]] = {listing_id: {} for listing_id in ids}
    for attribute in schema:
        for row, listing_id, text in zip(numbers, ids, columns[attribute.column], strict=True):
            value = parse_text(attribute, text)
            if value is not None:
                values[listing_id][attribute.name] = value
            elif text.strip().casefold() not in NOTHING:
                odd.append(_unreadable(attribute, row, listing_id, text))
    return ListingAttributes(schema, {one: _fitting(one, found, odd) for one, found in values.items()})


def _without_column(choices: Mapping[str, ColumnChoice], columns: Iterable[str]) -> list[RowProblem]:
    """The attributes that are spoken of and that no column is: misspelt, or the table has lost the column."""
    names = {attribute_name(column) for column in columns}
    detail = f"{PRODUCTS} has no such column; `column` says which is meant; it has {', '.join(columns)}"
    return [
        RowProblem("attribute without a column", CONFIGURATION, 1, "", name, detail)
        for name, choice in choices.items()
        if not choice.column and name not in names
    ]


def _detail(column: str, detail: str) -> str:
    return f"column {column or 'without header'}: {detail}"


def _unreadable(attribute: Attribute, row: int, listing_id: str, text: str) -> RowProblem:
    expected = EXPECTED[attribute.type].partition(":")[0]
    detail = f"{attribute.column} is {expected} in other rows; left out of this one"
    return RowProblem("value of another type", PRODUCTS, row, listing_id, text[:_SHOWN_CHARS], detail)


def _fitting(listing_id: str, values: dict[str, object], odd: list[RowProblem]) -> str:
    """The values as JSON; of too many bytes the longest texts are left out."""
    payload = as_payload(values)  # type: ignore[arg-type]
    while len(payload) > MAX_PAYLOAD_BYTES // 4 and len(payload.encode()) > MAX_PAYLOAD_BYTES:
        longest = max(values, key=lambda name: len(str(values[name])))
        detail = f"{longest} is left out: the listing's attributes have more than {MAX_PAYLOAD_BYTES} bytes"
        odd.append(RowProblem("listing with too much text", PRODUCTS, 1, listing_id, longest, detail))
        del values[longest]
        payload = as_payload(values)  # type: ignore[arg-type]
    return payload
