"""Bounds what the C library keeps of the memory that the worker has freed."""

import ctypes
import os
from contextlib import suppress

from shared.photos.limits import DECODER_MALLOC

_OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_ARENA_MAX": -8}  # in glibc's malloc.h
_VALUES = {**DECODER_MALLOC, "MALLOC_ARENA_MAX": "2"}  # the worker decodes too, in several threads


def bound_heap() -> None:
    """Have freed memory go back to the system, except for a few MiB; does nothing where there is no glibc.

    By itself glibc keeps up to 64 MiB in each of eight arenas a core: those of the largest photos that were ever
    decoded in some thread. What the environment says of an option stays.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in _VALUES.items():
            if name not in os.environ:
                mallopt(_OPTIONS[name], int(value))
