"""The strongest loop we know that turns JPEG bytes into embeddings in one process, without any service around it.

Threads decode with the service's own decoder and run the bundle's graph in OpenVINO's throughput mode, one stream a
core, each batch decoded by the thread that runs it: no queue, no lock, no copy between threads. How many threads and
how large a batch is tried out first, and the best is taken.
"""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.cores import n_cores
from shared.model.bundle import bundle_store, open_bundle
from shared.model.embedder import Cores, Embeddings
from shared.model.runtimes import open_embedder
from shared.photos.images import decode_photo

_TRIED = (
    (1, 1),
    (1, 2),
    (1, 4),
    (1, 8),
    (1, 16),
    (1, 32),
    (2, 1),
    (2, 2),
    (2, 4),
    (2, 8),
)  # threads a stream, photos a batch
_BATCHES_GPU = (8, 32, 64)


@dataclass(frozen=True)
class Rate:
    """Photos a second, and processor time of one in ms."""

    per_s: float
    cpu_ms: float


class BareLoop:
    """The bundle of `home`, and photos to run it on again and again.

    Args:
        tried_for_s: each combination of threads and batch, twice.
        quick: try two of them once, for a moment: whether it runs at all.
    """

    def __init__(self, home: Path, photos: Sequence[bytes], *, tried_for_s: float = 1.5, quick: bool = False) -> None:
        bundle = open_bundle(bundle_store(home))
        self.manifest = bundle.manifest
        self._embedder = open_embedder(bundle)
        self._photos = photos
        # One thread first: two whose passes are the first of a process can wait for each other for ever in OpenVINO,
        # one for the interpreter and one for a table that the other is filling.
        self._embed(photos[:1])
        self._threads, self._batch = self._best(0.1, 1, 2) if quick else self._best(tried_for_s, 2)

    def __str__(self) -> str:
        streams = self._embedder.n_streams
        return f"{self._threads} threads decode and run batches of {self._batch} on {streams} streams"

    def run(self, seconds: float) -> Rate:
        """Turn photos into embeddings for so long."""
        return self._rate(self._threads, self._batch, seconds)

    def run_plain(self, seconds: float) -> Rate:
        """The same by the loop that comes to mind first: one photo after another, each pass over all cores."""
        return self._rate(1, 1, seconds, cores=Cores.ALL)

    def decode_ms(self) -> float:
        """Median time of decoding one photo on an idle machine."""
        return _median_ms(lambda i: decode_photo(self._photos[i], self.manifest.preprocess))

    def model_ms(self) -> float:
        """Median time of a pass of one photo over all cores of an idle machine."""
        pixels = decode_photo(self._photos[0], self.manifest.preprocess)[None]
        return _median_ms(lambda _: self._embedder.embed(pixels, cores=Cores.ALL))

    def _best(self, tried_for_s: float, n_rounds: int, n_tried: int | None = None) -> tuple[int, int]:
        streams = self._embedder.n_streams
        tried = [(streams * threads, batch) for threads, batch in _TRIED]
        if self._embedder.on_gpu:  # which waits for decoding: as many threads as cores and more
            tried = [(threads, batch) for threads in sorted({1, n_cores(), 2 * n_cores()}) for batch in _BATCHES_GPU]
        rates = {settings: self._rate(*settings, tried_for_s) for _ in range(n_rounds) for settings in tried[:n_tried]}
        return max(rates, key=lambda settings: rates[settings].per_s)

    def _rate(self, n_threads: int, batch: int, seconds: float, *, cores: Cores = Cores.STREAM) -> Rate:
        until = time.perf_counter() + seconds
        counts = [0] * n_threads

        def run(thread: int) -> None:
            at = thread * len(self._photos) // n_threads
            while time.perf_counter() < until:
                self._embed([self._photos[(at + i) % len(self._photos)] for i in range(batch)], cores=cores)
                at += batch
                counts[thread] += batch

        threads = [threading.Thread(target=run, args=(number,)) for number in range(n_threads)]
        began, began_cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        return Rate(sum(counts) / elapsed_s, 1e3 * cpu_s / sum(counts))

    def _embed(self, photos: Sequence[bytes], *, cores: Cores = Cores.STREAM) -> Embeddings:
        pixels = np.stack([decode_photo(photo, self.manifest.preprocess) for photo in photos])
        return self._embedder.embed(pixels, cores=cores)


def _median_ms(call: Callable[[int], object], n: int = 40) -> float:
    took = []
    for i in range(n + 5):
        began = time.perf_counter()
        call(i)
        took.append(time.perf_counter() - began)
    return 1e3 * statistics.median(took[5:])
