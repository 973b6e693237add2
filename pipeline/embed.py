"""Catalogue photos -> rows of an array: decoding runs ahead in threads while the model works."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from shared.catalogue import CataloguePhoto
from shared.errors import CatalogueUnusable, InputError
from shared.images import Pixels, PreprocessSpec, decode_photo
from shared.vision.embedder import Embeddings

BATCH = 8  # on a CPU larger batches fall out of the caches: Lite0 runs 77 photos/s at 8 and 24 at 32
_DECODE_THREADS = 2

T = TypeVar("T")


class Embedded(NamedTuple):
    """A catalogue's photos that could be decoded, and a row for each."""

    photos: list[CataloguePhoto]
    embeddings: Embeddings


class Progress(Protocol):
    """Wraps an iteration that takes long; tqdm's own signature."""

    def __call__(self, items: Iterable[T], *, total: int, desc: str) -> Iterable[T]: ...


def progress_bar(items: Iterable[T], *, total: int, desc: str) -> Iterable[T]:
    """A bar on standard error, also where that is a log file."""
    return tqdm(items, total=total, desc=desc, unit="photo", mininterval=1.0, dynamic_ncols=True)


def run_over_photos(
    photos: Sequence[CataloguePhoto],
    spec: PreprocessSpec,
    run: Callable[[Pixels], T],
    *,
    desc: str,
    progress: Progress = progress_bar,
) -> tuple[list[CataloguePhoto], list[T], dict[str, int]]:
    """Decode every photo and hand them to `run` in batches.

    Args:
        run: takes (n, S, S, 3) uint8, 1 <= n <= BATCH.

    Returns:
        the photos that could be decoded, in order; what `run` gave for each batch of them; how many could not be
        decoded, by reason.

    Raises:
        CatalogueUnusable: not one photo can be decoded.
    """
    unusable: Counter[str] = Counter()
    kept: list[CataloguePhoto] = []
    outputs: list[T] = []
    batch: list[Pixels] = []
    decoded = progress(_decode_ahead(photos, spec), total=len(photos), desc=desc)
    for photo, pixels in decoded:
        if isinstance(pixels, InputError):
            unusable[f"photo cannot be used: {pixels.code}"] += 1
            continue
        kept.append(photo)
        batch.append(pixels)
        if len(batch) == BATCH:
            outputs.append(run(np.stack(batch)))
            batch.clear()
    if batch:
        outputs.append(run(np.stack(batch)))
    if not kept:
        raise CatalogueUnusable(f"none of {len(photos)} photos can be decoded: {dict(unusable)}")
    return kept, outputs, dict(unusable)


def _decode_ahead(
    photos: Sequence[CataloguePhoto], spec: PreprocessSpec
) -> Iterator[tuple[CataloguePhoto, Pixels | InputError]]:
    """Decoded photos in order, at most eight batches ahead of whoever consumes them."""

    def decode(photo: CataloguePhoto) -> Pixels | InputError:
        try:
            return decode_photo(photo.path.read_bytes(), spec)
        except InputError as error:
            return error

    queue = iter(photos)
    with ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode") as pool:
        pending = [(photo, pool.submit(decode, photo)) for photo in islice(queue, 8 * BATCH)]
        while pending:
            photo, decoded = pending.pop(0)
            yield photo, decoded.result()
            pending.extend((photo, pool.submit(decode, photo)) for photo in islice(queue, 1))


def say_unusable(unusable: dict[str, int], say: Callable[[str], None]) -> None:
    """One line for each reason."""
    for reason, count in sorted(unusable.items()):
        say(f"left out: {count} x {reason}")
