"""Embedder: the seam between what needs embeddings and what runs the network. Knows no runtime."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shared.images import Pixels
from shared.vision.bundle import BundleManifest

FloatArray = npt.NDArray[np.float32]


class Embeddings(NamedTuple):
    """One row per photo."""

    vectors: FloatArray  # (n, dim), L2 norm 1
    scores: FloatArray  # (n, 13), before softmax


class Embedder(Protocol):
    """Runs one bundle's network."""

    @property
    def manifest(self) -> BundleManifest: ...

    def embed(self, pixels: Pixels) -> Embeddings:
        """Embed (n, S, S, 3) uint8 photos, n >= 1, in one forward pass."""
        ...
