"""Features of words: the same letters give the same feature wherever they stand, and others another, in any script."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text.features import MAX_CHARS, features, tokens


def naive(text: str) -> tuple[Counter[str], Counter[str]]:
    """Words with pairs of words, and runs of letters that no space interrupts, as texts."""
    words = tokens(text)
    spaced = "".join(f" {word}" for word in words) + " "
    runs = [
        spaced[start : start + size]
        for size in (2, 3, 4, 5)
        for start in range(len(spaced) - size + 1)
        if " " not in spaced[start + 1 : start + size - 1]
    ]
    return Counter([*words, *map(" ".join, pairwise(words))]), Counter(runs if words else [])


@given(st.text(max_size=60), st.text(max_size=60))
def test_two_texts_share_the_features_that_they_share_as_texts(one: str, other: str) -> None:
    for of_one, of_other, hashed, hashed_other in zip(
        naive(one), naive(other), features(one)[:2], features(other)[:2], strict=True
    ):
        assert len(hashed) == of_one.total()
        assert len(np.unique(hashed)) == len(of_one)
        assert len(np.intersect1d(hashed, hashed_other)) == len(of_one.keys() & of_other.keys())


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Oak TABLE, two chairs", "oak table two chairs"),
        ("Größe 40", "GRÖSSE 40"),
        ("\uff46\uff55\uff4c\uff4c\u3000\uff57\uff49\uff44\uff54\uff48", "full width"),
        ("rock'n'roll_records", "rock n roll records"),
        ("ΠΟΔΉΛΑΤΟ", "ποδήλατο"),
        ("İSTANBUL IŞIK", "istanbul \u0131ş\u0131k"),
        ("שָׁלוֹם", "שלום"),
        ("كِتَابٌ كتـــاب", "كتاب كتاب"),
        ("Vie\u0323\u0302t Nam", "vi\u1ec7t nam"),
        ("Donau\u00addampf \u200eschiff\u200f", "donaudampf schiff"),
        ("กระเป๋า\u200bหนัง", "กระเป๋าหนัง"),
        ("1\ufe0f\u20e3 \u2764\ufe0f", "1"),
    ],
)
def test_case_width_and_punctuation_make_no_difference(text: str, same: str) -> None:
    for found, expected in zip(features(text)[:2], features(same)[:2], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "words", ["हिन्दी की किताब", "தமிழ் புத்தகம்", "বাংলা বই", "ක්\u200dෂණික", "กระเป๋าหนัง", "គ្រែឈើ", "ကုလားထိုင်", "ދިވެހި"]
)
def test_vowel_signs_are_letters_of_their_word(words: str) -> None:
    assert len(tokens(words)) == len(words.split())
    assert len(tokens(words, signs=False)) > len(words.split())  # what bundles of an earlier Lookalike go by


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("GTX1080Ti", "gtx-1080 Ti"),
        ("iphone12", "iPhone/12"),
        ('55in TV, 2x4"', "55 in TV 2 x 4"),
        ("आईफोन12", "आईफोन 12"),
        ("آيفون١٢", "آيفون ١٢"),
        ("全新苹果Apple手机13pro", "全新苹果Apple手机13 pro"),
    ],
)
def test_letters_and_numbers_are_looked_up_as_words_of_their_own(text: str, same: str) -> None:
    found, expected = features(text), features(same)
    assert len(found.apart) > 1
    np.testing.assert_array_equal(found.apart, expected.apart)
    assert len(found.words) != len(expected.words) or found.parts is not None  # but encoded as they are written


def test_without_numbers_in_words_it_is_the_words_that_are_looked_up() -> None:
    for text in ("oak table 12 cm", "Größe 40", "पुरानी किताब"):
        found = features(text)
        np.testing.assert_array_equal(found.apart, found.words[: found.n_words])
    np.testing.assert_array_equal(features("全新Apple手机13").apart, features("Apple 13").apart)


def test_earlier_features_are_those_of_today_where_no_script_has_signs() -> None:
    for text in (
        "Oak TABLE, Größe 40",
        "ПИАНИНО ё й",
        "παλιό βιολί",
        "全新苹果Apple手机13",
        "古いカメラ 一台",
        "한국어 책상",
    ):
        now, before = features(text), features(text, signs=False)
        for found, expected in zip((*now[:2], *(now.parts or ())), (*before[:2], *(before.parts or ())), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert features("โต๊ะไม้").parts is not None
    assert features("โต๊ะไม้", signs=False).parts is None


def test_a_misspelt_word_shares_most_of_its_runs_of_letters() -> None:
    right, wrong, other = (features(word).letters for word in ("wardrobe", "wardrobbe", "bicycle"))
    shared = [len(np.intersect1d(right, some)) / len(right) for some in (wrong, other)]
    assert shared[0] > 0.7 > 0.1 > shared[1]


@pytest.mark.parametrize("text", ["", " ", "!?…", "\n\t", "_"])
def test_a_text_without_a_word_has_no_features(text: str) -> None:
    assert [len(found) for found in features(text)[:2]] == [0, 0]


def test_only_the_beginning_of_a_long_text_counts() -> None:
    begin = "oak table " * (MAX_CHARS // 10)
    long, longer = features(begin + "chair " * 10), features(begin + "bicycle " * 100_000)
    for found, expected in zip(longer[:2], long[:2], strict=True):
        np.testing.assert_array_equal(found, expected)
