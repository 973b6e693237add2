"""Replace a file as a whole: whoever reads it finds the old content or the new, never a part of either."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_atomically(path: Path, *, fsync: bool = False, many_writers: bool = False) -> Iterator[Path]:
    """Have the body write a temporary file beside `path`, which then replaces it.

    If the body raises, the temporary file is removed and `path` stays as it is. A process that is killed leaves the
    temporary file, named `.{name}.tmp`; the next call for the same path removes it.

    Args:
        path: the file to make or replace; its directory exists.
        fsync: have the content on disk before the file is replaced, so that not even a power failure leaves it empty.
        many_writers: several processes may write this file at the same time. Each then has a temporary file of its
            own, `.{name}.{random}.tmp`, the last to finish wins, and what a killed one leaves stays.

    Yields:
        the path of the temporary file, for the body to create.

    Raises:
        OSError: the file cannot be written or replaced.
    """
    unique = f".{secrets.token_hex(4)}" if many_writers else ""
    temporary = path.with_name(f".{path.name}{unique}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        if fsync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
