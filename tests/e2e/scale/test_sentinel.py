"""Redis by Sentinel, for real: a primary is killed or hangs, Sentinels elect its replica, and the service goes on.

The service speaks TLS with all of them, as users that may do no more than it needs. In plain and with the password of
the default user: `test_hosts`.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import requests

from tests.e2e.conftest import Service, eventually, lookalike
from tests.e2e.support.sentinels import ESCAPED, PASSWORD, SENTINEL_ESCAPED, SENTINEL_PASSWORD, Group
from tests.support.ports import free_port
from tests.support.signals import send

FAILOVER_WITHIN_S = 40


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

        send(worker, signal.SIGSTOP)  # so that all of them wait when it begins
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
