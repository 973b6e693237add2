"""How much memory a process has, as the kernel counts it towards RLIMIT_DATA."""

import resource
from pathlib import Path

_DATA_PAGES = 5  # field of /proc/PID/statm: data and stack


def data_bytes(process: int | str = "self") -> int:
    """Private, written memory of a process in bytes; 0 elsewhere than on Linux, or if there is no such process."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return 0
    return int(pages[_DATA_PAGES]) * resource.getpagesize()
