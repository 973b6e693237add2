"""A part of a photo: the box that a request names, its form as text, and its pixels."""

import re
from math import isfinite
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from shared.errors import InvalidRequest

MIN_SIDE_PX = 16
_TOLERANCE = 1e-6  # of sums of rounded numbers
_FRACTION = r"(?:0(?:\.[0-9]{1,18})?|1(?:\.0{1,18})?)"
BOX_PATTERN = rf"^{_FRACTION}(?:,{_FRACTION}){{3}}$"
BOX_DESCRIPTION = (
    "only this part of the upright photo: x,y,w,h in fractions of its width and height, from the left and the top; "
    f"inside the photo, and {MIN_SIDE_PX} px at least on each side"
)
_FORM = "must be x,y,w,h: four numbers from 0 to 1, such as 0.1,0.2,0.5,0.5"


class Box(NamedTuple):
    """A part of the upright photo, in fractions of its width and height, from the left and the top.

    Attributes:
        x: left edge.
        y: upper edge.
        w: width.
        h: height.
    """

    x: float
    y: float
    w: float
    h: float

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge in the pixels of the upright photo, rounded."""
        right, lower = min(1.0, self.x + self.w), min(1.0, self.y + self.h)
        return round(self.x * width), round(self.y * height), round(right * width), round(lower * height)

    def require_pixels(self, width: int, height: int) -> None:
        """Check that the part has enough pixels.

        Args:
            width, height: pixels of the upright photo.

        Raises:
            InvalidRequest: a side has fewer than `MIN_SIDE_PX`.
        """
        left, upper, right, lower = self.pixels(width, height)
        if min(right - left, lower - upper) < MIN_SIDE_PX:
            raise InvalidRequest(
                f"box: it has {right - left}x{lower - upper} px of the photo's {width}x{height}; "
                f"{MIN_SIDE_PX} px on each side are needed"
            )


def _numbers(given: object) -> object:
    """Split `x,y,w,h` into numbers; a list of numbers passes."""
    if not isinstance(given, str):
        return given
    if not re.fullmatch(BOX_PATTERN.removesuffix("$"), given):
        raise ValueError(_FORM)
    return tuple(map(float, given.split(",")))


def _inside(box: Box) -> Box:
    if not all(isfinite(number) and 0 <= number <= 1 for number in box):
        raise ValueError(_FORM)
    if not (box.w and box.h):
        raise ValueError("w and h must be more than 0")
    if box.x + box.w > 1 + _TOLERANCE or box.y + box.h > 1 + _TOLERANCE:
        raise ValueError("it goes beyond the photo: x + w and y + h must be 1 at most")
    return box


# In a form as text, in a job's record as a list.
BoxOption = Annotated[
    Box,
    BeforeValidator(_numbers),
    AfterValidator(_inside),
    WithJsonSchema({"type": "string", "pattern": BOX_PATTERN, "example": "0.25,0.1,0.5,0.6"}),
]
