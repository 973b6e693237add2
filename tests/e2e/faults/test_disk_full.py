"""A disk that is full while an index is written: a reason in words, nothing half-made, and the old one stays live."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

from shared.artifacts.backends import backend_at
from shared.artifacts.files import state_of
from tests import ROOT
from tests.e2e.conftest import environment, verb
from tests.support.places import location_of


def _no_file_larger_than(limit_bytes: int) -> None:
    """For a child before it begins: its writes fail as on a full disk, without any right to mount a small one."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def written(home: Path) -> dict[str, str]:
    """Every file of the store and its state; but for the fence, which every build takes."""
    files = backend_at(location_of(home))
    names = [stored.key for stored in files.entries("indexes")]
    names = [name for name in names if not name.endswith(("PROMOTIONS", "PROMOTIONS.json", ".lock"))]
    return {name: state_of(files.at(name)) for name in names}


def test_an_index_that_does_not_fit_leaves_the_old_one_live(home: Path, catalogue: Path) -> None:
    before = written(home)
    verified = json.loads(verb("index", "verify", "--json", home=home).stdout)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "index", "build", "--catalogue", str(catalogue), "--json"],
        env=environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        preexec_fn=lambda: _no_file_larger_than(30_000),
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "artifact_unwritable"
    assert "Traceback" not in done.stderr
    assert written(home) == before
    assert json.loads(verb("index", "verify", "--json", home=home).stdout) == verified
