"""Processor time and memory of processes and all they have started, as the kernel counts them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Memory:
    """MB of some processes together.

    Attributes:
        rss: resident; what processes share counts for each.
        pss: resident; what n processes share counts 1/n for each.
        uss: what would be free without them.
    """

    rss: float
    pss: float
    uss: float


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def cpu_s(pids: Iterable[int]) -> float:
    """Processor time used so far by processes and their descendants."""
    times = [process.cpu_times() for pid in pids for process in family(pid)]
    return float(sum(each.user + each.system for each in times))


def cpu_by_part(parts: Mapping[str, int]) -> dict[str, float]:
    """Processor time used so far by each part of a service, and by what each has started under its module's name."""
    used: dict[str, float] = defaultdict(float)
    for part, pid in parts.items():
        first, *started = family(pid)
        for name, process in [(part, first), *((_name(process) or part, process) for process in started)]:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                times = process.cpu_times()
                used[name] += times.user + times.system
    return dict(used)


def _name(process: psutil.Process) -> str | None:
    """`decode_process` of `python -m api.uploads.decoder_process`."""
    try:
        words = process.cmdline()
    except psutil.Error:  # it has just ended
        return None
    module = words[words.index("-m") + 1] if "-m" in words else ""
    return module.rpartition(".")[2] if "." in module else None


def memory(pid: int) -> Memory:
    """Of a process and its descendants."""
    infos = [process.memory_full_info() for process in family(pid)]
    return Memory(
        *(sum(getattr(info, part) for info in infos) / 1e6 for part in ("rss", "pss", "uss")),
    )
