"""Embedder: the seam between what needs embeddings and what runs the network. Knows no runtime."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shared.model.bundle import BundleManifest
from shared.photos.images import Pixels

FloatArray = npt.NDArray[np.float32]


class Embeddings(NamedTuple):
    """One row per photo."""

    vectors: FloatArray  # (n, dim), L2 norm 1
    scores: FloatArray  # (n, 13), before softmax


class Embedder(Protocol):
    """Runs one bundle's network."""

    @property
    def manifest(self) -> BundleManifest: ...

    @property
    def on_gpu(self) -> bool: ...

    @property
    def device(self) -> str:
        """What it runs on, for people: "CPU, 2 threads", or the GPU's name."""
        ...

    @property
    def library(self) -> str:
        """What runs it, with its version."""
        ...

    @property
    def n_streams(self) -> int:
        """Passes that may run at the same time to advantage."""
        ...

    @property
    def best_batch(self) -> int:
        """Photos of one pass at most, as long as nobody has measured."""
        ...

    def embed(self, pixels: Pixels, *, alone: bool = True) -> Embeddings:
        """Embed (n, S, S, 3) uint8 photos, n >= 1, in one forward pass; may be called from many threads.

        Args:
            alone: nothing else is waiting or running, so the pass may take every core.
        """
        ...


def normalised(pooled: FloatArray) -> FloatArray:
    """(n, dim) pooled features scaled to L2 norm 1; a row of zeros stays one."""
    lengths = np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
    unit: FloatArray = (pooled / lengths).astype(np.float32, copy=False)
    return unit
