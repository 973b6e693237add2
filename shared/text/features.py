"""Turns words into numbered features: whole words, pairs of words, and runs of letters, of any language.

Runs of letters find a word that is misspelt, inflected or part of a longer one, and stand for words where a script
writes no spaces. A feature is a 64-bit hash of its letters, the same on every machine; all of a text's features are
hashed at once, so that a title takes a few tens of microseconds and a long description less than a millisecond.
"""

import re
import unicodedata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_CHARS = 2_000  # of a text that count: what a thing is stands at the beginning
_RUNS = (2, 3, 4, 5)  # letters, the spaces around a word included
_WORD = re.compile(r"[^\W_]+")
_IDEOGRAPH = re.compile("[\u3005\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # Chinese and Japanese: without spaces
_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORDS, _PAIRS, _LETTERS = (np.uint64(seed) for seed in (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0))
_FARTHEST = MAX_CHARS + 4
_POWERS = np.cumprod(np.concatenate([[np.uint64(1)], np.full(_FARTHEST, _BASE, dtype=np.uint64)]))

Hashes = npt.NDArray[np.uint64]


class Features(NamedTuple):
    """The features of a text; a feature is there as often as the text has it.

    Attributes:
        words: hashes of words and of pairs of words, (n,) uint64, the words first.
        letters: hashes of runs of letters, (m,) uint64.
        n_words: how many of `words` are words.
        parts: where a word has letters that are written without spaces, what it may be searched by; None: nowhere.
    """

    words: Hashes
    letters: Hashes
    n_words: int
    parts: "Parts | None" = None


class Parts(NamedTuple):
    """What words of a script without spaces consist of, each hashed as the word that it would be alone.

    Attributes:
        words: of other scripts, (n,) uint64.
        singles, pairs: single letters and pairs of letters, (m,) and (k,) uint64.
        runs: the pairs, hashed as runs of letters, (k,) uint64.
    """

    words: Hashes
    singles: Hashes
    pairs: Hashes
    runs: Hashes


def tokens(text: str) -> list[str]:
    """Split a text into words as they are compared: without case, accents' forms and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text[: 2 * MAX_CHARS]).casefold())


def features(text: str) -> Features:
    """Compute the features of a text, of which the first MAX_CHARS characters count.

    Args:
        text: any; without a letter or digit it has no features.
    """
    spaced = " ".join(["", *tokens(text), ""])[: MAX_CHARS + 1]
    if len(spaced) <= 2:
        return Features(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint64), 0)
    letters = np.frombuffer(spaced.rstrip().encode("utf-32-le") + b" \0\0\0", dtype="<u4").astype(np.uint64)
    # The hash of some letters is the sum of letter * base^position over them: a difference of prefix sums, brought to
    # one position.
    placed = (letters + np.uint64(1)) * _POWERS[: len(letters)]
    prefix = np.concatenate([[np.uint64(0)], np.cumsum(placed, dtype=np.uint64)])

    def hashed(starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp], seed: np.uint64) -> Hashes:
        return _mixed((prefix[ends] - prefix[starts]) * _POWERS[_FARTHEST - starts] ^ seed)

    spaces = np.flatnonzero(letters == ord(" "))
    starts, ends = spaces[:-1] + 1, spaces[1:]
    words = hashed(starts, ends, _WORDS)
    pairs = hashed(starts[:-1], ends[1:], _PAIRS)
    until = np.concatenate([[0], np.cumsum(letters == ord(" "))])
    runs = []
    for size in _RUNS:
        first = np.arange(len(letters) - size + 1)
        inside = until[first + size - 1] - until[first + 1]  # spaces, but for those at the ends
        first = first[inside == 0]
        runs.append(hashed(first, first + size, _LETTERS))
    parts = None
    if _IDEOGRAPH.search(spaced):
        apart = np.array([_IDEOGRAPH.match(letter) is not None for letter in spaced.rstrip() + " "])
        edges = np.flatnonzero(np.diff(~apart & (letters != ord(" ")), prepend=False))
        single = np.flatnonzero(apart)
        pair = single[:-1][np.diff(single) == 1]
        parts = Parts(
            hashed(edges[::2], edges[1::2], _WORDS),
            hashed(single, single + 1, _WORDS),
            hashed(pair, pair + 2, _WORDS),
            hashed(pair, pair + 2, _LETTERS),
        )
    return Features(np.concatenate([words, pairs]), np.concatenate(runs), len(words), parts)


def _mixed(hashes: Hashes) -> Hashes:
    """Spread what differs in few bits over all of them (the finaliser of SplitMix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
