"""Output that cannot be written ends a verb with one line; a reader that has enough ends it without any."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

COMMAND = (sys.executable, "-m", "pipeline.cli")
FULL = "error: the output cannot be written (No space left on device)\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["index", "list", "--json"], ["completion", "bash"], ["feedback", "export", "-"]], ids=str
)
def test_a_full_disk_behind_standard_output_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.removeprefix(f"no service runs from {tmp_path}: this is the feedback that is archived\n") == FULL


def test_a_full_disk_behind_standard_error_still_is_exit_code_1() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "index", "list"], cwd=ROOT, stdout=full, stderr=full, check=False)
    assert done.returncode == 1


def test_a_reader_that_has_enough_ends_a_verb_quietly() -> None:
    running = subprocess.Popen(
        [*COMMAND, "completion", "bash"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout
    running.stdout.close()
    _, told = running.communicate(timeout=60)
    assert told == b""
    assert running.returncode == 1
