"""Reads durations as people write them: a whole number and its unit, such as 30m or 7d."""

import re

DURATION_PATTERN = "^[1-9][0-9]{0,4}[smhdw]$"
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(text: str, *, most_s: int | None = None) -> int:
    """Read a duration.

    Args:
        text: as DURATION_PATTERN says.
        most_s: the longest that is taken, in seconds, whole days; None: any.

    Returns:
        seconds, above 0.

    Raises:
        ValueError: it is none, or too long.
    """
    if re.fullmatch(DURATION_PATTERN, text):
        seconds = int(text[:-1]) * _UNIT_S[text[-1]]
        if most_s is None or seconds <= most_s:
            return seconds
    limit = f" of up to {most_s // _UNIT_S['d']}d" if most_s else ""
    raise ValueError(f"a time{limit} is needed, a number of s, m, h, d or w, such as 30m, 24h or 7d")
