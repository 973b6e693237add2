"""What takes long to make is made once, however many processes run the tests."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.demo.catalogue import generate
from tests import ROOT

_WITHOUT_TORCH = """
from tests.support.hidden import hide
hide("torch", "torchvision")
from pipeline.cli.main import main
main()
"""


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


def demo_catalogue(factory: pytest.TempPathFactory) -> Path:
    """52 demo listings, 104 photos."""
    return made_once(factory, "demo", lambda directory: generate(directory, n_listings=52))


def small_catalogue(factory: pytest.TempPathFactory, n_listings: int, seed: int = 17) -> Path:
    """Fewer demo listings, each with two photos."""
    name = f"demo-{n_listings}-{seed}"
    made = made_once(
        factory, name, lambda directory: generate(directory / "catalogue", n_listings=n_listings, seed=seed)
    )
    return made / "catalogue"


def demo_home(factory: pytest.TempPathFactory) -> Path:
    """The home of an installation of the demo catalogue, in int8, as the command line builds it where torch is not."""
    catalogue = demo_catalogue(factory)

    def build(home: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}
        built = subprocess.run(
            [sys.executable, "-c", _WITHOUT_TORCH, "index", "build", "--json", "--catalogue", str(catalogue)],
            env={**environment, "LOOKALIKE_HOME": str(home), "LOOKALIKE_BACKBONE": "efficientnet_lite0"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert built.returncode == 0, built.stderr
        assert "Statistics collection" in built.stderr  # NNCF's bar, and nothing of it where the JSON is
        assert json.loads(built.stdout)

    return made_once(factory, "home", build)


def _base_of_all_workers(factory: pytest.TempPathFactory) -> Path:
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
