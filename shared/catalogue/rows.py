"""Names of a catalogue's two tables, and the record of a row in them that is wrong or odd."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

PRODUCTS, IMAGES = "Products.csv", "Images.csv"
MAX_COLUMNS = 256  # that are read
MAX_ID_CHARS = 200  # of listings and photos that calls can name: as in shared/jobs/contract.py
ROUNDED_DETAIL = "a spreadsheet has rounded it: export ids as text"


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row of a table cannot be used, or what is odd about it.

    Attributes:
        reason: one of a fixed set of texts.
        table: file name of the table.
        row: number as a spreadsheet shows it: the header is 1; blank lines do not count. Of JSON Lines the line; of
            Parquet counted from 1.
        row_id: id in the row; empty where it has none, or none that can be read.
        value: the offending value, where there is one.
        detail: for people: what was looked for and what is there instead, or how it was read.
    """

    reason: str
    table: str
    row: int
    row_id: str = ""
    value: str = ""
    detail: str = ""


@lru_cache(maxsize=4 * MAX_COLUMNS)
def column_key(name: str) -> str:
    """A column's name without case and all but letters and digits: "Product ID" and "productId" -> "productid"."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def long_id(table: str, row: int, row_id: str) -> list[RowProblem]:
    """The problem of an id that is too long to be named in calls; of others there is none."""
    detail = f"calls take ids of up to {MAX_ID_CHARS} characters"
    return [RowProblem("id too long to name", table, row, row_id, detail=detail)] if len(row_id) > MAX_ID_CHARS else []


def with_names(rows: Iterable[RowProblem], names: Mapping[str, str]) -> tuple[RowProblem, ...]:
    """Return problems with the tables called as their files are.

    Args:
        names: of the tables, by PRODUCTS and IMAGES.
    """
    if all(called == name for name, called in names.items()):
        return tuple(rows)
    return tuple(
        replace(row, table=names.get(row.table, row.table), detail=_renamed(row.detail, names)) for row in rows
    )


def _renamed(detail: str, names: Mapping[str, str]) -> str:
    for name, called in names.items():
        detail = detail.replace(f" in {name}", f" in {called}")
    return detail
