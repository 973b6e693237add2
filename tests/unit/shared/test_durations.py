"""Durations are read in every unit, and what is none is told how one looks."""

import re

import pytest

from shared.durations import duration_pattern, parse_duration

DAY_S = 86_400


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("30m", 1800), ("24h", DAY_S), ("7d", 7 * DAY_S), ("2w", 14 * DAY_S)]
)
def test_every_unit_is_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1y", "7D", "1.5h", " 7d", "7d\n", "+7d", "\u0667d"])
def test_what_is_none_is_told_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a time is needed, a number of s, m, h, d or w, such as 30m, 24h or 7d$"):
        parse_duration(text)


@pytest.mark.parametrize("days", [1, 8, 30])
def test_the_pattern_allows_what_is_taken_and_nothing_else(days: int) -> None:
    for unit, unit_s in {"s": 1, "m": 60, "h": 3600, "d": DAY_S, "w": 7 * DAY_S}.items():
        most = min(99_999, days * DAY_S // unit_s)
        allowed = [n for n in range(most + 2000) if re.fullmatch(duration_pattern(days * DAY_S), f"{n}{unit}")]
        assert allowed == list(range(1, most + 1))


def test_one_that_is_too_long_is_told_what_is_taken() -> None:
    assert parse_duration("192h", most_s=8 * DAY_S) == 8 * DAY_S
    for text in ("193h", "9d", "2w"):
        with pytest.raises(ValueError, match=r"^a time of up to 8d is needed"):
            parse_duration(text, most_s=8 * DAY_S)
