"""Turns words into numbered features: whole words, pairs of words, and runs of letters, of any language.

Runs of letters find a word that is misspelt, inflected or part of a longer one, and stand for words where a script
writes no spaces. A feature is a 64-bit hash of its letters, the same on every machine; all of a text's features are
hashed at once, so that a title takes a few tens of microseconds and a long description less than a millisecond.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_CHARS = 2_000  # of a text that count: what a thing is stands at the beginning
_RUNS = (2, 3, 4, 5)  # letters, the spaces around a word included
_WORD = re.compile(r"[^\W_]+")  # of bundles from before vowel signs were read
_POINTS = frozenset({*range(10, 37), *range(200, 241)})  # combining classes: of Hebrew, Arabic and Syriac; of accents
_NUMBER = re.compile(r"\d+")
# Where scripts without spaces begin and end: Thai and Lao, Burmese, Khmer; Chinese and Japanese.
_SYLLABIC = (0x0E00, 0x0F00, 0x1000, 0x10A0, 0x1780, 0x1800)
_IDEOGRAPHIC = (0x3005, 0x3006, 0x3040, 0x3100, 0x3400, 0xA000, 0xF900, 0xFB00)
_UNSPACED = np.array(_SYLLABIC + _IDEOGRAPHIC)
# Letters of a piece, of an ideographic and of a syllabic script. Measured on 1,500 drawn titles each of Thai, Lao,
# Burmese and Khmer, 600 of them fitted on: a word within a title that the encoder had not seen is among ten results for
# .99 of queries or more, without pieces for .22 to .47; beside a common word for .75 to .92 with pieces of 1 and 2, .89
# to 1 with 2 and 3, and .93 to .99 with 2 and 4, without pieces for .12 to .34.
_SHORT, _LONG = (1, 2), (2, 4)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORDS, _PAIRS, _LETTERS = (np.uint64(seed) for seed in (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0))
_FARTHEST = MAX_CHARS + 4
_POWERS = np.cumprod(np.concatenate([[np.uint64(1)], np.full(_FARTHEST, _BASE, dtype=np.uint64)]))

Hashes = npt.NDArray[np.uint64]
_Positions = npt.NDArray[np.intp]


class Features(NamedTuple):
    """The features of a text; a feature is there as often as the text has it.

    Attributes:
        words: hashes of words and of pairs of words, (n,) uint64, the words first.
        letters: hashes of runs of letters, (m,) uint64.
        n_words: how many of `words` are words.
        apart: hashes of the words by which a text is found word for word, (k,) uint64: letters and numbers are words of
            their own, so that "iPhone12", "iPhone-12" and "iPhone 12" have the same; without what `parts` has.
        parts: where a word has letters that are written without spaces, what it may be searched by; None: nowhere.
    """

    words: Hashes
    letters: Hashes
    n_words: int
    apart: Hashes
    parts: "Parts | None" = None


class Parts(NamedTuple):
    """What words of a script without spaces consist of, each hashed as the word that it would be alone.

    Attributes:
        words: of other scripts, (n,) uint64.
        short: runs of letters that say too little to be new, (m,) uint64: one of Chinese and Japanese, two of others.
        long: runs that say more, (k,) uint64: two of Chinese and Japanese, four of others.
        runs: the long ones, hashed as runs of letters, (k,) uint64.
    """

    words: Hashes
    short: Hashes
    long: Hashes
    runs: Hashes


class _Letters(dict[int, str | None]):
    """What becomes of a character, by its code: kept in its word, left out (None), or a space; filled as they come.

    Vowel signs, as of Hindi and Thai, are kept. Left out is what the same word is written with and without: points of
    Hebrew and Arabic, accents that are no part of a letter, and characters that only tell how others are shown.
    """

    def __missing__(self, code: int) -> str | None:
        letter = chr(code)
        kind, joining = unicodedata.category(letter), unicodedata.combining(letter)
        said: str | None = " "
        if kind in ("Cf", "Me") or 0xFE00 <= code <= 0xFE0F:
            said = None
        elif kind in ("Mn", "Mc"):
            said = None if joining in _POINTS else letter
        elif letter.isalnum():
            said = letter
        return self.setdefault(code, said)


# A zero-width non-joiner parts words, as in Persian. Who types Turkish in capitals may have no dotless i.
_KEPT = _Letters({ord("\u200c"): " ", ord("\u0640"): None, ord("\u0131"): "i"})


def tokens(text: str, *, signs: bool = True) -> list[str]:
    """Split a text into words as they are compared: without case, accents' forms and punctuation.

    Args:
        text: any.
        signs: False: as an earlier Lookalike did, to which vowel signs were no letters.
    """
    plain = unicodedata.normalize("NFKC", text[: 2 * MAX_CHARS]).casefold()
    return plain.translate(_KEPT).split() if signs else _WORD.findall(plain)


def features(text: str, *, signs: bool = True) -> Features:
    """Compute the features of a text, of which the first MAX_CHARS characters count.

    Args:
        text: any; without a letter or digit it has no features.
        signs: as of `tokens`.
    """
    spaced = " ".join(["", *tokens(text, signs=signs), ""])[: MAX_CHARS + 1]
    if len(spaced) <= 2:
        nothing: Hashes = np.empty(0, dtype=np.uint64)
        return Features(nothing, nothing, 0, nothing)
    letters = np.frombuffer(spaced.rstrip().encode("utf-32-le") + b" \0\0\0", dtype="<u4").astype(np.uint64)
    pieces = _Pieces(letters)
    spaces = np.flatnonzero(letters == ord(" "))
    starts, ends = spaces[:-1] + 1, spaces[1:]
    words = pieces.hashed(starts, ends, _WORDS)
    pairs = pieces.hashed(starts[:-1], ends[1:], _PAIRS)
    # Where a number begins or ends within a word.
    spans = [at for found in _NUMBER.finditer(spaced) for at in found.span()]
    numbers = [at for at in spans if " " not in spaced[at - 1 : at + 1] and at < len(spaced)]
    apart = pieces.cut(starts, ends, np.array(numbers)) if numbers else words
    whole = Features(np.concatenate([words, pairs]), _letter_runs(letters, pieces), len(words), apart)
    if letters.max() < _UNSPACED[0]:
        return whole
    within = np.searchsorted(_UNSPACED, letters.astype(np.int64), side="right")  # odd: in one of them
    ideographic = (within % 2 == 1) & (within > len(_SYLLABIC))
    syllabic = (within % 2 == 1) & (within < len(_SYLLABIC)) & signs
    unspaced = ideographic | syllabic
    if not unspaced.any():
        return whole
    edges = np.flatnonzero(np.diff(~unspaced & (letters != ord(" ")), prepend=False))
    parts = Parts(
        pieces.hashed(edges[::2], edges[1::2], _WORDS),
        pieces.runs((ideographic, syllabic), _SHORT, _WORDS),
        pieces.runs((ideographic, syllabic), _LONG, _WORDS),
        pieces.runs((ideographic, syllabic), _LONG, _LETTERS),
    )
    others = np.setdiff1d(numbers, edges).astype(np.intp)
    return whole._replace(parts=parts, apart=pieces.cut(edges[::2], edges[1::2], others))


class _Pieces:
    """Hashes pieces of a text, any number at once.

    The hash of some letters is the sum of letter * base^position over them: a difference of prefix sums, brought to one
    position.

    Args:
        letters: (n,) uint64, the text's characters.
    """

    def __init__(self, letters: Hashes) -> None:
        placed = (letters + np.uint64(1)) * _POWERS[: len(letters)]
        self._prefix = np.concatenate([[np.uint64(0)], np.cumsum(placed, dtype=np.uint64)])

    def hashed(self, starts: _Positions, ends: _Positions, seed: np.uint64) -> Hashes:
        """Hash the pieces from each of `starts` to before the one of `ends`, (m,) both."""
        prefix = self._prefix
        return _mixed((prefix[ends] - prefix[starts]) * _POWERS[_FARTHEST - starts] ^ seed)

    def cut(self, starts: _Positions, ends: _Positions, edges: _Positions) -> Hashes:
        """Hash words that are cut in two at each of `edges`."""
        return self.hashed(np.sort(np.concatenate([starts, edges])), np.sort(np.concatenate([ends, edges])), _WORDS)

    def runs(self, scripts: Sequence[npt.NDArray[np.bool_]], sizes: Sequence[int], seed: np.uint64) -> Hashes:
        """Hash the runs of so many letters of each script.

        Args:
            scripts: (n,) each: which letters are of it.
            sizes: letters of a run, of each script.
        """
        found = []
        for script, size in zip(scripts, sizes, strict=True):
            inside = np.concatenate([[0], np.cumsum(script)])
            first = np.flatnonzero(inside[size:] - inside[:-size] == size)
            found.append(self.hashed(first, first + size, seed))
        return np.concatenate(found)


def _letter_runs(letters: Hashes, pieces: _Pieces) -> Hashes:
    """Hash the runs of letters within words, the spaces around a word included."""
    until = np.concatenate([[0], np.cumsum(letters == ord(" "))])
    runs = []
    for size in _RUNS:
        first = np.arange(len(letters) - size + 1)
        inside = until[first + size - 1] - until[first + 1]  # spaces, but for those at the ends
        first = first[inside == 0]
        runs.append(pieces.hashed(first, first + size, _LETTERS))
    return np.concatenate(runs)


def _mixed(hashes: Hashes) -> Hashes:
    """Spread what differs in few bits over all of them (the finaliser of SplitMix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
