"""A worker as served, but its model dies of one photo: POISON, exactly as uploaded, ends the process with SIGSEGV."""

import os
import signal
from unittest import mock

import numpy as np

from shared.array_types import FloatArray
from shared.model.bundle import BundleManifest, ModelBundle
from shared.model.embedder import Cores, Embedder, Embeddings
from shared.model.runtimes import open_embedder
from shared.photos.images import Pixels
from worker.run import run_worker

POISON = (255, 0, 255)


class FragileEmbedder:
    """Another embedder, until POISON comes."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def manifest(self) -> BundleManifest:
        return self._embedder.manifest

    @property
    def on_gpu(self) -> bool:
        return self._embedder.on_gpu

    @property
    def gives_way(self) -> bool:
        return self._embedder.gives_way

    @property
    def device(self) -> str:
        return self._embedder.device

    @property
    def library(self) -> str:
        return self._embedder.library

    @property
    def n_streams(self) -> int:
        return self._embedder.n_streams

    @property
    def best_batch(self) -> int:
        return self._embedder.best_batch

    def embed(self, pixels: Pixels, cores: Cores = Cores.ALL) -> Embeddings:
        if any(np.array_equal(photo, np.broadcast_to(POISON, photo.shape)) for photo in pixels):
            os.kill(os.getpid(), signal.SIGSEGV)
        return self._embedder.embed(pixels, cores)

    def feature_maps(self, photo: Pixels) -> list[FloatArray]:
        return self._embedder.feature_maps(photo)


def open_fragile(bundle: ModelBundle, *, threads: int, streams: int) -> Embedder:
    return FragileEmbedder(open_embedder(bundle, threads=threads, streams=streams))


if __name__ == "__main__":
    with mock.patch("worker.serving.loaded_model.open_embedder", open_fragile):
        run_worker()
