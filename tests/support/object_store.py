"""An S3 server as a process of its own, and a proxy before it that can be slow, refuse, and cut what passes."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import requests

from tests.support.ports import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}  # of nobody


class ObjectStore:
    """Keeps its objects for as long as it runs, in memory."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=sink,
                stderr=sink,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(requests.ConnectionError):
                requests.get(f"{self.url}/moto-api/", timeout=5)
                return
            time.sleep(0.05)
        raise AssertionError("no S3 server within 60 s")

    @property
    def pid(self) -> int:
        return self._process.pid

    def make_bucket(self) -> str:
        """A new bucket's address."""
        name = f"bucket-{uuid4().hex[:12]}"
        assert requests.put(f"{self.url}/{name}", timeout=30).status_code == 200
        return f"s3://{name}/some/where"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a process needs to reach it."""
        return {**KEYS, "AWS_ENDPOINT_URL": endpoint or self.url}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class Proxy:
    """Between a client and a server.

    Attributes:
        refusing: new connections are closed at once, and those there are too.
        silent: what comes is kept, and nothing answered.
        cut_after: bytes of one answer, after which its connection is closed; None: never.
        hold_after: bytes of one answer, after which the rest of it waits; None: never.
        holding: whether an answer has waited so.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.refusing = False
        self.silent = threading.Event()
        self.cut_after: int | None = None
        self.hold_after: int | None = None
        self.holding = False
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refusing:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._behind))
                self._open |= {client, server}
                for source, target, answers in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, target, answers), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        passed = 0
        with suppress(OSError):
            while some := source.recv(1 << 16):
                while self.silent.is_set():
                    time.sleep(0.02)
                if self.refusing:
                    break
                passed += len(some)
                if answers and self.cut_after is not None and passed > self.cut_after:
                    break
                while answers and self.hold_after is not None and passed > self.hold_after:
                    self.holding = True
                    time.sleep(0.02)
                target.sendall(some)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            self._open.discard(end)
            end.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Every connection is refused meanwhile."""
        self.refusing = True
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        try:
            yield
        finally:
            self.refusing = False

    def close(self) -> None:
        self.silent.clear()
        self.refusing = True
        self._listener.close()
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
