"""Reads durations as people write them: a whole number and its unit, such as 30m or 7d."""

import re

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MOST = 99_999  # of any unit


def duration_pattern(most_s: int | None = None) -> str:
    """The regular expression of the durations that `parse_duration` reads with the same `most_s`."""
    most = {unit: min(_MOST, most_s // unit_s if most_s else _MOST) for unit, unit_s in _UNIT_S.items()}
    return f"^({'|'.join(f'({_up_to(n)}){unit}' for unit, n in most.items() if n)})$"


def _up_to(most: int) -> str:
    """The regular expression of the whole numbers from 1 to another."""
    digits = str(most + 1)
    rest = len(digits) - 1
    parts = [f"[1-9][0-9]{{0,{rest - 1}}}"] if rest else []
    for place, digit in enumerate(map(int, digits)):
        first = 0 if place else 1
        if digit > first:
            parts.append(f"{digits[:place]}[{first}-{digit - 1}]" + "[0-9]" * (rest - place))
    return "|".join(parts)


def parse_duration(text: str, *, most_s: int | None = None) -> int:
    """Read a duration.

    Args:
        text: a number and its unit.
        most_s: the longest that is taken, in seconds, whole days; None: any.

    Returns:
        seconds, above 0.

    Raises:
        ValueError: it is none, or too long.
    """
    if re.fullmatch(duration_pattern(most_s), text):
        return int(text[:-1]) * _UNIT_S[text[-1]]
    limit = f" of up to {most_s // _UNIT_S['d']}d" if most_s else ""
    raise ValueError(f"a time{limit} is needed, a number of s, m, h, d or w, such as 30m, 24h or 7d")
