"""Job truth on a real Valkey: every transition by compare-and-set, nothing lost, nothing done twice."""

import json
import threading
import time

import pytest
import redis

from shared.errors import (
    InvalidRequest,
    JobFinished,
    JobGone,
    JobNotFound,
    QueueFull,
    ReindexRunning,
)
from shared.jobs.contract import JobKind, JobStatus, SearchRequest
from shared.jobs.records import PREFIX, Admission, QueueName
from shared.jobs.reindex_contract import ReindexRequest, ShardRequest
from shared.jobs.reindex_jobs import SHARD_OWNER
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import WorkerReport
from tests.conftest import Clock
from tests.integration.conftest import PLENTY
from tests.support.jobs import RESULT, claim, create, reap


def test_a_job_goes_from_queued_to_running_to_succeeded(store: JobStore, clock: Clock) -> None:
    created = create(store)
    assert store.get(created.id).status is JobStatus.QUEUED
    clock.now += 1
    taken = store.claim("w1", lease_s=15)
    assert taken is not None
    assert taken.pixels == b"pixels"
    assert (taken.job.status, taken.job.attempt, taken.job.request_id) == (JobStatus.RUNNING, 1, "r1")
    clock.now += 1
    assert store.succeed(taken.job, RESULT)
    done = store.get(created.id)
    assert done.status is JobStatus.SUCCEEDED
    assert done.result == RESULT
    assert (done.created_at, done.started_at, done.finished_at) == (1e6, 1e6 + 1, 1e6 + 2)
    assert done.expires_at == pytest.approx(1e6 + 2 + 3600)


def test_a_request_survives_the_record(store: JobStore) -> None:
    request = SearchRequest(k=7, category="Appliances", exclude_listing="é / ü", min_score=-0.25)
    job = store.create(JobKind.SEARCH, request, None, admission=PLENTY).job
    assert store.get(job.id).request == request
    taken = store.claim("w1", lease_s=15)
    assert taken is not None
    assert taken.pixels is None


def test_a_job_is_claimed_once_however_many_messages_are_delivered(store: JobStore) -> None:
    job = create(store)
    barrier = threading.Barrier(16)
    claims: list[object] = []

    def deliver() -> None:
        barrier.wait()
        claims.append(store.claim("w", lease_s=15))

    threads = [threading.Thread(target=deliver) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([taken for taken in claims if taken is not None]) == 1
    assert store.get(job.id).attempt == 1


def test_a_terminal_job_never_changes_again(store: JobStore) -> None:
    job = claim(store, create(store))
    assert store.fail(job, InvalidRequest("no"))
    assert not store.succeed(job, RESULT)
    assert store.claim("w2", lease_s=15) is None
    failed = store.get(job.id)
    assert failed.status is JobStatus.FAILED
    assert failed.result is None
    assert failed.error is not None
    assert failed.error.code == "invalid_request"


def test_a_late_write_of_an_earlier_attempt_is_fenced(store: JobStore, clock: Clock) -> None:
    first = claim(store, create(store), "slow")
    clock.now += 16
    assert reap(store) == [first.id]
    assert not store.succeed(first, RESULT)  # queued again: nobody's
    second = claim(store, first, "quick")
    assert second.attempt == 2
    assert not store.succeed(first, RESULT)  # running, but not by this attempt
    assert store.succeed(second, RESULT)


def test_an_extended_lease_is_not_reaped_and_a_lost_one_is_not_extended(store: JobStore, clock: Clock) -> None:
    held, lost = claim(store, create(store)), claim(store, create(store))
    clock.now += 10
    assert store.extend([(held.id, held.attempt)], lease_s=15) == {(held.id, held.attempt)}
    clock.now += 10
    assert reap(store) == [lost.id]
    assert store.extend([(held.id, held.attempt), (lost.id, lost.attempt)], lease_s=15) == {(held.id, held.attempt)}
    assert store.extend([], lease_s=15) == set()


def test_jobs_of_workers_that_died_before_redis_clock_was_set_back_are_queued_again_after_a_lease(
    store: JobStore, clock: Clock
) -> None:
    dead, alive = claim(store, create(store)), claim(store, create(store))

    def reaped() -> list[str]:
        return store.reap(max_attempts=3, lease_s=15).requeued

    clock.now -= 3600
    assert reaped() == []  # who lives has not extended its lease yet
    clock.now += 10
    assert store.extend([(alive.id, alive.attempt)], lease_s=15) == {(alive.id, alive.attempt)}
    clock.now += 6
    assert reaped() == [dead.id]
    assert store.succeed(alive, RESULT)


def test_a_job_whose_worker_dies_every_time_fails_as_worker_lost(store: JobStore, clock: Clock) -> None:
    job = create(store)
    for attempt in (1, 2, 3):
        assert claim(store, job, suspects=attempt == 3).attempt == attempt
        clock.now += 16
        report = store.reap(max_attempts=3)
    assert report.failed == [job.id]
    ended = store.get(job.id)
    assert ended.status is JobStatus.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == ("worker_lost", True)


def test_a_shard_is_given_up_rather_than_left_to_those_who_run_suspects(store: JobStore, clock: Clock) -> None:
    request = ShardRequest(bundle_version="b", scope="known", photos=())
    shard = store.create(JobKind.SHARD, request, None, admission=PLENTY, owner=SHARD_OWNER).job
    for _ in range(2):
        assert store.claim("w", lease_s=15, only=QueueName.SHARD)
        clock.now += 16
        report = store.reap(max_attempts=3)
    assert report.failed == [shard.id]
    assert sum(store.backlog().queued.values()) == 0


def test_the_reaper_forgets_ids_whose_record_is_gone(store: JobStore, client: redis.Redis, clock: Clock) -> None:
    running, queued = claim(store, create(store)), create(store)
    client.delete(f"{PREFIX}job:{queued.id}", f"{PREFIX}job:{running.id}")
    clock.now += 100_000
    report = store.reap(max_attempts=3)
    assert (report.requeued, report.failed, report.expired) == ([], [], [])
    assert store.claim("w", lease_s=15) is None
    assert sum(client.zcard(PREFIX + name) for name in ("queued", "running", "deadlines", "turns:interactive")) == 0


def test_a_full_queue_refuses_and_keeps_nothing(store: JobStore, client: redis.Redis) -> None:
    for _ in range(3):
        create(store, max_queued=3)
    keys = len(client.keys(PREFIX + "*"))
    with pytest.raises(QueueFull) as refused:
        create(store, max_queued=3)
    assert refused.value.retry_after_s >= 1
    assert len(client.keys(PREFIX + "*")) == keys
    claim(store)
    create(store, max_queued=3)


def test_a_reindex_is_taken_however_many_photos_wait(store: JobStore) -> None:
    """An operator needs it then: it ends `changes_full`, and there is one at a time in any case."""
    limits = Admission(max_queued=1, max_queued_per_owner=1)
    create(store, max_queued=1)
    reindex = store.create(JobKind.REINDEX, ReindexRequest(), None, admission=limits)
    assert reindex.is_new
    with pytest.raises(ReindexRunning):
        store.create(JobKind.REINDEX, ReindexRequest(), None, admission=limits)
    with pytest.raises(QueueFull):
        create(store, max_queued=1)


def test_jobs_past_their_deadline_take_no_room_though_no_worker_lives_to_end_them(
    store: JobStore, clock: Clock, client: redis.Redis
) -> None:
    late = [create(store, max_queued=3, deadline_s=5) for _ in range(2)]
    waiting = create(store, max_queued=3)
    client.zadd(PREFIX + "deadlines", {"outlived": clock()})
    client.zadd(PREFIX + "queued", {"outlived": clock()})
    clock.now += 6
    assert create(store, max_queued=3).status is JobStatus.QUEUED
    assert store.depth() == 2
    assert [store.get(job.id).status for job in (*late, waiting)] == [JobStatus.EXPIRED] * 2 + [JobStatus.QUEUED]


def test_a_submit_that_makes_room_ends_no_more_jobs_than_it_may_wait_for(
    store: JobStore, clock: Clock, client: redis.Redis
) -> None:
    outlived = {f"outlived-{n}": clock() for n in range(300)}
    client.zadd(PREFIX + "deadlines", outlived)
    client.zadd(PREFIX + "queued", outlived)
    create(store, max_queued=300)
    assert store.depth() == 101


def test_retry_after_grows_with_depth_and_with_the_pace_measured(store: JobStore, clock: Clock) -> None:
    def retry_after_s(depth: int) -> int:
        while store.depth() < depth:
            create(store, max_queued=depth)
        with pytest.raises(QueueFull) as refused:
            create(store, max_queued=depth)
        return refused.value.retry_after_s

    quick = retry_after_s(40)
    for _ in range(10):
        job = claim(store)
        clock.now += 5
        assert store.succeed(job, RESULT)
    slow = retry_after_s(40)
    assert slow > quick
    assert retry_after_s(80) > slow


def test_pixels_are_gone_when_the_job_ends(store: JobStore, client: redis.Redis) -> None:
    job = claim(store, create(store))
    assert client.exists(f"{PREFIX}pixels:{job.id}")
    store.succeed(job, RESULT)
    assert not client.exists(f"{PREFIX}pixels:{job.id}")


def test_every_key_of_a_job_expires(store: JobStore, client: redis.Redis) -> None:
    job = create(store)
    permanent = {
        PREFIX + name
        for name in ("queued", "running", "deadlines", "turn", "turns:interactive", "line:interactive:", "pace")
    }

    def keys_without_ttl() -> set[str]:
        return {
            str(key, "ascii") for key in client.keys(PREFIX + "*") if isinstance(key, bytes) and client.ttl(key) < 0
        }

    assert keys_without_ttl() <= permanent
    store.succeed(claim(store, job), RESULT)
    assert keys_without_ttl() <= permanent


def test_unknown_is_not_found_and_expired_is_gone(store: JobStore, client: redis.Redis) -> None:
    with pytest.raises(JobNotFound):
        store.get("0" * 32)
    job = claim(store, create(store))
    store.succeed(job, RESULT)
    client.delete(f"{PREFIX}job:{job.id}")  # as its TTL will
    with pytest.raises(JobGone):
        store.get(job.id)


def test_reports_of_another_version_are_passed_over(client: redis.Redis, clock: Clock) -> None:
    client.hset(PREFIX + "workers", "newer", '{"shape": "unknown"}')
    more = {"name": "w", "pid": 1, "reported_at": clock.now, "state": "ready", "new_field": 1}
    client.hset(PREFIX + "workers", "w", json.dumps(more))
    clock.now += 10
    assert [worker.name for worker in WorkerRegistry(client, clock=clock).live()] == ["w"]


def test_every_waiter_is_woken_by_the_end(client: redis.Redis) -> None:
    store = JobStore(client)
    job = create(store)
    ended: list[JobStatus] = []
    waiters = [threading.Thread(target=lambda: ended.append(store.wait(job, 20).status)) for _ in range(5)]
    for waiter in waiters:
        waiter.start()
    deadline = time.monotonic() + 10
    while client.info("clients")["blocked_clients"] < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    store.succeed(claim(store, job), RESULT)
    for waiter in waiters:
        waiter.join(10)
    assert ended == [JobStatus.SUCCEEDED] * 5
    assert time.monotonic() - began < 5


def test_waiting_ends_in_time_without_an_end(client: redis.Redis) -> None:
    store = JobStore(client)
    job = create(store)
    began = time.monotonic()
    assert store.wait(job, 0.3).status is JobStatus.QUEUED
    assert 0.25 < time.monotonic() - began < 2


def test_only_fresh_heartbeats_count_and_stale_ones_are_swept(client: redis.Redis, clock: Clock) -> None:
    store = WorkerRegistry(client, clock=clock)

    def report(name: str) -> None:
        store.report(WorkerReport(name=name, pid=1, reported_at=clock.now, state="ready"))

    report("old")
    clock.now += 16
    report("new")
    assert [worker.name for worker in store.live()] == ["new"]
    clock.now += 200
    report("new")
    assert client.hkeys(PREFIX + "workers") == [b"new"]
    store.retire("new")
    assert store.live() == []


def test_of_workers_that_died_before_redis_clock_was_set_back_no_heartbeat_is_left(
    client: redis.Redis, clock: Clock
) -> None:
    store = WorkerRegistry(client, clock=clock)
    for name, back_s in (("dead", 0), ("alive", 3600)):
        clock.now -= back_s
        store.report(WorkerReport(name=name, pid=1, reported_at=clock.now, state="ready"))
    assert [worker.name for worker in store.live()] == ["alive"]
    assert client.hkeys(PREFIX + "workers") == [b"alive"]


# --- cancelling and deadlines ---


def test_a_queued_job_is_cancelled_at_once(store: JobStore, client: redis.Redis) -> None:
    job = create(store)
    assert store.cancel(job.id).status is JobStatus.CANCELED
    assert store.claim("w", lease_s=15) is None
    assert not client.exists(f"{PREFIX}pixels:{job.id}")
    with pytest.raises(JobFinished):
        store.cancel(job.id)


def test_a_running_job_is_cancelling_until_its_worker_gives_it_up(store: JobStore) -> None:
    job = claim(store, create(store))
    assert store.cancel(job.id).status is JobStatus.CANCELING
    assert store.cancel(job.id).status is JobStatus.CANCELING
    assert store.extend([(job.id, job.attempt)], lease_s=15) == set()
    assert store.succeed(job, RESULT) is JobStatus.CANCELED
    ended = store.get(job.id)
    assert (ended.status, ended.result) == (JobStatus.CANCELED, None)


def test_a_cancelling_job_whose_worker_dies_is_cancelled(store: JobStore, clock: Clock) -> None:
    job = claim(store, create(store))
    store.cancel(job.id)
    clock.now += 16
    assert reap(store) == []
    assert store.get(job.id).status is JobStatus.CANCELED


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("noticed_by", ["reader", "reaper"])
def test_a_job_past_its_deadline_expires(store: JobStore, clock: Clock, running: bool, noticed_by: str) -> None:
    job = create(store, deadline_s=5)
    held = claim(store) if running else None
    clock.now += 4.9
    assert not store.get(job.id).status.terminal
    clock.now += 0.2
    if noticed_by == "reaper":
        assert store.reap(max_attempts=3).expired == [job.id]
    ended = store.get(job.id)
    assert ended.status is JobStatus.EXPIRED
    assert ended.error is not None
    assert ended.error.code == "deadline_exceeded"
    assert held is None or store.succeed(held, RESULT) is None


def test_an_expired_job_is_passed_over_by_claims(store: JobStore, clock: Clock) -> None:
    create(store, deadline_s=1)
    clock.now += 2
    fresh = create(store)
    claim(store, fresh)
    assert store.claim("w", lease_s=15) is None


def test_a_backlog_past_its_deadline_is_ended_by_claims_in_bounded_steps(store: JobStore, clock: Clock) -> None:
    late = [create(store, max_queued=1000, deadline_s=1) for _ in range(450)]
    fresh = create(store, max_queued=1000, priority="bulk")
    clock.now += 2
    claim(store, fresh)
    assert store.claim("w", lease_s=15) is None
    assert {store.get(job.id).status for job in late} == {JobStatus.EXPIRED}
    assert store.depth() == 0
