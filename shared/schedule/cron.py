"""Cron expressions of five fields, in UTC: which moment was the last one, which is the next. Knows no clock."""

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

_FIELDS = 5


def parse_cron(expression: str) -> str:
    """The expression, one space between its fields.

    Raises:
        ValueError: it is not one, or names a day that never comes.
    """
    fields = expression.split()
    try:
        if len(fields) != _FIELDS:
            raise CronSimError(f"it has {len(fields)} fields")
        next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as exc:
        why = str(exc) or "it names a day that never comes"
        raise ValueError(
            f"{expression!r} is not minute, hour, day, month and weekday, as in `30 2 * * *`, in UTC: {why}"
        ) from exc
    return " ".join(fields)


def last_slot(cron: str, now: float) -> float:
    """The latest moment of the expression up to `now`; both in seconds since the epoch."""
    # What is asked for is before the moment given, so that a slot is due in its own second.
    after = datetime.fromtimestamp(int(now), UTC) + timedelta(seconds=1)
    return next(CronSim(cron, after, reverse=True)).timestamp()


def next_slot(cron: str, now: float) -> float:
    """The first moment of the expression after `now`."""
    return next(CronSim(cron, datetime.fromtimestamp(now, UTC))).timestamp()
