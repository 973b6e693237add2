"""Packages that are missing, broken or deadly are told apart, and the command says what to do without any of them."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from pipeline.doctor import wheels
from pipeline.doctor.findings import State
from pipeline.doctor.wheels import MODULES, check_wheels
from tests import ROOT


def test_packages_missing_broken_or_deadly_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos.abort()\n")
    (tmp_path / "broken.py").write_text("raise ImportError('libfoo.so.1: cannot open')\n")
    (tmp_path / "noisy.py").write_text("print('failed click at nothing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(wheels, "MODULES", {"worker": ("click", "deadly", "absent", "broken", "noisy", "redis")})
    missing, *broken, able = check_wheels()
    assert (missing.found, "lookalike[worker]" in missing.advice) == ("not installed: absent", True)
    problems = {finding.what: finding.found for finding in broken}
    assert "ended the process" in problems["wheel deadly"]
    assert "libfoo" in problems["wheel broken"]
    assert able.state is State.OK
    assert all(name in able.found for name in ("click 8", "redis 8", "noisy"))


def test_what_serves_is_not_asked_for_where_it_is_not_part_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MODULES", {"api": ("absent",)})
    assert [finding.state for finding in check_wheels()] == [State.FAIL]
    monkeypatch.setattr(wheels, "_SERVED_BY", {"api": "no_such_package"})
    assert list(check_wheels()) == []
    monkeypatch.setattr(wheels, "MODULES", {"torch": ("absent",)})  # which is fetched when something needs it
    assert [(finding.state, "make torch" in finding.found) for finding in check_wheels()] == [(State.OK, True)]


def test_every_package_that_is_required_is_looked_at() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    known = packages_distributions()
    for extra, modules in MODULES.items():
        looked_at = {_plain(name) for module in modules for name in known[module]}
        required = {_plain(re.split(r"[\[<>=~!; ]", line)[0]) for line in extras[extra]} - {"lookalike"}
        assert required <= looked_at, extra


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def console(*arguments: str, without: str) -> "subprocess.CompletedProcess[str]":
    script = f"import sys; sys.modules[{without!r}] = None; from lookalike.console import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_command_without_the_service_says_what_to_install() -> None:
    done = console("search", "x.jpg", without="click")
    assert (done.returncode, done.stdout) == (1, "")
    assert "click is not installed" in done.stderr
    assert "pip install" in done.stderr


@pytest.mark.parametrize(("missing", "expected"), [("redis", "redis is not installed"), ("numpy", "0 fail")])
def test_doctor_runs_where_the_rest_of_the_command_line_cannot(missing: str, expected: str, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; import pipeline.cli.doctor as cli; "
        "del cli.CHECKS['wheels'], cli.CHECKS['weights']; from lookalike.console import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor"], capture_output=True, text=True, check=False, cwd=ROOT,
        env={"LOOKALIKE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert expected in done.stdout
    assert done.stderr == ""
