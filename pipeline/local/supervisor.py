"""Supervise child processes: start them in order, restart those that end, stop them in reverse order.

On Linux the children also end when this process is killed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

from shared.errors import CannotStart
from shared.progress import ReportProgress

_STOP_WITHIN_S = 15
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_SETTLED_AFTER_S = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass
class Backoff:
    """Exponential backoff between restarts of a child, from 1 s to 30 s; reset once it has run for a minute.

    Attributes:
        next_s: the next pause.
    """

    next_s: float = _FIRST_PAUSE_S

    def pause_s(self, lived_s: float) -> float:
        """Return the pause before the next start, after a child that ran for `lived_s` seconds."""
        if lived_s >= _SETTLED_AFTER_S:
            self.next_s = _FIRST_PAUSE_S
        pause_s, self.next_s = self.next_s, min(2 * self.next_s, _LONGEST_PAUSE_S)
        return pause_s


@dataclass
class _Child:
    """One program with its current process, and when it is due to be started again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    config: str | None
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    due_at: float = 0.0  # when there is no process: time of the next start
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """Supervises child processes.

    Args:
        clock: monotonic time, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._children: list[_Child] = []
        self._clock = clock

    def start(self, name: str, command: list[str], environment: dict[str, str], *, config: str | None = None) -> None:
        """Start a child process.

        Args:
            name: for messages.
            command: program and arguments.
            environment: all of its environment variables.
            config: written to its standard input; the standard output of a child with a config is discarded.

        Raises:
            OSError: it cannot be started.
        """
        child = _Child(name, command, environment, config)
        self._children.append(child)
        self._spawn(child)

    def raise_if_ended(self) -> None:
        """Check that every child still runs.

        Raises:
            CannotStart: one has ended.
        """
        for child in self._children:
            if child.process and (code := child.process.poll()) is not None:
                raise CannotStart(f"{child.name} ended with {_describe_exit(code)}; everything else is being stopped")

    def restart_ended(self, report_progress: ReportProgress) -> None:
        """Restart children that have ended, each after its own backoff. To be called several times a second.

        Args:
            report_progress: receives one line for each child that has ended.
        """
        now = self._clock()
        for child in self._children:
            if child.process is None:
                if now >= child.due_at:
                    self._restart(child, report_progress)
            elif (code := child.process.poll()) is not None:
                _signal_group(child.process, signal.SIGKILL)  # its own children may still hold its port
                child.process = None
                self._postpone(child, f"ended with {_describe_exit(code)}", report_progress)

    def stop(self) -> None:
        """Terminate every child, the last started first; kill one that has not ended within 15 s."""
        for child in reversed(self._children):
            process, child.process = child.process, None
            if process is None:
                continue
            _signal_group(process, signal.SIGTERM)
            try:
                process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                pass
            _signal_group(process, signal.SIGKILL)
            process.wait()

    def _restart(self, child: _Child, report_progress: ReportProgress) -> None:
        try:
            self._spawn(child)
        except OSError as exc:  # no memory or no process to be had: perhaps there is next time
            self._postpone(child, f"could not be started ({exc.strerror})", report_progress)

    def _postpone(self, child: _Child, what_happened: str, report_progress: ReportProgress) -> None:
        now = self._clock()
        pause_s = child.backoff.pause_s(now - child.started_at)
        child.due_at = now + pause_s
        report_progress(f"{child.name} {what_happened}; it is started again in {pause_s:g} s")

    def _spawn(self, child: _Child) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches it only through `stop`."""
        _libc()  # between fork and exec nothing may be loaded any more
        child.started_at = self._clock()
        child.process = subprocess.Popen(
            child.command,
            env=child.environment,
            stdout=subprocess.DEVNULL if child.config is not None else None,
            stdin=subprocess.PIPE if child.config is not None else subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        if child.process.stdin:
            try:
                with child.process.stdin as stdin:
                    stdin.write((child.config or "").encode())
            except BrokenPipeError:
                pass  # it has ended already, which is noticed like any other end


def _describe_exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"


def _signal_group(process: "subprocess.Popen[bytes]", signum: signal.Signals) -> None:
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        pass


def _die_with(parent: int) -> None:
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was killed before the kernel had been told
        os._exit(1)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
