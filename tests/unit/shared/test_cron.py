"""Cron expressions: the last and the next slot of each, and words for what is none"""

from datetime import UTC, datetime

import pytest

from shared.errors import CannotStart
from shared.schedule.cron import last_slot, next_slot, parse_cron
from shared.settings import load_settings


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("cron", "now", "last", "following"),
    [
        ("30 2 * * *", "2026-03-01 12:00:00", "2026-03-01 02:30", "2026-03-02 02:30"),
        ("30 2 * * *", "2026-03-01 02:30:00", "2026-03-01 02:30", "2026-03-02 02:30"),
        ("30 2 * * *", "2026-03-01 02:29:59", "2026-02-28 02:30", "2026-03-01 02:30"),
        ("*/15 * * * *", "2026-03-01 12:14:59.9", "2026-03-01 12:00", "2026-03-01 12:15"),
        ("0 0 29 2 *", "2026-03-01 12:00:00", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("0 3 * * SUN", "2026-03-02 00:00:00", "2026-03-01 03:00", "2026-03-08 03:00"),
    ],
)
def test_the_last_and_the_next_slot(cron: str, now: str, last: str, following: str) -> None:
    assert (last_slot(cron, at(now)), next_slot(cron, at(now))) == (at(last), at(following))


@pytest.mark.parametrize(
    "text", ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "0 0 30 2 *", "every day", "@daily", "a b c d e"]
)
def test_what_is_no_expression_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="minute, hour, day, month and weekday"):
        parse_cron(text)


def test_a_worker_does_not_start_with_a_schedule_it_cannot_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_REINDEX_CRON", "30 2 * *")
    with pytest.raises(CannotStart, match=r"LOOKALIKE_REINDEX_CRON: '30 2 \* \*' is not minute, hour.*4 fields"):
        load_settings()
    monkeypatch.setenv("LOOKALIKE_REINDEX_CRON", " 30  2 * * * ")
    assert load_settings().reindex_cron == "30 2 * * *"
