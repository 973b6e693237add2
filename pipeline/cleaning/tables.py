"""Normalise and type the raw tables, and report odd rows; which rows are used at all the catalogue decides."""

import re
import unicodedata
from collections.abc import Collection
from functools import partial

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from shared.artifacts import Location
from shared.catalogue.categories import OLDER_CATEGORIES, ROOTS, Categories, CategorySource
from shared.catalogue.forms.csv_files import read_table
from shared.catalogue.layout import find_layout
from shared.catalogue.rows import PRODUCTS, RowProblem, with_names

_PRICE = re.compile(r"£?\s*([0-9]{1,9}|[0-9]{1,3}(?:,[0-9]{3}){1,3})(\.[0-9]{1,2})?")
NOT_IN_POUNDS = "price is not one amount in pounds"
_NOTHING = frozenset({"", "n/a", "na", "nan", "none", "null", "-"})

# Possessive, and each begins where a word does: a description without a space costs no more than one with many.
_WORD = r"\w.!#$%&'*+/=?^`{|}~\-"
_EMAIL = rf"(?<![{_WORD}@])@*+(?=[{_WORD}]++@[{_WORD}@]*\.)[{_WORD}]++(?:@++[{_WORD}]++)++"
_LINK = r"(?:(?<![\w+.-])[\w+.-]*+://|\bwww\.)\S*+"
_DOMAIN = r"(?<![\w.-])(?:[\w-]++\.)++(?:com|net|org|uk|eu|io|info|biz)\b(?:[/:?#]\S*+)?"
# A plus, or a zero and a digit, then nine to thirteen more, grouped as people do: 07700 900123, +44 (0)20 7946 0958.
_PHONE = r"(?<![\w£.,])(?:\+\s?|\(?0(?=[0-9]))(?:[\s().-]{0,2}[0-9]){9,14}(?!\w)"
_CONTACT = re.compile("|".join((_LINK, _EMAIL, _DOMAIN, _PHONE)))


def parse_price(text: str) -> float | None:
    """Parse an amount in pounds, "£1,250.00" -> 1250.0; None for anything else, such as "£10 - £20" or "1.250,00"."""
    found = _PRICE.fullmatch(unicodedata.normalize("NFKC", text).strip())
    return float(found[1].replace(",", "") + (found[2] or "")) if found else None


def normalise_text(text: str) -> str:
    """Normalise a name or description.

    Returns:
        lower case, Unicode NFKC, single spaces, without links, e-mail addresses and phone numbers.
    """
    lowered = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    spaced, n_removed = " ".join(lowered.split()), 1
    if not spaced.isprintable():  # invisible characters would hide an address
        spaced = "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cf"))
    while n_removed:  # what stood around an address may be another one
        spaced, n_removed = _CONTACT.subn(" ", spaced)
    return " ".join(spaced.split())


def topic(category: str, categories: Categories = OLDER_CATEGORIES) -> str:
    """Normalise a category path: "Home & Garden/Rugs" and "home &amp; garden > Rugs" -> "Home & Garden / Rugs"."""
    return " / ".join(categories.path(category))


def _is_filled(cells: "pd.Series[str]") -> "pd.Series[bool]":
    return ~cells.str.lower().isin(_NOTHING)


def _is_amount(cells: "pd.Series[str]") -> "pd.Series[bool]":
    return ~_is_filled(cells) | cells.map(parse_price).notna()


def _filled(reason: str, *more: pa.Check) -> pa.Column:
    """A text column that may be missing as a whole, but not be empty in single rows."""
    return pa.Column(str, [pa.Check(_is_filled, error=reason), *more], required=False)


LISTINGS = pa.DataFrameSchema(
    {
        "product_name": _filled("listing without name"),
        "product_description": _filled("listing without description"),
        "price": _filled("listing without price", pa.Check(_is_amount, error=NOT_IN_POUNDS)),
        "location": _filled("listing without location"),
    }
)

_HEX = "[0-9a-f]"
PHOTOS = pa.DataFrameSchema(
    {
        "id_x": pa.Column(str, unique=True),
        "product_id": pa.Column(str),
        "label": pa.Column("int64", pa.Check.ge(0)),
        "category": pa.Column(str, pa.Check(lambda names: names.str.len() > 0)),
        "topic": pa.Column(str),
        "name": pa.Column(str),
        "description": pa.Column(str),
        "price_gbp": pa.Column("float64", pa.Check.ge(0), nullable=True),
        "location": pa.Column(str),
        "file": pa.Column(str),
        "sha256": pa.Column(str, pa.Check.str_matches(f"^{_HEX}{{64}}$")),
        "dhash": pa.Column(str, pa.Check.str_matches(f"^{_HEX}{{32}}$")),
        "width": pa.Column("int64", pa.Check.gt(0)),
        "height": pa.Column("int64", pa.Check.gt(0)),
    },
    strict=True,
    ordered=True,
)


def clean_listings(
    directory: Location,
    rows: Collection[int] | None = None,
    categories: Categories = OLDER_CATEGORIES,
    source: CategorySource = ROOTS,
) -> tuple[pd.DataFrame, list[RowProblem]]:
    """Normalise the usable listings.

    Args:
        directory: of the raw dump.
        rows: numbers of the rows that are used; None: all.
        categories: of the catalogue.
        source: where they are.

    Returns:
        one row a listing, indexed by its id: topic, name, description, price_gbp (NaN: none), location; and the odd
        rows.
    """
    layout = find_layout(directory)
    raw = read_table(layout, PRODUCTS, [], [], source)
    raw = raw.loc[raw.index if rows is None else list(rows), ~raw.columns.duplicated()]
    odd = with_names(_odd(raw), layout.names)
    for column in LISTINGS.columns:
        if column not in raw:
            raw[column] = ""
    listings = pd.DataFrame(
        {
            "topic": raw["category"].map(partial(topic, categories=categories)),
            "name": raw["product_name"].map(normalise_text),
            "description": raw["product_description"].map(normalise_text),
            "price_gbp": raw["price"].map(parse_price).astype("float64"),
            "location": raw["location"],
        }
    )
    return listings.set_axis(raw["id"], axis=0), list(odd)


def _odd(raw: pd.DataFrame) -> list[RowProblem]:
    try:
        LISTINGS.validate(raw, lazy=True)
    except SchemaErrors as found:
        cases = found.failure_cases.sort_values(["index", "check"], kind="stable")
        ids = raw["id"]
        return [
            RowProblem(str(reason), PRODUCTS, int(row), ids[row], str(value))
            for reason, row, value in zip(cases["check"], cases["index"], cases["failure_case"], strict=True)
        ]
    return []
