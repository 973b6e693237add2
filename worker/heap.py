"""Bounds what the C library keeps of the memory that the worker has freed."""

import ctypes
import os
from contextlib import suppress

# Numbers of options in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Smaller blocks are reused for the next photo: with 1 MiB, new pages from the kernel took 40 % of the decoding time.
_KEPT_BYTES = 4 << 20
_N_ARENAS = 2
_OPTIONS = {
    "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, _KEPT_BYTES),
    "MALLOC_MMAP_THRESHOLD_": (_MMAP_THRESHOLD, _KEPT_BYTES),
    "MALLOC_ARENA_MAX": (_ARENA_MAX, _N_ARENAS),
}


def bound_heap() -> None:
    """Have freed memory go back to the system, except for a few MiB; does nothing where there is no glibc.

    By itself glibc keeps up to 64 MiB in each of eight arenas a core: those of the largest photos that were ever
    decoded in some thread. What the environment says of an option stays.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for name, (option, value) in _OPTIONS.items():
            if name not in os.environ:
                mallopt(option, value)
