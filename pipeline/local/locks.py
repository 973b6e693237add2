"""Advisory locks on files of the installation; the kernel releases them when a process dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import CannotStart


@contextmanager
def exclusive(path: Path, taken: str) -> Iterator[None]:
    """Hold an exclusive lock while the body runs.

    Args:
        path: the lock file; made with its directories if it is missing.
        taken: message of the error when another process holds the lock.

    Raises:
        CannotStart: another process holds it, or the directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as exc:
        raise CannotStart(f"cannot write to LOOKALIKE_HOME={path.parent} ({exc.strerror})") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise CannotStart(taken) from exc
        yield
