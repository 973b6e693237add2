"""Decodes the photos of a catalogue, in threads ahead of the consumer."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TypeVar

from shared.catalogue.categories import PhotoFile
from shared.errors import InputError
from shared.exhaustion import raise_exhaustion
from shared.photos.images import Pixels, PreprocessSpec, decode_photo

CHANGED = "photo file changed or vanished while it was indexed"

T = TypeVar("T")
R = TypeVar("R")


def decode_file(
    file: PhotoFile, spec: PreprocessSpec, sha256: str = "", turn: AbstractContextManager[object] | None = None
) -> Pixels | str:
    """Read and decode one photo file.

    Args:
        file: to read.
        spec: how the photo becomes the network's input.
        sha256: expected digest of the file's bytes; empty: not checked.
        turn: lock to hold while decoding, acquired after the file has been read; None: no lock.

    Returns:
        (S, S, 3) uint8 RGB; or, as text, the reason why there are no pixels.

    Raises:
        OSError: this process may open no more files.
    """
    try:
        photo = file.read_bytes()
        if sha256 and hashlib.sha256(photo).hexdigest() != sha256:
            return CHANGED
        with turn or nullcontext():
            return decode_photo(photo, spec)
    except InputError as error:
        return f"photo cannot be used: {error.code}"
    except OSError as exc:
        raise_exhaustion(exc)
        return CHANGED


def ahead(
    pool: ThreadPoolExecutor, call: Callable[[T], R], items: Iterable[T], *, n_ahead: int
) -> Iterator[tuple[T, R]]:
    """Map items through a thread pool in order, with at most `n_ahead` calls under way.

    Args:
        pool: runs the calls.
        call: applied to every item.
        items: consumed as results are.
        n_ahead: calls submitted before their results are needed.

    Returns:
        pairs of item and result, in the order of `items`; an exception of `call` is raised in its place.
    """
    queue = iter(items)
    pending: deque[tuple[T, Future[R]]] = deque((i, pool.submit(call, i)) for i in islice(queue, n_ahead))
    try:
        while pending:
            item, result = pending.popleft()
            yield item, result.result()
            pending.extend((i, pool.submit(call, i)) for i in islice(queue, 1))
    finally:
        for _, result in pending:
            result.cancel()
