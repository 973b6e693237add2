"""Batches of a thousand: their records are read a few hundred at a time, whatever is asked of the batch."""

import secrets
import threading
from collections.abc import Callable
from typing import cast

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.jobs.batches import Batch, BatchItem, BatchStore
from shared.jobs.contract import JobKind, JobStatus
from shared.jobs.store import JobStore
from tests.integration.conftest import settings
from tests.support.jobs import RESULT, create

N_JOBS = 1000
# Of the server, for five chunks each way: a request or an answer of some kB may arrive in several parts.
FEW_READS = 150


@pytest.fixture
def http(client: redis.Redis, valkey_url: str) -> FlaskClient:
    return create_app(settings(valkey_url)).test_client()


def write(client: redis.Redis, jobs: JobStore, n_jobs: int, *, deadline_s: float | None = None) -> str:
    """Write a batch of queued jobs; returns its URL."""
    ids = [create(jobs, max_queued=2 * n_jobs, deadline_s=deadline_s).id for _ in range(n_jobs)]
    items = [BatchItem(custom_id=str(i), job_id=job_id) for i, job_id in enumerate(ids)]
    batch = Batch(id=secrets.token_hex(16), kind=JobKind.EMBED, owner="", created_at=jobs.now(), items=items)
    BatchStore(client, ttl_s=60).save(batch, None)
    return f"/v1/batches/{batch.id}"


def finish_all(jobs: JobStore) -> None:
    while taken := jobs.claim("w", lease_s=15):
        jobs.succeed(taken.job, RESULT)


def n_reads(client: redis.Redis, ask: Callable[[], object]) -> int:
    """How often the server read from connections while something was asked: at least once a round trip."""

    def count() -> int:
        return int(cast(dict[str, int], client.info("stats"))["total_reads_processed"])

    before = count()
    ask()
    return count() - before


def test_a_batch_of_a_thousand_is_shown_waited_for_and_cancelled_in_few_round_trips(
    http: FlaskClient, client: redis.Redis, jobs: JobStore
) -> None:
    url = write(client, jobs, N_JOBS)

    def shows(path: str, method: str, **expected: int) -> None:
        counts = http.open(path, method=method).get_json()["counts"]
        assert {name: count for name, count in counts.items() if count} == {"total": N_JOBS, **expected}

    assert n_reads(client, lambda: shows(url, "GET", queued=N_JOBS)) < FEW_READS
    held = jobs.claim("w", lease_s=15)
    assert held
    assert n_reads(client, lambda: shows(f"{url}?wait=0.01", "GET", queued=N_JOBS - 1, running=1)) < FEW_READS
    assert n_reads(client, lambda: shows(f"{url}/cancel", "POST", canceled=N_JOBS - 1, canceling=1)) < FEW_READS
    jobs.succeed(held.job, RESULT)
    assert n_reads(client, lambda: shows(f"{url}?wait=30", "GET", canceled=N_JOBS)) < FEW_READS
    assert n_reads(client, lambda: shows(f"{url}/cancel", "POST", canceled=N_JOBS)) < FEW_READS


def test_waiting_for_a_batch_that_is_worked_on_does_not_wait_for_each_job(
    http: FlaskClient, client: redis.Redis, jobs: JobStore
) -> None:
    url = write(client, jobs, 300)
    client.config_resetstat()
    worker = threading.Thread(target=finish_all, args=[jobs])
    worker.start()
    body = http.get(f"{url}?wait=30").get_json()
    worker.join()
    assert body["counts"]["succeeded"] == 300
    assert cast(dict[str, dict[str, int]], client.info("commandstats"))["cmdstat_blmove"]["calls"] < 100


def test_jobs_past_their_deadline_are_expired_together(http: FlaskClient, client: redis.Redis, jobs: JobStore) -> None:
    at = jobs.now()
    late = JobStore(client, clock=lambda: at - 100)
    url = write(client, late, N_JOBS, deadline_s=10)
    answers = list[int]()
    assert n_reads(client, lambda: answers.append(http.get(url).get_json()["counts"]["expired"])) < FEW_READS
    assert answers == [N_JOBS]
    assert {jobs.get(item["job_id"]).status for item in http.get(url).get_json()["items"][:3]} == {JobStatus.EXPIRED}


def test_jobs_are_read_in_the_order_asked_for_and_none_stands_for_one_that_is_gone(
    client: redis.Redis, jobs: JobStore
) -> None:
    ids = [create(jobs, max_queued=2000).id for _ in range(450)]
    jobs.cancel_all(ids[:220])
    client.delete(f"lookalike:job:{ids[3]}")
    asked = [ids[449], "0" * 32, *ids[:449]]
    found = jobs.get_all(asked)
    assert [job and job.id for job in found] == [ids[449], None, *ids[:3], None, *ids[4:449]]
    assert {job.status for job in found[2:222] if job} == {JobStatus.CANCELED}
    assert {job.status for job in found[222:] if job} == {JobStatus.QUEUED}
    jobs.cancel_all([ids[0], "0" * 32, ids[300]])
    assert jobs.get(ids[300]).status is JobStatus.CANCELED
    assert jobs.get_all([]) == []
