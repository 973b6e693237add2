"""The memory of processes over time, as Linux tells it in /proc."""

import csv
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_EVERY_S = 5.0
_WINDOW = 0.2  # of the time that counts: its first part is compared with its last

Process = tuple[str, int]  # part, and the id of one of its processes


class Sample(NamedTuple):
    """One process at one moment, MB.

    Attributes:
        at: seconds since the watch began.
        resident: pages in memory.
        proportional: the same, pages that several processes share divided among them.
        anonymous: what no file holds: heaps, stacks.
    """

    at: float
    resident: float
    proportional: float
    anonymous: float


class MemoryWatch(threading.Thread):
    """Looks at processes and all that they have forked, until stopped.

    Args:
        parts: gives the id of each part's first process.
        file: for all samples, as CSV.

    Attributes:
        samples: by process, in order.
    """

    def __init__(self, parts: Callable[[], Mapping[str, int]], file: Path) -> None:
        super().__init__(name="memory", daemon=True)
        self.samples: dict[Process, list[Sample]] = defaultdict(list)
        self._parts = parts
        self._file = file
        self._stopping = threading.Event()
        self._began = time.monotonic()

    def run(self) -> None:
        with self._file.open("w", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(["part", "pid", *Sample._fields])
            while not self._stopping.wait(_EVERY_S):
                at = time.monotonic() - self._began
                for part, first in self._parts().items():
                    for pid in tree(first):
                        with suppress(OSError, KeyError):  # it has ended
                            sample = Sample(at, *_read(pid))
                            self.samples[part, pid].append(sample)
                            rows.writerow([part, pid, *(round(value, 2) for value in sample)])
                table.flush()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def grown(self, since_s: float) -> dict[Process, tuple[Sample, Sample]]:
        """The typical sample at the beginning and at the end of the time since then, of what lived all of it."""
        end = max((samples[-1].at for samples in self.samples.values()), default=0.0)
        window = (end - since_s) * _WINDOW
        found = {}
        for process, samples in self.samples.items():
            early = [one for one in samples if since_s <= one.at <= since_s + window]
            late = [one for one in samples if one.at >= end - window]
            if early and late and samples[0].at <= since_s and samples[-1].at > end - 3 * _EVERY_S:
                found[process] = (_typical(early), _typical(late))
        return found


def _typical(samples: list[Sample]) -> Sample:
    return Sample(*(statistics.median(values) for values in zip(*samples, strict=True)))


def tree(pid: int) -> list[int]:
    """A process and all that it has forked."""
    found = [pid]
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += tree(int(child))
    return found


def memory_of(pid: int) -> tuple[float, float]:
    """What a process takes now, MB: in memory, and of that what no file holds."""
    resident, _, anonymous = _read(pid)
    return resident, anonymous


def _read(pid: int) -> tuple[float, float, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kilobytes["Rss"] / 1e3, kilobytes["Pss"] / 1e3, kilobytes["Anonymous"] / 1e3
