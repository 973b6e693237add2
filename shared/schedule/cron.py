"""Cron expressions of five fields, in UTC: validates them and computes their last and next slot."""

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

_FIELDS = 5


def parse_cron(expression: str) -> str:
    """Validate a cron expression and normalise its white space.

    Args:
        expression: minute, hour, day, month and weekday.

    Raises:
        ValueError: it cannot be parsed, or never comes due, such as on 30 February.
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
    """Return the latest slot of the expression up to `now`; both in seconds since the epoch."""
    # CronSim returns slots strictly before the given time, but a slot is due in its own second.
    after = datetime.fromtimestamp(int(now), UTC) + timedelta(seconds=1)
    return next(CronSim(cron, after, reverse=True)).timestamp()


def next_slot(cron: str, now: float) -> float:
    """Return the first slot of the expression after `now`; both in seconds since the epoch."""
    return next(CronSim(cron, datetime.fromtimestamp(now, UTC))).timestamp()
