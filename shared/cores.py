"""How many processor cores there are to use, and how a thread leaves them to others."""

import os
import sys
import threading

_NICENESS = 10  # a thread without any gets nine times as much of a core


def n_cores() -> int:
    """Count the cores that this process may use, which in a container may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def give_way() -> None:
    """Lower the priority of this thread, and of those that it starts, for good: others take its core when they need it.

    Only on Linux, where threads have priorities of their own.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
