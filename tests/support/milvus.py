"""A Milvus to test with: the embedded twin, as a server process on the loopback address."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from shared.errors import IndexUnavailable
from shared.index.milvus.server import MilvusServer
from tests.support.signals import send


class MilvusLite:
    """Started where it is made, and again after `kill` on the same port and data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]
        self.address = f"milvus+http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = ["-m", "milvus_lite", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        with (self._directory / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command, "--data-dir", str(self._directory / "milvus")], stdout=log, stderr=log
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            server = self.connect()
            try:
                with server.calling() as client:
                    client.list_collections(timeout=1)
                return
            except IndexUnavailable:
                assert time.monotonic() < deadline, "milvus-lite does not answer"
                time.sleep(0.1)
            finally:
                server.close()

    def connect(self, *, timeout_s: float = 10) -> MilvusServer:
        return MilvusServer(self.address, timeout_s=timeout_s)

    def collections(self) -> list[str]:
        server = self.connect()
        with server.calling() as client:
            names: list[str] = client.list_collections()
        server.close()
        return names

    def alias(self, alias: str) -> str | None:
        """The collection an alias leads to."""
        server = self.connect()
        try:
            with server.calling() as client:
                return str(client.describe_alias(alias)["collection_name"])
        except IndexUnavailable:
            return None
        finally:
            server.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, signum: signal.Signals) -> None:
        send(self._process, signum)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
