"""Hosts on one machine: each has its own network, processes and name; a switch joins them, and cables can be pulled.

A second switch, joined to nothing, is an island for several hosts that are cut off together.

A host is a process that holds its Linux namespaces. When it ends, everything on the host ends and its network is gone;
it ends with the process that made it, however that ends. Nothing of the machine's own network is touched.
"""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_TOOLS = ("ip", "nsenter", "setpriv", "unshare")
_CLONE_NEWNET = 0x40000000
_WITHIN_S = 20


def why_not() -> str | None:
    """What keeps this machine from having hosts, or None."""
    if platform.system() != "Linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)}"
    try:
        with Network() as network:
            network.host("probe")
    except (OSError, subprocess.CalledProcessError, TimeoutError) as exc:
        return f"namespaces cannot be made: {exc}"
    return None


class Host:
    """One machine that may lose its network or its power, and be booted again under its name and address."""

    def __init__(self, network: "Network", name: str, number: int) -> None:
        self.name = name
        self.address = f"10.77.0.{number}"
        self._mac = f"02:00:00:00:00:{number:02x}"
        self._port = f"port{number}"  # of the switch
        self._network = network
        self.boot()

    def boot(self) -> None:
        """Begin, with nothing running and the cable plugged in."""
        self._anchor = _Anchor(self.name)
        self._running: list[subprocess.Popen[bytes]] = []
        # The same card after each boot, or the others would go on talking to the one before.
        card = f"address {self._mac} name eth0 netns {self._anchor.pid}"
        self._network.switch.ip(f"link add {self._port} type veth peer {card}")
        self._anchor.ip(f"address add {self.address}/24 dev eth0", "link set eth0 up")
        self._network.switch.ip(f"link set {self._port} up")
        self.plug_in()

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path, cwd: Path) -> None:
        """Run a command on the host for as long as that lives."""
        with log.open("ab") as sink:
            entering = [*self._anchor.entering, f"--wd={cwd}"]  # nsenter would begin in /
            self._running.append(
                subprocess.Popen([*entering, *command], env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
            )

    def unplug(self) -> None:
        """Nothing reaches the host any more or comes from it, and nobody is told."""
        self._network.switch.ip(f"link set {self._port} nomaster")

    def plug_in(self, island: int = 0) -> None:
        """Join the others, or those on another island."""
        self._network.switch.ip(f"link set {self._port} master br{island}")

    def lose_power(self) -> None:
        """Everything on the host ends at once; others see silence, and no closed connection."""
        self._network.switch.ip(f"link delete {self._port}")
        self.close()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """In the body this thread, and threads and processes it starts, are in the host's network."""
        with Path("/proc/thread-self/ns/net").open() as ours:
            _enter(f"/proc/{self._anchor.pid}/ns/net")
            try:
                yield
            finally:
                _enter(f"/proc/self/fd/{ours.fileno()}")

    def close(self) -> None:
        self._anchor.kill()
        for process in self._running:
            process.wait()


class Network:
    """A switch and the hosts that are plugged into it."""

    def __init__(self) -> None:
        self.switch = _Anchor("switch")
        self._hosts: list[Host] = []

    def __enter__(self) -> Self:
        try:
            for island in range(2):
                self.switch.ip(f"link add br{island} type bridge", f"link set br{island} up")
        except BaseException:
            self.switch.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for host in self._hosts:
            host.close()
        self.switch.kill()

    def host(self, name: str) -> Host:
        """A new host of that name."""
        made = Host(self, name, len(self._hosts) + 1)
        self._hosts.append(made)
        return made


class _Anchor:
    """The first process of new namespaces."""

    def __init__(self, name: str) -> None:
        namespaces = ["unshare", "--net", "--uts", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"]
        first = f"hostname {name} && ip link set lo up && exec sleep infinity"
        # Whatever becomes of us, the kernel ends it.
        command = ["setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-c", first]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.pid = self._first_process()
        self.entering = ["nsenter", "--target", str(self.pid), "--net", "--uts", "--mount", "--pid"]

    def ip(self, *commands: str) -> None:
        """Change the network as `ip` would."""
        subprocess.run(
            ["nsenter", "--target", str(self.pid), "--net", "ip", "-batch", "-"],
            input="\n".join(commands),
            check=True,
            capture_output=True,
            text=True,
        )

    def kill(self) -> None:
        """Return when every process of the namespaces has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _first_process(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline = time.monotonic() + _WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for pid in children.read_text().split():
                if Path(f"/proc/{pid}/comm").read_text().strip() == "sleep":
                    return int(pid)
            time.sleep(0.01)
        self._process.kill()
        raise OSError(self._process.communicate()[1].strip() or "unshare hangs")


def _enter(network: str) -> None:
    """Have the calling thread change its network namespace; Python can do so itself from 3.12 on."""
    with Path(network).open() as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
