"""Embedder: the interface of a loaded model, implemented by every runtime."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np

from shared.array_types import FloatArray
from shared.model.bundle import BundleManifest
from shared.photos.images import Pixels


class Embeddings(NamedTuple):
    """Embeddings and category scores of some photos, one row per photo."""

    vectors: FloatArray  # (n, dim), L2 norm 1
    scores: FloatArray  # (n, n_categories), before softmax


class Cores(StrEnum):
    """What a forward pass may use of the machine.

    Attributes:
        ALL: every core, because no other photo is waiting or running.
        STREAM: one stream, beside other passes.
        SPARE: one stream, in what the other threads of the machine leave.
    """

    ALL = "all"
    STREAM = "stream"
    SPARE = "spare"


class Embedder(Protocol):
    """Runs one bundle's network; safe to share between threads. `open_embedder` returns one."""

    @property
    def manifest(self) -> BundleManifest:
        """Manifest of the bundle."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        ...

    @property
    def device(self) -> str:
        """The device it runs on, for people: "CPU, 2 threads", or the GPU's name."""
        ...

    @property
    def library(self) -> str:
        """The library that runs it, with its version."""
        ...

    @property
    def n_streams(self) -> int:
        """Forward passes worth running at the same time."""
        ...

    @property
    def best_batch(self) -> int:
        """Photos per forward pass, as a default where nothing was measured."""
        ...

    @property
    def gives_way(self) -> bool:
        """Whether passes in `Cores.SPARE` keep others from no core, so that they may run beside all others."""
        ...

    def embed(self, pixels: Pixels, cores: Cores = Cores.ALL) -> Embeddings:
        """Embed photos in one forward pass.

        Args:
            pixels: (n, S, S, 3) uint8 RGB, n >= 1, S as the manifest's preprocessing spec says.
            cores: what the pass may use of the machine.

        Returns:
            vectors (n, dim) float32, L2 norm 1, and scores (n, n_categories) float32.
        """
        ...

    def feature_maps(self, photo: Pixels) -> list[FloatArray]:
        """Compute the feature maps that embeddings are pooled from, of one photo (S, S, 3): (c, h, w) each."""
        ...


def joined(photos: Sequence[Embeddings]) -> Embeddings:
    """Join the photos of one query: the mean of their vectors, scaled to L2 norm 1 again, and of their scores.

    Args:
        photos: vectors (m, dim) and scores (m, n_categories) of some photos each, at least one in all.

    Returns:
        vectors (1, dim) and scores (1, n_categories); a single photo as it is.
    """
    if len(photos) == len(photos[0].vectors) == 1:
        return photos[0]
    vectors, scores = (np.concatenate(rows) for rows in zip(*photos, strict=True))
    return Embeddings(normalised(vectors.mean(axis=0, keepdims=True)), scores.mean(axis=0, keepdims=True))


def normalised(pooled: FloatArray) -> FloatArray:
    """Scale features to L2 norm 1: (n, dim) float32 -> (n, dim) float32; a row of zeros stays zero."""
    lengths = np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
    unit: FloatArray = (pooled / lengths).astype(np.float32, copy=False)
    return unit
