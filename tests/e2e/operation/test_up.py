"""`lookalike up`, which is `make run` after set-up: one command starts everything, and nothing is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from shared.redis_address import running_redis_url
from shared.redis_client import connect
from shared.settings import Settings
from tests import ROOT
from tests.e2e.conftest import environment, eventually, lookalike, verb
from tests.support.places import copy_installation
from tests.support.ports import free_port


class Up:
    """One run of the supervisor."""

    def __init__(self, home: Path, catalogue: Path, port: int, log: Path, **settings: object) -> None:
        self.home, self.port, self.log = home, port, log
        self.url = f"http://127.0.0.1:{port}"
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "up", "--port", str(port), "--catalogue", str(catalogue)],
                env=environment(home, **settings),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        eventually(self._announced, 120, "ready")

    def _announced(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return f"ready at {self.url}" in self.log.read_text()

    def parts(self) -> dict[int, str]:
        """Every living process of this home but the supervisor, by id."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                # Valkey overwrites its environment with its title, but works inside the home.
                at_home = (entry / "cwd").readlink().is_relative_to(self.home)
                if at_home or f"LOOKALIKE_HOME={self.home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:
                        found[int(entry.name)] = command
            except (OSError, ValueError):
                continue
        found.pop(self.process.pid, None)
        return found

    def find(self, needle: str) -> int | None:
        """The part itself, and not a process of its own making."""
        ours = (pid for pid, command in self.parts().items() if needle in command and self._started(pid))
        return next(ours, None)

    def _started(self, pid: int) -> bool:
        try:
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            return False
        return int(parent) == self.process.pid

    def part(self, needle: str) -> int:
        pid = self.find(needle)
        assert pid is not None, f"no {needle} among {self.parts()}"
        return pid


@pytest.fixture
def up(home: Path, catalogue: Path, tmp_path: Path) -> Iterator[Up]:
    """Running, out of a path with spaces and an umlaut."""
    with _running(home, catalogue, tmp_path) as up:
        yield up


@pytest.fixture(scope="module")
def serving(home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Another, for tests that leave it as they find it."""
    with _running(home, catalogue, tmp_path_factory.mktemp("serving")) as up:
        yield up


@contextmanager
def _running(home: Path, catalogue: Path, directory: Path) -> Iterator[Up]:
    copy = directory / "a hömé with spaces"
    copy_installation(home, copy)
    with _started(copy, catalogue, directory / "log") as up:
        yield up


@contextmanager
def _started(home: Path, catalogue: Path, log: Path, **settings: object) -> Iterator[Up]:
    up = Up(home, catalogue, free_port(), log, **settings)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.process.kill()
        up.process.wait()
        for pid in up.parts():
            os.kill(pid, signal.SIGKILL)


def stopped_in_good_order(up: Up, signum: signal.Signals) -> None:
    """Ask it to end, and see that it leaves nothing."""
    up.process.send_signal(signum)
    assert up.process.wait(40) == 0, up.log.read_text()
    assert up.parts() == {}
    assert "Traceback" not in up.log.read_text()
    assert not (up.home / "redis.url").exists()


def first_match(url: str, photo: Path) -> str:
    with photo.open("rb") as file:
        answer = requests.post(url + "/predict/similar_images", files={"image": file}, timeout=40)
    label: str = answer.json()["image_labels"][0]
    return label


def submit(up: Up, photo: Path) -> str:
    with photo.open("rb") as file:
        answer = requests.post(up.url + "/v1/jobs/search", files={"image": file}, timeout=20)
    job_id: str = answer.json()["id"]
    return job_id


def found(up: Up, photo: Path) -> bool:
    """Whether the photo is found in the index now; a part that is away is a 503 and not yet."""
    with photo.open("rb") as file:
        answer = requests.post(up.url + "/predict/similar_images", files={"image": file}, timeout=40)
    return answer.status_code == 200 and answer.json()["image_labels"][0] == photo.stem


def test_it_serves_and_an_orderly_stop_leaves_no_process(up: Up, photos: list[Path]) -> None:
    up.wait_ready()
    assert first_match(up.url, photos[0]) == photos[0].stem
    assert {"valkey", "worker", "gunicorn"} <= {
        name for command in up.parts().values() for name in ("valkey", "worker", "gunicorn") if name in command
    }
    requests.get(up.url + "/nowhere", headers={"X-Request-ID": "seen-1"}, timeout=20)
    stopped_in_good_order(up, signal.SIGINT)
    log = up.log.read_text()
    assert "event=job_finished" in log
    assert "event=request_refused method=GET path=/nowhere status=404 request_id=seen-1" in log
    assert "Warning" not in log


def test_each_killed_part_is_started_again_and_a_search_succeeds(serving: Up, photos: list[Path]) -> None:
    up = serving
    up.wait_ready()
    job_id = submit(up, photos[0])
    # The log of Valkey is written to disk every second: only what is there is promised to survive.
    eventually(lambda: _status(up, job_id) == "succeeded", 30, "the job ended")
    for name, needle in (("valkey", "valkey-server"), ("api", "gunicorn"), ("worker", "-m worker")):
        killed = up.part(needle)
        os.kill(killed, signal.SIGKILL)
        told = f"{name} ended with signal SIGKILL; it is started again in 1 s"
        eventually(lambda told=told: told in up.log.read_text(), 10, told)  # type: ignore[misc]
        eventually(lambda: found(up, photos[1]), 40, f"a search succeeds after {name} was killed")
        assert up.part(needle) != killed
        assert _status(up, job_id) == "succeeded"
    assert up.process.poll() is None


def test_a_part_that_keeps_dying_is_started_later_each_time_while_the_others_live_on(up: Up) -> None:
    up.wait_ready()
    others = {up.part("valkey-server"), up.part("gunicorn")}
    for pause_s in (1, 2, 4):
        eventually(lambda: up.find("-m worker"), 10, "the worker is started")
        os.kill(up.part("-m worker"), signal.SIGKILL)
        told = f"worker ended with signal SIGKILL; it is started again in {pause_s} s"
        eventually(lambda told=told: told in up.log.read_text(), 10, told)  # type: ignore[misc]
        assert requests.get(up.url + "/livez", timeout=20).ok
    assert others <= up.parts().keys()
    stopped_in_good_order(up, signal.SIGTERM)  # while it waits to start the worker again


def test_other_processes_of_this_user_find_the_embedded_valkey_while_it_runs(serving: Up) -> None:
    serving.wait_ready()
    assert (serving.home / "redis.url").stat().st_mode & 0o777 == 0o600
    with connect(running_redis_url(Settings(home=serving.home))) as client:
        assert client.ping()


def test_what_it_has_built_it_does_not_carry_about(catalogue: Path, tmp_path: Path) -> None:
    with _started(tmp_path / "home", catalogue, tmp_path / "log", precision="float32") as up:
        up.wait_ready()
        assert up.log.read_text().count("model bundle (") == 1
        assert psutil.Process(up.process.pid).memory_info().rss < 250e6  # a process that has built has 390 MB and more
        stopped_in_good_order(up, signal.SIGHUP)


def test_a_killed_supervisor_leaves_no_process_and_the_next_one_finishes_what_was_running(
    up: Up, catalogue: Path, photos: list[Path], tmp_path: Path
) -> None:
    up.wait_ready()
    job_ids = [submit(up, photo) for photo in photos[:30]]
    version = requests.get(up.url + "/v1/index", timeout=20).json()["version"]
    # The log of Valkey is written to disk every second: only what is there is promised to survive.
    eventually(lambda: _status(up, job_ids[0]) == "succeeded", 30, "the first job ended")
    up.process.kill()
    up.process.wait()
    # A worker with a job in hand tries for half a minute to write how it ended, to a Redis that is gone.
    eventually(lambda: not up.parts(), 60, "every part is gone")
    again = Up(up.home, catalogue, up.port, tmp_path / "log2")
    try:
        again.wait_ready()
        eventually(lambda: {_status(again, j) for j in job_ids} == {"succeeded"}, 60, "every accepted job ended")
        assert requests.get(again.url + "/v1/index", timeout=20).json()["version"] == version
    finally:
        again.process.terminate()
        again.process.wait(40)


def _status(up: Up, job_id: str) -> str:
    text: str = requests.get(f"{up.url}/v1/jobs/{job_id}", timeout=20).json()["status"]
    return text


def test_a_taken_port_is_told_at_once(home: Path, catalogue: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = lookalike("up", "--port", str(port), "--catalogue", str(catalogue), home=home)
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "PORT=" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_redis_that_does_not_answer_is_told_at_once(home: Path, catalogue: Path) -> None:
    refused = lookalike(
        *("up", "--port", str(free_port()), "--catalogue", str(catalogue)), home=home, redis_url="redis://127.0.0.1:1/0"
    )
    assert refused.returncode == 1
    assert "LOOKALIKE_REDIS_URL does not answer" in refused.stderr


def test_verbs_without_a_catalogue_read_the_one_in_use(home: Path, catalogue: Path) -> None:
    told = verb("clean", "--json", home=home)
    assert json.loads(told.stdout)["catalogue"] == catalogue.name
    assert json.loads(told.stdout)["photos"] == 104


def test_two_services_do_not_share_a_home(serving: Up, catalogue: Path) -> None:
    serving.wait_ready()
    refused = lookalike("up", "--port", str(free_port()), "--catalogue", str(catalogue), home=serving.home)
    assert refused.returncode == 1
    assert "another `make run`" in refused.stderr


def test_a_catalogue_that_cannot_be_used_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    refused = lookalike("up", "--port", str(free_port()), "--catalogue", str(tmp_path / "dump"), home=tmp_path / "h")
    assert refused.returncode == 1
    assert "Products.csv" in refused.stderr
    assert not (tmp_path / "h" / "bundles").exists()
