"""Celery's own command line, as an operator types it beside a running service."""

import json
import subprocess
import sys
from typing import Any

from tests import ROOT
from tests.e2e.support.fleet import Fleet

CELERY = ["-m", "celery", "-A", "worker.celery_app"]


def celery(fleet: Fleet, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, *CELERY, *arguments],
        env=fleet.environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def inspect(fleet: Fleet, command: str) -> dict[str, Any]:
    """What each worker answers to `celery inspect`, by the worker's name at Celery."""
    asked = celery(fleet, "inspect", "--json", command)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    answers: dict[str, Any] = json.loads(asked.stdout)
    return answers
