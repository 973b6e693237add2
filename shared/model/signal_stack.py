"""Where signal handlers find their stack while OpenVINO comes and goes.

Python lets a handler run on the alternate stack of the thread it meets, if there is one. OpenVINO's CPU plugin sets one
up for the thread that compiles a model and, when it is dropped, puts back the one it found. Two models dropped in the
order they were compiled in therefore leave the thread with a stack that is gone, and so does a model that another
thread drops: the next signal ends the process with a segmentation fault instead of calling its handler.
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
    """Give this thread back the alternate stack it had, or none, whatever the body sets up."""
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
