"""How far long work is: where there is no terminal, as lines of a log."""

import subprocess
import sys
import time

import pytest

from shared import progress
from shared.progress import progress_bar
from tests import ROOT


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.05)


def test_without_a_terminal_long_work_writes_a_line_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in progress_bar(range(40), total=40, desc="embedding"):
        time.sleep(0.01)
    said = capfd.readouterr().err
    lines = said.splitlines()
    assert "\r" not in said
    assert 2 <= len(lines) <= 20
    assert all(line.startswith("embedding: ") and " of 40, " in line for line in lines)
    assert " left" in lines[0]
    assert lines[-1].startswith("embedding: 40 of 40, ")


def test_what_is_done_at_once_writes_none(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 60.0)
    with progress_bar(total=None, desc="fetching", unit="B", unit_scale=True) as bar:
        bar.update(12_000_000)
    assert list(progress_bar(range(3), total=3)) == [0, 1, 2]
    assert not capfd.readouterr().err


def test_bytes_of_an_unknown_number_are_counted(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=None, desc="fetching", unit="B", unit_scale=True) as bar:
        time.sleep(0.1)
        bar.update(12_000_000)
    assert capfd.readouterr().err.startswith("fetching: 12.0M")


def test_a_program_that_begins_anew_behind_a_bar_leaves_nothing_of_it() -> None:
    # Processes are started this way from Python 3.14 on, on Linux.
    code = (
        "import multiprocessing, os, sys; multiprocessing.set_start_method('forkserver'); "
        "from shared.progress import progress_bar; list(progress_bar(range(3), total=3)); "
        "os.execv(sys.executable, [sys.executable, '-c', ''])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # where it leaves a semaphore, the process that watches it says so when it ends
