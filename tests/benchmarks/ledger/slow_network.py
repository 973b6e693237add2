"""Hosts with a round trip between them: `python -m tests.benchmarks.ledger.slow_network DELAY_S ADDRESS=FD ...`.

Each host has a TUN device, and this process passes each packet on when its delay is over: `tc netem` does the same, but
many kernels lack it. Bandwidth is not bounded.
"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.support import netns
from tests.e2e.support.netns import Host, Network

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_DEVICES, _DEVICE = Path("/dev/net/tun"), "slow0"
_DESTINATION = slice(16, 20)  # of an IPv4 header
_LARGEST = 65536


def why_not() -> str | None:
    """What keeps this machine from having such hosts, or None."""
    return netns.why_not() or (None if _DEVICES.exists() else f"there is no {_DEVICES}")


class SlowNetwork:
    """Hosts by name; any two are `rtt_s` apart. Needs what `why_not` asks for."""

    def __init__(self, names: Sequence[str], rtt_s: float) -> None:
        self._names, self._rtt_s = names, rtt_s
        self._network = Network()
        self._hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        self._network.__enter__()
        devices = {}
        for number, name in enumerate(self._names, 1):
            host = self._hosts[name] = self._network.host(name)
            with host.inside():
                devices[_address(number)] = _open_device(_address(number))
        pairs = [f"{address}={fd}" for address, fd in devices.items()]
        command = [sys.executable, "-m", __spec__.name, str(self._rtt_s / 2), *pairs]
        self._forwarder = subprocess.Popen(command, pass_fds=list(devices.values()))
        for fd in devices.values():
            os.close(fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._forwarder.kill()
        self._forwarder.wait()
        self._network.__exit__(kind, error, traceback)

    def address(self, host: str) -> str:
        return _address(self._names.index(host) + 1)

    def inside(self, host: str) -> AbstractContextManager[None]:
        return self._hosts[host].inside()


def _address(number: int) -> str:
    return f"10.78.0.{number}"


def _open_device(address: str) -> int:
    """Make the device in this thread's network."""
    fd = os.open(_DEVICES, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    for change in (["address", "add", f"{address}/24", "dev", _DEVICE], ["link", "set", _DEVICE, "up"]):
        subprocess.run(["ip", *change], check=True)
    return fd


def forward(delay_s: float, devices: dict[bytes, int]) -> None:
    """Pass packets between devices, each `delay_s` after it came; what a device cannot take is dropped."""
    waiting: deque[tuple[float, int, bytes]] = deque()
    while True:
        pause_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        # Not poll or epoll, whose timeouts are whole milliseconds.
        for fd in select.select(list(devices.values()), [], [], pause_s)[0]:
            with suppress(BlockingIOError):
                while packet := os.read(fd, _LARGEST):
                    if to := devices.get(packet[_DESTINATION]):
                        waiting.append((time.monotonic() + delay_s, to, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, to, packet = waiting.popleft()
            with suppress(OSError):
                os.write(to, packet)


if __name__ == "__main__":
    pairs = (argument.split("=") for argument in sys.argv[2:])
    forward(float(sys.argv[1]), {socket.inet_aton(address): int(fd) for address, fd in pairs})
