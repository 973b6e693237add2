"""Says what to do about a directory that is no catalogue yet: which tables are there, what to write of them."""

import json
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts import Location
from shared.artifacts.files import ObjectFile
from shared.attributes.configuration import CONFIGURATION
from shared.attributes.schema import attribute_name
from shared.catalogue.forms.encodings import SAVE_AS, decode_table
from shared.catalogue.forms.quotes import split_record
from shared.catalogue.forms.typed_tables import columns_of_line, columns_of_schema
from shared.catalogue.rows import column_key
from shared.errors import CatalogueUnusable

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pyarrow as pa

TEXTS = (".csv", ".tsv", ".tab", ".txt")
JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLES = (*TEXTS, *JSON_LINES, ".parquet")
_ARCHIVES = (".gz", ".zip", ".bz2", ".xz", ".zst", ".tar")
_DATABASES = (".db", ".sqlite", ".sqlite3")
_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_UNKNOWN = "COLUMN"  # where no column's name says that it is the one
_HEADER_BYTES = 1 << 16
_N_NAMED = 12
# Of column names without case and all but letters and digits; the first that a column fits counts.
_IDS = ("id", "handle", "sku", "nummer", "number", "code")
_CATEGORIES = ("categor", "kategori", "catégor", "rubri", "type", "class")
_TITLES = ("title", "titel", "titre", "titulo", "titolo", "name")
_PHOTOS = ("image", "photo", "picture", "img", "bild", "foto")
_NO_PHOTOS = ("position", "alt", "count", "width", "height", "text")
_FILES = ("path", "file", "filename")
_NUMBERS = ("id", "no", "nr", "code")


def advice_on(file_name: str) -> str:
    """Say what to do about a file that may hold a table and has an ending that is not read; empty text: of others."""
    ending = Path(file_name).suffix.lower()
    if ending in _ARCHIVES:
        return "unpack it"
    if ending in _SHEETS:
        return SAVE_AS
    if ending in _DATABASES:
        return 'write each table out: sqlite3 -header -csv FILE "SELECT * FROM products" > Products.csv'
    if ending == ".sql":
        return 'load it, and write each table out: psql --csv -c "SELECT * FROM products" > Products.csv'
    return f"write it as a table; {SAVE_AS}" if ending == ".xml" else ""


def propose(directory: Location, names: Sequence[str], listings: Path | ObjectFile | None) -> str:
    """Say what to write into `catalogue.toml`, or what else to do, where tables do not have their usual names.

    Args:
        directory: of the dump.
        names: of its files and folders.
        listings: the table of listings, where that is there; only the photos' is missing then.

    Returns:
        a sentence or more; empty text: nothing in the directory looks like a table.
    """
    if listings is not None:
        name = Path(str(listings)).name
        lines = _photo_lines(_columns(listings), "")
        return f"where {name} names the photos, write into {directory}/{CONFIGURATION}:\n" + "\n".join(lines)
    others = [(name, advice) for name in names if (advice := advice_on(name))]
    tables = [(name, _columns(directory / name)) for name in names if name.lower().endswith(TABLES)]
    for name, columns in tables:
        if columns and (of_bytes := _columns_of_bytes(directory / name)):
            return (
                f"{name} holds photos in its column {of_bytes[0]}: write them into images/ as files, and the other "
                "columns as Products.csv; docs/indexing.md shows how"
            )
    # Without an id it may be any text, whose first line is not to be shown.
    with_ids = [(name, columns) for name, columns in tables if _guess(columns, _IDS, exact=True)]
    found = sorted(with_ids, key=lambda table: (table[0].lower().endswith(".txt"), -len(table[1])))
    if not found:
        return "; ".join(f"{name} is not read: {advice}" for name, advice in others[:_N_NAMED])
    name, columns = found[0]
    listing_id = _guess(columns, _IDS, exact=True)
    lines = ["[listings]", f"table = {_quoted(name)}", f"id = {_quoted(listing_id)}"]
    lines += [f"category = {_quoted(_category(columns) or _UNKNOWN)}", *_photo_lines(columns, listing_id)]
    has_title = any(attribute_name(column) == "title" for column in columns)
    if not has_title and (title := _guess(columns, _TITLES, exact=True)):
        lines += ["[attributes.title]", f"column = {_quoted(title)}  # searches by words go by it"]
    more = f" (there is also {', '.join(other for other, _ in found[1:_N_NAMED])})" if found[1:] else ""
    begin = f"if {name} holds the listings{more}, write into {directory}/{CONFIGURATION}, and correct what is wrong:"
    lines += [f"# {name} has the columns {_shown(columns)}"]
    lines += [
        f"# if {other} names the photos: [photos] with table = {_quoted(other)}, and listing and id or path = one each "
        f"of its columns {_shown(of_other)}"
        for other, of_other in tables
        if other != name and len(of_other) > 1
    ][:_N_NAMED]
    return "\n".join([begin, *lines])


def _photo_lines(columns: Sequence[str], listing_id: str) -> list[str]:
    keys = [(column, column_key(column)) for column in columns]
    found = [one for one, key in keys if any(map(key.__contains__, _PHOTOS)) and not any(map(key.endswith, _NO_PHOTOS))]
    files = [one for one in found if not column_key(one).endswith(_NUMBERS)]
    found = files or [one for one, key in keys if key in _FILES][:1] or found or [listing_id or "id"]
    return ["[photos]", f"columns = [{', '.join(map(_quoted, found))}]  # their cells are photos' names, paths or URLs"]


def _category(columns: Sequence[str]) -> str:
    named = [column for column in columns if not column_key(column).endswith(_NUMBERS)]
    return _guess(named, _CATEGORIES) or _guess(columns, _CATEGORIES)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _guess(columns: Sequence[str], words: Sequence[str], *, exact: bool = False) -> str:
    """The column that one of the words fits best: as a whole, at its end, or in it."""
    keys = [(column, column_key(column)) for column in columns]
    tests: list[Callable[[str, str], bool]] = [str.__eq__, str.endswith, *([] if exact else [str.__contains__])]
    fits = (column for word in words for test in tests for column, key in keys if test(key, word))
    return next(fits, "")


def _shown(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _N_NAMED} more" if len(columns) > _N_NAMED else ""
    return ", ".join(columns[:_N_NAMED]) + more


def _columns(file: Path | ObjectFile) -> list[str]:
    """The columns of a table; none where it cannot be read as one."""
    ending = Path(str(file)).suffix.lower()
    try:
        if ending == ".parquet":
            return columns_of_schema(_schema(file))
        begin = _begin(file)
        if ending in JSON_LINES:
            return columns_of_line(begin.partition(b"\n")[0])
        text = decode_table(begin[: begin.rfind(b"\n") + 1] or begin, str(file)).text.lstrip("\r\n")
    except (CatalogueUnusable, OSError, ValueError, RecursionError):  # damaged, or no table
        return []
    fields = max((split_record(text, delimiter) for delimiter in ",;\t|"), key=len)
    if len(fields) == 1:
        fields, of_next = (split_record(line, " ") for line in f"{text}\n".split("\n")[:2])
        if len(fields) != len(of_next):  # prose
            return []
    return [name for cell in fields if (name := cell.strip())]


def _columns_of_bytes(file: Path | ObjectFile) -> list[str]:
    """The columns of a Parquet table in which, or in whose fields, there are bytes; those of one length are ids."""
    if not str(file).lower().endswith(".parquet"):
        return []
    return [one.name for one in _schema(file) if re.search("(?<!fixed_size_)binary", str(one.type))]


def _schema(file: Path | ObjectFile) -> "pa.Schema":
    from pyarrow import parquet

    return parquet.read_schema(file if isinstance(file, Path) else BytesIO(file.read_bytes()))


def _begin(file: Path | ObjectFile) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(_HEADER_BYTES)
    return file.read_bytes()[:_HEADER_BYTES]
