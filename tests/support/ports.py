"""Ports that stay free for whom they were given to, also while the server there is down."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# A byte for each port, locked by the process that it was given to: tests run in several at once.
_LOCKS = (Path(tempfile.gettempdir()) / f"lookalike-test-ports-{os.getuid()}").open("ab")
_GIVEN: set[int] = set()


def free_port() -> int:
    """A free port that, until this process ends, no outgoing connection and no other test takes."""
    while True:
        port = random.randrange(20_000, 32_000)  # below what kernels give to clients
        if port in _GIVEN:
            continue
        try:
            fcntl.lockf(_LOCKS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _GIVEN.add(port)
        return port
