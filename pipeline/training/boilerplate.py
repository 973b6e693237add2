"""Learns what a site writes into its listings' words: endings that many rows share, and frames around their labels.

A site that puts "| in Whitby, Yorkshire | Some Site" behind each title, or "Posted in Chairs in Whitby" behind a
description, writes place and category into the words. A model of these words would learn the label from the label, or
from where the rows were collected. A frame is found by the rows' own columns: an opening after which the row's place or
category stands in nearly every row. It is removed from every text then, also from a query's, of which no columns are
known. What a seller writes in plain words stays: a category's name behind a mark alone is no frame, and a shared phrase
must begin or end a line, apart from the rest by a mark, in listings of all kinds.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from shared.text.cleaning import (
    EDGE,
    Frame,
    Removed,
    TextRules,
    first_segment,
    last_segment,
    positions,
    separates,
    tokenize,
)

_MOST_LISTINGS = 20_000
_FEWEST_ROWS = 20
_SHARED = 0.05  # of the texts have a phrase
_FRAMED = 0.01  # of the texts have a frame
_NEARLY_ALL = 0.9
_PRECISION = 0.8  # of an opening's places that a column's value follows
_MOST_OPENING, _MOST_GAP, _MOST_INSIDE, _MOST_CLOSING, _MOST_PHRASE = 6, 3, 40, 8, 25  # tokens
_MOST_VALUES, _FEWEST_VALUES = 2_000, 3
_ALIKE = 0.75  # cosine of the categories of a phrase's rows and of all rows
_ROUNDS = 5
_SHOWN = 10
_FEWEST_WITH_NUMBER = 4  # words of a phrase
_MOST_WORDS = 5_000
_PATH_MARKS = frozenset("/>|\u00bb\u203a")
_CATEGORY = "category"

Words = tuple[str, ...]


@dataclass(frozen=True)
class ListingText:
    """What the rules are learned from.

    Attributes:
        texts: title and description, say, by attribute.
        others: the columns that say where and how a thing is offered, as its place or its seller's name, by attribute;
            not those that say what it is, as a brand: what a text repeats of these is no leak.
        path: the category's whole path, as the table has it; empty where it is not known.
        category: position of its category.
    """

    texts: Mapping[str, str]
    others: Mapping[str, str]
    path: str
    category: int


@dataclass(frozen=True)
class RuleReport:
    """What a rule removes from the listings that it was learned from.

    Attributes:
        kind: "frame", "ending" or "beginning"; or a fixed kind as "price", whose shape is empty.
        shape: one example, with columns' names instead of their values and "…" for other words.
        n_listings: that it removes something from.
    """

    kind: str
    shape: str
    n_listings: int


@dataclass(frozen=True)
class Leak:
    """How well what the learned rules remove tells the category by itself, by naive Bayes on these words.

    Attributes:
        n_listings: that it was measured on, a fifth; it was fitted on the others.
        accuracy: of the removed words, 0..1.
        majority: of always naming the commonest category, 0..1.
    """

    n_listings: int
    accuracy: float
    majority: float


@dataclass(frozen=True)
class LearnedRules:
    """The rules and their evidence.

    Attributes:
        rules: for the bundle.
        found: one for each rule and fixed kind that removes something, the most frequent first.
        leak: None where the learned rules remove nothing.
        kept: phrases that many rows share and that stay, because only some categories have them.
    """

    rules: TextRules
    found: tuple[RuleReport, ...] = ()
    leak: Leak | None = None
    kept: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What is removed, for people, in one line."""
        return "; ".join(f"{name}: {value}" for name, value in self.notes.items())

    @property
    def notes(self) -> dict[str, float | str]:
        """What is removed and what it would tell of the category, by name."""
        notes: dict[str, float | str] = {}
        if self.found:
            said = (f"{one.shape or one.kind} ({one.n_listings})" for one in self.found[:_SHOWN])
            more = f", and {len(self.found) - _SHOWN} more" if len(self.found) > _SHOWN else ""
            notes["removed from listings"] = ", ".join(said) + more
        if self.leak:
            notes["category told by what was removed"] = round(self.leak.accuracy, 3)
            notes["category told by the commonest"] = round(self.leak.majority, 3)
        if self.kept:
            notes["shared by many of some categories only, kept"] = ", ".join(self.kept[:_SHOWN])
        return notes


class _Mark(NamedTuple):
    """Where in a text a value of its own row stands: words[start:end]."""

    start: int
    end: int
    column: str


class _Row(NamedTuple):
    words: list[str]
    marks: list[_Mark]
    columns: frozenset[str]  # that have a value


class _Hit(NamedTuple):
    """A place of an opening, the first token after it, and the values that follow: words[start:end]."""

    row: _Row
    inside: int
    start: int
    end: int
    column: str  # of the first value


def learn_rules(listings: Sequence[ListingText]) -> LearnedRules:
    """Find what a site writes into its catalogue's texts.

        learned = learn_rules([ListingText({"title": title}, {"location": place}, path, position), ...])
        learned.rules.clean("Oak table | in Whitby, Yorkshire | Some Site")

    Args:
        listings: those that are trained on, in the catalogue's order; of many, 20,000 evenly spread ones are read.
    """
    step = max(len(listings) / _MOST_LISTINGS, 1.0)
    sample = [listings[int(at * step)] for at in range(int(len(listings) / step))]
    fixed = TextRules()
    texts: dict[str, list[tuple[str, ListingText]]] = {}  # of an attribute, without the fixed kinds
    for one in sample:
        for name, raw in one.texts.items():
            if text := fixed.clean(raw):
                texts.setdefault(name, []).append((text, one))
    frames: list[Frame] = []
    for those in texts.values():
        rows = [_row(text, one) for text, one in those]
        frames += [frame for frame in _frames(rows) if frame not in frames]
    rules, kept = _with_phrases(TextRules(frames=tuple(frames)), list(texts.values()))
    return LearnedRules(rules, *_evidence(rules, sample), tuple(sorted(kept)))


@lru_cache(maxsize=65_536)
def _names(value: str) -> tuple[Words, ...]:
    """A value as a text may repeat it: all of it, and its levels or the parts between commas, the longest first."""
    split = _PATH_MARKS if _PATH_MARKS & set(value) else {",", ";"}
    parts, part = [value], ""
    for letter in [*value, next(iter(split))]:
        if letter in split:
            parts.append(part)
            part = ""
        else:
            part += letter
    names = {tuple(tokenize(one.strip()).words[1:-1]) for one in parts}
    said = [name for name in names if sum(map(len, name)) > 1 and _worded(name)]
    return tuple(sorted(said, key=lambda name: (-len(name), name)))


def _worded(words: Iterable[str]) -> bool:
    return any(letter.isalpha() for word in words for letter in word)


def _row(text: str, listing: ListingText) -> _Row:
    words = tokenize(text).words
    columns = frozenset(name for name, value in ((_CATEGORY, listing.path), *listing.others.items()) if value.strip())
    return _Row(words, _marked(words, listing), columns)


def _marked(words: Sequence[str], listing: ListingText) -> list[_Mark]:
    """Where a row's own values stand in one of its texts, from left to right."""
    begin: dict[str, list[tuple[Words, str]]] = {}
    for column, value in ((_CATEGORY, listing.path), *listing.others.items()):
        for name in _names(value):
            begin.setdefault(name[0], []).append((name, column))
    marks: list[_Mark] = []
    after = 0
    for at, word in enumerate(words):
        if at < after or word not in begin:
            continue
        fitting = [one for one in begin[word] if tuple(words[at : at + len(one[0])]) == one[0]]
        if fitting:
            name, column = max(fitting, key=lambda one: len(one[0]))
            after = at + len(name)
            marks.append(_Mark(at, after, column))
    return marks


def _frames(rows: Sequence[_Row]) -> Iterator[Frame]:
    """Find the frames of one attribute's texts, those of most rows first; each needs rows that no earlier one has."""
    fewest = max(_FEWEST_ROWS, math.ceil(_FRAMED * len(rows)))
    support = Counter(opening for row in rows for opening in _openings(row))
    longest = {
        opening[:-1]
        for opening, n in support.items()
        if len(opening) > 1 and not _worded(opening[:-1]) and n >= _NEARLY_ALL * support[opening[:-1]]
    }  # marks that nearly always have the same word behind them
    left = list(rows)
    for opening in sorted(support, key=lambda one: (-support[one], -len(one), one)):
        if support[opening] < fewest:
            return
        if opening not in longest and (frame := _frame(opening, left, fewest)):
            yield frame
            left = [row for row in left if not frame.find(row.words)]


def _openings(row: _Row) -> set[Words]:
    """The runs of tokens, from a mark or a line's beginning on, that may open a frame around a row's own value."""
    found: set[Words] = set()
    own = {at for mark in row.marks for at in range(mark.start, mark.end)}
    for mark in row.marks:
        for start in range(mark.start - 1, max(mark.start - _MOST_OPENING - _MOST_GAP, 0) - 1, -1):
            if start in own:
                break
            if separates(row.words[start]):
                ends = range(max(start + 1, mark.start - _MOST_GAP), mark.start + 1)
                found.update(tuple(row.words[start:end]) for end in ends if end - start <= _MOST_OPENING)
            if row.words[start] == EDGE:
                break
    return found


def _frame(opening: Words, rows: Sequence[_Row], fewest: int) -> Frame | None:
    """The frame that an opening begins, if its row's own values follow it nearly always, and it ends alike."""
    gap = _MOST_GAP if _worded(opening) else 0
    places = [(row, _hit(row, at + len(opening), gap)) for row in rows for at in positions(row.words, opening)]
    hits = [hit for _, hit in places if hit]
    if len(hits) < fewest or len({tuple(hit.row.words[hit.start : hit.end]) for hit in hits}) < _FEWEST_VALUES:
        return None
    column = Counter(hit.column for hit in hits).most_common(1)[0][0]
    n_missed = sum(not hit and column in row.columns for row, hit in places)
    if len(hits) < _PRECISION * (len(hits) + n_missed):
        return None
    closing = _closing(hits)
    if closing is None:
        return None
    values: Words = ()
    if not _worded((*opening, *closing)):
        if sum(map(_is_label, hits)) < _NEARLY_ALL * len(hits) or opening == closing == (EDGE,):
            return None
        said = Counter(" ".join(hit.row.words[hit.inside : hit.end]) for hit in hits)
        values = tuple(
            sorted(name for name, _ in sorted(said.items(), key=lambda one: (-one[1], one[0]))[:_MOST_VALUES])
        )
    to_line_end = closing[-1] == EDGE or _worded(closing)
    lengths = [
        (_line_end(hit) - len(closing) + (closing[-1] == EDGE) if to_line_end else hit.end) - hit.inside for hit in hits
    ]
    most = int(np.quantile(lengths, 0.98, method="higher"))
    return Frame(
        opening=opening, closing=closing, max_tokens=min(most + most // 2 + 2, 2 * _MOST_INSIDE), values=values
    )


def _hit(row: _Row, inside: int, gap: int) -> _Hit | None:
    """The row's own values that follow an opening, with few other words before and between them."""
    first: _Mark | None = None
    end = inside
    for mark in row.marks:
        if mark.start < inside:
            continue
        if mark.start - end > (_MOST_GAP if first else gap) or EDGE in row.words[end : mark.start]:
            break
        first, end = first or mark, mark.end
    return _Hit(row, inside, first.start, end, first.column) if first else None


def _line_end(hit: _Hit) -> int:
    return hit.row.words.index(EDGE, hit.end)


def _closing(hits: Sequence[_Hit]) -> Words | None:
    """How a frame ends: with the same words, with its line, or with a mark behind the values."""
    rests = [tuple(hit.row.words[hit.end : _line_end(hit)]) for hit in hits]
    enough = _NEARLY_ALL * len(hits)
    for size in range(_MOST_CLOSING, 0, -1):
        (suffix, n), *_ = Counter(rest[-size:] for rest in rests).most_common(1)
        if n >= enough and len(suffix) == size and _worded(suffix):
            return suffix
    short = sum(_line_end(hit) - hit.inside <= _MOST_INSIDE for hit in hits)
    shapes = {tuple("#" if word.isdigit() else word for word in rest) for rest in rests}
    if short >= enough and len(shapes) <= max(len(hits) / 2, 1):  # a date, say, but no seller's own words
        return (EDGE,)
    mark, n = Counter(hit.row.words[hit.end] for hit in hits).most_common(1)[0]
    return (mark,) if n >= enough and separates(mark) else None


def _is_label(hit: _Hit) -> bool:
    """Tell a place or a path of several levels from a category's name, which a seller may have written."""
    marks = [mark for mark in hit.row.marks if hit.start <= mark.start < hit.end]
    return (
        len(marks) > 1
        or any(mark.column != _CATEGORY for mark in marks)
        or bool(_PATH_MARKS.intersection(hit.row.words[hit.start : hit.end]))
    )


def _with_phrases(rules: TextRules, texts: Sequence[Sequence[tuple[str, ListingText]]]) -> tuple[TextRules, set[str]]:
    """Add the phrases that many texts of an attribute begin or end with, also behind one another and behind frames.

    Args:
        rules: the frames.
        texts: of each attribute, without the fixed kinds.

    Returns:
        the rules, and the phrases that many texts share but that are kept.
    """
    spoken = {" ".join(name) for those in texts for _, one in those for name in _names(one.path)}
    kept: set[str] = set()
    left = texts  # with the frames at first: how they end is boilerplate without them too
    for _ in range(_ROUNDS):
        n_known = len(rules.endings) + len(rules.beginnings)
        for those in left:
            ends, ends_kept = _shared(those, last_segment, spoken)
            begins, begins_kept = _shared(those, first_segment, spoken)
            kept |= ends_kept | begins_kept
            rules = TextRules(
                frames=rules.frames,
                endings=tuple(sorted({*rules.endings, *ends})),
                beginnings=tuple(sorted({*rules.beginnings, *begins})),
            )
        if left is not texts and len(rules.endings) + len(rules.beginnings) == n_known:
            break
        left = [[(rules.clean(text), one) for text, one in those] for those in texts]
    return rules, kept.difference(rules.endings, rules.beginnings)


def _shared(
    texts: Sequence[tuple[str, ListingText]],
    find_segment: Callable[[Sequence[str], int, int], tuple[int, int] | None],
    spoken: set[str],
) -> tuple[set[str], set[str]]:
    """The segments that many texts begin or end with: those of all categories, and those of some only.

    No category's name is among them, and no short phrase with a number, which may be a size.
    """
    rows: dict[str, list[int]] = {}
    for text, one in texts:
        words = tokenize(text).words
        segment = find_segment(words, 0, len(words))
        if segment and segment[1] - segment[0] <= _MOST_PHRASE and _has_more(words, segment):
            rows.setdefault(" ".join(words[slice(*segment)]), []).append(one.category)
    fewest = max(_FEWEST_ROWS, math.ceil(_SHARED * len(texts)))
    whole = Counter(one.category for _, one in texts)
    shared: set[str] = set()
    kept: set[str] = set()
    for phrase, categories in rows.items():
        has_number = any(letter.isdigit() for letter in phrase)
        a_size = has_number and phrase.count(" ") < _FEWEST_WITH_NUMBER - 1
        if len(categories) >= fewest and _worded(phrase) and phrase not in spoken and not a_size:
            (shared if _alike(Counter(categories), whole) >= _ALIKE else kept).add(phrase)
    return shared, kept


def _has_more(words: Sequence[str], segment: tuple[int, int]) -> bool:
    """Tell a part of a text from all of it."""
    return any(not separates(word) for word in (*words[: segment[0]], *words[segment[1] :]))


def _alike(some: Counter[int], whole: Counter[int]) -> float:
    """Cosine of two distributions over categories; squares without bias, so that few rows are not unlike by chance."""
    n, n_whole = some.total(), whole.total()
    together = sum(count * whole[category] for category, count in some.items()) / (n * n_whole)
    square = sum(count * (count - 1) for count in some.values()) / (n * (n - 1))
    square_whole = sum(count * (count - 1) for count in whole.values()) / (n_whole * (n_whole - 1))
    return together / math.sqrt(square * square_whole) if square * square_whole else 1.0


def _evidence(rules: TextRules, sample: Sequence[ListingText]) -> tuple[tuple[RuleReport, ...], Leak | None]:
    """What each rule removes, and how well what the learned ones remove tells the category."""
    counts: Counter[tuple[str, str]] = Counter()
    shapes: dict[tuple[str, str], str] = {}
    words: list[str] = []
    frames, endings = {frame.name for frame in rules.frames}, set(rules.endings)
    for one in sample:
        hit: set[tuple[str, str]] = set()
        taken: list[str] = []
        for removed in (part for text in one.texts.values() for part in rules.apply(text).removed):
            kind = removed.rule
            if removed.learned:
                kind = "frame" if kind in frames else "ending" if kind in endings else "beginning"
                taken += tokenize(removed.text).words
            key = (kind, removed.rule)
            hit.add(key)
            if key not in shapes:
                shapes[key] = _shape(removed, one, rules)
        counts.update(hit)
        words.append(" ".join(taken).strip())
    found = sorted(counts, key=lambda key: (-counts[key], key))
    reports = tuple(RuleReport(key[0], shapes[key], counts[key]) for key in found)
    return reports, _leak(words, [one.category for one in sample])


def _shape(removed: Removed, listing: ListingText, rules: TextRules) -> str:
    """An example of what a rule removes, without anybody's details."""
    frame = next((one for one in rules.frames if one.name == removed.rule), None)
    if not removed.learned or frame is None:
        return removed.rule if removed.learned else ""
    words = tokenize(removed.text).words[1:-1]
    n_opening, n_closing = (sum(word != EDGE for word in part) for part in (frame.opening, frame.closing))
    columns = {mark.start: mark for mark in _marked(words, listing)}
    said: list[str] = []
    at = 0
    while at < len(words):
        mark = columns.get(at)
        if at < n_opening or at >= len(words) - n_closing or (not mark and not _worded(words[at])):
            said.append("#" if words[at].isdigit() else words[at])
        elif mark:
            said.append(f"{{{mark.column}}}")
        elif said[-1:] != ["…"]:
            said.append("…")
        at = mark.end if mark and at >= n_opening else at + 1
    return " ".join(said)


def _leak(words: Sequence[str], categories: Sequence[int]) -> Leak | None:
    """Predict the category of every fifth listing from what was removed of it."""
    held_out = np.arange(len(words)) % 5 == 4
    fitted, measured = np.flatnonzero(~held_out).tolist(), np.flatnonzero(held_out).tolist()
    if not len(measured) or not any(words[at] for at in fitted):
        return None
    labels = np.asarray(categories)
    vectorizer = CountVectorizer(analyzer=str.split, max_features=_MOST_WORDS)
    counts = vectorizer.fit_transform([words[at] for at in fitted])
    model = MultinomialNB().fit(counts, labels[fitted])
    answers = model.predict(vectorizer.transform([words[at] for at in measured]))
    commonest = Counter(categories[at] for at in fitted).most_common(1)[0][0]
    return Leak(
        len(measured),
        accuracy=float((answers == labels[measured]).mean()),
        majority=float((labels[measured] == commonest).mean()),
    )
