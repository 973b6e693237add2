"""How many processor cores there are to use, and how threads leave them to others."""

import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_NICER = 10  # the rest of the process gets nine times as much of a core
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # of FAISS and torch; of numpy


def n_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use: those it may run on, or fewer where a container limits its time.

    A limit of 2.5 cores counts as two: threads for a third would be stopped together with all others, in the middle of
    a pass, until the next tenth of a second.

    Args:
        root: of the file system, whose `proc` and `sys` tell the limits of the process's control groups.
    """
    return max(1, min(_n_allowed(), math.floor(min(_limits(root), default=sys.maxsize))))


def limit_threads() -> None:
    """Have libraries loaded from now on start no more threads than there are cores, where a container limits these.

    They count the machine's. What `OMP_NUM_THREADS` and `OPENBLAS_NUM_THREADS` say already stays.
    """
    if (n := n_cores()) < _n_allowed():
        for pool in _POOLS:
            os.environ.setdefault(pool, str(n))


def give_way() -> None:
    """Lower the priority of this thread, and of those that it starts, for good: others take its core when they need it.

    It counts from the priority that it has, as where all was started with `nice`: only root may raise one. Only on
    Linux, where threads have priorities of their own.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER)


def _n_allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limits(root: Path) -> Iterator[float]:
    """The limits, in cores, of the control groups that this process is in, of both versions of cgroups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / controllers
        group = mounted / path.lstrip(
            "/"
        )  # in a container, a path of the host may stand here: then only the top is there
        for directory in (group, *group.parents):
            with suppress(OSError, ValueError):  # "max": no limit
                if controllers:
                    quota, period = (int((directory / f"cpu.cfs_{of}_us").read_text()) for of in ("quota", "period"))
                else:
                    quota, period = map(int, (directory / "cpu.max").read_text().split())
                if quota > 0:  # -1: no limit
                    yield quota / period
            if directory == mounted:
                break
