"""Python's garbage collector while a process imports its modules."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Look for no garbage meanwhile, nor ever again at the objects that are there at the end.

    A module's objects, hundreds of thousands in all, stay as long as the process. To look through them again and again
    takes a tenth of a start, and later holds up every thread for longer.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
