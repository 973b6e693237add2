"""Fleet: a Stack with any number of workers and a Valkey that forgets nothing, to be hurt and mended part by part.

On Sentinels: with a primary and its replica instead of the one Valkey.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

import redis

from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_client import connect
from tests import ROOT
from tests.e2e.conftest import Service, Stack, environment, eventually
from tests.e2e.support.sentinels import Group
from tests.support.places import copy_installation
from tests.support.signals import send

_COMMANDS = {
    "worker": ["-m", "worker"],
    "poisonable": ["-m", "tests.e2e.support.poisonable_worker"],
    "counting": ["-m", "tests.e2e.support.counting_worker"],
    "held": ["-m", "tests.e2e.support.held_worker"],
    "api": ["-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"],
}


class Fleet(Stack):
    """Parts have names like `api`, `worker` and `worker-2`.

    Args:
        log: file for what parts say.
        group: primary, replica and Sentinels to use instead of a Valkey of its own; closed with the fleet.
        variables: of the environment of every part.
        settings: of every part.
    """

    def __init__(
        self,
        home: Path,
        data_dir: Path,
        *,
        log: Path | None = None,
        group: Group | None = None,
        variables: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        self._group = group
        if group:
            Service.__init__(self, home, group.url())
        else:
            super().__init__(home, data_dir)
        self._settings = settings
        self._variables = variables or {}
        self._log = log
        self._remember_everything()

    @classmethod
    def over_copies(cls, home: Path, catalogue: Path, directory: Path, **settings: object) -> Self:
        """One that tests may change at will: its installation and its catalogue are copied to `directory`."""
        copy_installation(home, directory / "home")
        shutil.copytree(catalogue, directory / "catalogue")
        made = cls(directory / "home", directory / "valkey", log=directory / "log")
        made.configure(catalogue=directory / "catalogue", **settings)
        return made

    def start(self, name: str, **settings: object) -> "subprocess.Popen[bytes]":
        """Start one part; one of that name that still lives is not touched and no longer known."""
        return self.launch(name, _COMMANDS[name.partition("-")[0]], **settings)

    def launch(self, name: str, arguments: list[str], /, **settings: object) -> "subprocess.Popen[bytes]":
        """Start a part as Python with these arguments."""
        sink = self._log.open("ab") if self._log else None
        child = subprocess.Popen(
            [sys.executable, *arguments],
            env=self.environment(**settings),
            cwd=ROOT,
            start_new_session=True,
            stdout=sink,
            stderr=sink,
        )
        if sink:
            sink.close()
        self.processes[name] = child
        return child

    def environment(self, **settings: object) -> dict[str, str]:
        """What a part is started with."""
        given = {"redis_url": self.redis_url, "port": self.port, **self._settings, **settings}
        return {**environment(self.home, **given), **self._variables}

    def configure(self, **settings: object) -> None:
        """Start parts with these settings from now on."""
        self._settings |= settings

    def client(self) -> redis.Redis:
        """A client of its Valkey, or of the primary."""
        if self._group:
            return self._group.data_node(self._group.primary_port())
        return connect(self.redis_url, timeout_s=5)

    def alive(self, name: str) -> bool:
        return name in self.processes and self.processes[name].poll() is None

    def pids_of_redis(self) -> dict[str, int]:
        """Ids of its processes, by name."""
        if not self._group:
            return {"valkey": self.valkey._process.pid} if self.valkey._process else {}
        living = {port: self._group.processes[port].pid for port in self._group.living}
        data, sentinels = self._group.data_ports, self._group.sentinel_ports
        named = {**dict(zip(data, ("valkey-1", "valkey-2"), strict=True))}
        named |= {port: f"sentinel-{n}" for n, port in enumerate(sentinels, 1)}
        return {named[port]: pid for port, pid in living.items()}

    def valkey_alive(self) -> bool:
        if self._group:
            return set(self._group.data_ports) <= set(self._group.living)
        return self.valkey._process is not None and self.valkey._process.poll() is None

    def kill(self, name: str, signum: signal.Signals = signal.SIGKILL) -> int:
        """Signal a part and whatever it forked, and wait for its end; returns its exit code."""
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(self.processes[name].pid, signum)
        return self.processes[name].wait(40)

    def signal_valkey(self, signum: signal.Signals) -> None:
        if self._group:
            self._group.send(self._group.primary_port(), signum)
        else:
            super().signal_valkey(signum)

    def freeze_valkey(self) -> Callable[[], None]:
        """Stop it, or the primary; returns what lets it go on, whichever is primary then."""
        if self._group:
            port = self._group.primary_port()
            self._group.send(port, signal.SIGSTOP)
            return partial(self._group.send, port, signal.SIGCONT)
        self.signal_valkey(signal.SIGSTOP)
        return partial(self.signal_valkey, signal.SIGCONT)

    def signal(self, name: str, signum: signal.Signals) -> None:
        send(self.processes[name], signum)

    def restart_valkey(self) -> None:
        """Start again what has died of it; of a group, once there is a primary."""
        if not (group := self._group):
            super().restart_valkey()
            self._remember_everything()
            return
        dead = set(group.data_ports) - set(group.living)
        eventually(lambda: group.primary_port() not in dead, 40, "the replica is elected")
        for port in dead:
            group.start_data_node(port, primary=group.primary_port())

    def close(self) -> None:
        if not self._group:
            super().close()
            return
        Service.close(self)
        self._group.close()

    def _remember_everything(self) -> None:
        """Every write is on disk before it is answered. `everysec`, as served, may lose the last second in a crash."""
        if not self._group:  # whose primary is not started again on its disk, but replaced
            with self.client() as client:
                client.config_set("appendfsync", "always")

    def man(self, n_workers: int = 1) -> None:
        """Have the API and exactly so many workers as served, running and idle, whatever the last test left."""
        wanted = ["worker", *(f"worker-{number}" for number in range(2, n_workers + 1))]
        for name in list(self.processes):
            if name not in ("api", *wanted) and self.alive(name):
                self.kill(name)
        for name in wanted:
            if self.alive(name):
                self.signal(name, signal.SIGCONT)
            else:
                self.start(name)
        if not self.alive("api"):
            self.start("api")
        pids = {self.processes[name].pid for name in wanted}
        with self.client() as client:
            registry = WorkerRegistry(client)
            eventually(lambda: pids <= {w.pid for w in registry.live() if w.state == "ready"}, 60, "workers are ready")
        self.wait_ready()

    def logged(self, event: str) -> int:
        """How often an event was logged since the fleet began."""
        return self.log_text().count(f"event={event} ")

    def log_text(self) -> str:
        """Everything that was logged since the fleet began."""
        assert self._log is not None
        return self._log.read_text(errors="replace")
