"""Checkout: a directory like the reader's of the documentation, with a service that `make run` has started in it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests import ROOT
from tests.documents.blocks import Block
from tests.e2e.conftest import environment, eventually
from tests.support.ports import free_port

# A command that fails is named, and what the service refuses is a failure.
_PRELUDE = """trap 'echo "$BLOCK: $BASH_COMMAND" >&2' ERR
curl() { command curl --silent --show-error --fail-with-body "$@"; }
"""


class Checkout:
    """A directory like the reader's: sources, `.venv`, `var/`, and a service that `make run` has started.

    Args:
        diff: changes to the sources.
        settings: of the service; by default none, as of a reader who has set nothing.
    """

    def __init__(self, directory: Path, home: Path, catalogue: Path, diff: str = "", **settings: object) -> None:
        self._settings = {f"LOOKALIKE_{name.upper()}": str(value) for name, value in settings.items()}
        self.directory, self.port, self.log = directory, free_port(), directory.with_suffix(".log")
        binaries = directory / ".venv/bin"
        binaries.mkdir(parents=True)
        for path in ROOT.iterdir():
            if not path.name.startswith(".") and path.name not in ("var", "build", "docs"):
                _put(path, directory / path.name, copied=bool(diff))
        if diff:
            subprocess.run(["patch", "-p1", "--batch"], cwd=directory, input=diff, text=True, check=True)
        shutil.copytree(ROOT / "docs", directory / "docs")  # the notebook runs in there
        for name, module in (("python", ""), ("lookalike", "-m pipeline.cli")):
            (binaries / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            (binaries / name).chmod(0o755)
        (directory / ".venv/.ready").touch()  # what `make setup` would do is done
        shutil.copytree(home, directory / "var")
        shutil.copytree(catalogue, directory / "var/demo-catalogue")
        (directory / "var/catalogue").unlink()  # it names the one that was copied
        self.start()

    def start(self) -> None:
        self.log.write_bytes(b"")
        with self.log.open("ab") as sink:
            self.service = subprocess.Popen(
                ["make", "run", f"PORT={self.port}"],
                **self._place,  # type: ignore[call-overload]
                stdout=sink,
                stderr=sink,
            )

    @property
    def _place(self) -> dict[str, object]:
        ours = {name: value for name, value in environment(self.directory).items() if "LOOKALIKE_" not in name}
        return {
            "cwd": self.directory,
            "env": {**ours, **self._settings},
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self) -> None:
        eventually(self._announced, 120, "ready")

    def _announced(self) -> bool:
        assert self.service.poll() is None, self.log.read_text()
        return f"ready at {self.url}" in self.log.read_text()

    def read(self, page: Path, wanted: Iterable[Block]) -> str:
        """Type these blocks of a page into one shell; returns what they print."""
        script = _PRELUDE + "\n".join(_typed(page, block) for block in wanted)
        return self._run("bash", "-eEuo", "pipefail", "-c", self._here(script))

    def run_notebook(self, notebook: Path) -> str:
        """As Jupyter would, in docs/; returns what it prints."""
        copy = self.directory / "docs" / notebook.name
        copy.write_text(self._here(notebook.read_text()))
        return self._run(
            "bash",
            "-c",
            f"cd docs && PYTHONPATH=.. MPLBACKEND=agg ../.venv/bin/python -m tests.documents.notebook {copy.name}",
        )

    def lookalike(self, *arguments: str) -> str:
        """What a verb prints."""
        return self._run(".venv/bin/lookalike", *arguments)

    def _here(self, text: str) -> str:
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            **self._place,  # type: ignore[call-overload]
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    def kill(self) -> None:
        """As a power cut would: all of it at once, and the supervisor first, which would start parts again."""
        with suppress(ProcessLookupError):
            os.killpg(self.service.pid, signal.SIGKILL)
        self.service.wait()
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if (entry / "cwd").readlink().is_relative_to(self.directory):
                    os.kill(int(entry.name), signal.SIGKILL)

    def close(self) -> None:
        os.killpg(self.service.pid, signal.SIGINT)
        try:
            self.service.wait(60)
        finally:
            self.kill()


def _put(path: Path, place: Path, *, copied: bool) -> None:
    """A source is a link, or a copy that may be changed."""
    if copied and path.is_dir():
        # With the bytecode, which is as good for a copy, but not what another process is just writing of it.
        shutil.copytree(path, place, ignore=shutil.ignore_patterns("*.pyc.*", "*.egg-info"))
    else:
        place.symlink_to(path)


def _typed(page: Path, block: Block) -> str:
    place = f"BLOCK={page.relative_to(ROOT)}:{block.line}\n"
    if block.language == "python":
        return f"{place}.venv/bin/python - <<'END OF BLOCK'\n{block.text}END OF BLOCK\n"
    return place + block.commands
