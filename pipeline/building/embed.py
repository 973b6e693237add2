"""Decode and embed a catalogue's photos in batches; threads decode ahead while the model works."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.decode import ahead, decode_file
from shared.errors import CatalogueUnusable
from shared.model.embedder import Embeddings
from shared.photos.images import Pixels, PreprocessSpec
from shared.progress import ReportProgress, progress_bar

BATCH = 8  # on a CPU larger batches fall out of the caches: Lite0 runs 77 photos/s at 8 and 24 at 32
_DECODE_THREADS = 2

T = TypeVar("T")


class EmbeddedPhotos(NamedTuple):
    """The photos of a catalogue that could be decoded, and their embeddings, one row for each."""

    photos: list[CataloguePhoto]
    embeddings: Embeddings


class Progress(Protocol):
    """Wraps a long iteration to show how far it is, with the arguments of tqdm."""

    def __call__(self, items: Iterable[T], *, total: int, desc: str) -> Iterable[T]: ...


def decoded_batches(
    photos: Sequence[CataloguePhoto],
    spec: PreprocessSpec,
    failed: dict[str, str],
    *,
    desc: str,
    progress: Progress = progress_bar,
) -> Iterator[tuple[list[CataloguePhoto], Pixels]]:
    """Decode photos in order.

    Args:
        photos: what to decode.
        spec: how they are preprocessed.
        failed: receives the reason, by sha256, for each photo that cannot be decoded and is left out.
        desc: name of the progress bar.
        progress: wraps the iteration over photos.

    Yields:
        at most BATCH photos and their pixels, (n, S, S, 3) uint8.
    """
    batch: list[tuple[CataloguePhoto, Pixels]] = []

    def full() -> tuple[list[CataloguePhoto], Pixels]:
        kept, pixels = zip(*batch, strict=True)
        batch.clear()
        return list(kept), np.stack(pixels)

    def decode(photo: CataloguePhoto) -> Pixels | str:
        return decode_file(photo.path, spec, photo.sha256)

    with ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode") as pool:
        decoded = ahead(pool, decode, photos, n_ahead=8 * BATCH)
        for photo, pixels in progress(decoded, total=len(photos), desc=desc):
            if isinstance(pixels, str):
                failed[photo.sha256] = pixels
                continue
            batch.append((photo, pixels))
            if len(batch) == BATCH:
                yield full()
    if batch:
        yield full()


def run_over_photos(
    photos: Sequence[CataloguePhoto],
    spec: PreprocessSpec,
    run: Callable[[Pixels], T],
    *,
    desc: str,
    progress: Progress = progress_bar,
    n_at_once: int = 1,
) -> tuple[list[CataloguePhoto], list[T], dict[str, int]]:
    """Decode every photo and call `run` on each batch of them.

    Args:
        run: takes (n, S, S, 3) uint8, 1 <= n <= BATCH.
        n_at_once: calls of `run` at the same time, from as many threads; 1: from this one.

    Returns:
        the photos that could be decoded, in order; what `run` gave for each batch of them; how many could not be
        decoded, by reason.

    Raises:
        CatalogueUnusable: not one photo can be decoded.
    """
    failed: dict[str, str] = {}
    kept: list[CataloguePhoto] = []
    outputs: list[T] = []
    batches = decoded_batches(photos, spec, failed, desc=desc, progress=progress)
    if n_at_once == 1:
        for batch, pixels in batches:
            kept += batch
            outputs.append(run(pixels))
    else:
        with ThreadPoolExecutor(n_at_once, thread_name_prefix="run") as pool:
            for (batch, _), output in ahead(pool, lambda pair: run(pair[1]), batches, n_ahead=n_at_once + 1):
                kept += batch
                outputs.append(output)
    unusable = Counter(failed[photo.sha256] for photo in photos if photo.sha256 in failed)
    if not kept:
        raise CatalogueUnusable(f"none of {len(photos)} photos can be decoded: {dict(unusable)}")
    return kept, outputs, dict(unusable)


def report_unusable(unusable: Mapping[str, int], report_progress: ReportProgress) -> None:
    """Report how many photos were left out: one line for each reason, with its count."""
    for reason, count in sorted(unusable.items()):
        report_progress(f"left out: {count} x {reason}")
