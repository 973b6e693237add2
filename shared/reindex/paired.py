"""Tests whether a figure fell between two versions: paired by photo, resampled by listing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Value = float | None
_RESAMPLES = 2000
_SEED = 17
_MIN_LISTINGS = 4


@dataclass(frozen=True)
class Difference:
    """A figure of the same photos in two versions.

    Attributes:
        now: mean in the new version.
        then: mean in the other one.
        low: lower end of the 95 % interval of the mean difference.
        high: its upper end.
        of: difference by position in the sample.
    """

    now: float
    then: float
    low: float
    high: float
    of: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean difference; negative: a loss."""
        return self.now - self.then

    @property
    def positions(self) -> list[int]:
        """Positions of the photos that were compared."""
        return list(self.of)

    def mean_of(self, positions: Sequence[int]) -> float:
        """Mean difference of some photos.

        Args:
            positions: of at least one.
        """
        return float(np.mean([self.of[i] for i in positions]))

    def worst(self, n: int) -> list[int]:
        """Positions of the photos that lost most.

        Args:
            n: at most so many.
        """
        return [i for i in sorted(self.of, key=lambda i: self.of[i]) if self.of[i] < 0][:n]

    def is_loss(self, margin: float) -> bool:
        """Tell whether more is lost than the margin, and more than by chance.

        Args:
            margin: that may be lost.
        """
        return self.mean < -margin and self.high < 0

    def describe(self, other: str) -> str:
        """Give the figures, for people.

        Args:
            other: what the other version is called.
        """
        return (
            f"{self.now:.4f}, {other} {self.then:.4f}, on {len(self.of)} photos that both have: "
            f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"
        )


def compare_pairs(now: Sequence[Value], then: Sequence[Value], listings: Sequence[str]) -> Difference | None:
    """Compare a figure of the same photos in two versions.

    The interval is a percentile bootstrap over listings, whose photos are alike; its seed is fixed.

    Args:
        now: of each photo in the new version; None: it has none.
        then: of each photo in the other version.
        listings: of each photo.

    Returns:
        the difference; None if photos of fewer than four listings can be compared.
    """
    pairs = {i: (a, b) for i, (a, b) in enumerate(zip(now, then, strict=True)) if a is not None and b is not None}
    code = {listing: n for n, listing in enumerate(dict.fromkeys(listings[i] for i in pairs))}
    if len(code) < _MIN_LISTINGS:
        return None
    of = {i: a - b for i, (a, b) in pairs.items()}
    mean_now, mean_then = np.mean(list(pairs.values()), axis=0).tolist()
    if not any(of.values()):
        return Difference(mean_now, mean_then, 0.0, 0.0, of)
    members = [code[listings[i]] for i in pairs]
    sums = np.bincount(members, weights=list(of.values()), minlength=len(code))
    sizes = np.bincount(members, minlength=len(code))
    drawn = np.random.default_rng(_SEED).integers(0, len(code), (_RESAMPLES, len(code)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return Difference(mean_now, mean_then, low, high, of)
