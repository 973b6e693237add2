"""Photos of a catalogue as pixels, decoded in threads ahead of whoever consumes them."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TypeVar

from shared.catalogue.categories import PhotoFile
from shared.errors import InputError
from shared.photos.images import Pixels, PreprocessSpec, decode_photo

CHANGED = "photo file changed or vanished while it was indexed"

T = TypeVar("T")
R = TypeVar("R")


def decode_file(
    file: PhotoFile, spec: PreprocessSpec, sha256: str = "", turn: AbstractContextManager[object] | None = None
) -> Pixels | str:
    """The pixels of a photo, or why there are none.

    Args:
        sha256: what its bytes must be, where that is known.
        turn: waited for once the file has been read, and held while it is decoded.
    """
    try:
        photo = file.read_bytes()
        if sha256 and hashlib.sha256(photo).hexdigest() != sha256:
            return CHANGED
        with turn or nullcontext():
            return decode_photo(photo, spec)
    except InputError as error:
        return f"photo cannot be used: {error.code}"
    except OSError:
        return CHANGED


def ahead(
    pool: ThreadPoolExecutor, call: Callable[[T], R], items: Iterable[T], *, n_ahead: int
) -> Iterator[tuple[T, R]]:
    """Each item with what `call` gives for it, in order, with up to `n_ahead` calls under way."""
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
