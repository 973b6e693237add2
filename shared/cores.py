"""How many processor cores there are to use."""

import os


def n_cores() -> int:
    """Count the cores that this process may use, which in a container may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
