"""Which Pythons the service runs on: the same everywhere, and `make` refuses others before it installs anything."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.doctor.findings import State
from pipeline.doctor.machine import check_python
from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = [line.split(" :: ")[-1] for line in PROJECT["project"]["classifiers"]]
_OTHER = (
    "import sys; sys.version_info = {}, 2, 'final', 0; sys.version = '{}.2'; sys.prefix = '{}'; exec(sys.argv.pop(1))"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements/run.txt", "requirements/torch.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def python(path: Path, version: str) -> Path:
    """This one, which says that it is another: nothing but `-c CODE` works."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = _OTHER.format(version.replace(".", ", "), version, path.parent.parent)
    path.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{code}" "$@"\n')
    path.chmod(0o755)
    return path


def set_up(checkout: Path, version: str) -> tuple[int, str]:
    command = ["make", "setup", f"PYTHON={python(checkout / 'bin/python', version)}"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_all_name_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    oldest, newest = (tuple(map(int, name.split("."))) for name in (PYTHONS[0], PYTHONS[-1]))
    assert [f"3.{minor}" for minor in range(oldest[1], newest[1] + 1)] == PYTHONS
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "README.md").read_text()
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{PYTHONS[0].replace('.', '')}"
    assert f"--python-version {PYTHONS[0]}\n" in (ROOT / "Makefile").read_text()
    for image in ("api/Dockerfile", "worker/Dockerfile", "deploy/flower/Dockerfile"):
        assert set(re.findall(r"^FROM python:(\d\.\d+)", (ROOT / image).read_text(), re.MULTILINE)) <= set(PYTHONS)
    states = {}
    for version in ((3, oldest[1] - 1), oldest, newest, (3, newest[1] + 1)):
        monkeypatch.setattr(sys, "version_info", (*version, 2, "final", 0))
        states[version] = [finding.state for finding in check_python()]
    assert list(states.values()) == [[State.FAIL], [State.OK], [State.OK], [State.WARN]]


@pytest.mark.parametrize("version", ["3.10", f"3.{int(PYTHONS[-1][2:]) + 1}"])
def test_another_is_refused_and_nothing_is_made(checkout: Path, version: str) -> None:
    before = sorted(path.name for path in checkout.iterdir())
    code, output = set_up(checkout, version)
    assert code == 2
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]} is needed, and {checkout}/bin/python is {version}.2" in output
    assert f"make PYTHON=python{PYTHONS[-1]} setup" in output
    assert sorted(path.name for path in checkout.iterdir() if path.name != "bin") == before


@pytest.mark.parametrize("version", PYTHONS)
def test_each_of_them_is_taken(checkout: Path, version: str) -> None:
    code, output = set_up(checkout, version)
    assert (code, "python venv failed" in output) == (2, True)


@pytest.mark.parametrize(
    ("there", "made", "is_kept"),
    [
        (PYTHONS[0], "", True),
        (PYTHONS[0], "command = python3 -m venv --clear {}/.venv", True),
        (PYTHONS[0], "command = python3 -m venv --clear {} of before/.venv", False),
        ("3.10", "", False),
    ],
)
def test_packages_are_installed_anew_where_the_environment_has_another_python_now_or_was_moved(
    checkout: Path, there: str, made: str, is_kept: bool
) -> None:
    python(checkout / ".venv/bin/python", there)
    (checkout / ".venv/pyvenv.cfg").write_text(f"home = /usr/bin\n{made.format(checkout)}\n")
    for stamp in (".ready", ".ready-torch"):
        (checkout / ".venv" / stamp).touch()
    code, output = set_up(checkout, PYTHONS[-1])
    assert (code, "python venv failed" in output) == ((0, False) if is_kept else (2, True))
