"""Reads a table with types, JSON Lines or Parquet, as the text that a CSV of it would hold."""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from math import isnan
from typing import TYPE_CHECKING, Any, TypeVar

from shared.catalogue.forms.encodings import decode_table
from shared.catalogue.rows import MAX_COLUMNS, RowProblem, column_key
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")
NUMBERS = "numbers"  # key in `DataFrame.attrs`: names of the columns that hold numbers, whose fraction follows a point
_EXACT_UP_TO = 2**53  # of whole numbers in a float
_SHOWN_CHARS = 80
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class _Number(str):
    """The text of a number of JSON, which a text that looks like it is not."""


def as_text(value: object, joiner: str = "; ") -> str:
    """Write a value as text: dates in ISO 8601, whole floats without fraction, lists joined, missing values empty.

    Args:
        value: of JSON or Parquet.
        joiner: between the items of a list.
    """
    if isinstance(value, list | tuple):
        return joiner.join(text for item in value if (text := as_text(item)))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {text}" for key, item in value.items() if (text := as_text(item)))
    return "" if value is None else _scalar(value).strip()


def _is_path(column: str, category: str) -> bool:
    """Whether a column is that of the category, in which a list is a path."""
    return column_key(column) == column_key(category)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value.is_integer() and abs(value) <= _EXACT_UP_TO:
            return str(int(value))
        return "" if isnan(value) else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.isoformat() if isinstance(value, date | time) else str(value)


def read_json_lines(
    content: bytes,
    name: str,
    rejected: list[RowProblem],
    odd: list[RowProblem],
    *,
    required: Collection[str] = (),
    category: str = "",
) -> "pd.DataFrame":
    """Read a table of one JSON object a line; ids and numbers keep the text that they have there.

    Args:
        content: of the file.
        name: of the file, for errors.
        rejected: lines that are no object are appended to it.
        odd: fields beyond the first 256 are appended to it, which are not read.
        required: columns that are read wherever they come.
        category: column in which a list is a path.

    Returns:
        stripped text, indexed by line number; fields of objects within, or within a list, are columns called
        `outer.inner`. Those in `attrs[NUMBERS]` hold numbers.

    Raises:
        CatalogueUnusable: no line is an object.
    """
    cells: dict[str, list[str]] = {}
    rows: list[int] = []
    n_rejected = len(rejected)
    surplus: dict[str, int] = {}
    with_texts: set[str] = set()
    kept = set(map(column_key, required))
    for row, line in _lines(content, name):
        try:
            fields = _fields_of(line, category)
        except (ValueError, RecursionError) as exc:
            detail = f"{exc}"[:_SHOWN_CHARS] or type(exc).__name__
            shown = line[:_SHOWN_CHARS].decode(errors="replace").strip()
            rejected.append(RowProblem(f"row of {name} that is not JSON", name, row, value=shown, detail=detail))
            continue
        for column, text in fields.items():
            if column not in cells and len(cells) >= MAX_COLUMNS and column_key(column) not in kept:
                surplus.setdefault(column, row)
            else:
                of_column = cells.setdefault(column, [])
                of_column += [""] * (len(rows) - len(of_column))
                of_column.append(str(text))
                if text and not isinstance(text, _Number):
                    with_texts.add(column)
        rows.append(row)
    if not rows:
        raise _no_rows(name, rejected[n_rejected:])
    if surplus:
        column, row = next(iter(surplus.items()))
        detail = f"{len(surplus)} more than {MAX_COLUMNS} fields are not read"
        odd.append(RowProblem("table has too many columns", name, row, value=column[:_SHOWN_CHARS], detail=detail))
    columns = {column: [*texts, *[""] * (len(rows) - len(texts))] for column, texts in cells.items()}
    return _table(list(columns.items()), rows, columns.keys() - with_texts)


def _no_rows(name: str, problems: Sequence[RowProblem]) -> CatalogueUnusable:
    if not problems:
        return CatalogueUnusable(f"{name} is empty")
    first = f"line {problems[0].row} is not a JSON object: {problems[0].detail}"
    return CatalogueUnusable(f"{name} cannot be read as JSON Lines: {first}; write one object a line")


def _lines(content: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers, in UTF-8 as far as they are."""
    if content.startswith(_UTF16_MARKS):
        content = decode_table(content, name).text.encode()
    for row, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield row, line


def _fields_of(line: bytes, category: str) -> dict[str, str]:
    """The fields of an object as text.

    Raises:
        ValueError, RecursionError: it is none, or cannot be written as text.
    """
    found = json.loads(
        line.decode(),
        object_pairs_hook=_each_once,
        parse_int=_Number,
        parse_float=_Number,
        parse_constant=lambda text: "" if text == "NaN" else text,
    )
    if not isinstance(found, dict):
        raise ValueError("it is an array" if isinstance(found, list) else "it is no object")
    fields = _each_once(list(_flat(found, category)))
    if b"\\u" in line:
        "".join((*fields, *fields.values())).encode()  # raises for half of a surrogate pair
    return fields


def columns_of_line(line: bytes) -> list[str]:
    """The columns that `read_json_lines` makes of an object; raises ValueError or RecursionError where it is none."""
    return list(_fields_of(line, ""))


def _each_once(pairs: list[tuple[str, T]]) -> dict[str, T]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands in it twice")
    return fields


def _flat(fields: dict[str, object], category: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        column = f"{prefix}{name.strip()}"
        if isinstance(value, dict):
            price = _price(value)
            yield from [(column, price)] if price else _flat(value, category, f"{column}.")
        elif not _is_path(column, category) and (within := _within(value)):
            yield from _flat(within, category, f"{column}.")
        elif column:
            joiner = " / " if _is_path(column, category) else "; "
            yield column, value if isinstance(value, _Number) else as_text(value, joiner)


def _within(items: object) -> dict[str, object]:
    """What a list of objects holds: a list of values by field. Nothing for anything else, and for prices."""
    objects = [item for item in items if item is not None] if isinstance(items, list) else []
    if not all(isinstance(item, dict) and not _price(item) for item in objects):
        return {}
    names = dict.fromkeys(name for item in objects for name in item)
    return {name: [item.get(name) for item in objects] for name in names}


def _price(fields: dict[str, object]) -> str:
    """A price as answers have it, `{"amount": 12.5, "currency": "EUR"}`, as text; empty text for any other object."""
    amount, currency = fields.get("amount"), fields.get("currency")
    if len(fields) == 2 and isinstance(amount, _Number) and isinstance(currency, str):
        return f"{amount} {currency}".strip()
    return ""


def read_parquet(content: bytes, name: str, odd: list[RowProblem], *, category: str = "") -> "pd.DataFrame":
    """Read a Parquet table.

    Args:
        content: of the file.
        name: of the file, for errors.
        odd: columns that hold bytes are appended to it, and are not read.
        category: column in which a list is a path.

    Returns:
        stripped text, indexed by row number from 1; fields of structures, or within a list of them, are columns called
        `outer.inner`. Those in `attrs[NUMBERS]` hold numbers.

    Raises:
        CatalogueUnusable: it is no Parquet, or damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(content))
        columns, numbers = [], set()
        for column, cells in zip(table.column_names, table.columns, strict=True):
            for flat_name, flat_cells in _flattened(column.strip(), cells, category):
                joiner = " / " if _is_path(flat_name, category) else "; "
                if (texts := _texts(flat_cells, joiner)) is not None:
                    columns.append((flat_name, texts))
                    if pa.types.is_floating(flat_cells.type) or pa.types.is_decimal(flat_cells.type):
                        numbers.add(flat_name)
                else:
                    odd.append(RowProblem("column holds no text", name, 1, value=flat_name, detail="it is not read"))
        columns += _ranges(table.schema.pandas_metadata)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise CatalogueUnusable(f"{name} cannot be read as Parquet: {exc}; write it again") from exc
    return _table(columns, range(1, table.num_rows + 1), numbers)


def columns_of_schema(schema: "pa.Schema") -> list[str]:
    """The columns that `read_parquet` makes of a table."""
    empty = schema.empty_table()
    named = zip(empty.column_names, empty.columns, strict=True)
    return [flat for column, cells in named for flat, _ in _flattened(column.strip(), cells, "")]


def _ranges(pandas_metadata: dict[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
    """Columns that pandas keeps as metadata alone: an index with a name, of consecutive numbers."""
    for index in (pandas_metadata or {}).get("index_columns", ()):
        if isinstance(index, dict) and index.get("kind") == "range" and index.get("name"):
            yield str(index["name"]).strip(), [str(n) for n in range(index["start"], index["stop"], index["step"])]


def _flattened(column: str, cells: "pa.ChunkedArray", category: str) -> "Iterator[tuple[str, pa.ChunkedArray]]":
    """A column, or the fields of one that holds structures or lists of them; those of a list are lists."""
    import pyarrow as pa

    if pa.types.is_struct(cells.type):
        for field, inner in zip(cells.type, cells.flatten(), strict=True):
            yield from _flattened(f"{column}.{field.name.strip()}", inner, category)
    elif _holds_structures(cells.type) and not _is_path(column, category):
        rows = cells.to_pylist()
        for field in cells.type.value_type:
            lists = [[item and item[field.name] for item in row or ()] for row in rows]
            inner = pa.chunked_array([pa.array(lists, pa.list_(field.type))])
            yield from _flattened(f"{column}.{field.name.strip()}", inner, category)
    else:
        yield column, cells


def _holds_structures(kind: "pa.DataType") -> bool:
    """Whether a type is a list of structures, of whatever length."""
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and bool(pa.types.is_struct(kind.value_type))


def _texts(cells: "pa.ChunkedArray", joiner: str) -> list[str] | None:
    """The cells as text; None if they hold bytes that are none."""
    import pyarrow as pa

    if pa.types.is_float32(cells.type) or pa.types.is_float16(cells.type):
        # Through their shortest decimal: 12.1, and not the 12.100000381469727 that is the nearest double.
        cells = cells.cast(pa.float32()).cast(pa.string()).cast(pa.float64())
    try:
        values = cells.to_pylist()
    except (OverflowError, ValueError):  # a date in a year that Python's have not, such as 20206
        values = cells.cast(pa.string()).to_pylist()
    texts: list[str] = []
    for value in values:
        if isinstance(value, bytes):
            try:
                texts.append(value.decode().strip())
            except UnicodeDecodeError:
                return None
        elif isinstance(value, list | tuple | dict) and "binary" in str(cells.type):
            return None
        else:
            texts.append(as_text(value, joiner))
    return texts


def _table(
    columns: Sequence[tuple[str, Sequence[str]]], rows: Sequence[int], numbers: Collection[str]
) -> "pd.DataFrame":
    import pandas as pd

    named = [(column, cells) for column, cells in columns if column]
    table = pd.DataFrame(dict(enumerate(cells for _, cells in named)), index=pd.Index(rows), dtype=str)
    table.columns = pd.Index([column for column, _ in named])
    table.attrs[NUMBERS] = frozenset(numbers)
    return table.loc[(table != "").any(axis=1)]
