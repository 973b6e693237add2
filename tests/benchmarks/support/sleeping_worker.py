"""A worker whose model only sleeps: `python -m tests.benchmarks.support.sleeping_worker PASS_MS PASS_PHOTOS`.

So many of them run on few cores, and what limits them is the queue, the API and the worker's own work. A worker runs
one pass at a time, of PASS_PHOTOS at most; whatever is in it, it takes PASS_MS.
"""

import os
import sys
import time
from unittest import mock

import numpy as np

from shared.catalogue.categories import CATEGORIES
from shared.model.bundle import BundleManifest, ModelBundle
from shared.model.embedder import Embedder, Embeddings
from shared.photos.images import Pixels
from worker.run import run_worker
from worker.serving import loaded_model


class SleepingEmbedder:
    """Takes its time and answers the same for every photo."""

    n_streams = 1
    on_gpu = False
    device = library = "asleep"

    def __init__(self, bundle: ModelBundle) -> None:
        self._manifest = bundle.manifest
        self._pass_s = float(sys.argv[1]) / 1e3
        vector = np.zeros((1, bundle.manifest.embedding_dim), dtype=np.float32)
        vector[0, 0] = 1
        self._answer = Embeddings(vector, np.zeros((1, len(CATEGORIES)), dtype=np.float32))

    @property
    def manifest(self) -> BundleManifest:
        return self._manifest

    @property
    def best_batch(self) -> int:
        return int(sys.argv[2])

    def embed(self, pixels: Pixels, *, exclusive: bool = True) -> Embeddings:
        time.sleep(self._pass_s)
        return Embeddings(*(part.repeat(len(pixels), axis=0) for part in self._answer))


def open_sleeping(bundle: ModelBundle, **_: object) -> Embedder:
    return SleepingEmbedder(bundle)


if __name__ == "__main__":
    os.environ |= {"LOOKALIKE_STREAMS": "1", "LOOKALIKE_MAX_BATCH": sys.argv[2]}  # nothing is left to be measured
    asleep = mock.patch.multiple(loaded_model, open_embedder=open_sleeping, verify_embeddings=lambda *_: None)
    with asleep:
        sys.exit(run_worker())
