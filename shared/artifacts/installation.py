"""Tells installations apart, so that two which share a Redis by mistake are found out."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from shared.artifacts import Location
from shared.errors import StoreUnavailable

_ID = "installation"  # a file of the storage


def installation_id(storage: Location) -> str:
    """The id of the installation whose artifacts lie there: the same for all who share the storage.

    It is drawn at the first call, and a copy of the storage keeps it. Empty where it cannot be drawn, as on a host that
    may only read.
    """
    drawn = f"{secrets.token_hex(8)}\n"
    try:
        if isinstance(storage, Path):
            return _of_directory(storage, drawn)
        with suppress(FileNotFoundError):
            return storage.read(_ID).decode().strip()
        storage.swap(_ID, drawn.encode(), tag=None)  # or another process was quicker
        return storage.read(_ID).decode().strip()
    except (OSError, StoreUnavailable):
        return ""


def _of_directory(directory: Path, drawn: str) -> str:
    file, aside = directory / _ID, directory / f".{_ID}.{secrets.token_hex(4)}.tmp"
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(drawn)
            with suppress(FileExistsError):
                os.link(aside, file)  # whole at once, and never over that of another process
        finally:
            aside.unlink(missing_ok=True)
    return file.read_text().strip()
