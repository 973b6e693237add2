"""TwoBuilds: parts of the previous build and of this one, over one installation and one Valkey, as in an upgrade."""

import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.e2e.conftest import Stack, environment
from tests.support.ports import free_port

_PREVIOUS = "previous-"
_COMMANDS = {
    "worker": ["-m", "worker"],
    "api": ["-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"],
}


def unpack(commit: str, directory: Path) -> Path:
    """Write the files of a commit to `directory`, and return that.

    Where there is no such commit the test is skipped; with CI=true that is left to shallow clones, and it fails.
    """
    archive = _git("archive", "--format=tar", commit)
    if archive.returncode:
        told = f"{commit[:12]}, the previous build, is not in this clone: {archive.stderr.decode().strip()}"
        shallow = _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        if os.environ.get("CI") == "true" and not shallow:
            pytest.fail(told)
        pytest.skip(f"{told}; git fetch --unshallow brings it" if shallow else told)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError as exc:
        return subprocess.CompletedProcess(arguments, 127, b"", str(exc).encode())


class TwoBuilds(Stack):
    """Parts are `worker` and `api`, and `previous-worker` and `previous-api`.

    Args:
        sources: of the previous build.
        settings: of every part, by the names that the previous build has for them.
    """

    def __init__(self, sources: Path, home: Path, data_dir: Path, *, log: Path, **settings: object) -> None:
        super().__init__(home, data_dir, log)
        self._sources = sources
        self._settings = settings
        self._port_of_previous = free_port()

    def url_of(self, api: str) -> str:
        """Where an API listens; each has its own port."""
        return f"http://127.0.0.1:{self._port_of_previous}" if api.startswith(_PREVIOUS) else self.url

    def have(self, *names: str) -> None:
        """Run these parts and no others; what ends does so in good order."""
        for name in [name for name, process in self.processes.items() if name not in names and process.poll() is None]:
            os.killpg(self.processes[name].pid, signal.SIGTERM)
            assert self.processes[name].wait(40) == 0, name
        for name in names:
            if name not in self.processes or self.processes[name].poll() is not None:
                self.start(name)

    def start(self, name: str, **settings: object) -> "subprocess.Popen[bytes]":
        given = {**self._settings, **settings}
        if not name.startswith(_PREVIOUS):
            return super().start(name, **given)
        assert self._log
        with self._log.open("ab") as sink:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *_COMMANDS[name.removeprefix(_PREVIOUS)]],
                **self._place(port=self._port_of_previous, **given),  # type: ignore[call-overload]
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        return self.processes[name]

    def previous_lookalike(self, *arguments: str) -> str:
        """Run a verb of the previous build to its end; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            **self._place(**self._settings),  # type: ignore[call-overload]
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def _place(self, **settings: object) -> dict[str, object]:
        """Where the previous build runs, so that it finds its own modules and the common installation."""
        env = environment(self.home, redis_url=self.redis_url, **settings)
        return {"cwd": self._sources, "env": env | {"PYTHONPATH": str(self._sources)}}
