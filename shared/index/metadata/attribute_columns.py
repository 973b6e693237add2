"""Columns of attributes, one array each, row by row: what filters and facets of a snapshot are computed from.

All of it stays on disk, memory-mapped; the texts behind codes are in the photos' SQLite table.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from shared.array_types import IntArray
from shared.artifacts.snapshots import PHOTOS
from shared.attributes.filters import (
    AllOf,
    AnyOf,
    Between,
    Condition,
    HasId,
    InCategories,
    Not,
    OneOf,
    Present,
)
from shared.attributes.schema import CODED, NUMERIC, Attribute, AttributeSchema, AttributeType, ValueCount, of_payload
from shared.attributes.values import number_of, parts_of_place
from shared.index.arrays import map_array, write_array
from shared.index.metadata.facets import quantiles
from shared.index.metadata.rows import LISTING_CODES, PhotoRows

N_FREQUENT = 50  # values that the manifest names of an attribute
_CODES_OF = "SELECT code FROM found_by WHERE attribute = ? AND word IN (SELECT value FROM json_each(?))"
_VALUES_OF = "SELECT code, value FROM terms WHERE attribute = ? AND code IN (SELECT value FROM json_each(?))"
_TERMS = """
    CREATE TABLE terms (attribute INTEGER, code INTEGER, value TEXT, PRIMARY KEY (attribute, code)) WITHOUT ROWID;
    CREATE TABLE found_by (attribute INTEGER, word TEXT, code INTEGER, PRIMARY KEY (attribute, word, code))
        WITHOUT ROWID;
"""

Column = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def _file(position: int, of: str = "") -> str:
    return f"attribute_{position:02}{of}.npy"


class _Gathered:
    """The values of one attribute, payload by payload, while a snapshot is written.

    Args:
        attribute: which one.
        n: payloads; the first is that of photos without attributes.
    """

    def __init__(self, attribute: Attribute, n: int) -> None:
        self.attribute = attribute
        self.terms: dict[str, int] = {}
        self.currencies: Column | None = None
        if attribute.type in NUMERIC:
            self.column: Column = np.full(n, np.nan)
            if attribute.type is AttributeType.PRICE:
                self.currencies = np.full(n, -1, dtype=np.int16)
        elif attribute.type in CODED:
            self.column = np.full(n, -1, dtype=np.int32)
        else:
            self.column = np.full(n, -1, dtype=np.int8)
        self._codes = {code: position for position, code in enumerate(attribute.currencies)}

    def put(self, at: int, values: dict[str, JsonValue]) -> None:
        """Take the attribute's value from those of a payload."""
        value = values.get(self.attribute.name)
        if value is None:
            return
        if self.attribute.type in NUMERIC:
            number = number_of(self.attribute, values)
            self.column[at] = np.nan if number is None else number
            if self.currencies is not None and isinstance(value, dict):
                code = str(value.get("currency", ""))
                self.currencies[at] = self._codes.setdefault(code, len(self._codes)) if code else -1
        elif self.attribute.type in CODED:
            self.column[at] = self.terms.setdefault(str(value), len(self.terms))
        else:
            self.column[at] = int(value is True) if self.attribute.type is AttributeType.BOOLEAN else 1

    def described(self, rows: Column) -> Attribute:
        """The attribute with what was found of it.

        Args:
            rows: payloads, one a listing.
        """
        column = self.column[rows]
        found: dict[str, object] = {"currencies": tuple(self._codes)}
        if self.attribute.type in NUMERIC:
            numbers = column[~np.isnan(column)]
            found["n_listings"] = len(numbers)
            found["quantiles"] = tuple(quantiles(numbers))
        else:
            codes, counts = np.unique(column[column >= 0], return_counts=True)
            found["n_listings"], found["n_values"] = int(counts.sum()), len(self.terms) or len(codes)
            if self.attribute.type is not AttributeType.TEXT:
                names: list[str] | list[bool] = list(self.terms) or [False, True]
                most = np.argsort(-counts, kind="stable")[:N_FREQUENT]
                found["values"] = tuple(ValueCount(value=names[codes[i]], count=int(counts[i])) for i in most)
        return self.attribute.model_copy(update=found)


def write_columns(directory: Path, schema: AttributeSchema) -> AttributeSchema:
    """Write the columns of a snapshot's attributes.

    Args:
        directory: that `write_photos` and `write_filters` have written to.
        schema: of the catalogue.

    Returns:
        the attributes with what was found of each.
    """
    with closing(sqlite3.connect(directory / PHOTOS)) as connection:
        connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TERMS}")
        payload_of = np.fromiter(
            (payload for (payload,) in connection.execute("SELECT payload FROM photos ORDER BY row")), dtype=np.int64
        )
        n_payloads = 1 + connection.execute("SELECT coalesce(max(id), 0) FROM payloads").fetchone()[0]
        gathered = [_Gathered(attribute, n_payloads) for attribute in schema]
        for payload, text in connection.execute("SELECT id, json FROM payloads"):
            values = of_payload(text)
            for one in gathered:
                one.put(payload, values)
        of_listings = payload_of[first_of_each(map_array(directory / LISTING_CODES), np.arange(len(payload_of)))]
        for position, one in enumerate(gathered):
            write_array(directory / _file(position), one.column[payload_of], finite=False)
            if one.currencies is not None:
                write_array(directory / _file(position, "_currency"), one.currencies[payload_of])
            rows = ((position, code, value) for value, code in one.terms.items())
            connection.executemany("INSERT INTO terms VALUES (?, ?, ?)", rows)
            connection.executemany("INSERT OR IGNORE INTO found_by VALUES (?, ?, ?)", _words(position, one))
        connection.commit()
    return AttributeSchema(tuple(one.described(of_listings) for one in gathered))


def _words(position: int, gathered: _Gathered) -> Iterator[tuple[int, str, int]]:
    is_place = gathered.attribute.type is AttributeType.PLACE
    for value, code in gathered.terms.items():
        for word in parts_of_place(value) if is_place else (value,):
            yield position, word, code


def first_of_each(listings: Column, rows: IntArray) -> IntArray:
    """Select one row of each listing.

    Args:
        listings: (n,) codes of the rows' listings.
        rows: (m,) rows, ascending.

    Returns:
        the first row of every listing in `rows`, in no order.
    """
    if not len(rows):
        return rows
    codes = listings[rows]
    first = np.full(int(codes.max()) + 1, -1, dtype=np.int64)
    first[codes[::-1]] = rows[::-1]
    chosen: IntArray = first[first >= 0]
    return chosen


class AttributeColumns:
    """The columns of a snapshot's attributes; safe to share between threads.

    Args:
        directory: of the snapshot.
        schema: from its manifest.
        rows: its photos.

    Raises:
        OSError, ValueError: a column is missing or damaged.
    """

    def __init__(self, directory: Path, schema: AttributeSchema, rows: PhotoRows) -> None:
        self._rows = rows
        self._position = {attribute.name: position for position, attribute in enumerate(schema)}
        self._columns = [map_array(directory / _file(position)) for position in range(len(schema))]
        self._currencies = {
            attribute.name: map_array(directory / _file(position, "_currency"))
            for position, attribute in enumerate(schema)
            if attribute.type is AttributeType.PRICE
        }
        if any(column.shape != (len(rows),) for column in (*self._columns, *self._currencies.values())):
            raise ValueError("columns of attributes disagree with the number of photos")

    def mask(self, condition: Condition) -> Mask:
        """Evaluate a condition: (rows,) true where it holds."""
        match condition:
            case AllOf(conditions):
                mask = np.ones(len(self._rows), dtype=np.bool_)
                for one in conditions:
                    mask &= self.mask(one)
            case AnyOf(conditions):
                mask = np.zeros(len(self._rows), dtype=np.bool_)
                for one in conditions:
                    mask |= self.mask(one)
            case Not(one):
                mask = ~self.mask(one)
            case InCategories(positions):
                mask = _one_of(self._rows.categories, sorted(positions))
            case HasId(key, ids):
                mask = np.zeros(len(self._rows), dtype=np.bool_)
                mask[list(self._rows_of(key, ids))] = True
            case Present(attribute):
                column = self._column(attribute)
                mask = ~np.isnan(column) if attribute.type in NUMERIC else column >= 0
            case Between() | OneOf():
                mask = self._with_value(condition)
        return mask

    def _with_value(self, condition: Between | OneOf) -> Mask:
        attribute, column = condition.attribute, self._column(condition.attribute)
        if isinstance(condition, OneOf):
            if attribute.type in CODED:
                mask = self._with_code(attribute, [str(value) for value in condition.values], column)
            else:
                mask = _one_of(column, sorted(condition.values))
        else:
            # NaN, where there is no value, is in no range.
            above = column > condition.low if condition.low_open else column >= condition.low
            mask = above & (column < condition.high if condition.high_open else column <= condition.high)
        if condition.currency is not None:
            mask = mask & (self._currencies[attribute.name] == attribute.currencies.index(condition.currency))
        return mask

    def _with_code(self, attribute: Attribute, words: Sequence[str], column: Column) -> Mask:
        at = self._position[attribute.name]
        codes = sorted({code for (code,) in self._rows.fetch(_CODES_OF, at, json.dumps(words))})
        if len(codes) <= 1:
            return _one_of(column, codes)
        # One byte a value that there is, looked up by each row; the last is that of rows without a value.
        wanted = np.zeros(max(int(column.max()), codes[-1]) + 2, dtype=np.bool_)
        wanted[codes] = True
        found: Mask = wanted[column]
        return found

    def _rows_of(self, key: str, ids: Iterable[str]) -> Iterator[int]:
        for one in ids:
            if key == "listing_id":
                yield from self._rows.of_listing(one)
            elif (row := self._rows.of_image(one)) is not None:
                yield row

    def _column(self, attribute: Attribute) -> Column:
        return self._columns[self._position[attribute.name]]

    def counts(self, attribute: Attribute, rows: IntArray) -> tuple[dict[str | bool, int], int]:
        """Count the values of an attribute.

        Args:
            attribute: a keyword, place or boolean.
            rows: that count, such as one a listing.

        Returns:
            the most frequent values with their numbers of rows, and the number of rows with any.
        """
        column = self._column(attribute)[rows]
        counts = np.bincount(column[column >= 0])
        n_rows = int(counts.sum())
        frequent = np.argsort(-counts, kind="stable")[:N_FREQUENT].tolist()
        named = [code for code in frequent if counts[code]]
        if attribute.type is AttributeType.BOOLEAN:
            return {bool(code): int(counts[code]) for code in named}, n_rows
        values = dict(self._rows.fetch(_VALUES_OF, self._position[attribute.name], json.dumps(named)))
        return {values[code]: int(counts[code]) for code in named}, n_rows

    def numbers(self, attribute: Attribute, rows: IntArray) -> npt.NDArray[np.float64]:
        """Return the numbers of an attribute in some rows, without those that have none."""
        column = self._column(attribute)[rows]
        found: npt.NDArray[np.float64] = column[~np.isnan(column)]
        return found


def _one_of(column: Column, values: Sequence[Any]) -> Mask:
    if len(values) == 1:
        found: Mask = column == values[0]
        return found
    return np.isin(column, values)
