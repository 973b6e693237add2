"""docker-compose.yml as compose reads it, and the programs that check what the service is deployed by."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT


def tool(name: str, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of the virtual environment's, as on a machine without an engine or an account."""
    return subprocess.run(
        [Path(sys.executable).with_name(name), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def services(profiles: str = "", **environment: str) -> dict[str, dict[str, Any]]:
    """What compose makes of the file; without profiles named, of the file as it is."""
    if profiles:
        environment["COMPOSE_PROFILES"] = profiles
    made = tool("docker-compose", "config", **environment)
    assert made.returncode == 0, made.stderr
    found: dict[str, dict[str, Any]] = yaml.safe_load(made.stdout)["services"]
    return found
