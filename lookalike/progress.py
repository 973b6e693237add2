"""How far a call is: told to a function of the caller's, or drawn as a bar on a terminal or in a notebook."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

from tqdm import tqdm

from lookalike.models import Progress

Tell = Callable[[Progress], None]
Wanted = bool | Tell


@contextmanager
def told(wanted: Wanted) -> Iterator[Tell | None]:
    """Where to report progress while the body runs.

    Args:
        wanted: True for a bar, which is drawn where somebody looks and nowhere else; False for silence.
    """
    if callable(wanted):
        yield wanted
    elif not wanted:
        yield None
    else:
        unseen = not (sys.stderr.isatty() or "ipykernel" in sys.modules)
        with tqdm(disable=unseen, dynamic_ncols=True) as bar:
            yield _Bar(bar).show


class _Bar:
    def __init__(self, bar: "tqdm[Never]") -> None:
        self._bar = bar
        self._stage = ""

    def show(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._bar.reset()
            self._bar.set_description_str(progress.stage)
        self._bar.total, self._bar.n = progress.total or None, progress.done
        self._bar.refresh()
