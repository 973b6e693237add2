"""TLS for a Valkey that is built without it: doors that speak TLS stand before it, in a process of their own.

Who does not begin a handshake is let through in plain: servers of one group talk to one another through the addresses
that clients are given.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from gevent import joinall, sleep, socket, spawn, ssl
from gevent.server import StreamServer

from tests import ROOT

_HANDSHAKE = b"\x16"  # the first byte of a TLS record that is one


@dataclass(frozen=True)
class Certificate:
    """A certificate for loopback that vouches for itself, and its key."""

    path: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """Write a certificate that is good for a day."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = Certificate(directory / "cert.pem", directory / "key.pem")
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.path)]
    subprocess.run([*request, *subject, *files], check=True, capture_output=True)
    return made


@contextmanager
def tls_doors(certificate: Certificate, ports: list[int]) -> Iterator[list[int]]:
    """A door to each of these ports on loopback, whether somebody listens there yet or not; gives the doors' own."""
    command = [sys.executable, "-m", "tests.support.tls", str(certificate.path), str(certificate.key), *map(str, ports)]
    doors = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert doors.stdout is not None
        yield [int(port) for port in doors.stdout.readline().split()]
    finally:
        doors.kill()
        doors.communicate()


def main() -> None:
    """Open the doors, say where they are, and serve until killed."""
    certificate, key, *ports = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    servers = [StreamServer(("127.0.0.1", 0), partial(_let_in, context, int(port))) for port in ports]
    for server in servers:
        server.start()
    print(*(server.server_port for server in servers), flush=True)
    while True:
        sleep(60)


def _let_in(context: ssl.SSLContext, port: int, outside: socket.socket, _: object) -> None:
    with suppress(OSError):  # who does not trust us, and a server that is gone
        if outside.recv(1, socket.MSG_PEEK) == _HANDSHAKE:
            outside = context.wrap_socket(outside, server_side=True)
        with outside, socket.create_connection(("127.0.0.1", port)) as inside:
            joinall([spawn(_carry, outside, inside), spawn(_carry, inside, outside)], count=1)


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)


if __name__ == "__main__":
    main()
