"""A file outside everything that is killed: each run of a job leaves a line when it begins and one at its end."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

Event = Literal["began", "ended"]


@dataclass(frozen=True)
class Line:
    """One event of one run; `at` in seconds since the epoch, `pid` of the process that ran it."""

    event: str
    number: int
    pid: int
    at: float


class Journal:
    """Written by workers, a whole line at a time, and read while they write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0

    def note(self, event: Event, number: int) -> None:
        """One write of an appending file: lines of different processes do not mix, and a kill loses none written."""
        with self.path.open("ab", buffering=0) as file:
            file.write(f"{event} {number} {os.getpid()} {time.time():.6f}\n".encode())

    def news(self) -> list[Line]:
        """Lines written since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return []
        self._read_to += len(whole) + 1
        fields = (line.split() for line in whole.decode().splitlines())
        return [Line(event, int(number), int(pid), float(at)) for event, number, pid, at in fields]


@dataclass(frozen=True)
class Runs:
    """What a journal says of each job's number: how often it began and ended, and when it first ended."""

    began: Counter[int]
    ended: Counter[int]
    first_end: dict[int, float]

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Self:
        began: Counter[int] = Counter()
        ended: Counter[int] = Counter()
        first_end: dict[int, float] = {}
        for line in lines:
            (began if line.event == "began" else ended)[line.number] += 1
            if line.event == "ended":
                first_end[line.number] = min(line.at, first_end.get(line.number, line.at))
        return cls(began, ended, first_end)
