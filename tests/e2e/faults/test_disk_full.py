"""A disk that is full while an index is written: a reason in words, nothing half-made, and the old one stays live.

And an API whose host lacks room or files for an upload: it is put off with a reason, until there is some again.
"""

import json
import resource
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import psutil
import pytest
import requests

from shared.artifacts.backends import backend_at
from shared.artifacts.files import state_of
from tests import ROOT
from tests.e2e.conftest import Stack, environment, eventually, verb
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


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_NOFILE"), reason="Linux limits processes that run")
@pytest.mark.parametrize(("lacks", "said"), [("room", "has no room"), ("files", "may not open more files")])
def test_an_upload_that_the_host_of_the_api_cannot_hold_is_put_off_until_it_can(
    own_stack: Stack, photos: list[Path], lacks: str, said: str
) -> None:
    own_stack.start("api")
    eventually(lambda: requests.get(own_stack.url + "/livez", timeout=5).ok, 30, "the API answers")
    [api] = psutil.Process(own_stack.processes["api"].pid).children()
    long = photos[0].read_bytes() + bytes(1_000_000)  # so that it is kept in a file

    with requests.Session() as client:  # whose connection is open before no file can be opened any more

        def submit(photo: bytes) -> requests.Response:
            return client.post(own_stack.url + "/v1/jobs/search", files={"image": photo}, timeout=30)

        assert submit(photos[0].read_bytes()).status_code == 202
        limit, most = (psutil.RLIMIT_FSIZE, 200_000) if lacks == "room" else (psutil.RLIMIT_NOFILE, _first_free(api))
        before = api.rlimit(limit)
        api.rlimit(limit, (most, before[1]))
        refused = submit(long)
        api.rlimit(limit, before)
        assert (refused.status_code, refused.json()["code"]) == (503, "resources_exhausted")
        assert said in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert submit(long).status_code == 202


def _first_free(process: psutil.Process) -> int:
    """The descriptor that the next file gets: closed ones leave gaps below the highest."""
    taken = {int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
    return next(n for n in count() if n not in taken)
