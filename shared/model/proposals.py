"""Proposes boxes: parts of a photo that may each show a thing of its own, from the feature maps of the network.

The photo is cut in two where the features on both sides differ most, by Ward's criterion, and each part once more.
Margins of one colour are taken off the parts. No detector and no other weights than the model's own are needed.
"""

from collections.abc import Iterator, Sequence
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray
from shared.photos.boxes import MIN_SIDE_PX, Box
from shared.photos.images import Pixels
from shared.photos.preprocessing import Fit

_GRID = 14  # cells of a side: maps of all levels are brought to it
_CUTS = 2  # one within the other: at most two parts, and two of each
_LEAST_SIDE = 0.15  # of what is cut
_PLAIN_LEVELS = 14  # within which a margin is of one colour
_MARGIN_NOISE = 0.03  # of a margin's pixels may differ more
_SAME_IOU = 0.8  # boxes that overlap so much are one
_LEAST_SCORE = 0.005
_WHOLE = 0.9  # of the photo: a box that covers more is no part

_Edges = tuple[float, float, float, float]  # left, upper, right, lower


class Proposal(NamedTuple):
    """A part of a photo that may show a thing of its own.

    Attributes:
        box: of the upright photo.
        score: share of the differences in the photo that the cut beside it accounts for, 0..1.
    """

    box: Box
    score: float


def propose_boxes(maps: Sequence[FloatArray], pixels: Pixels, fit: Fit, width: int, height: int) -> list[Proposal]:
    """Propose parts of a photo, the surest first; at most six, none where all of it is alike.

    Args:
        maps: (c, h, w) each, of several levels of the network.
        pixels: (S, S, 3) uint8, what the network saw.
        fit: how the photo was made square.
        width, height: of the upright photo in pixels.
    """
    left, upper, right, lower = _shown(fit, width, height)
    features = np.concatenate([_on_grid(one) for one in maps])
    cells = (floor(left * _GRID), floor(upper * _GRID), ceil(right * _GRID), ceil(lower * _GRID))
    of_square = [
        (
            score,
            _trimmed(pixels, tuple(np.clip(np.array(part) / _GRID, (left, upper) * 2, (right, lower) * 2).tolist())),
        )
        for score, part in _parts(features, cells)
        if score >= _LEAST_SCORE
    ]
    found: list[tuple[float, _Edges]] = []
    whole = (right - left) * (lower - upper)
    for score, part in sorted(of_square, reverse=True):
        if _area(part) < _WHOLE * whole and all(_iou(part, other) < _SAME_IOU for _, other in found):
            found.append((score, part))
    proposals = [Proposal(_box(part, fit, width, height), round(score, 4)) for score, part in found]
    return [one for one in proposals if min(one.box.w * width, one.box.h * height) >= MIN_SIDE_PX + 1]


def _shown(fit: Fit, width: int, height: int) -> _Edges:
    """The part of the network's square that shows the photo, in fractions of the square."""
    if fit != "letterbox":
        return 0.0, 0.0, 1.0, 1.0
    across, down = width / max(width, height), height / max(width, height)
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def _box(part: _Edges, fit: Fit, width: int, height: int) -> Box:
    """The box of the photo that is a part of the square."""
    across, down = 1.0, 1.0  # sides of the square, in those of the photo
    if fit == "letterbox":
        across, down = max(width, height) / width, max(width, height) / height
    elif fit == "crop":
        across, down = min(width, height) / width, min(width, height) / height
    left, upper, right, lower = (
        min(1.0, max(0.0, 0.5 + (edge - 0.5) * side))
        for edge, side in zip(part, (across, down, across, down), strict=True)
    )
    x, y = round(left, 4), round(upper, 4)
    return Box(x, y, round(min(right - left, 1 - x), 4), round(min(lower - upper, 1 - y), 4))


def _on_grid(one: FloatArray) -> FloatArray:
    """Bring a map (c, h, w) to (c, _GRID, _GRID) and mean length 1, so that all levels count alike."""
    for axis in (1, 2):
        n = one.shape[axis]
        if n > _GRID and n % _GRID == 0:
            shape = (*one.shape[:axis], _GRID, n // _GRID, *one.shape[axis + 1 :])
            one = one.reshape(shape).mean(axis=axis + 1)
        else:
            at = np.clip((np.arange(_GRID) + 0.5) * n / _GRID - 0.5, 0, n - 1)
            low = np.floor(at).astype(int)
            share = (at - low).astype(np.float32).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
            high = np.minimum(low + 1, n - 1)
            one = one.take(low, axis) * (1 - share) + one.take(high, axis) * share
    scaled: FloatArray = one / (np.linalg.norm(one, axis=0).mean() + 1e-6)
    return scaled


def _parts(features: FloatArray, cells: tuple[int, int, int, int]) -> Iterator[tuple[float, tuple[int, int, int, int]]]:
    """Cut cells in two, and the parts once more: the share of all differences that a cut takes, and each part."""
    x0, y0, x1, y1 = cells
    inside = features[:, y0:y1, x0:x1]
    total = float(np.square(inside - inside.mean(axis=(1, 2), keepdims=True)).sum())
    total += 1e-6 * float(np.square(inside).sum()) + 1e-9  # so that rounding is no difference
    whole = [cells]
    for _ in range(_CUTS):
        halves = []
        for x0, y0, x1, y1 in whole:
            if best := max(_cuts(features[:, y0:y1, x0:x1]), default=None):
                gain, axis, at = best
                if axis == 1:
                    two = [(x0, y0, x1, y0 + at), (x0, y0 + at, x1, y1)]
                else:
                    two = [(x0, y0, x0 + at, y1), (x0 + at, y0, x1, y1)]
                halves += two
                yield from ((gain / total, part) for part in two)
        whole = halves


def _cuts(features: FloatArray) -> Iterator[tuple[float, int, int]]:
    """The possible cuts of features (c, h, w): how much less they differ within the two parts, the axis, and where."""
    for axis in (1, 2):
        n, n_across = features.shape[axis], features.shape[3 - axis]
        summed = features.sum(axis=3 - axis).cumsum(axis=1)  # (c, n)
        least = max(1, round(_LEAST_SIDE * n))
        for at in range(least, n - least + 1):
            if at < n:
                before = summed[:, at - 1] / (at * n_across)
                after = (summed[:, -1] - summed[:, at - 1]) / ((n - at) * n_across)
                yield at * (n - at) / n * n_across * float(np.square(before - after).sum()), axis, at


def _trimmed(pixels: Pixels, part: Sequence[float]) -> _Edges:
    """Take margins of one colour off a part of the square, and leave at least a quarter of each side."""
    size = len(pixels)
    left, upper, right, lower = (round(edge * size) for edge in part)
    shown = pixels[upper:lower, left:right].astype(np.int16)
    if not shown.size:
        return part[0], part[1], part[2], part[3]
    top, bottom = _margins(shown)
    before, after = _margins(shown[top : len(shown) - bottom].transpose(1, 0, 2))
    return (left + before) / size, (upper + top) / size, (right - after) / size, (lower - bottom) / size


def _margins(rows: npt.NDArray[np.int16]) -> tuple[int, int]:
    """Count the rows of one colour at the beginning and the end of (h, w, 3), three eighths of all each at most."""
    differs = (np.abs(rows - np.median(rows, axis=1, keepdims=True)) > _PLAIN_LEVELS).any(axis=2).mean(axis=1)
    varied = np.flatnonzero(differs >= _MARGIN_NOISE)
    most = 3 * len(rows) // 8
    return (min(int(varied[0]), most), min(len(rows) - 1 - int(varied[-1]), most)) if len(varied) else (0, 0)


def _area(part: _Edges) -> float:
    return (part[2] - part[0]) * (part[3] - part[1])


def _iou(one: _Edges, other: _Edges) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, across) * max(0.0, down)
    return common / (_area(one) + _area(other) - common + 1e-9)
