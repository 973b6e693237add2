"""Tells whether two thumbnails show the same picture: lays one over the other by an affine map, then correlates them.

Copies that were cropped, mirrored, slightly rotated, watermarked, resized or recompressed then agree in nearly every
part; other photos of the same thing do not, however alike they are, because what is nearer moves farther. The map is
found by Gauss-Newton steps, coarse to fine, for many pairs at a time: S. Baker and I. Matthews, "Lucas-Kanade 20 Years
On" (2004), inverse compositional.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray

SIDE_PX = 96
# Measured by `tests.benchmarks.duplicates` on 1,000 copies and on 1,115 pairs of photos that are of one listing: of the
# copies 98 in 100 reach both, and photos taken one after another from the same place do not.
SAME_FROM = 0.9  # correlation of the median part of the picture
_MOST_SHIFT_PX = 0.13  # of the median part
_SMALL_PX, _SMALL_FROM = 6, 0.4
_COARSE_PX, _COARSE_STEPS, _COARSE_FROM = 16, 8, 0.8
_MIDDLE_PX, _MIDDLE_STEPS, _MIDDLE_FROM = 48, 8, 0.85
_FINE_STEPS = 8
_SLOW_FROM, _MORE_STEPS = 0.97, 8  # turned pictures that are far from square need more steps
_N_BLOCKS = 6  # in a row: the parts of a picture that are compared
_FLAT_LEVELS = 3.0  # of standard deviation: a part with less has nothing to be compared
_FEWEST_PARTS = 4  # of 36 that have something to be compared: a blank page looks like any other
_LEAST_SLOPE = 0.5  # so that what has no edges has no shift
_LEAST_OVERLAP = 0.4
_DAMPING = 1e-3
_OUTLIER, _NOISE = 4.5, 0.05  # medians of the residuals; levels of a picture of standard deviation 1
_MOST_STEP = 0.25
_MEDIAN_OF = 7  # every so many pixels: enough to know a median
_AT_ONCE = 128  # pairs: their arrays stay in the processor's cache

Grey = npt.NDArray[np.uint8]  # (n, SIDE_PX, SIDE_PX)


class Agreement(NamedTuple):
    """How well the thumbnails of some pairs lie over one another.

    Attributes:
        same: (n,) whether both show the same picture.
        correlation: (n,) float32, that of the median part of the picture, -1..1; 0 where they are quite unlike.
        mirrored: (n,) whether the second is the mirror image of the first.
    """

    same: npt.NDArray[np.bool_]
    correlation: FloatArray
    mirrored: npt.NDArray[np.bool_]


def agreement(ones: Grey, others: Grey) -> Agreement:
    """Compare pairs of thumbnails.

    Args:
        ones: (n, SIDE_PX, SIDE_PX) uint8.
        others: the same, one for each.
    """
    if not len(ones):
        return Agreement(np.zeros(0, np.bool_), np.zeros(0, np.float32), np.zeros(0, np.bool_))
    parts = [_agreement(ones[i : i + _AT_ONCE], others[i : i + _AT_ONCE]) for i in range(0, len(ones), _AT_ONCE)]
    return Agreement(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def reduce_greys(greys: Grey) -> FloatArray:
    """Reduce thumbnails to what tells at once that two cannot be the same picture; see `alike`.

    Args:
        greys: (n, SIDE_PX, SIDE_PX) uint8.

    Returns:
        (n, 2, d) float32 of L2 norm 1: upright and mirrored.
    """
    small = _reduced(greys.astype(np.float32), _SMALL_PX)
    both = np.stack([small, small[:, :, ::-1]], axis=1).reshape(len(greys), 2, -1)
    both -= both.mean(axis=2, keepdims=True)
    reduced: FloatArray = both / (np.linalg.norm(both, axis=2, keepdims=True) + 1e-6)
    return reduced


def alike(ones: FloatArray, others: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which pairs may be the same picture, by what `reduce_greys` gave.

    Args:
        ones: (n, 2, d).
        others: the same, one for each.

    Returns:
        (n, 2): whether they may be it upright, and mirrored.
    """
    worth: npt.NDArray[np.bool_] = np.vecdot(ones[:, :1], others) >= _SMALL_FROM
    return worth


def _agreement(ones: Grey, others: Grey) -> Agreement:
    """Align each pair upright and mirrored, one over the other and the other over the one, until they are the same."""
    n = len(ones)
    worth = alike(reduce_greys(ones), reduce_greys(others))
    a, b = ones.astype(np.float32), others.astype(np.float32)
    small_a, small_b = _reduced(a, _COARSE_PX), _reduced(b, _COARSE_PX)
    best = Agreement(np.zeros(n, np.bool_), np.zeros(n, np.float32), np.zeros(n, np.bool_))
    for mirrored in (False, True):
        for one, other, small, small_other in ((a, b, small_a, small_b), (b, a, small_b, small_a)):
            rows = np.flatnonzero(worth[:, int(mirrored)] & ~best.same)
            turned = slice(None, None, -1 if mirrored else 1)
            maps, fit = _align(small[rows], small_other[rows, :, turned], _COARSE_STEPS, robust=False)
            near = fit >= _COARSE_FROM
            rows = rows[near]
            same, correlation = _refined(one[rows], other[rows, :, turned], maps[near])
            better = correlation > best.correlation[rows]
            best.same[rows] |= same
            best.mirrored[rows[better]] = mirrored
            best.correlation[rows[better]] = correlation[better]
    return best


def _refined(a: FloatArray, b: FloatArray, maps: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Align pairs finely, and compare them; what `_compared` returns."""
    same, correlation = np.zeros(len(a), np.bool_), np.zeros(len(a), np.float32)
    middle_a, middle_b = _reduced(a, _MIDDLE_PX), _reduced(b, _MIDDLE_PX)
    maps, _ = _align(middle_a, middle_b, _MIDDLE_STEPS, maps)
    if len(near := np.flatnonzero(_compared(middle_a, middle_b, maps)[1] >= _MIDDLE_FROM)):
        a, b = a[near], b[near]
        maps, _ = _align(a, b, _FINE_STEPS, maps[near])
        found, fit = _compared(a, b, maps)
        if len(slow := np.flatnonzero(~found & (fit >= _SLOW_FROM))):
            maps, _ = _align(a[slow], b[slow], _MORE_STEPS, maps[slow])
            found[slow], fit[slow] = _compared(a[slow], b[slow], maps)
        same[near], correlation[near] = found, fit
    return same, correlation


def _identity(n: int) -> FloatArray:
    return np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))


@lru_cache
def _grid(side: int) -> FloatArray:
    """Homogeneous coordinates of a square's pixels, -1..1: (3, side * side)."""
    at = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
    x, y = np.meshgrid(at, at)
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side, dtype=np.float32)])


def _reduced(grey: FloatArray, side: int) -> FloatArray:
    n, by = len(grey), grey.shape[1] // side
    means: FloatArray = grey.reshape(n, side, by, side, by).mean(axis=(2, 4))
    return means


def _warped(b: FloatArray, maps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Look at images through affine maps, between pixels by bilinear interpolation.

    Args:
        b: (n, side, side).
        maps: (n, 3, 3), from coordinates of the result to those of `b`.

    Returns:
        (n, side * side) each: the levels, and 1 where a pixel lies on `b`, else 0.
    """
    n, side, _ = b.shape
    at = maps[:, :2] @ _grid(side)  # (n, 2, pixels)
    at += 1
    at *= side / 2
    at -= 0.5
    inside = np.abs(at - (side - 1) / 2).max(axis=1) < side / 2
    np.clip(at, 0, side - 1.001, out=at)
    whole = at.astype(np.int32)
    at -= whole
    corner = whole[:, 1].astype(np.intp) * side + whole[:, 0] + (np.arange(n) * side * side)[:, None]
    flat, x, y = b.reshape(n * side * side), at[:, 0], at[:, 1]
    top, bottom = flat.take(corner), flat.take(corner + side)
    corner += 1
    top += (flat.take(corner) - top) * x
    corner += side
    bottom += (flat.take(corner) - bottom) * x
    bottom -= top
    bottom *= y
    bottom += top
    return bottom, inside.astype(np.float32)


def _standard(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Give (n, pixels) mean 0 and standard deviation 1, as weighted."""
    total = weights.sum(axis=1, keepdims=True) + 1e-6
    centred = values - np.vecdot(values, weights)[:, None] / total
    scaled: FloatArray = centred / np.sqrt(np.vecdot(centred * centred, weights)[:, None] / total + 1)
    return scaled


def _align(
    a: FloatArray, b: FloatArray, n_steps: int, maps: FloatArray | None = None, *, robust: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Improve affine maps so that `b`, seen through them, looks like `a`, brightness and contrast aside.

    Args:
        a, b: (n, side, side) float32.
        n_steps: Gauss-Newton steps.
        maps: (n, 3, 3), to begin with; None: pictures lie as they are.
        robust: let pixels that differ much count less, as those of a watermark do.

    Returns:
        the maps, and the correlation (n,) of what overlaps; 0 where too little does.
    """
    n, side, _ = a.shape
    n_pixels = side * side
    maps = _identity(n) if maps is None else maps
    flat, b = a.reshape(n, n_pixels), np.ascontiguousarray(b)
    gy, gx = np.gradient(_standard(flat, np.ones_like(flat)).reshape(a.shape), 2 / side, axis=(1, 2))
    gx, gy = gx.reshape(n, n_pixels), gy.reshape(n, n_pixels)
    x, y, _ = _grid(side)
    jacobian = np.stack([gx * x, gx * y, gx, gy * x, gy * y, gy], axis=1)  # (n, 6, pixels)
    inverse = _inverse(jacobian @ jacobian.transpose(0, 2, 1))
    change, trusted = _identity(n), np.ones_like(flat)
    for _ in range(n_steps):
        seen, inside = _warped(b, maps)
        weights = inside * trusted
        residual = _standard(seen, weights) - _standard(flat, weights)
        if robust:
            scale = np.median(np.abs(residual[:, ::_MEDIAN_OF]), axis=1, keepdims=True) * _OUTLIER + _NOISE
            trusted = 1 / np.square(1 + np.square(residual / scale))
            weights = inside * trusted
            weighted = jacobian * weights[:, None]
            inverse = _inverse(weighted @ jacobian.transpose(0, 2, 1))
            step = (inverse @ (weighted @ residual[..., None]))[..., 0]
        else:
            residual *= weights
            step = (inverse @ (jacobian @ residual[..., None]))[..., 0]
            step *= n_pixels / (weights.sum(axis=1, keepdims=True) + 1)
        np.clip(step, -_MOST_STEP, _MOST_STEP, out=step)
        change[:, :2] = step.reshape(n, 2, 3)
        change[:, (0, 1), (0, 1)] += 1
        maps = np.clip(maps @ np.linalg.inv(change), -2, 2)
    seen, inside = _warped(b, maps)
    total = inside.sum(axis=1)
    fit = np.vecdot(_standard(seen, inside) * inside, _standard(flat, inside)) / (total + 1)
    return maps, np.where(total < n_pixels * _LEAST_OVERLAP, 0, fit).astype(np.float32)


def _inverse(hessian: FloatArray) -> FloatArray:
    """Invert (n, 6, 6) matrices, damped as Levenberg and Marquardt do."""
    damping = np.trace(hessian, axis1=1, axis2=2)[:, None, None] * _DAMPING + _DAMPING
    inverse: FloatArray = np.linalg.inv(hessian + np.eye(6, dtype=np.float32) * damping)
    return inverse


def _compared(a: FloatArray, b: FloatArray, maps: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Compare aligned pictures part by part: whether they are the same, and the correlation of the median part.

    Parts of a copy lie where they should, however noisy it is. Those of another photo are shifted, each by its own bit.
    """
    side = a.shape[1]
    seen, inside = _warped(b, maps)
    weights = _blocks(inside)
    total = weights.sum(axis=2) + 1e-6

    def centred(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        around = (values - (np.vecdot(values, weights) / total)[..., None]) * weights
        return around, np.sqrt(np.vecdot(around, around) / total)

    flat = a.reshape(len(a), side * side)
    (one, spread), (other, other_spread) = centred(_blocks(flat)), centred(_blocks(seen))
    varied = (total >= weights.shape[2] / 2) & (np.maximum(spread, other_spread) > _FLAT_LEVELS)
    n_varied = varied.sum(axis=1)
    enough = (n_varied >= _FEWEST_PARTS) & (inside.mean(axis=1) >= _LEAST_OVERLAP)
    rows, last = np.arange(len(a)), np.maximum(n_varied - 1, 0)
    correlation = np.vecdot(one, other) / total / (spread * other_spread + 1e-6)
    correlation = np.sort(np.where(varied, correlation, 2), axis=1)[rows, last // 2]  # parts without detail last
    shift = _shifts(_standard(flat, inside) * inside, _standard(seen, inside) * inside, weights)
    shift = np.sort(np.where(varied, shift, side), axis=1)[rows, last // 2]
    same = enough & (correlation >= SAME_FROM) & (shift <= _MOST_SHIFT_PX)
    return same, np.where(enough, correlation, 0).astype(np.float32)


def _shifts(one: FloatArray, other: FloatArray, weights: FloatArray) -> FloatArray:
    """How far each part of one picture (n, pixels) is from where it is in the other, in pixels: (n, parts)."""
    side = math.isqrt(one.shape[1])
    shape = (len(one), side, side)
    mean: Any = np.reshape((one + other) / 2, shape)
    gx, gy = (_blocks(np.gradient(mean, axis=axis).reshape(one.shape)) * weights for axis in (2, 1))
    residual = _blocks(other - one)
    residual -= (np.vecdot(residual, weights) / (weights.sum(axis=2) + 1e-6))[..., None]
    xx, yy, xy = np.vecdot(gx, gx) + _LEAST_SLOPE, np.vecdot(gy, gy) + _LEAST_SLOPE, np.vecdot(gx, gy)
    rx, ry = np.vecdot(gx, residual), np.vecdot(gy, residual)
    found: FloatArray = np.hypot(yy * rx - xy * ry, xx * ry - xy * rx) / (xx * yy - xy * xy)
    return found


def _blocks(values: FloatArray) -> FloatArray:
    """Cut (n, pixels) into square parts: (n, parts, pixels of a part)."""
    n, n_pixels = values.shape
    size = math.isqrt(n_pixels) // _N_BLOCKS
    parts = values.reshape(n, _N_BLOCKS, size, _N_BLOCKS, size).transpose(0, 1, 3, 2, 4)
    return parts.reshape(n, _N_BLOCKS**2, size**2)
