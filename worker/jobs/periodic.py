"""A thread that does something at intervals."""

import logging
import threading
from collections.abc import Callable

from shared.settings import HEARTBEAT_S

_LOG = logging.getLogger(__name__)
EVERY_S = HEARTBEAT_S


class Periodic(threading.Thread):
    """Calls `action` every `every_s` seconds until stopped, whatever it raises."""

    def __init__(self, name: str, action: Callable[[], object], *, every_s: float = EVERY_S) -> None:
        super().__init__(name=name, daemon=True)
        self._action = action
        self._every_s = every_s
        self._stopping = threading.Event()

    def run(self) -> None:
        """Call the action until the thread is stopped."""
        while not self._stopping.wait(self._every_s):
            try:
                self._action()
            except Exception:  # a worker whose heartbeat died would lose every job it takes
                _LOG.exception("event=periodic_failed name=%s", self.name)

    def stop(self) -> None:
        """End the thread after the round it is in."""
        self._stopping.set()
        self.join(timeout=EVERY_S + 3)
