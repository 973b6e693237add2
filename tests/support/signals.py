"""Signals to processes of a test."""

import os
import signal
import subprocess
from contextlib import suppress


def send(process: "subprocess.Popen[bytes] | None", signum: signal.Signals) -> None:
    """Send a signal to a process that this one started; SIGSTOP returns once no thread of it runs any more.

    `kill` only begins a stop: on a busy machine the other threads went on answering until one of them took the signal.
    """
    assert process is not None, "nothing was started"
    process.send_signal(signum)
    if signum == signal.SIGSTOP:
        with suppress(ChildProcessError):  # it has ended
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
