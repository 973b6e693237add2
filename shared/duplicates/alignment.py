"""Tells whether two thumbnails show the same picture: lays one over the other by an affine map, then correlates them.

Copies that were cropped, mirrored, slightly rotated, watermarked, resized or recompressed then agree in nearly every
part; other photos of the same thing do not, however alike they are, because what is nearer moves farther. The map is
found by Gauss-Newton steps, coarse to fine, for many pairs at a time: S. Baker and I. Matthews, "Lucas-Kanade 20 Years
On" (2004), inverse compositional.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray

SIDE_PX = 96
# Measured by `tests.benchmarks.duplicates` on 1,000 copies and on 1,115 pairs of photos that are of one listing.
SAME_FROM = 0.9  # correlation in three of four parts of the picture; or in most of them:
SAME_MOSTLY_FROM = 0.99
_PREFILTER_PX, _PREFILTER_FROM = 6, 0.5
_COARSE_PX, _COARSE_STEPS, _COARSE_FROM = 16, 8, 0.6
_MIDDLE_PX, _MIDDLE_STEPS, _MIDDLE_FROM = 48, 8, 0.6
_FINE_STEPS = 8
_BLOCK_PX = 8
_N_BLOCKS = SIDE_PX // _BLOCK_PX
_FLAT_LEVELS = 3.0  # of standard deviation: a part with less has nothing to be compared
_FEWEST_PARTS = 12  # of 144 that have something to be compared: a blank page looks like any other
_LEAST_OVERLAP = 0.4
_CERTAIN = 0.95  # correlation: nothing better is looked for
_DAMPING = 1e-3
_MOST_STEP = 0.25
_AT_ONCE = 64  # pairs: their arrays stay in the processor's cache

Grey = npt.NDArray[np.uint8]  # (n, SIDE_PX, SIDE_PX)


class Agreement(NamedTuple):
    """How well the thumbnails of some pairs lie over one another.

    Attributes:
        same: (n,) whether both show the same picture.
        correlation: (n,) float32, what three of four parts of the picture reach, -1..1; 0 where they are quite unlike.
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


def prefilter(greys: Grey) -> FloatArray:
    """Reduce thumbnails to what tells at once that two cannot be the same picture.

    Args:
        greys: (n, SIDE_PX, SIDE_PX) uint8.

    Returns:
        (n, 2, d) float32 of L2 norm 1: upright and mirrored. The products of one's upright with another's two are what
        `alike` looks at.
    """
    small = _reduced(greys.astype(np.float32), _PREFILTER_PX)
    both = np.stack([small, small[:, :, ::-1]], axis=1).reshape(len(greys), 2, -1)
    both -= both.mean(axis=2, keepdims=True)
    reduced: FloatArray = both / (np.linalg.norm(both, axis=2, keepdims=True) + 1e-6)
    return reduced


def alike(ones: FloatArray, others: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which pairs may be the same picture, from what `prefilter` gave: (n, 2, d) each -> (n,)."""
    worth: npt.NDArray[np.bool_] = np.vecdot(ones[:, :1], others).max(axis=1) >= _PREFILTER_FROM
    return worth


def _agreement(ones: Grey, others: Grey) -> Agreement:
    """Align each pair upright and mirrored, one over the other and the other over the one, and keep the best."""
    n = len(ones)
    a, b = ones.astype(np.float32), others.astype(np.float32)
    hypotheses = [(a, b, False), (b, a, False), (a, b[:, :, ::-1], True), (b, a[:, :, ::-1], True)]
    coarse = [
        _align(_reduced(one, _COARSE_PX), _reduced(other, _COARSE_PX), _identity(n), _COARSE_STEPS, robust=False)
        for one, other, _ in hypotheses
    ]
    fits = np.stack([fit for _, fit in coarse])
    best = Agreement(np.zeros(n, np.bool_), np.zeros(n, np.float32), fits[2:].max(axis=0) > fits[:2].max(axis=0))
    for (one, other, mirrored), (maps, fit) in zip(hypotheses, coarse, strict=True):
        rows = np.flatnonzero((fit >= _COARSE_FROM) & (best.mirrored == mirrored) & (best.correlation < _CERTAIN))
        if not len(rows):
            continue
        same, correlation = _refined(one[rows], other[rows], maps[rows])
        best.same[rows] |= same
        best.correlation[rows] = np.maximum(best.correlation[rows], correlation)
    return best


def _refined(a: FloatArray, b: FloatArray, maps: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Align pairs finely, and compare them; what `_compared` returns."""
    same, correlation = np.zeros(len(a), np.bool_), np.zeros(len(a), np.float32)
    maps, fit = _align(_reduced(a, _MIDDLE_PX), _reduced(b, _MIDDLE_PX), maps, _MIDDLE_STEPS)
    if len(near := np.flatnonzero(fit >= _MIDDLE_FROM)):
        a, b = a[near], b[near]
        maps, _ = _align(a, b, maps[near], _FINE_STEPS)
        same[near], correlation[near] = _compared(a, b, maps)
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
    flat, x, y = b.reshape(-1), at[:, 0], at[:, 1]
    top, bottom = flat.take(corner), flat.take(corner + side)
    corner += 1
    top += (flat.take(corner) - top) * x
    corner += side
    bottom += (flat.take(corner) - bottom) * x
    bottom -= top
    bottom *= y
    bottom += top
    return bottom, inside.astype(np.float32)


def _standard(values: FloatArray, inside: FloatArray, total: FloatArray) -> FloatArray:
    centred = (values - np.vecdot(values, inside)[:, None] / total) * inside
    scaled: FloatArray = centred / np.sqrt(np.vecdot(centred, centred)[:, None] / total + 1)
    return scaled


def _align(
    a: FloatArray, b: FloatArray, maps: FloatArray, n_steps: int, *, robust: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Improve affine maps so that `b`, seen through them, looks like `a`, brightness and contrast aside.

    Args:
        a, b: (n, side, side) float32.
        maps: (n, 3, 3), to begin with.
        n_steps: Gauss-Newton steps.
        robust: let pixels that differ much count less, as those of a watermark do.

    Returns:
        the maps, and the correlation (n,) of what overlaps; 0 where too little does.
    """
    n, side, _ = a.shape
    n_pixels = side * side
    flat, b = a.reshape(n, -1), np.ascontiguousarray(b)
    everywhere = np.full((n, 1), n_pixels, np.float32)
    gy, gx = np.gradient(_standard(flat, np.ones_like(flat), everywhere).reshape(a.shape), 2 / side, axis=(1, 2))
    gx, gy = gx.reshape(n, -1), gy.reshape(n, -1)
    x, y, _ = _grid(side)
    jacobian = np.stack([gx * x, gx * y, gx, gy * x, gy * y, gy], axis=1)  # (n, 6, pixels)
    hessian = jacobian @ jacobian.transpose(0, 2, 1)
    hessian += np.eye(6, dtype=np.float32) * (np.trace(hessian, axis1=1, axis2=2)[:, None, None] * _DAMPING + _DAMPING)
    inverse = np.linalg.inv(hessian)
    change = _identity(n)
    for _ in range(n_steps):
        seen, weights = _warped(b, maps)
        total = weights.sum(axis=1, keepdims=True) + 1
        residual = _standard(seen, weights, total) - _standard(flat, weights, total)
        if robust:
            weights /= 1 + residual * residual / 4
            residual *= weights
            total = weights.sum(axis=1, keepdims=True) + 1
        step = (inverse @ (jacobian @ residual[..., None]))[..., 0] * (n_pixels / total)
        np.clip(step, -_MOST_STEP, _MOST_STEP, out=step)
        change[:, :2] = step.reshape(n, 2, 3)
        change[:, (0, 1), (0, 1)] += 1
        maps = np.clip(maps @ np.linalg.inv(change), -2, 2)
    seen, inside = _warped(b, maps)
    total = inside.sum(axis=1, keepdims=True) + 1
    fit = np.vecdot(_standard(seen, inside, total), _standard(flat, inside, total)) / total[:, 0]
    return maps, np.where(total[:, 0] < n_pixels * _LEAST_OVERLAP, 0, fit).astype(np.float32)


def _compared(a: FloatArray, b: FloatArray, maps: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Correlate aligned pictures part by part: whether they are the same, and what three of four parts reach."""
    n = len(a)
    seen, inside = _warped(b, maps)
    shape = (n, _N_BLOCKS, _BLOCK_PX, _N_BLOCKS, _BLOCK_PX)

    def blocks(values: FloatArray) -> FloatArray:
        return values.reshape(shape).transpose(0, 1, 3, 2, 4).reshape(n, _N_BLOCKS**2, _BLOCK_PX**2)

    weights = blocks(inside)
    total = weights.sum(axis=2) + 1e-6

    def centred(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        around = (values - (np.vecdot(values, weights) / total)[..., None]) * weights
        return around, np.sqrt(np.vecdot(around, around) / total)

    (one, spread), (other, other_spread) = centred(blocks(a)), centred(blocks(seen))
    local = np.vecdot(one, other) / total / (spread * other_spread + 1e-6)
    varied = (total >= _BLOCK_PX**2 / 2) & (np.maximum(spread, other_spread) > _FLAT_LEVELS)
    n_varied = varied.sum(axis=1)
    ordered = np.sort(np.where(varied, local, 2), axis=1)  # those with nothing to compare last
    rows, last = np.arange(n), np.maximum(n_varied - 1, 0)
    median, quartile = ordered[rows, last // 2], ordered[rows, last // 4]
    enough = (n_varied >= _FEWEST_PARTS) & (inside.mean(axis=1) >= _LEAST_OVERLAP)
    same = enough & ((quartile >= SAME_FROM) | (median >= SAME_MOSTLY_FROM))
    return same, np.where(enough, quartile, 0).astype(np.float32)
