"""How long-running work says how far it is: in lines of text, and by a bar."""

import sys
import threading
from collections.abc import Callable, Iterable
from typing import IO, Any

from tqdm import tqdm

ReportProgress = Callable[[str], None]
"""Takes one line of text for a person: what was found, decided or finished."""

# tqdm's own lock is one between processes too. From Python 3.14 on that is a named semaphore and a process that watches
# it; a program that begins anew (`os.execve`) leaves both behind.
_LOCK = threading.RLock()
_LINE_EVERY_S = 30.0  # in a log, where a bar would be one endless line


class _Lines:
    """What tqdm writes to a stream, as lines: it begins each with a carriage return."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


def progress_bar(
    items: Iterable[Any] | None = None, *, total: int | None, desc: str = "", unit: str = "photo", **options: Any
) -> "tqdm[Any]":
    """Show on standard error how far an iteration is: a bar on a terminal, elsewhere a line every half minute.

    What is done within half a minute writes no line.

    Args:
        items: what is iterated over; None: the caller counts, with `update`.
        total: how many there are; None: not known.
        desc: what is done with them.
        unit: name of one of them.
        options: of tqdm.
    """
    if sys.stderr.isatty():
        options |= {"mininterval": 1.0, "dynamic_ncols": True}
    else:
        line = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} left" if total else "{desc}: {n_fmt}"
        options |= {
            "delay": _LINE_EVERY_S,
            "mininterval": _LINE_EVERY_S,
            "maxinterval": 2 * _LINE_EVERY_S,  # after which tqdm says the same again
            "bar_format": line,
            "file": _Lines(sys.stderr),
        }
    tqdm.set_lock(_LOCK)
    return tqdm(items, total=total, desc=desc, unit=unit, **options)
