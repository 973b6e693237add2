"""One certain job, claimed by its id: at most once, and never what the queues would not give away either."""

import threading

import pytest
import redis

from shared.jobs.contract import Job, JobStatus
from shared.jobs.records import PREFIX, Claim, QueueName
from shared.jobs.store import JobStore
from tests.conftest import Clock
from tests.support.jobs import RESULT, claim, create, reap


def test_a_job_is_claimed_by_its_id_as_if_it_were_its_turn(store: JobStore, client: redis.Redis, clock: Clock) -> None:
    create(store)
    job = create(store)
    clock.now += 1
    taken = store.claim_job(job.id, "w1", lease_s=15)
    assert taken is not None
    assert (taken.job.id, taken.job.status, taken.job.attempt) == (job.id, JobStatus.RUNNING, 1)
    assert (taken.job.started_at, taken.pixels) == (clock.now, b"pixels")
    assert client.hget(f"{PREFIX}job:{job.id}", "worker") == b"w1"
    assert client.zscore(f"{PREFIX}running", job.id) == clock.now + 15
    assert store.succeed(taken.job, RESULT) is JobStatus.SUCCEEDED


def test_the_queues_do_not_see_it_afterwards(store: JobStore, client: redis.Redis) -> None:
    job, other = create(store, owner="a"), create(store, owner="b")
    assert store.claim_job(job.id, "w1", lease_s=15)
    assert store.depth() == 1
    assert store.place(job) is None
    claim(store, other)
    assert store.claim("w2", lease_s=15) is None
    assert not client.exists(f"{PREFIX}turns:interactive")


def test_a_job_is_claimed_once_however_it_is_asked_for(store: JobStore) -> None:
    job = create(store)
    barrier = threading.Barrier(16)
    claims: list[Claim | None] = []

    def ask(number: int) -> None:
        barrier.wait()
        claims.append(store.claim_job(job.id, "w", lease_s=15) if number % 2 else store.claim("w", lease_s=15))

    threads = [threading.Thread(target=ask, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([taken for taken in claims if taken]) == 1
    assert len(claims) == 16
    assert store.get(job.id).attempt == 1


def test_a_claim_by_id_takes_the_owners_turn(store: JobStore) -> None:
    jobs: list[Job] = [create(store, owner=owner) for owner in "aabb"]
    assert store.claim_job(jobs[0].id, "w1", lease_s=15)
    assert [claim(store).owner for _ in range(3)] == ["b", "a", "b"]


def test_a_requeued_job_is_claimed_for_its_next_attempt(store: JobStore, clock: Clock) -> None:
    job = create(store)
    first = store.claim_job(job.id, "w1", lease_s=15)
    assert first is not None
    clock.now += 16
    assert reap(store) == [job.id]
    second = store.claim_job(job.id, "w2", lease_s=15)
    assert second is not None
    assert (second.job.attempt, second.job.started_at) == (2, first.job.started_at)
    assert store.succeed(first.job, RESULT) is None


@pytest.mark.parametrize("state", ["unknown", "canceled", "running", "canceling", "succeeded"])
def test_what_is_not_queued_is_not_given_away(store: JobStore, state: str) -> None:
    job = create(store)
    if state in {"running", "canceling", "succeeded"}:
        claim(store, job)
    if state in {"canceled", "canceling"}:
        store.cancel(job.id)
    if state == "succeeded":
        store.succeed(store.get(job.id), RESULT)
    before = store.get(job.id)
    assert store.claim_job("0" * 32 if state == "unknown" else job.id, "w2", lease_s=15) is None
    assert store.get(job.id) == before


def test_a_job_past_its_deadline_is_expired_instead(store: JobStore, client: redis.Redis, clock: Clock) -> None:
    job = create(store, deadline_s=5)
    clock.now += 6
    assert store.claim_job(job.id, "w1", lease_s=15) is None
    assert client.hget(f"{PREFIX}job:{job.id}", "status") == b"expired"
    assert store.depth() == 0
    error = store.get(job.id).error
    assert error is not None
    assert error.code == "deadline_exceeded"


def test_a_quarantined_job_is_left_to_those_who_run_it_alone(store: JobStore, clock: Clock) -> None:
    job = create(store)
    for _ in range(2):
        claim(store, job)
        clock.now += 16
        assert reap(store) == [job.id]
    assert store.backlog().queued[QueueName.QUARANTINE] == 1
    assert store.claim_job(job.id, "w1", lease_s=15) is None
    claim(store, job, suspects=True)
