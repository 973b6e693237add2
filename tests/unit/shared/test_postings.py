"""Postings: which listings say what of a query word for word, and what a search leaves unread."""

import math
from pathlib import Path

import numpy as np
import pytest

from shared.index import postings
from shared.index.arrays import write_array
from shared.index.postings import Postings, postings_of
from shared.text.encoder import Words
from shared.text.features import features

LISTINGS = ("oak table", "oak chair", "oak table zeppelin", "oak", "")


def words_of(text: str, known: str = "oak table chair") -> Words:
    return Words.of(features(text), np.sort(features(known).words))


@pytest.fixture
def written(tmp_path: Path) -> Postings:
    entries = [postings_of(words_of(text).hashes, code) for code, text in enumerate(LISTINGS)]
    write_array(tmp_path / "postings.npy", np.sort(np.concatenate(entries)))
    return Postings(tmp_path / "postings.npy", len(LISTINGS))


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


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    write_array(tmp_path / "postings.npy", np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="not a list of postings"):
        Postings(tmp_path / "postings.npy", 3)


@pytest.mark.parametrize("query", ["手机", "机", "apple", "苹果 手机", "耳機", "カメラ", "一"])
def test_words_of_scripts_without_spaces_are_found_within_others(tmp_path: Path, query: str) -> None:
    listings = ("全新苹果Apple手机13", "手表", "二手藍牙耳機", "古いカメラ 一台")
    encoded = [words_of(text) for text in listings]
    write_array(tmp_path / "postings.npy", np.sort(np.concatenate(
        [postings_of(words.hashes, code) for code, words in enumerate(encoded)]
    )))  # fmt: skip
    found = Postings(tmp_path / "postings.npy", len(listings)).find(words_of(query))
    right = [code for code, text in enumerate(listings) if all(word in text.lower() for word in query.split())]
    assert found.listings[found.shares > 0.9].tolist() == right


def test_pairs_of_letters_that_the_encoder_has_seen_are_not_new() -> None:
    words = Words.of(features("苹果手机"), np.empty(0, np.uint64), np.sort(features("旧苹果").letters))
    assert (~words.known).sum() == 2  # 果手 and 手机
