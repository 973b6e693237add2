"""Lacking: the preprocessing of photos that have come for a model which this machine is still fetching."""

import threading

from shared.photos.preprocessing import PreprocessSpec


class Lacking:
    """The specs whose photos this worker leaves to others; safe to use from many threads.

    Attributes:
        specs: of those photos; empty: it takes all.
    """

    def __init__(self) -> None:
        self.specs: frozenset[PreprocessSpec] = frozenset()
        self._changed = threading.Condition()

    def add(self, spec: PreprocessSpec) -> None:
        """Leave photos of a spec to others from now on."""
        with self._changed:
            self.specs |= {spec}

    def clear(self) -> None:
        """Take all photos again."""
        with self._changed:
            self.specs = frozenset()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Return when all photos are taken again, after `timeout_s` at the latest."""
        with self._changed:
            self._changed.wait_for(lambda: not self.specs, timeout_s)
