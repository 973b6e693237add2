"""Rewrites rows that a CSV parser would misread: with a quote that is never closed, or with far too many fields."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

# Unicode's noncharacters, which no text contains: they lead the first cell of a row that was rewritten.
READ_MARK, LEFT_MARK = "\ufdd0", "\ufdd1"
_MAX_COLUMNS = 256


class _Grammar(NamedTuple):
    """Regular expressions for one delimiter.

    Attributes:
        field: as the parser reads it, with whatever follows a closing quote.
        record: several of those.
        strict_record: the same, where nothing but white space follows a closing quote.
        quoted: a quoted field alone, within one line.
    """

    field: re.Pattern[str]
    record: re.Pattern[str]
    strict_record: re.Pattern[str]
    quoted: re.Pattern[str]


@cache
def _grammar(delimiter: str) -> _Grammar:
    d = re.escape(delimiter)
    quoted, plain, nothing = r'"(?:[^"]++|"")*+"', rf'[^"{d}\n][^{d}\n]*+', rf"(?=[{d}\n]|\Z)"
    field = rf"(?:{quoted}[^{d}\n]*+|{plain}|{nothing})"
    strict = rf"(?:{quoted}[ \r]*+{nothing}|{plain}|{nothing})"
    return _Grammar(
        field=re.compile(rf"({field})(?:{d}|\n|\Z)"),
        record=re.compile(rf"(?:{field}{d})*+{field}(?:\n|\Z)"),
        strict_record=re.compile(rf"(?:{strict}{d})*+{strict}(?:\n|\Z)"),
        quoted=re.compile(rf'"((?:[^"]++|"")*+)"[ \r]*+(?:(?={d})|\Z)'),
    )


def split_record(text: str, delimiter: str) -> list[str]:
    """Split the first record of a table into its fields, as a CSV parser does; one that is not closed: its line."""
    grammar = _grammar(delimiter)
    found = grammar.record.match(text)
    record = found[0] if found else text.partition("\n")[0]
    return _fields(record.removesuffix("\n"), grammar)


def _fields(record: str, grammar: _Grammar) -> list[str]:
    fields, at = [], 0
    while found := grammar.field.match(record, at):
        field = found[1]
        if field.startswith('"'):
            inside, _, rest = field[1:].rpartition('"')
            field = inside.replace('""', '"') + rest
        fields.append(field)
        if found.end() == found.end(1):  # the end of the record
            break
        at = found.end()
    return fields


def cut_records(text: str, delimiter: str, n_fields: int) -> str:
    """Cut the records of a table that have more than `n_fields`: the last one left is then "cut"."""
    grammar, pieces, kept_from, at = _grammar(delimiter), [], 0, 0
    while at < len(text) and (found := grammar.record.match(text, at)):
        record = found[0].removesuffix("\n")
        if record.count(delimiter) >= n_fields and len(fields := _fields(record, grammar)) > n_fields:
            cut = [*fields[: n_fields - 1], "cut"]
            pieces += [text[kept_from:at], delimiter.join(map(_quoted, cut)), "\n"]
            kept_from = found.end()
        at = found.end()
    return "".join(pieces) + text[kept_from:]


def close_quotes(text: str, delimiter: str, looks_like_row: Callable[[Sequence[str]], bool]) -> str:
    r"""Rewrite the rows whose quote is never closed, so that they do not swallow those below.

    A quoted field may hold line ends: most descriptions over several lines are just that. It is taken for an unclosed
    quote where one of the lines in it is a row of its own: `4,"4 in a box,Appliances\n5,"5 in a box,Appliances\n`.
    The row is then read by its line alone, if there is one way only to make as many fields of it as the header has.

    Args:
        text: of the table.
        delimiter: between its fields.
        looks_like_row: whether fields, as many as the header's, can be a row of this table.

    Returns:
        the text; in the first field of a row that was rewritten READ_MARK comes first, and a row that could not be
        read is LEFT_MARK and the beginning of the line.
    """
    if '"' not in text:
        return text
    grammar, n_columns = _grammar(delimiter), len(split_record(text.lstrip("\n"), delimiter))
    pieces, kept_from, at = [], 0, 0
    while at < len(text):
        line_end = text.find("\n", at)
        line_end = line_end if line_end >= 0 else len(text)
        strict = grammar.strict_record.match(text, at)
        if strict and strict.end() <= line_end + 1:
            at = strict.end()
            continue
        found = strict or grammar.record.match(text, at)
        record = found[0].removesuffix("\n").split("\n") if found else [text[at:line_end]]
        fields = _fields(found[0].removesuffix("\n"), grammar) if found else []
        is_whole = len(fields) == n_columns
        rows = (row for line in record[1:] if (row := _read_alone(line, delimiter, n_columns)))
        swallowed = found is None or any(not strict or looks_like_row(row) for row in rows)
        row = None
        if swallowed or (len(record) == 1 and not (is_whole and looks_like_row(fields))):
            row = _read_alone(record[0], delimiter, n_columns)
            row = row if row and (swallowed or looks_like_row(row)) else None
        end = line_end + 1 if swallowed or not found else found.end()
        if row or swallowed or (not strict and len(record) > 1 and not is_whole):
            marked = [READ_MARK + row[0], *row[1:]] if row else [LEFT_MARK + record[0]]
            pieces += [text[kept_from:at], delimiter.join(map(_quoted, marked)), "\n"]
            kept_from = min(end, len(text))
        at = end
    return "".join(pieces) + text[kept_from:] if pieces else text


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def _read_alone(line: str, delimiter: str, n_fields: int) -> tuple[str, ...] | None:
    """Split a line into `n_fields`, where a quote may be part of the text; None if there is no or more than one way."""
    if not 0 <= n_fields - 1 <= min(line.count(delimiter), _MAX_COLUMNS):
        return None
    quoted, length = _grammar(delimiter).quoted, len(line)

    @cache
    def readings(at: int, n_left: int) -> list[tuple[str, ...]]:
        stop = line.find(delimiter, at)
        stop = stop if stop >= 0 else length
        ends = [(found.end(), found[1].replace('""', '"'))] if (found := quoted.match(line, at)) else []
        if not ends or ends[0][0] != stop:
            ends.append((stop, line[at:stop]))
        if n_left == 1:
            return [(field,) for end, field in ends if end == length]
        return [(field, *rest) for end, field in ends if end < length for rest in readings(end + 1, n_left - 1)][:2]

    found = readings(0, n_fields)
    return found[0] if len(found) == 1 else None
