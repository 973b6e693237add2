"""A part of a photo, in the forms in which callers have it, as the text that is sent."""

from collections.abc import Sequence
from math import isfinite

from lookalike.errors import InputError

_TOLERANCE = 1e-6  # of sums of rounded numbers, as the service has it
_DIGITS = 9


def box_text(box: object) -> str:
    """Write a box as `x,y,w,h`.

    Args:
        box: left edge, upper edge, width and height, each in fractions of the upright photo's; or that text.

    Raises:
        InputError: it is no such box, or not inside the photo.
    """
    x, y, w, h = _numbers(box)
    if not all(isfinite(number) and 0 <= number <= 1 for number in (x, y, w, h)):
        raise InputError(f"box: x, y, w and h are fractions of the photo, from 0 to 1, not {box!r:.100}")
    written = [f"{number:.{_DIGITS}f}".rstrip("0").rstrip(".") for number in (x, y, w, h)]
    if "0" in written[2:]:
        raise InputError("box: width and height must be more than 0")
    if x + w > 1 + _TOLERANCE or y + h > 1 + _TOLERANCE:
        raise InputError("box: it goes beyond the photo; x + w and y + h must be 1 at most")
    return ",".join(written)


def _numbers(box: object) -> list[float]:
    """The four numbers of a box; scalars of numpy become Python's."""
    parts = box.split(",") if isinstance(box, str) else box
    if hasattr(parts, "tolist"):
        parts = parts.tolist()
    try:
        if isinstance(parts, Sequence) and len(parts) == 4 and not any(isinstance(part, bool) for part in parts):
            return [float(part) for part in parts]
    except (TypeError, ValueError):
        pass
    raise InputError(f"box: four numbers are needed, x, y, w, h, not {box!r:.100}")
