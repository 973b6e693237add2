"""A thread that does something every two seconds."""

import logging
import threading
from collections.abc import Callable

from shared.settings import HEARTBEAT_S

_LOG = logging.getLogger(__name__)
EVERY_S = HEARTBEAT_S


class Periodic(threading.Thread):
    """Calls `action` every two seconds until stopped, whatever it raises."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._action = action
        self._stopping = threading.Event()

    def run(self) -> None:
        """Call the action until the thread is stopped."""
        while not self._stopping.wait(EVERY_S):
            try:
                self._action()
            except Exception:  # a worker whose heartbeat died would lose every job it takes
                _LOG.exception("event=periodic_failed name=%s", self.name)

    def stop(self) -> None:
        """End the thread after the round it is in."""
        self._stopping.set()
        self.join(timeout=EVERY_S + 3)
