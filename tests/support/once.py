"""What takes long to make is made once, however many processes run the tests."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A directory that the first of this run's processes to ask makes, while the others wait; to be read only.

    Runs that are given the same TEST_MADE, a directory, share it.
    """
    base = Path(os.environ.get("TEST_MADE") or _base_of_all_workers(factory))
    directory, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of one that failed
            make(directory)
            made.touch()
    return directory


def _base_of_all_workers(factory: pytest.TempPathFactory) -> Path:
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
