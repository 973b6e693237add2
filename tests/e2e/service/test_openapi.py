"""The contract says what is true: Schemathesis with every check against the running service."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.e2e.conftest import Stack
from tests.support.places import copy_installation


@pytest.fixture
def disposable(home: Path, tmp_path: Path) -> Iterator[Stack]:
    """A running service over a copy of everything: what is asked of it puts photos, reindexes and promotes."""
    copy_installation(home, tmp_path / "home")
    stack = Stack(tmp_path / "home", tmp_path / "valkey")
    stack.start("worker")
    stack.start("api")
    stack.wait_ready()
    yield stack
    stack.close()


def test_schemathesis_finds_nothing(disposable: Stack) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            disposable.url + "/openapi.json",
            "--max-examples=6",
            "--continue-on-failure",
            "--suppress-health-check=all",
            "--generation-deterministic",
            "--no-color",
        ],
        cwd=ROOT,  # where schemathesis.toml is
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "No issues found" in done.stdout or "passed" in done.stdout
