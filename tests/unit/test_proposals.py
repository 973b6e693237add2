"""Proposed boxes: cut where features differ, without plain margins, in fractions of the upright photo."""

import numpy as np
import pytest

from shared.array_types import FloatArray
from shared.model.proposals import propose_boxes
from shared.photos.boxes import Box
from shared.photos.images import Pixels
from shared.photos.preprocessing import Fit

SIDE = 224
RNG = np.random.default_rng(17)


def noise() -> Pixels:
    return RNG.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def two_kinds(n: int, left: int) -> FloatArray:
    """Features (2, n, n) of one kind in the first `left` columns, and of another in the rest."""
    maps = np.zeros((2, n, n), dtype=np.float32)
    maps[0, :, :left], maps[1, :, left:] = 1, 1
    return maps


def near(box: Box, *sides: float) -> bool:
    return bool(np.allclose(box, sides, atol=0.05))


def test_a_photo_of_two_things_is_cut_between_them() -> None:
    first, second = propose_boxes([two_kinds(14, 6), two_kinds(7, 3)], noise(), "stretch", 800, 400)[:2]
    assert near(min(first.box, second.box), 0, 0, 3 / 7, 1)
    assert near(max(first.box, second.box), 3 / 7, 0, 4 / 7, 1)
    assert first.score > 0.8


@pytest.mark.parametrize(
    ("fit", "width", "height", "left"),
    [("letterbox", 400, 800, 0.5), ("crop", 800, 400, 0.5), ("crop", 400, 800, 0.5), ("letterbox", 800, 400, 0.5)],
)
def test_boxes_are_in_fractions_of_the_photo_however_it_was_made_square(
    fit: Fit, width: int, height: int, left: float
) -> None:
    maps = [two_kinds(14, 7)]
    boxes = [one.box for one in propose_boxes(maps, noise(), fit, width, height)]
    start, stop = (0.25, 0.75) if (fit, width) == ("crop", 800) else (0.0, 1.0)
    upper, lower = (0.25, 0.75) if (fit, height) == ("crop", 800) else (0.0, 1.0)
    assert any(near(box, start, upper, left - start, lower - upper) for box in boxes)
    assert any(near(box, left, upper, stop - left, lower - upper) for box in boxes)


def test_plain_margins_are_left_out() -> None:
    pixels = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    pixels[:, :112] = noise()[:, :112]
    pixels[80:150, 130:200] = noise()[80:150, 130:200]
    boxes = [one.box for one in propose_boxes([two_kinds(14, 7)], pixels, "stretch", 500, 500)]
    assert any(near(box, 130 / SIDE, 80 / SIDE, 70 / SIDE, 70 / SIDE) for box in boxes)


def test_nothing_is_proposed_where_all_is_alike_or_parts_would_be_too_small() -> None:
    assert propose_boxes([np.ones((3, 14, 14), dtype=np.float32)], noise(), "letterbox", 300, 200) == []
    assert propose_boxes([two_kinds(14, 7)], noise(), "stretch", 30, 30) == []
