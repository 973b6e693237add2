"""A worker whose model only sleeps: `python -m tests.benchmarks.support.sleeping_worker PASS_MS PASS_PHOTOS [JOURNAL]`.

So many of them run on few cores, and what limits them is the queue, the API and the worker's own work. A worker runs
one pass at a time, of PASS_PHOTOS at most; whatever is in it, it takes PASS_MS. In the file JOURNAL each photo is noted
when its pass begins and when it ends, under the number that is its colour.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from shared.array_types import FloatArray
from shared.catalogue.categories import CATEGORIES
from shared.model.bundle import BundleManifest, ModelBundle
from shared.model.embedder import Cores, Embedder, Embeddings
from shared.photos.images import Pixels
from tests.benchmarks.ledger.journal import Event, Journal
from worker.run import run_worker
from worker.serving import loaded_model


class SleepingEmbedder:
    """Takes its time and answers the same for every photo."""

    n_streams = 1
    on_gpu = gives_way = False
    device = library = "asleep"

    def __init__(self, bundle: ModelBundle) -> None:
        self._manifest = bundle.manifest
        self._pass_s = float(sys.argv[1]) / 1e3
        self._journal = Journal(Path(sys.argv[3])) if len(sys.argv) > 3 else None
        vector = np.zeros((1, bundle.manifest.embedding_dim), dtype=np.float32)
        vector[0, 0] = 1
        self._answer = Embeddings(vector, np.zeros((1, len(CATEGORIES)), dtype=np.float32))

    @property
    def manifest(self) -> BundleManifest:
        return self._manifest

    @property
    def best_batch(self) -> int:
        return int(sys.argv[2])

    def embed(self, pixels: Pixels, cores: Cores = Cores.ALL) -> Embeddings:
        numbers = [int.from_bytes(photo[0, 0].tobytes()) for photo in pixels]
        self._note("began", numbers)
        time.sleep(self._pass_s)
        self._note("ended", numbers)
        return Embeddings(*(part.repeat(len(pixels), axis=0) for part in self._answer))

    def feature_maps(self, photo: Pixels) -> list[FloatArray]:
        return []

    def _note(self, event: Event, numbers: Sequence[int]) -> None:
        if self._journal:
            for number in numbers:
                self._journal.note(event, number)


def open_sleeping(bundle: ModelBundle, **_: object) -> Embedder:
    return SleepingEmbedder(bundle)


if __name__ == "__main__":
    os.environ |= {"LOOKALIKE_STREAMS": "1", "LOOKALIKE_MAX_BATCH": sys.argv[2]}  # nothing is left to be measured
    asleep = mock.patch.multiple(loaded_model, open_embedder=open_sleeping, verify_embeddings=lambda *_: None)
    with asleep:
        sys.exit(run_worker())
