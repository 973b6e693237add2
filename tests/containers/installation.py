"""An installation of docker-compose.yml on a real engine, from a copy of the checkout, beside others of the engine."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests import ROOT
from tests.documents.blocks import blocks
from tests.support.ports import free_port

PROJECT = "lookalike-tried"
OURS = ("api", "worker", "pipeline", "flower")
_WITHIN_S = 600
_REDIS = re.search(r"image: (redis:\S+)", (ROOT / "docker-compose.yml").read_text())


def missing() -> str | None:
    """What there is not of an engine and compose, or None."""
    for command in (["docker", "compose", "version"], ["docker", "buildx", "version"], ["docker", "info"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "there is no docker command"
        if done.returncode:
            return f"`{' '.join(command)}` says: {(done.stderr or done.stdout).strip().splitlines()[0]}"
    return None


def until(holds: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait for something, and return after how many seconds it was so."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + within_s:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - began


class Installation:
    """Volumes, networks and image tags of its own; everything is gone in the end.

    Args:
        directory: empty; a copy of the checkout is made in it.
    """

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "checkout"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.checkout / name)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.versions: list[str] = []
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_PROFILES": "cpu,monitoring",
            "PORT": str(port),
        }

    def use(self, **environment: str | None) -> None:
        """Set variables of the compose file from here on; None: unset."""
        for name, value in environment.items():
            self._environment.pop(name, None)
            if value is not None:
                self._environment[name] = value

    def compose(self, *arguments: str, fails: bool = False) -> str:
        """Run `docker compose`, and return what it prints on both streams."""
        done = subprocess.run(
            ["docker", "compose", "--progress", "plain", *arguments],
            cwd=self.checkout,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_WITHIN_S * 3,
            check=False,
        )
        if bool(done.returncode) is not fails:
            raise AssertionError(f"docker compose {' '.join(arguments)}: {done.returncode}\n{done.stdout[-2000:]}")
        return done.stdout

    def documented(self, heading: str) -> None:
        """Run the commands of the first block below a heading of docs/deployment.md, as they stand there."""
        page = self.checkout / "docs/deployment.md"
        below = page.read_text().splitlines().index(f"### {heading}")
        commands = next(block.commands for block in blocks(page) if block.line > below + 1)
        commands = commands.replace(" lookalike_", f" {PROJECT}_")  # volumes
        done = subprocess.run(
            ["sh", "-euxc", commands],
            cwd=self.checkout,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{heading}: {done.returncode}\n{done.stderr[-2000:]}")

    def build(self, version: str) -> str:
        """Build all images but that for GPUs, tagged as a version, which is used from then on."""
        self.use(VERSION=version)
        self.versions.append(version)
        return self.compose("build")

    def verb(self, *arguments: str) -> str:
        """Run a verb of the command line as documented."""
        return self.compose("run", "--rm", "-T", "lookalike", *arguments)

    def containers(self) -> dict[str, str]:
        """Ids of the containers by name, running or not."""
        return {each["Name"]: each["ID"] for each in self._listed()}

    def healthy(self) -> bool:
        """Whether everything runs that goes on, and every health check says so."""
        return all(
            each["State"] == "running" and each["Health"] in ("", "healthy")
            for each in self._listed()
            if each["Service"] not in ("secrets", "prepare")
        )

    def ready(self) -> bool:
        """Whether both workers serve."""
        try:
            answer = requests.get(f"{self.url}/readyz", timeout=5)
            return answer.ok and answer.json()["workers"] >= 2
        except requests.RequestException:
            return False

    def index_version(self) -> str:
        """The live version of the index."""
        version: str = requests.get(f"{self.url}/v1/index", timeout=5).json()["version"]
        return version

    def kill(self, service: str) -> None:
        """End the main process of a container from outside, as the kernel does when memory is short.

        `docker kill` would not do: the engine does not start again what a person has ended.
        """
        (container,) = (each["ID"] for each in self._listed() if each["Service"] == service)
        pid = self._docker("inspect", "-f", "{{.State.Pid}}", container)
        assert _REDIS
        self._docker("run", "--rm", "--pid=host", "-u", "0", _REDIS[1], "kill", "-9", pid)
        until(
            lambda: self._docker("inspect", "-f", "{{.RestartCount}}", container) != "0", 60, f"a restart of {service}"
        )

    def sizes(self) -> dict[str, str]:
        """How large the images are, in MB."""
        version = self.versions[-1]
        sizes = {
            name: self._docker("image", "inspect", "-f", "{{.Size}}", f"lookalike-{name}:{version}") for name in OURS
        }
        return {name: f"{int(size) / 1e6:.0f} MB" for name, size in sizes.items()}

    def leftovers(self) -> list[str]:
        """Containers, networks and volumes of this installation."""
        of_ours = ["--filter", f"label=com.docker.compose.project={PROJECT}", "-q"]
        return [
            *self._docker("ps", "-a", *of_ours).split(),
            *self._docker("network", "ls", *of_ours).split(),
            *self._docker("volume", "ls", *of_ours).split(),
        ]

    def close(self) -> None:
        """Remove everything but the engine's cache of builds."""
        self.compose("--profile", "*", "down", "--volumes")
        for version in self.versions:
            for name in OURS:
                subprocess.run(
                    ["docker", "image", "rm", f"lookalike-{name}:{version}"], capture_output=True, check=False
                )

    def _listed(self) -> list[dict[str, str]]:
        lines = self.compose("ps", "-a", "--format", "json").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"docker {' '.join(arguments)}: {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout.strip()


@contextmanager
def installation() -> Iterator[Installation]:
    """An installation in a directory that the engine can see, removed in the end."""
    with tempfile.TemporaryDirectory(prefix="lookalike-containers-") as directory:
        Path(directory).chmod(0o755)  # the dump in it is read by another user
        made = Installation(Path(directory))
        try:
            yield made
        finally:
            made.close()
