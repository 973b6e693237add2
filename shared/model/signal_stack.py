"""Restores the thread's alternate signal stack after OpenVINO has compiled a model, which would crash later signals.

Python runs a signal handler on the alternate stack (sigaltstack) of the thread that receives the signal, if it has one.
OpenVINO's CPU plugin installs one for the thread that compiles a model and, when the model is freed, restores the one
it found. Two models freed in the order they were compiled in therefore leave the thread with a stack that was freed,
and so does a model that another thread frees: the next signal ends the process with a segmentation fault instead of
calling its handler.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Restore this thread's alternate signal stack, or its absence, after the body; does nothing outside Linux."""
    if sys.platform != "linux":
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)
