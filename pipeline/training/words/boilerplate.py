"""Learns what a site writes into its listings' words: endings that many rows share, and frames around their labels.

A site that puts "| in Whitby, Yorkshire | Some Site" behind each title, or "Posted in Chairs in Whitby" behind a
description, writes place and category into the words. A model of these words would learn the label from the label, or
from where the rows were collected. What is found is removed from every text, also from a query's, of which no columns
are known. What a seller writes in plain words stays: a shared phrase must begin or end a text, apart from the rest by a
mark, in listings of all kinds.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from pipeline.training.words.label_frames import (
    ALIKE,
    CATEGORY,
    FEWEST_ROWS,
    alike,
    find_frames,
    marked,
    names_of,
    row_of,
    worded,
)
from shared.text.cleaning import (
    EDGE,
    NUMBER,
    Frame,
    Removed,
    TextRules,
    Tokens,
    first_segment,
    last_segment,
    separates,
)

_MOST_LISTINGS = 10_000
_SHARED = 0.05  # of the texts have a phrase
_MOST_PHRASE = 25  # tokens
_ROUNDS = 5
_SHOWN = 10
_MOSTLY = 0.5  # of the texts that say a phrase say it there
_MOST_WORDS = 5_000


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

    @property
    def columns(self) -> dict[str, str]:
        """The values that a site may repeat in a text, by name."""
        return {**self.others, CATEGORY: self.path}


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


def learn_rules(listings: Sequence[ListingText]) -> LearnedRules:
    """Find what a site writes into its catalogue's texts.

        learned = learn_rules([ListingText({"title": title}, {"location": place}, path, position), ...])
        learned.rules.clean("Oak table | in Whitby, Yorkshire | Some Site")

    Args:
        listings: those that are trained on, in the catalogue's order; of many, 10,000 evenly spread ones are read.
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
        rows = [row_of(text, one.columns, one.category) for text, one in those]
        frames += [frame for frame in find_frames(rows) if frame not in frames]
    rules, kept = _with_phrases(TextRules(frames=tuple(frames)), list(texts.values()))
    return LearnedRules(rules, *_evidence(rules, sample), tuple(sorted(kept)))


def _with_phrases(rules: TextRules, texts: Sequence[Sequence[tuple[str, ListingText]]]) -> tuple[TextRules, set[str]]:
    """Add the phrases that many texts of an attribute begin or end with, also behind one another and behind frames.

    Args:
        rules: the frames.
        texts: of each attribute, without the fixed kinds.

    Returns:
        the rules, and the phrases that many texts share but that are kept.
    """
    paths = {one.path for those in texts for _, one in those}
    spoken = frozenset(word for path in paths for name in names_of(path) for word in name if worded([word]))
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
    spoken: frozenset[str],
) -> tuple[set[str], set[str]]:
    """The segments that many texts begin or end with: those of all categories, and those of some only.

    Not among them are words of the categories' names, the row's own place, numbers, which may be sizes, and what texts
    say elsewhere too.

    Args:
        texts: of an attribute.
        find_segment: `last_segment` or `first_segment`.
        spoken: the words of all categories' names.
    """
    rows: dict[str, list[int]] = {}
    lines: list[str] = []
    for text, one in texts:
        words = Tokens(text).words
        lines.append(f" {' '.join(words)} ")
        segment = find_segment(words, 0, len(words))
        if segment and segment[1] - segment[0] <= _MOST_PHRASE and _has_more(words, segment):
            said = words[slice(*segment)]
            if not marked(said, one.others):
                rows.setdefault(" ".join(said), []).append(one.category)
    fewest = max(FEWEST_ROWS, math.ceil(_SHARED * len(texts)))
    whole = [one.category for _, one in texts]
    shared: set[str] = set()
    kept: set[str] = set()
    for phrase, categories in rows.items():
        if len(categories) < fewest or not worded(phrase) or any(letter.isdigit() for letter in phrase):
            continue
        if all(_names_a_category(word, spoken) for word in phrase.split()):
            continue
        if sum(f" {phrase} " in line for line in lines) > len(categories) / _MOSTLY:
            continue
        (shared if alike(categories, whole) >= ALIKE else kept).add(phrase)
    return shared, kept


def _names_a_category(word: str, spoken: frozenset[str]) -> bool:
    """Tell whether a word is one of some, be it without its ending, or a mark."""
    stem = word[: max(len(word) - 2, 3)]
    return not worded([word]) or any(one.startswith(stem) or (len(one) > 2 and word.startswith(one)) for one in spoken)


def _has_more(words: Sequence[str], segment: tuple[int, int]) -> bool:
    """Tell a part of a text from all of it."""
    return any(not separates(word) for word in (*words[: segment[0]], *words[segment[1] :]))


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
                taken += Tokens(removed.text).words
            key = (kind, removed.rule)
            hit.add(key)
            if "{" not in shapes.get(key, "") and (key not in shapes or kind == "frame"):
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
    words = Tokens(removed.text).words[1:-1]
    n_opening, n_closing = (sum(word != EDGE for word in part) for part in (frame.opening, frame.closing))
    columns = {mark.start: mark for mark in marked(words, listing.columns)}
    said: list[str] = []
    at = 0
    while at < len(words):
        mark = columns.get(at)
        if at < n_opening or at >= len(words) - n_closing or (not mark and not worded(words[at])):
            said.append(NUMBER if words[at].isdigit() else words[at])
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
