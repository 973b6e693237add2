"""Postings: which listings say what of a query word for word, and what a search leaves unread."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shared.index.arrays import write_array
from shared.index.words import postings, word_lists
from shared.index.words.postings import Postings
from shared.index.words.word_lists import (
    POSTINGS,
    WORD_LISTINGS,
    WORDS,
    WordLists,
    WordListsWriter,
    open_word_lists,
)
from shared.text.encoder import Words
from shared.text.features import features

LISTINGS = ("oak table", "oak chair", "oak table zeppelin", "oak", "")


def words_of(text: str, known: str = "oak table chair") -> Words:
    return Words.of(features(text), np.sort(features(known).words))


def write_sorted(directory: Path, listings: Sequence[npt.NDArray[np.uint32]]) -> None:
    """As an earlier Lookalike wrote them."""
    entries = [words.astype(np.uint64) << np.uint64(32) | np.uint64(code) for code, words in enumerate(listings)]
    write_array(directory / POSTINGS, np.sort(np.concatenate(entries)))


def write_packed(directory: Path, listings: Sequence[npt.NDArray[np.uint32]]) -> None:
    lists = WordListsWriter(directory)
    for code, words in enumerate(listings):
        lists.add(words, code)
    lists.write()


def opened(directory: Path) -> WordLists:
    lists = open_word_lists(directory)
    assert lists is not None
    return lists


@pytest.fixture(params=[write_packed, write_sorted])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Postings:
    request.param(tmp_path, [words_of(text).hashes for text in LISTINGS])
    return Postings(opened(tmp_path), len(LISTINGS))


def test_a_listing_that_says_all_comes_before_those_that_say_a_part(written: Postings) -> None:
    found = written.find(words_of("table, oak"))
    assert found.listings.tolist() == [0, 1, 2, 3]
    assert found.shares[[0, 2]].tolist() == [1, 1]
    assert found.shares[[1, 3]].max() < 0.1
    assert sorted(found.best(2).tolist()) == [0, 2]
    np.testing.assert_array_equal(found.of(np.array([3, 4, 0])), [found.shares[3], 0, 1])


def test_a_new_word_counts_by_how_rare_it_is_among_all(written: Postings) -> None:
    found = written.find(words_of("zeppelin oak"))
    assert found.listings.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.shares, [0, 0, 1, 0], atol=0.001)
    here, nowhere = math.log(6 / 2) ** 3, math.log(6) ** 3
    by_rarity = here / (here + 3 * nowhere)
    assert written.find(words_of("zeppelin on the moon")).shares.tolist() == [pytest.approx(by_rarity)]
    # Of fewer than four words each counts the more.
    of_two = written.find(words_of("zeppelin moon")).shares.tolist()
    assert of_two == [pytest.approx((here / (here + nowhere)) ** 0.5)]
    assert written.find(words_of("moon")).of(np.arange(5)).tolist() == [0] * 5


def test_beside_a_photo_new_words_count_alone(written: Postings) -> None:
    beside = words_of("oak table zeppelin")._replace(whole=False)
    found = written.find(beside)
    assert found.listings.tolist() == [2]
    assert 0.3 < found.shares[0] < 1
    assert not len(written.find(words_of("oak table")._replace(whole=False)).listings)


def test_the_commonest_words_are_passed_over(written: Postings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "_MOST_READ", 3)
    found = written.find(words_of("oak table"))
    assert found.listings.tolist() == [0, 2]
    assert found.shares.tolist() == [1, 1]
    assert not len(written.find(words_of("oak")).listings)


def test_packed_lists_hold_what_sorted_ones_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_lists, "_IN_MEMORY", 5_000)
    rng = np.random.default_rng(3)
    hashes = rng.integers(2**32, size=3_000, dtype=np.uint32)
    hashes[:2] = 0, 2**32 - 1
    chances = 1 / np.arange(1, 3_001) ** 1.3
    chances[0] = 0.7
    # Listings far apart, so that distances take one byte to five.
    codes = np.cumsum(rng.choice([1, 1, 200, 30_000, 3_000_000], size=3_000))
    codes[-1] = 2**32 - 1
    listings = [np.unique(hashes[rng.random(3_000) < chances]) for _ in codes]
    packed, older = tmp_path / "packed", tmp_path / "older"
    packed.mkdir()
    older.mkdir()
    lists = WordListsWriter(packed)
    for words, code in zip(listings, codes.tolist(), strict=True):
        lists.add(words, code)
    lists.write()
    entries = [w.astype(np.uint64) << np.uint64(32) | np.uint64(c) for w, c in zip(listings, codes, strict=True)]
    write_array(older / POSTINGS, np.sort(np.concatenate(entries)))
    assert {path.name for path in packed.iterdir()} == {WORDS, WORD_LISTINGS}

    now, before = opened(packed), opened(older)
    asked = np.concatenate([hashes, rng.integers(2**32, size=500, dtype=np.uint32)])
    np.testing.assert_array_equal(now.counts(asked), before.counts(asked))
    np.testing.assert_array_equal(now.listings(asked), before.listings(asked))
    for some in (asked[:0], asked[-1:], asked[[0]], asked[[1, 0, 5]]):
        np.testing.assert_array_equal(now.listings(some), before.listings(some))
    for _ in range(50):
        known = rng.random(6) < 0.5
        query = Words(rng.choice(asked, 6, replace=False), known, whole=bool(rng.integers(2)))
        found, expected = (Postings(one, len(codes)).find(query) for one in (now, before))
        np.testing.assert_array_equal(found.listings, expected.listings)
        np.testing.assert_array_equal(found.shares, expected.shares)

    # From 4 GiB of listings on the table is of wider numbers.
    write_array(packed / WORDS, np.load(packed / WORDS).astype(np.uint64))
    np.testing.assert_array_equal(opened(packed).listings(asked), before.listings(asked))


def test_a_catalogue_without_words_has_empty_lists(tmp_path: Path) -> None:
    write_packed(tmp_path, [])
    found = Postings(opened(tmp_path), 3).find(words_of("oak"))
    assert (len(found.listings), len(found.shares)) == (0, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (POSTINGS, np.zeros(3, dtype=np.float32), "not a list of postings"),
        (WORDS, np.zeros((3, 2), dtype=np.float32), "not a table of words"),
        (WORD_LISTINGS, np.zeros(3, dtype=np.uint8), "does not hold the listings"),
    ],
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, name: str, content: npt.NDArray[np.float32], message: str
) -> None:
    if name != POSTINGS:
        write_packed(tmp_path, [words_of("oak").hashes])
    write_array(tmp_path / name, content)
    with pytest.raises(ValueError, match=message):
        open_word_lists(tmp_path)


@pytest.mark.parametrize(
    "query",
    ["手机", "机", "apple", "苹果 手机", "耳機", "カメラ", "一", "หนัง", "กระเป๋า", "ໄມ້", "ឈើ", "ကုလားထိုင်", "nike หนัง"],
)
def test_words_of_scripts_without_spaces_are_found_within_others(tmp_path: Path, query: str) -> None:
    listings = (
        "全新苹果Apple手机13", "手表", "二手藍牙耳機", "古いカメラ 一台", "ขายกระเป๋าหนังสีดำNike", "รองเท้าหนังNikeมือสอง",
        "ໂຕະໄມ້ໃໝ່", "លក់គ្រែឈើថ្មី", "သစ်သားကုလားထိုင်အသစ်",
    )  # fmt: skip
    encoded = [words_of(text) for text in listings]
    write_packed(tmp_path, [words.hashes for words in encoded])
    found = Postings(opened(tmp_path), len(listings)).find(words_of(query))
    right = [code for code, text in enumerate(listings) if all(word in text.lower() for word in query.split())]
    assert found.listings[found.shares > 0.9].tolist() == right


@pytest.mark.parametrize("query", ["gtx1080ti", "GTX-1080Ti", "GTX 1080 Ti", "gtx1080 ti"])
def test_names_with_numbers_are_found_however_they_are_joined(tmp_path: Path, query: str) -> None:
    listings = ("EVGA GTX1080Ti", "EVGA GTX 1080 Ti", "EVGA GTX-1080 Ti", "EVGA GTX 1070 Ti", "EVGA RTX 1080")
    write_packed(tmp_path, [words_of(text).hashes for text in listings])
    found = Postings(opened(tmp_path), len(listings)).find(words_of(query))
    assert found.listings[found.shares == 1].tolist() == [0, 1, 2]


def test_pairs_of_letters_that_the_encoder_has_seen_are_not_new() -> None:
    words = Words.of(features("苹果手机"), np.empty(0, np.uint64), np.sort(features("旧苹果").letters))
    assert (~words.known).sum() == 2  # 果手 and 手机
