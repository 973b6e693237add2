"""Progress of a call: reported to a function of the caller, or as a bar on a terminal or in a notebook."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

from tqdm import tqdm

from lookalike.models import Progress

ProgressCallback = Callable[[Progress], None]
ProgressOption = bool | ProgressCallback


@contextmanager
def progress_callback(option: ProgressOption) -> Iterator[ProgressCallback | None]:
    """Provide the function to report progress to while the body of the `with` runs.

    Args:
        option: the caller's function; or True for a bar, which is drawn on terminals and in notebooks only; or False.

    Returns:
        The function, or None if the caller wants no progress.
    """
    if callable(option):
        yield option
    elif not option:
        yield None
    else:
        visible = sys.stderr.isatty() or "ipykernel" in sys.modules
        with tqdm(disable=not visible, dynamic_ncols=True) as bar:
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
