"""Finds the frames in which a site writes a listing's place and category into its words: "Posted in … in …".

A frame is found by the rows' own columns: an opening, from a mark or a line's beginning on, after which the place or
category of its row stands nearly always, and an end that is alike: the same words, the end of the line, or a mark. A
frame without words of its own holds places or whole paths that were seen in it; a category's name alone only where a
good part of all rows have it at a bar or in brackets, or most of all at a dash or colon: else it may be what a seller
writes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from shared.text.cleaning import EDGE, NUMBER, Frame, Tokens, numbered, positions, separates

CATEGORY = "category"
FEWEST_ROWS = 20
_FRAMED = 0.01  # of the texts have a frame
_NEARLY_ALL = 0.9
_EVERYWHERE = 0.3
_MOSTLY = 0.5
_FEWEST_WHOLE = 5  # rows that show how a frame ends
ALIKE = 0.75  # cosine of the categories of some rows and of all: theirs are of all kinds
_PRECISION = 0.8  # of an opening's places that a column's value follows
_MOST_OPENING, _MOST_GAP, _MOST_INSIDE, _MOST_CLOSING = 6, 3, 40, 8  # tokens
_MOST_VALUES, _FEWEST_VALUES = 2_000, 3
_BARS = frozenset("|()[]{}<>\u00bb\u203a\u2022\u00b7")
_COLON = ":"  # does not part what is said, and yet stands before a value
_DASHES = frozenset(f"-\u2013\u2014{_COLON}")  # behind which some sellers write a category's name themselves
_PATH = r"[/>|\u00bb\u203a]"

Words = tuple[str, ...]


class Mark(NamedTuple):
    """Where in a text a value of its own row stands: words[start:end]."""

    start: int
    end: int
    column: str


class Row(NamedTuple):
    """A text in tokens, its row's own values in it, the columns that have one, and its category's position."""

    words: list[str]
    marks: list[Mark]
    columns: frozenset[str]
    category: int


class _Evidence(NamedTuple):
    """What tells a site's frame from a seller's sentence that names place or category.

    Attributes:
        plain: what it holds are names of categories without their paths.
        place: what it holds begins with another column's value.
        followed: in nearly every row more stands behind the values, alike by how a frame's end is found.
        everywhere: a good part of all rows have it.
        mostly: most of all rows have it.
    """

    plain: bool
    place: bool
    followed: bool
    everywhere: bool
    mostly: bool

    def suffices(self, opening: Words, closing: Words) -> bool:
        """Tell whether what begins and ends so is a frame."""
        behind_mark = not worded(opening[-1:])  # "Category: Sofas", but not "A sofa"
        if self.plain and behind_mark:
            told = worded(closing) or (worded(opening) and opening[-1] != EDGE)
            marks = {*opening[-1:], *closing[:1]}
            return told or bool((self.everywhere and marks & _BARS) or (self.mostly and marks & _DASHES))
        if self.plain:  # "- Buy Sofas Online"
            return self.everywhere and worded(closing) and separates(opening[0])
        if worded(closing):
            return True
        if opening == closing or not separates(opening[0]):
            return False
        return not self.place or behind_mark or self.everywhere or (self.followed and closing == (EDGE,))


class _Hit(NamedTuple):
    """A place of an opening, the first token after it, and the values that follow: words[start:end]."""

    row: Row
    inside: int
    start: int
    end: int
    column: str  # of the first value
    n_columns: int  # whose values follow


@lru_cache(maxsize=65_536)
def names_of(value: str) -> tuple[Words, ...]:
    """A value as a text may repeat it: all of it, and its levels or the parts between commas, the longest first.

    Returns:
        each in tokens; none without a letter.
    """
    parts = re.split(_PATH if re.search(_PATH, value) else r"[,;]", value)
    names = {tuple(Tokens(one.strip()).words[1:-1]) for one in [value, *parts]}
    said = [name for name in names if sum(map(len, name)) > 1 and worded(name)]
    return tuple(sorted(said, key=lambda name: (-len(name), name)))


def worded(words: Iterable[str]) -> bool:
    """Tell whether there is a letter in some tokens."""
    return any(letter.isalpha() for word in words for letter in word)


def row_of(text: str, columns: Mapping[str, str], category: int) -> Row:
    """Split a text into tokens, and find its row's own values in it."""
    words = Tokens(text).words
    filled = frozenset(name for name, value in columns.items() if value.strip())
    return Row(words, marked(words, columns), filled, category)


def marked(words: Sequence[str], columns: Mapping[str, str]) -> list[Mark]:
    """Find where a row's own values stand in one of its texts, from left to right.

    Args:
        words: of `tokenize`.
        columns: the values by name; CATEGORY: the category's path.
    """
    begin: dict[str, list[tuple[Words, str]]] = {}
    for column, value in columns.items():
        for name in names_of(value):
            begin.setdefault(name[0], []).append((name, column))
    marks: list[Mark] = []
    after = 0
    for at, word in enumerate(words):
        if at < after or word not in begin:
            continue
        fitting = [one for one in begin[word] if tuple(words[at : at + len(one[0])]) == one[0]]
        if fitting:
            name, column = max(fitting, key=lambda one: len(one[0]))
            after = at + len(name)
            marks.append(Mark(at, after, column))
    return marks


def find_frames(rows: Sequence[Row]) -> Iterator[Frame]:
    """Find the frames of one attribute's texts, those of most rows first; each needs rows that no earlier one has.

    Args:
        rows: of the texts, without prices and other fixed kinds.
    """
    fewest = max(FEWEST_ROWS, math.ceil(_FRAMED * len(rows)))
    counts = Counter(opening for row in rows for opening in _openings(row))
    support = {opening: n for opening, n in counts.items() if n >= fewest}
    longest = {
        opening[:-1]
        for opening, n in support.items()
        if len(opening) > 1 and not worded(opening[:-1]) and n >= _NEARLY_ALL * counts[opening[:-1]]
    }  # marks that nearly always have the same word behind them
    left = list(rows)
    for opening in sorted(
        support, key=lambda one: (-support[one] * (1 if separates(one[0]) else _NEARLY_ALL), -len(one), one)
    ):
        if opening not in longest and (frame := _frame(opening, left, fewest, rows)):
            yield frame
            left = [row for row in left if not frame.find(row.words)]


def _openings(row: Row) -> set[Words]:
    """The runs of tokens that may open a frame around a row's own value.

    These are those from a mark or a line's beginning on, a colon, and a word or two right before the value.
    """
    found: set[Words] = set()
    own = {at for mark in row.marks for at in range(mark.start, mark.end)}
    for mark in row.marks:
        if row.words[mark.start - 1] == _COLON:
            found.add((_COLON,))
        for start in range(mark.start - 1, max(mark.start - 3, 0), -1):
            if start in own or not worded([row.words[start]]):
                break
            found.add(tuple(row.words[start : mark.start]))
        for start in range(mark.start - 1, max(mark.start - _MOST_OPENING - _MOST_GAP, 0) - 1, -1):
            if start in own:
                break
            if separates(row.words[start]):
                ends = range(max(start + 1, mark.start - _MOST_GAP), mark.start + 1)
                found.update(tuple(row.words[start:end]) for end in ends if end - start <= _MOST_OPENING)
            if row.words[start] == EDGE:
                break
    return found


def _frame(opening: Words, rows: Sequence[Row], fewest: int, all_rows: Sequence[Row]) -> Frame | None:
    """The frame that an opening begins, if its row's own values follow it nearly always, and it ends alike."""
    gap = _MOST_GAP if worded(opening) and separates(opening[0]) else 0
    places = [(row, _hit(row, at + len(opening), gap)) for row in rows for at in positions(row.words[:-1], opening)]
    hits = [hit for _, hit in places if hit]
    if len(hits) < fewest or len({tuple(hit.row.words[hit.start : hit.end]) for hit in hits}) < _FEWEST_VALUES:
        return None
    column = Counter(hit.column for hit in hits).most_common(1)[0][0]
    closing = _closing(hits)
    if closing is None or alike((hit.row.category for hit in hits), (row.category for row in all_rows)) < ALIKE:
        return None
    kind = _Evidence(
        plain=column == CATEGORY and 2 * sum(map(_has_levels, hits)) < len(hits),
        place=column != CATEGORY,
        followed=sum(hit.end < _line_end(hit) for hit in hits) >= _NEARLY_ALL * len(hits),
        everywhere=len(hits) >= _EVERYWHERE * len(all_rows),
        mostly=len(hits) >= _MOSTLY * len(all_rows),
    )
    if not kind.suffices(opening, closing):
        return None
    to_line_end = closing[-1] == EDGE or worded(closing)
    lengths = [
        (_line_end(hit) - len(closing) + (closing[-1] == EDGE) if to_line_end else hit.end) - hit.inside for hit in hits
    ]
    most = int(np.quantile(lengths, 0.98, method="higher"))
    # As in "Home > A > B > …".
    inside = not worded(closing) and any(closing[0] in hit.row.words[hit.start : hit.end] for hit in hits)
    frame = Frame(
        opening=opening,
        closing=closing,
        max_tokens=min(most + most // 2 + 2, 2 * _MOST_INSIDE),
        values=() if not inside and (worded(opening) or (worded(closing) and not kind.plain)) else _said(hits, lengths),
        usual=() if worded(closing) else _usual(hits, lengths),
    )
    # A place that the closing does not follow is none of the frame's.
    if worded(closing) and (kind.everywhere or not frame.values):
        found = [(row, span) for row in rows for span in frame.find(row.words)]
        n_found = sum(_holds_value(row, span) for row, span in found)
        n_missed = sum(column in row.columns for row, _ in found) - n_found
    else:
        n_found, n_missed = len(hits), sum(not hit and column in row.columns for row, hit in places)
    n_all_of_it = sum(_is_all(hit, frame) for hit in hits)
    return frame if n_found >= _PRECISION * (n_found + n_missed) and 2 * n_all_of_it < len(hits) else None


def alike(some: Iterable[int], every: Iterable[int]) -> float:
    """Compare the categories of some rows with those of all: the cosine of their shares.

    Squares are taken without the bias of small numbers, so that few rows are not unlike by chance.
    """
    few, all_of_them = Counter(some), Counter(every)
    n, n_all = few.total(), all_of_them.total()
    together = sum(count * all_of_them[category] for category, count in few.items()) / (n * n_all)
    square = sum(count * (count - 1) for count in few.values()) / (n * (n - 1))
    square_all = sum(count * (count - 1) for count in all_of_them.values()) / (n_all * (n_all - 1))
    return together / math.sqrt(square * square_all) if square * square_all else 1.0


def _holds_value(row: Row, span: tuple[int, int]) -> bool:
    return any(span[0] <= mark.start and mark.end <= span[1] for mark in row.marks)


def _is_all(hit: _Hit, frame: Frame) -> bool:
    """Tell whether a text says nothing outside the frame."""
    words, end = hit.row.words, hit.inside - len(frame.opening)
    rest = words[_line_end(hit) :] if frame.closing[-1] == EDGE or worded(frame.closing) else words[hit.end :]
    return not worded(words[:end]) and not worded(rest)


def _usual(hits: Sequence[_Hit], lengths: Sequence[int]) -> Words:
    """The words, not of a row's own values, that nearly all rows have between opening and closing."""
    said: Counter[str] = Counter()
    for hit, length in zip(hits, lengths, strict=True):
        own = {at for mark in hit.row.marks for at in range(mark.start, mark.end)}
        between = range(hit.inside, hit.inside + length)
        said.update(numbered([hit.row.words[at] for at in between if at not in own]))
    nearly_all = (word for word, n in said.items() if n >= _NEARLY_ALL * len(hits))
    return tuple(sorted(word for word in nearly_all if worded(word) or word == NUMBER))


def _hit(row: Row, inside: int, gap: int) -> _Hit | None:
    """The row's own values that follow an opening, with few other words before and between them."""
    first: Mark | None = None
    columns: set[str] = set()
    end = inside
    for mark in row.marks:
        if mark.start < inside:
            continue
        between = row.words[end : mark.start]
        if len(between) > (_MOST_GAP if first else gap) or EDGE in between:
            break
        if mark.column in columns and worded(between) and any(map(separates, between)):
            break  # "[Bikes] a bell for bikes": the seller's own words
        first, end = first or mark, mark.end
        columns.add(mark.column)
    return _Hit(row, inside, first.start, end, first.column, len(columns)) if first else None


def _line_end(hit: _Hit) -> int:
    return hit.row.words.index(EDGE, hit.end)


def _closing(hits: Sequence[_Hit]) -> Words | None:
    """How a frame ends: with the same words, with its line, or with a mark behind the values."""
    n_columns = Counter(hit.n_columns for hit in hits)
    most = max((n for n, count in n_columns.items() if count >= _FEWEST_WHOLE), default=0)
    hits = [hit for hit in hits if hit.n_columns >= most]  # of a row without a place, its place would be the rest
    rests = [tuple(hit.row.words[hit.end : _line_end(hit)]) for hit in hits]
    enough = _NEARLY_ALL * len(hits)
    for size in range(_MOST_CLOSING, 0, -1):
        (suffix, n), *_ = Counter(rest[-size:] for rest in rests).most_common(1)
        if n >= enough and len(suffix) == size and worded(suffix):
            return suffix
    short = sum(_line_end(hit) - hit.inside <= _MOST_INSIDE for hit in hits)
    shapes = {tuple(NUMBER if word.isdigit() else word for word in rest) for rest in rests}
    if short >= enough and len(shapes) <= max(len(hits) / 2, 1):  # a date, say, but no seller's own words
        return (EDGE,)
    mark, n = Counter(hit.row.words[hit.end] for hit in hits).most_common(1)[0]
    return (mark,) if n >= enough and separates(mark) else None


def _has_levels(hit: _Hit) -> bool:
    """Tell a path, or a category and a place, from one name."""
    said = {tuple(hit.row.words[mark.start : mark.end]) for mark in hit.row.marks if hit.start <= mark.start < hit.end}
    return len(said) > 1 or any(re.fullmatch(_PATH, word) for word in hit.row.words[hit.start : hit.end])


def _said(hits: Sequence[_Hit], lengths: Sequence[int]) -> Words:
    """The values that follow an opening, with the marks behind them, the most frequent ones."""
    said: Counter[str] = Counter()
    for hit, length in zip(hits, lengths, strict=True):
        end = hit.inside + length
        end = hit.end if worded(hit.row.words[hit.end : end]) else end
        said[" ".join(hit.row.words[hit.inside : end])] += 1
    frequent = sorted(said, key=lambda value: (-said[value], value))
    return tuple(sorted(frequent[:_MOST_VALUES]))
