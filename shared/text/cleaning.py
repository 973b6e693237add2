"""Removes from a text what does not say what a thing is: prices, ways to reach its seller, and a site's own words.

Prices, telephone numbers, addresses and placeholders are found by fixed rules, in the forms of many countries. A site's
own words ("| in Whitby, Yorkshire | Some Site") are named by rules that `pipeline.training.words.boilerplate` learns
from a catalogue. The work grows with the length of the text only, whatever it holds: each regular expression looks
ahead a fixed number of characters, and learned rules compare words.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

NUMBER = "#"
EDGE = ""  # the token where a line or the text begins or ends
_CODES = (
    "EUR|GBP|USD|CHF|PLN|SEK|NOK|DKK|CZK|HUF|RON|BGN|RUB|UAH|INR|JPY|CNY|KRW|BRL|MXN|ZAR|AUD|NZD|SGD|HKD|THB|ILS|AED"
)
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts without spaces
)
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)+|[{_ALONE}]|[^\W{_ALONE}]+(?:['\u2019\-][^\W{_ALONE}]+)*|[^\w\s]|\n")
_INSIDE = frozenset(",'\u2019\"“”&/\\:@#%*+°")  # punctuation that stands within what is said
_CLOSE = frozenset(",.;:!?)\n")  # stands at a word without a space
_TRIMMED = " \n\t|•·\u2013—-;,:"

_SYMBOLS = "£€$¥₹₽₩₺₴₪₫฿₦₱₵₸₭₡₲"
_AMOUNT = r"\d{1,12}(?:[.,'\u2019\u00a0\u202f]\d{3}){0,4}(?:[.,](?:\d{1,2}(?!\d)|--?|\u2013))?"
_SPACE = "[ \u00a0\u202f]?"
_PRICE = re.compile(
    rf"(?:(?<!\w)(?:{_CODES}|US|NZ|HK|R|A|C){_SPACE})?[{_SYMBOLS}]{_SPACE}{_AMOUNT}(?:k\b|/-)?"
    rf"|(?<!\w)(?:{_CODES}|[Rr]s\.?|[Kk]r\.?){_SPACE}{_AMOUNT}(?!\w)"
    rf"|(?<![A-Za-z\d_.,]){_AMOUNT}{_SPACE}(?:€(?!\d)|[{_SYMBOLS}](?! ?\d)|:-|,--?(?!\w)"
    rf"|[円元원]|(?:{_CODES})(?!\w| ?\d)|(?:[Ee]uros?|EURO|[Qq]uid|[Dd]ollars?|[Kk]r|[Zz]ł|Kč"
    rf"|\u0440\u0443\u0431|грн|лв|lei|(?<=[ \u00a0])TL)(?!\w)\.?)"
)
_TELEPHONE = re.compile(r"(?<![\d.,/+])(?:\+\d|\(\+\d|\(?0\d)[\d ()./\-\u00a0\u2013]{5,22}\d(?!\d)\)?")
_AMERICAN = re.compile(r"(?<![\d.,\-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\d\-])")
_DATE = re.compile(r"\d{1,2}[./\-]\d{1,2}[./\-](?:\d{4}|\d{2})(?!\d)")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")
_URL = re.compile(
    r"(?:\bhttps?://|\bwww\.)\S{1,2000}"
    r"|(?<![\w.-])[\w-]{1,63}(?:\.[\w-]{1,63}){0,3}\.(?:(?:com|net|org|info|biz|co\.uk|org\.uk)\b(?:/\S{0,2000})?|[a-z]{2}/\S{1,2000})"
)
_PLACEHOLDER = re.compile(
    r"[\[<{]{1,2} ?(?:(?:tele)?phone|tel|mobile|(?:phone |telephone )?number|e-?mail|mail|url|link|website|address|"
    r"name|person|postcode|price|redacted|removed|hidden|censored|deleted|телефон|почта|telefon|teléfono|téléphone)"
    r"(?: (?:number|address|removed|hidden|redacted))? ?[\]>}]{1,2}",
    re.IGNORECASE,
)


class Tokens:
    """A text as learned rules compare it, split into words, marks and line breaks, and where these stand in it.

    In scripts that write no spaces each letter is a word.

    Attributes:
        text: as it was given.
        words: words and numbers without case, single marks, and EDGE for a line break and at both ends.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = [EDGE, *[EDGE if word == "\n" else word.casefold() for word in _TOKEN.findall(text)], EDGE]

    @cached_property
    def starts(self) -> list[int]:
        """Where in the text each begins."""
        return [0, *[found.start() for found in _TOKEN.finditer(self.text)], len(self.text)]

    @cached_property
    def ends(self) -> list[int]:
        """Where in the text each ends."""
        return [0, *[found.end() for found in _TOKEN.finditer(self.text)], len(self.text)]


@lru_cache(maxsize=8192)
def separates(word: str) -> bool:
    """Tell whether a token stands between what is said: an edge, a full stop, a bar, a picture, but no comma."""
    return word == EDGE or (len(word) == 1 and word not in _INSIDE and unicodedata.category(word)[0] in "PS")


class Removed(NamedTuple):
    """A part of a text that was removed.

    Attributes:
        rule: what removed it: a kind, as "price", or a learned rule's `name`.
        learned: whether the rule is one of the catalogue's own.
        text: the part.
    """

    rule: str
    learned: bool
    text: str


class Cleaned(NamedTuple):
    """A text without what does not say what the thing is.

    Attributes:
        text: what is left, without surrounding spaces and bars; lines are kept.
        removed: what was removed.
    """

    text: str
    removed: tuple[Removed, ...]


class Frame(BaseModel):
    """Words between which a site puts a listing's place or category: "| in … | Some Site".

    Attributes:
        opening: the tokens that begin it.
        closing: the tokens that end it; EDGE alone: the line's end.
        max_tokens: how many may stand between.
        values: what may stand between, in lower case; empty: anything.
        usual: words, and NUMBER, of which at least half must stand between.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    opening: tuple[str, ...]
    closing: tuple[str, ...]
    max_tokens: int
    values: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The frame for people."""
        return " ".join(word for word in (*self.opening, "…", *self.closing) if word != EDGE)

    @cached_property
    def _values(self) -> frozenset[str]:
        return frozenset(self.values)

    @cached_property
    def _rarest(self) -> str:
        """The longest of its words: a text without it needs no closer look."""
        return max((*self.opening, *self.closing), key=len)

    def find(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Find the frame in a text.

        Args:
            words: of Tokens.

        Returns:
            for each place the positions of its first token and of the one after its last; edges are not among them.
        """
        if self._rarest not in words:
            return []
        openings, closings = positions(words, self.opening), positions(words, self.closing)
        edges = positions(words, (EDGE,)) if openings and closings else []
        found: list[tuple[int, int]] = []
        for closing in closings:
            before = bisect_right(openings, closing - len(self.opening) - 1) - 1
            if before < 0 or (found and openings[before] < found[-1][1]):
                continue
            first, inside = openings[before], openings[before] + len(self.opening)
            if closing - inside > self.max_tokens or edges[bisect_left(edges, inside)] < closing:
                continue
            between = words[inside:closing]
            if self.values and " ".join(between) not in self._values:
                continue
            if self.usual and 2 * len(numbered(between).intersection(self.usual)) < len(self.usual):
                continue
            found.append((first + (self.opening[0] == EDGE), closing + len(self.closing) - (self.closing[-1] == EDGE)))
        return found


class TextRules(BaseModel):
    """What is removed from a catalogue's texts, and from those that are searched in it; without rules the fixed kinds.

        rules = TextRules(endings=("some site",))
        assert rules.clean("Oak table 120 cm, £40 | Some Site") == "Oak table 120 cm"

    Attributes:
        frames: see Frame.
        endings: phrases that end a line after a mark, tokens joined by spaces.
        beginnings: phrases that begin one before a mark.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    frames: tuple[Frame, ...] = ()
    endings: tuple[str, ...] = ()
    beginnings: tuple[str, ...] = ()

    @cached_property
    def _endings(self) -> frozenset[str]:
        return frozenset(self.endings)

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(self.beginnings)

    def clean(self, text: str) -> str:
        """Remove prices, ways to reach the seller, and what the rules name.

        Args:
            text: a title or a description; or both with a line break between.

        Returns:
            what is left; empty text if nothing is.
        """
        return self.apply(text).text

    def apply(self, text: str) -> Cleaned:
        """Remove as `clean` does, and tell what was removed by which rule."""
        removed: list[Removed] = []
        text = _without_fixed_kinds(text, removed)
        if self.frames or self.endings or self.beginnings:
            text = self._without_phrases(self._without_frames(Tokens(text), removed), removed)
        return Cleaned(text.strip(_TRIMMED), tuple(removed))

    def _without_frames(self, tokens: Tokens, removed: list[Removed]) -> Tokens:
        for frame in self.frames:
            if spans := frame.find(tokens.words):
                cuts = [(tokens.starts[first], tokens.ends[after - 1]) for first, after in spans]
                removed += [Removed(frame.name, True, tokens.text[start:end]) for start, end in cuts]
                tokens = Tokens(_cut(tokens.text, cuts))
        return tokens

    def _without_phrases(self, tokens: Tokens, removed: list[Removed]) -> str:
        text = tokens.text
        cuts: list[tuple[int, int]] = []
        edges = positions(tokens.words, (EDGE,))
        for before, after in pairwise(edges):
            first, last = before + 1, after  # the line's tokens are first..last-1
            while segment := last_segment(tokens.words, first, last):
                if (name := " ".join(tokens.words[slice(*segment)])) not in self._endings:
                    break
                last = max(segment[0] - 1, first)  # with the mark in front
                removed.append(Removed(name, True, text[tokens.starts[segment[0]] : tokens.ends[segment[1] - 1]]))
            if last < after:
                cuts.append((tokens.starts[last], tokens.starts[after]))
            while segment := first_segment(tokens.words, first, last):
                if (name := " ".join(tokens.words[slice(*segment)])) not in self._beginnings:
                    break
                removed.append(Removed(name, True, text[tokens.starts[segment[0]] : tokens.ends[segment[1] - 1]]))
                first = min(segment[1] + 1, last)  # with the mark behind
            if first > before + 1:
                cuts.append((tokens.ends[before], tokens.starts[first]))
        return _cut(text, sorted(cuts)) if cuts else text


def numbered(words: Sequence[str]) -> set[str]:
    """The different words of some, NUMBER for each number."""
    return {NUMBER if word.isdigit() else word for word in words}


def last_segment(words: Sequence[str], first: int, last: int) -> tuple[int, int] | None:
    """Find the last part of words[first:last] between marks: its first position and the one after its last."""
    while last > first and separates(words[last - 1]):
        last -= 1
    start = last
    while start > first and not separates(words[start - 1]):
        start -= 1
    return (start, last) if start < last else None


def first_segment(words: Sequence[str], first: int, last: int) -> tuple[int, int] | None:
    """Find the first part of words[first:last] between marks: its first position and the one after its last."""
    while first < last and separates(words[first]):
        first += 1
    end = first
    while end < last and not separates(words[end]):
        end += 1
    return (first, end) if first < end else None


def positions(words: Sequence[str], sought: tuple[str, ...]) -> list[int]:
    """Where a run of tokens begins."""
    head, size = sought[0], len(sought)
    if size == 1:
        return [at for at, word in enumerate(words) if word == head]
    run = list(sought)
    return [at for at, word in enumerate(words) if word == head and words[at : at + size] == run]


def _cut(text: str, cuts: Sequence[tuple[int, int]]) -> str:
    """The text without some spans, in order and apart, each left as a space."""
    kept, at = "", 0
    for start, end in (*cuts, (len(text), len(text))):
        part = text[at : max(start, at)]
        kept = kept.rstrip(" ") + part if part[:1] in _CLOSE else f"{kept} {part}"
        at = max(end, at)
    return _spaced(kept)


def _spaced(text: str) -> str:
    """The text with single spaces and line breaks."""
    return "\n".join(line for row in text.splitlines() if (line := " ".join(row.split())))


def _is_telephone(found: str) -> bool:
    """Tell a telephone number from a date and from small numbers in a row."""
    groups = re.findall(r"\d+", found)
    digits = sum(map(len, groups))
    return 8 + found.startswith("0") <= digits <= 15 and len(groups) <= 6 and not _DATE.match(found)


def _any(found: str) -> bool:
    return True


_FIXED: tuple[tuple[str, str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("placeholder", "[<{", _PLACEHOLDER, _any),
    ("e-mail address", "@", _EMAIL, _any),
    ("web address", ".:", _URL, _any),
    ("telephone number", "0+(-.", _TELEPHONE, _is_telephone),
    ("telephone number", "-.", _AMERICAN, _any),
    ("price", "0123456789", _PRICE, _any),
)


def _without_fixed_kinds(text: str, removed: list[Removed]) -> str:
    for kind, marks, pattern, accepted in _FIXED:
        if any(mark in text for mark in marks):
            found = [one for one in pattern.finditer(text) if accepted(one.group())]
            removed += [Removed(kind, False, one.group()) for one in found]
            text = _cut(text, [one.span() for one in found]) if found else text
    return _spaced(text)
