"""Reads one table of a dump as text: CSV as spreadsheets and shops export it, Parquet or JSON Lines."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from shared.attributes.configuration import CONFIGURATION, Configuration
from shared.catalogue.categories import (
    JOINED,
    OLDER_CATEGORIES,
    ROOTS,
    Categories,
    CategorySource,
    categories_in,
    joined_levels,
)
from shared.catalogue.forms.encodings import SAVE_AS, Decoded, decode_table
from shared.catalogue.forms.quotes import LEFT_MARK, READ_MARK, close_quotes, cut_records, split_record
from shared.catalogue.forms.typed_tables import read_json_lines, read_parquet
from shared.catalogue.layout import Layout, is_json_lines, is_parquet
from shared.catalogue.rows import IMAGES, MAX_COLUMNS, PRODUCTS, RowProblem, column_key
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd

_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[ \t]*\r?(?:\n|\Z)', re.IGNORECASE)
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
_DATABASE_NULL = "\\N"  # what PostgreSQL and MySQL write for NULL in text
_IN_CONFIGURATION = {
    PRODUCTS: '[listings] with id = "COLUMN", category = "COLUMN"',
    IMAGES: '[photos] with id = "COLUMN", listing = "COLUMN"; where photos have no ids, path = "COLUMN" in place of id',
}
_MEANT = {"id": "the id", "category": "the category", "product_id": "the listing's id"}
_SHOWN_CHARS, _N_NAMED = 80, 20
_MOST_COLUMNS = 4096
CALLED_BY_FILE = "called by file"  # in `attrs` of a photos' table: whether its column `id` says where photos are


def read_table(
    layout: Layout,
    name: str,
    rejected: list[RowProblem],
    odd: list[RowProblem],
    source: CategorySource = ROOTS,
) -> "pd.DataFrame":
    """Read one table of a dump as text.

    Args:
        layout: of the dump.
        name: PRODUCTS or IMAGES.
        rejected: rows that cannot be split into the header's fields are appended to it.
        odd: what was assumed of the table, and rows with a stray quote that are read all the same, are appended to it.
        source: where the categories are.

    Returns:
        stripped text, missing values as empty text, indexed by row number; named columns only. Those that are required
        are called `id` and `category`, or `id` and `product_id`; others of these names are left out, and told.
        `attrs[CALLED_BY_FILE]`: the photos have no ids, and `id` is the column with their paths or URLs.

    Raises:
        CatalogueUnusable: the table is missing, empty, damaged, in an encoding that cannot be told, or lacks a column.
    """
    called, possible = layout.names[name], possible_columns(layout.configuration, name, source)
    required, category = tuple(possible[0].values()), possible[0].get(ROOTS.column, "")
    content = (layout.products if name == PRODUCTS else layout.images).read_bytes()
    if is_parquet(called):
        n_odd = len(odd)
        table = read_parquet(content, called, odd, category=category)
        keys = set(map(column_key, required))
        if of_bytes := [one.value for one in odd[n_odd:] if column_key(one.value) in keys]:
            raise CatalogueUnusable(f"{called} has bytes in the column {', '.join(of_bytes)}; write them as text")
    elif is_json_lines(called):
        table = read_json_lines(content, called, rejected, odd, required=required, category=category)
    else:
        table = _read_csv(content, _Table(name, called, required, source.level), possible, rejected, odd)
    columns = _those_that_are_there(possible, map(str, table.columns))
    required = tuple(columns.values())
    if is_parquet(called) or is_json_lines(called):
        table.columns = _spelled(list(table.columns), name, required, odd)
        _check_header(list(table.columns), name, called, required)
    if name == IMAGES and columns["id"] in (layout.configuration.photos.path, layout.configuration.photos.url):
        table.attrs[CALLED_BY_FILE] = columns["id"] != "id"
    for column, actual in columns.items():
        if column != actual and column in table and column not in required:
            detail = f"left out: {_MEANT[column]} is in the column {actual}"
            odd.append(RowProblem("column without a name of its own", name, 1, value=column, detail=detail))
            table = table.drop(columns=column)
    table = table.rename(columns={actual: column for column, actual in reversed(columns.items())})
    for column in columns.keys() - set(table.columns):  # one column has both
        table = table.assign(**{column: table["id"]})
    if name == PRODUCTS and (separator := layout.configuration.listings.several):
        return _with_first_category(table, separator, odd)
    return table


def _with_first_category(table: "pd.DataFrame", separator: str, odd: list[RowProblem]) -> "pd.DataFrame":
    """The table with the first category of listings that have several; the others are told."""
    firsts = []
    for row, listing_id, text in zip(table.index, table["id"], table["category"], strict=True):
        joined = joined_levels(text)  # of a list its items are the categories
        parts = text.split(separator) if joined == text else joined.split(JOINED)
        first, *others = [one for part in parts if (one := part.strip())] or [""]
        firsts.append(first)
        if others:
            detail = f"read as {first}"
            odd.append(RowProblem("listing in several categories", PRODUCTS, int(row), listing_id, text, detail))
    return table.assign(category=firsts)


def possible_columns(configuration: Configuration, name: str, source: CategorySource) -> list[dict[str, str]]:
    """The columns that a table must have: as they are called in the file, by what they mean.

    Args:
        configuration: of the catalogue.
        name: PRODUCTS or IMAGES.
        source: where the categories are; a column that it names goes before the configuration's.

    Returns:
        one set of columns; of a photos' table two where photos may be called by their files: then those count that the
        table has.
    """
    if name == IMAGES:
        photos = configuration.photos
        by_id = {"id": photos.id or "id", "product_id": photos.listing}
        by_place = {**by_id, "id": photos.path or photos.url}
        if by_place["id"] in ("", "id") or photos.id not in ("", by_place["id"]):
            return [by_id]
        return [by_place] if photos.id else [by_id, by_place]
    configured = configuration.listings.category
    category = configured if configured and source.column == ROOTS.column else source.column
    return [{"id": configuration.listings.id, ROOTS.column: category}]


def _those_that_are_there(possible: Sequence[dict[str, str]], columns: Iterable[str]) -> dict[str, str]:
    """The first set of which a table has all columns; else the first."""
    keys = set(map(column_key, columns))
    return next((one for one in possible if keys.issuperset(map(column_key, one.values()))), possible[0])


class _Table(NamedTuple):
    """What a table in CSV must have.

    Attributes:
        name: PRODUCTS or IMAGES.
        called: in reports.
        required: columns: the id's first, then the category's or the listing's.
        level: of the categories.
    """

    name: str
    called: str
    required: tuple[str, ...]
    level: int


def _read_csv(
    content: bytes,
    wanted: _Table,
    possible: Sequence[dict[str, str]],
    rejected: list[RowProblem],
    odd: list[RowProblem],
) -> "pd.DataFrame":
    name, called = wanted.name, wanted.called
    decoded = decode_table(content, called)
    text = decoded.text
    if declared := _SEPARATOR_LINE.match(text):
        text = text[declared.end() :]
    if "\r" in text.strip() and "\n" not in text.strip():
        raise CatalogueUnusable(f"{called} has carriage returns only where lines end; {SAVE_AS}")
    delimiter = declared[1] if declared else _delimiter(text, possible)
    required = tuple(_those_that_are_there(possible, split_record(text.lstrip("\r\n"), delimiter)).values())
    wanted = wanted._replace(required=required)
    _tell_form(decoded, delimiter, name, odd, declared=declared is not None)
    closed = close_quotes(text, delimiter, _RowTest(wanted, text.lstrip("\n"), delimiter))
    cells = _parse(closed, delimiter, called)
    header = cells.iloc[0].fillna("").str.strip()
    columns = _spelled(header.tolist(), name, required, odd)
    _check_header([text for text in columns if text], name, called, required)
    if closed is not text:
        cells = _take_marks(cells, columns, wanted, rejected, odd)
    width = max(position for position, text in enumerate(header, 1) if text)
    cells, torn = _join_torn(cells, columns, wanted, width, delimiter, odd)
    detail = f"more fields than the header's {width}: a text that holds the separator needs quotes"
    rejected += [
        RowProblem(f"row of {called} with too many fields", name, int(row), detail=detail) for row in torn.index[torn]
    ]
    rows = _stripped(cells.iloc[1:, :width][~torn])
    repeats = (rows == header[:width].to_numpy()).all(axis=1)
    rejected += [RowProblem(f"row of {called} that repeats the header", name, int(row)) for row in rows.index[repeats]]
    rows = rows[~repeats]
    table: pd.DataFrame = rows.loc[(rows != "").any(axis=1)]
    table.columns = columns[:width]
    if decoded.encoding.startswith("Windows"):
        _check_ids_do_not_depend_on_the_encoding(table, wanted, decoded.encoding)
    return table


def _tell_form(decoded: Decoded, delimiter: str, name: str, odd: list[RowProblem], *, declared: bool) -> None:
    """Tell in which encoding and with which delimiter a table is read, if with others than most."""
    if decoded.encoding != "UTF-8":
        check = "" if decoded.encoding == "UTF-16" else f"; if letters are wrong, {SAVE_AS}"
        detail = f"read as {decoded.encoding}{check}"
        odd.append(RowProblem("table is not UTF-8", name, decoded.line, value=decoded.sample, detail=detail))
    if delimiter != ",":
        said = "its first line says so" if declared else "the header has the columns then"
        detail = f"read as separated by {_DELIMITERS.get(delimiter, repr(delimiter))}: {said}"
        odd.append(RowProblem("table is not separated by commas", name, 1, value=delimiter, detail=detail))


def _join_torn(
    cells: "pd.DataFrame", columns: Sequence[str], wanted: _Table, width: int, delimiter: str, odd: list[RowProblem]
) -> "tuple[pd.DataFrame, pd.Series[bool]]":
    """Join the fields of rows whose text held the separator, where that can be told.

    Returns:
        the cells, and which rows, of those below the header, have too many fields still.
    """
    # Most surplus columns are empty; only rows with something in them need a closer look.
    spare = cells.iloc[1:, width:].dropna(axis="columns", how="all").fillna("")
    torn: pd.Series[bool] = (spare != "").any(axis=1)
    torn[torn] = (_stripped(spare[torn]) != "").any(axis=1)
    rejoined = dict(_rejoined(cells.iloc[1:], torn, width, delimiter))
    if rejoined:
        cells.loc[list(rejoined), list(range(width))] = list(rejoined.values())
        torn[list(rejoined)] = False
    for row, fields in rejoined.items():
        value = max((field for field in fields if delimiter in field), key=len)[:_SHOWN_CHARS]
        detail = f"more fields than the header's {width}: read as one text, because a space follows the separator there"
        row_id = fields[columns.index(wanted.required[0])].strip()
        kind = f"row of {wanted.called} with a separator in a text"
        odd.append(RowProblem(kind, wanted.name, row, row_id, value, detail))
    return cells, torn


def _rejoined(
    rows: "pd.DataFrame", torn: "pd.Series[bool]", width: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """The rows with too many fields that have the header's if those that begin with a space join the one before.

    That is so where no field of the other rows begins with a space: who writes `a shirt, blue` without quotes writes no
    space between fields.
    """
    if not torn.any() or delimiter == " " or _begin_with_space(rows.loc[~torn, range(width)]):
        return
    torn_rows = rows[torn].to_numpy(dtype=object, na_value="")  # (n, MAX_COLUMNS)
    for row, cells in zip(rows.index[torn], torn_rows, strict=True):
        fields: list[str] = []
        for cell in cells[: max(cells.nonzero()[0]) + 1]:
            if fields and cell.startswith(" "):
                fields[-1] += delimiter + cell
            else:
                fields.append(cell)
        if len(fields) == width:
            yield int(str(row)), fields


def _begin_with_space(cells: "pd.DataFrame") -> bool:
    return bool(cells.apply(lambda column: column.str.startswith(" ").eq(True).any()).any())


def _parse(text: str, delimiter: str, name: str) -> "pd.DataFrame":
    """The cells, indexed by row number; rows with far too many are cut."""
    import pandas as pd
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    n_named = len(split_record(text.lstrip("\r\n"), delimiter))
    if n_named > _MOST_COLUMNS:
        raise CatalogueUnusable(f"{name} has {n_named} columns; {_MOST_COLUMNS} are the most")
    width = max(MAX_COLUMNS, n_named + 1)
    try:
        # Descriptions hold bare carriage returns, quoted or not: only a line feed ends a row. Surplus columns show
        # which rows have too many fields; pandas would otherwise cut or shift those to fit.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ParserWarning)
            cells = pd.read_csv(
                BytesIO(text.encode()),
                sep=delimiter,
                lineterminator="\n",
                header=None,
                names=range(width),
                index_col=False,
                dtype=str,
                keep_default_na=False,
                na_values=["", _DATABASE_NULL],
                encoding="utf-8",
                on_bad_lines="warn",
            )
    except EmptyDataError as exc:
        raise CatalogueUnusable(f"{name} is empty") from exc
    except ParserError as exc:
        raise CatalogueUnusable(f"{name} cannot be read as CSV: {exc}; {SAVE_AS}") from exc
    if cells.empty:
        raise CatalogueUnusable(f"{name} is empty")
    cells.index += 1  # the header is row 1
    if any(issubclass(warning.category, ParserWarning) for warning in caught):  # rows were skipped
        return _parse(cut_records(text, delimiter, width), delimiter, name)
    return cells


def _delimiter(text: str, possible: Sequence[dict[str, str]]) -> str:
    """The delimiter with which the header has the columns that are required; else most of them, or most columns."""
    headers = {one: set(map(column_key, split_record(text.lstrip("\r\n"), one))) for one in _DELIMITERS}
    wanted: set[str] = set()
    for columns in possible:
        keys = set(map(column_key, columns.values()))
        wanted |= keys
        for delimiter, header in headers.items():
            if keys <= header:
                return delimiter
    return max(headers, key=lambda one: (len(headers[one] & wanted), one != " " and len(headers[one])))


def _spelled(columns: Sequence[str], name: str, required: Sequence[str], odd: list[RowProblem]) -> list[str]:
    """The columns, those that are required under the names that are: `ID` as `id`, where one alone can be meant."""
    spelled = list(columns)
    for column in required:
        alike = [] if column in columns else _alike(column, columns)
        if len(alike) == 1:
            spelled[columns.index(alike[0])] = column
            odd.append(RowProblem("column in another spelling", name, 1, value=alike[0], detail=f"read as {column}"))
    return spelled


def _alike(column: str, columns: Sequence[str]) -> list[str]:
    return [one for one in columns if column_key(one) == column_key(column)]


def _check_header(named: Sequence[str], name: str, called: str, required: Sequence[str]) -> None:
    if repeated := [column for column in required if named.count(column) > 1]:
        raise CatalogueUnusable(f"{called} has more than one column {', '.join(repeated)}; rename the others")
    if missing := [column for column in required if column not in named]:
        alike = {column: ", ".join(_alike(column, named)) for column in missing}
        hints = [f"rename one of {found} to {column}" for column, found in alike.items() if found]
        if len(missing) == len(required) and not hints:
            hints.append("its first line must name the columns")
        if name == PRODUCTS and missing != ["id"]:
            hints.append("LOOKALIKE_CATEGORY_COLUMN says where the category is")
        hints.append(f"{CONFIGURATION} says which are meant: {_IN_CONFIGURATION[name]}")
        shown = ", ".join(column[:_SHOWN_CHARS] for column in named[:_N_NAMED])
        more = f" and {len(named) - _N_NAMED} more" if len(named) > _N_NAMED else ""
        told = "; ".join([f"{called} lacks the column {', '.join(missing)}", f"it has {shown}{more}", *hints])
        raise CatalogueUnusable(told)


class _RowTest:
    """Tells whether fields, as many as the header's, can be a row of a table: what stands in its required columns."""

    def __init__(self, wanted: _Table, text: str, delimiter: str) -> None:
        name, _, required, self._level = wanted
        self._columns = _spelled([column.strip() for column in split_record(text, delimiter)], name, required, [])
        self._name, self._text, self._delimiter = name, text, delimiter
        self._at = [self._columns.index(column) for column in required if column in self._columns]

    @cached_property
    def _categories(self) -> Categories:
        """Those that stand where the category does in lines that are rows by themselves, more than once."""
        lines = (split_record(line, self._delimiter) for line in self._text.split("\n")[1:])
        seen = Counter(fields[self._at[1]] for fields in lines if len(fields) == len(self._columns))
        try:
            found = categories_in(seen.elements(), level=self._level)
        except CatalogueUnusable:
            return OLDER_CATEGORIES
        if found == OLDER_CATEGORIES:
            return OLDER_CATEGORIES
        n_lines = Counter(dict.fromkeys(range(len(found)), 0))
        for text, n in seen.items():
            if (position := found.find(text)) is not None:
                n_lines[position] += n
        return Categories(tuple(name for position, name in enumerate(found) if n_lines[position] > 1), self._level)

    def __call__(self, fields: Sequence[str]) -> bool:
        required = [fields[at] for at in self._at]
        if self._name == PRODUCTS:
            return len(required) == 2 and self._categories.find(required[1]) is not None
        return all(field and not any(character.isspace() for character in field) for field in required)


def _take_marks(
    cells: "pd.DataFrame", header: Sequence[str], wanted: _Table, rejected: list[RowProblem], odd: list[RowProblem]
) -> "pd.DataFrame":
    """Take the marks of `close_quotes` off, note the rows that have them, and drop those that could not be read."""
    first = cells[0].fillna("")
    left, read = first.str.startswith(LEFT_MARK), first.str.startswith(READ_MARK)
    name = wanted.name
    reason = f"row of {wanted.called} with a quote that is never closed"
    for row, line in first[left].items():
        rejected.append(RowProblem(reason, name, int(str(row)), value=line[1 : 1 + _SHOWN_CHARS]))
    cells.loc[read, 0] = first[read].str[1:]
    for row, fields in cells[read].iterrows():
        filled = [str(field) for field in fields.dropna()]
        value = next((field for field in filled if field.lstrip().startswith('"')), filled[0] if filled else "")
        row_id = fields[header.index(wanted.required[0])]
        detail = "read up to the end of its line, with the quote as part of the text"
        problem = RowProblem(reason, name, int(str(row)), str(row_id).strip(), value[:_SHOWN_CHARS], detail)
        odd.append(problem)
    return cells[~left]


def _check_ids_do_not_depend_on_the_encoding(table: "pd.DataFrame", wanted: _Table, guessed: str) -> None:
    """Refuse a table whose encoding was guessed if an id has other letters than ASCII's."""
    for column in wanted.required[: 1 if wanted.name == PRODUCTS else 2]:
        for row, cell in table[column].items():
            if not cell.isascii():
                raise CatalogueUnusable(
                    f"{wanted.called} cannot be read as UTF-8, and row {row} has the {column} {cell} if it is "
                    f"{guessed}: ids must not depend on a guess; {SAVE_AS}"
                )


def _stripped(cells: "pd.DataFrame") -> "pd.DataFrame":
    stripped: pd.DataFrame = cells.fillna("").apply(lambda column: column.str.strip())
    return stripped
