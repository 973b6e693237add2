"""Categories that are paths of several levels: how probable each part of their paths is, from those of the whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.catalogue.categories import JOINED


class Part(NamedTuple):
    """The beginning of some categories' paths, and how probable it is that one of them is right.

    Attributes:
        path: names from the root.
        probability: the sum of those of the categories that begin so, 0..1.
    """

    path: tuple[str, ...]
    probability: float

    @property
    def name(self) -> str:
        """The path as the name of a category that ended there would be."""
        return JOINED.join(self.path)


@dataclass(frozen=True, eq=False)
class Level:
    """One level above whole paths: the beginnings of that length, and which categories begin so.

    Attributes:
        paths: those of one length that some category goes deeper than, in the order of the categories.
        members: (n,) positions of the categories that begin so, those of one path side by side.
        starts: (len(paths),) where in `members` those of each path begin.
        path_of: (n_categories,) for each category the position of its path; -1: it begins with none of them.
    """

    paths: tuple[tuple[str, ...], ...]
    members: IntArray
    starts: IntArray
    path_of: IntArray

    def probabilities(self, chances: FloatArray) -> FloatArray:
        """Add up the probabilities of the categories that begin alike.

        Args:
            chances: (..., n_categories) float32 that sum to 1 over the last axis.

        Returns:
            (..., len(paths)) float32.
        """
        sums: FloatArray = np.add.reduceat(chances[..., self.members], self.starts, axis=-1)
        return sums


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The levels above the categories of a model.

    Attributes:
        levels: the root's first; as many as the longest path has names, less one.
    """

    levels: tuple[Level, ...]

    def deepest_certain(self, chances: FloatArray, abstain_below: Sequence[float]) -> Part | None:
        """Find the deepest level whose most probable path reaches that level's threshold.

        Args:
            chances: (n_categories,) float32 that sum to 1.
            abstain_below: a threshold for each level, the root's first.

        Returns:
            the path; of equally probable ones the one whose categories come first; None: not even a root is certain.
        """
        for level, threshold in zip(reversed(self.levels), reversed(abstain_below), strict=True):
            sums = level.probabilities(chances)
            best = int(sums.argmax())
            probability = min(round(float(sums[best]), 6), 1.0)
            if probability >= threshold:
                return Part(level.paths[best], probability)
        return None


@lru_cache(maxsize=16)
def hierarchy_of(names: tuple[str, ...]) -> Hierarchy | None:
    """The hierarchy of a model's categories, made once for each list of names; None where they have one level only."""
    paths = [split_path(name) for name in names]
    depth = max(map(len, paths), default=1)
    return Hierarchy(tuple(_level(paths, length) for length in range(1, depth))) if depth > 1 else None


def split_path(name: str) -> tuple[str, ...]:
    """Split a category's name into the names of its levels, the root's first."""
    return tuple(name.split(JOINED))


def _level(paths: Sequence[tuple[str, ...]], length: int) -> Level:
    above = dict.fromkeys(path[:length] for path in paths if len(path) > length)
    position = {path: number for number, path in enumerate(above)}
    path_of = np.array([position.get(path[:length], -1) for path in paths], dtype=np.int64)
    order = np.argsort(path_of, kind="stable")
    members = order[np.count_nonzero(path_of < 0) :]
    return Level(tuple(above), members, np.searchsorted(path_of[members], np.arange(len(above))), path_of)
