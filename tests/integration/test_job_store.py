"""Job truth on a real Valkey: every transition by compare-and-set, nothing lost, nothing done twice."""

import json
import threading
import time

import pytest
import redis

from shared.errors import InvalidRequest, JobGone, JobNotFound, QueueFull
from shared.job_store import PREFIX, JobStore
from shared.jobs import EmbedRequest, EmbedResult, Job, JobKind, JobStatus, SearchRequest, WorkerReport
from tests.conftest import Clock

RESULT = EmbedResult.model_validate(
    {
        "category": {"name": "Appliances", "index": 9, "probability": 0.5, "top": []},
        "scores": [0.0] * 13,
        "embedding": [1.0, 0.0],
        "dimension": 2,
        "model_fingerprint": "f" * 64,
    }
)


def create(store: JobStore, pixels: bytes | None = b"pixels", max_queued: int = 100) -> Job:
    return store.create(JobKind.EMBED, EmbedRequest(), pixels, max_queued=max_queued, request_id="r1")


def claim(store: JobStore, job: Job, worker: str = "w1") -> Job:
    taken = store.claim(job.id, worker, lease_s=15)
    assert taken is not None
    return taken.job


def test_a_job_goes_from_queued_to_running_to_succeeded(store: JobStore, clock: Clock) -> None:
    created = create(store)
    assert store.get(created.id).status is JobStatus.QUEUED
    clock.now += 1
    taken = store.claim(created.id, "w1", lease_s=15)
    assert taken is not None
    assert taken.pixels == b"pixels"
    assert (taken.job.status, taken.job.attempt, taken.job.request_id) == (JobStatus.RUNNING, 1, "r1")
    clock.now += 1
    assert store.succeed(taken.job, RESULT, service_s=0.5)
    done = store.get(created.id)
    assert done.status is JobStatus.SUCCEEDED
    assert done.result == RESULT
    assert (done.created_at, done.started_at, done.finished_at) == (1e6, 1e6 + 1, 1e6 + 2)
    assert done.expires_at == pytest.approx(1e6 + 2 + 3600)


def test_a_request_survives_the_record(store: JobStore) -> None:
    request = SearchRequest(k=7, category="Appliances", exclude_listing="é / ü", min_score=-0.25)
    job = store.create(JobKind.SEARCH, request, None, max_queued=9)
    assert store.get(job.id).request == request
    taken = store.claim(job.id, "w1", lease_s=15)
    assert taken is not None
    assert taken.pixels is None


def test_a_job_is_claimed_once_however_often_its_message_is_delivered(store: JobStore) -> None:
    job = create(store)
    barrier = threading.Barrier(16)
    claims: list[object] = []

    def deliver() -> None:
        barrier.wait()
        claims.append(store.claim(job.id, "w", lease_s=15))

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
    assert not store.succeed(job, RESULT, service_s=0.1)
    assert store.claim(job.id, "w2", lease_s=15) is None
    failed = store.get(job.id)
    assert failed.status is JobStatus.FAILED
    assert failed.result is None
    assert failed.error is not None
    assert failed.error.code == "invalid_request"


def test_a_late_write_of_an_earlier_attempt_is_fenced(store: JobStore, clock: Clock) -> None:
    first = claim(store, create(store), "slow")
    clock.now += 16
    assert [job.id for job in store.reap(max_attempts=3, lost_after_s=5, oldest_message=None).wake] == [first.id]
    assert not store.succeed(first, RESULT, service_s=0.1)  # queued again: nobody's
    second = claim(store, first, "quick")
    assert second.attempt == 2
    assert not store.succeed(first, RESULT, service_s=0.1)  # running, but not by this attempt
    assert store.succeed(second, RESULT, service_s=0.1)


def test_an_extended_lease_is_not_reaped_and_a_lost_one_is_not_extended(store: JobStore, clock: Clock) -> None:
    held, lost = claim(store, create(store)), claim(store, create(store))
    clock.now += 10
    assert store.extend([(held.id, held.attempt)], lease_s=15) == {held.id}
    clock.now += 10
    assert [job.id for job in store.reap(max_attempts=3, lost_after_s=5, oldest_message=None).wake] == [lost.id]
    assert store.extend([(held.id, held.attempt), (lost.id, lost.attempt)], lease_s=15) == {held.id}
    assert store.extend([], lease_s=15) == set()


def test_a_job_whose_worker_dies_every_time_fails_as_worker_lost(store: JobStore, clock: Clock) -> None:
    job = create(store)
    for attempt in (1, 2, 3):
        assert claim(store, job).attempt == attempt
        clock.now += 16
        report = store.reap(max_attempts=3, lost_after_s=5, oldest_message=None)
    assert report.failed == [job.id]
    ended = store.get(job.id)
    assert ended.status is JobStatus.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == ("worker_lost", True)


def test_a_lost_message_is_replaced_once_nothing_older_waits(store: JobStore, clock: Clock) -> None:
    def woken(oldest_message: str | None) -> list[str]:
        report = store.reap(max_attempts=3, lost_after_s=5, oldest_message=oldest_message)
        return [job.id for job in report.wake]

    lost = create(store)
    clock.now += 1
    waiting = create(store)
    clock.now += 3
    assert woken(waiting.id) == []  # so close to the oldest message, it may just have been fetched
    assert woken(None) == []
    clock.now += 3
    late = create(store)
    assert woken(late.id) == [lost.id, waiting.id]
    assert woken(late.id) == []  # once, not every round
    clock.now += 6
    assert set(woken(None)) == {lost.id, waiting.id, late.id}


def test_a_lease_extended_at_the_last_moment_is_kept(store: JobStore, client: redis.Redis, clock: Clock) -> None:
    job = create(store)
    for _ in range(3):
        held = claim(store, job)
        clock.now += 16
        if held.attempt < 3:
            store.reap(max_attempts=3, lost_after_s=5, oldest_message=None)
    overdue = client.zrangebyscore(PREFIX + "running", "-inf", clock.now)
    assert overdue == [job.id.encode()]
    store._redis = ExtendsMeanwhile(store, client, held)  # type: ignore[assignment]
    report = store.reap(max_attempts=3, lost_after_s=5, oldest_message=None)
    assert (report.wake, report.failed) == ([], [])
    assert store.get(job.id).status is JobStatus.RUNNING


class ExtendsMeanwhile:
    """A client on which a worker extends its lease just after the reaper has looked for overdue ones."""

    def __init__(self, store: JobStore, client: redis.Redis, held: Job) -> None:
        self._store, self._client, self._held = store, client, held

    def zrangebyscore(self, name: str, low: str, high: float, **options: int) -> object:
        found = self._client.zrangebyscore(name, low, high, **options)  # type: ignore[arg-type]
        self._store.extend([(self._held.id, self._held.attempt)], lease_s=15)
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


def test_the_reaper_forgets_ids_whose_record_is_gone(store: JobStore, client: redis.Redis, clock: Clock) -> None:
    queued, running = create(store), claim(store, create(store))
    client.delete(f"{PREFIX}job:{queued.id}", f"{PREFIX}job:{running.id}")
    clock.now += 100
    report = store.reap(max_attempts=3, lost_after_s=5, oldest_message=None)
    assert (report.wake, report.failed) == ([], [])
    assert client.zcard(PREFIX + "queued") == client.zcard(PREFIX + "running") == 0


def test_a_full_queue_refuses_and_keeps_nothing(store: JobStore, client: redis.Redis) -> None:
    for _ in range(3):
        create(store, max_queued=3)
    keys = len(client.keys(PREFIX + "*"))
    with pytest.raises(QueueFull) as refused:
        create(store, max_queued=3)
    assert refused.value.retry_after_s >= 1
    assert len(client.keys(PREFIX + "*")) == keys
    claim(store, store.get(_ids(client)[0]))
    create(store, max_queued=3)


def test_retry_after_grows_with_depth_and_with_measured_service_time(store: JobStore) -> None:
    def retry_after_s(depth: int) -> int:
        while store.depth() < depth:
            create(store, max_queued=depth)
        with pytest.raises(QueueFull) as refused:
            create(store, max_queued=depth)
        return refused.value.retry_after_s

    quick = retry_after_s(10)
    job = claim(store, create(store, max_queued=99))
    store.succeed(job, RESULT, service_s=20.0)
    slow = retry_after_s(10)
    assert slow > quick
    assert retry_after_s(40) > slow


def test_pixels_are_gone_when_the_job_ends(store: JobStore, client: redis.Redis) -> None:
    job = claim(store, create(store))
    assert client.exists(f"{PREFIX}pixels:{job.id}")
    store.succeed(job, RESULT, service_s=0.1)
    assert not client.exists(f"{PREFIX}pixels:{job.id}")


def test_every_key_of_a_job_expires(store: JobStore, client: redis.Redis) -> None:
    job = create(store)
    permanent = {PREFIX + name for name in ("queued", "running", "workers", "service_s")}

    def keys_without_ttl() -> set[str]:
        return {
            str(key, "ascii") for key in client.keys(PREFIX + "*") if isinstance(key, bytes) and client.ttl(key) < 0
        }

    assert keys_without_ttl() <= permanent
    store.succeed(claim(store, job), RESULT, service_s=0.1)
    assert keys_without_ttl() <= permanent


def test_unknown_is_not_found_and_expired_is_gone(store: JobStore, client: redis.Redis) -> None:
    with pytest.raises(JobNotFound):
        store.get("0" * 32)
    job = claim(store, create(store))
    store.succeed(job, RESULT, service_s=0.1)
    client.delete(f"{PREFIX}job:{job.id}")  # as its TTL will
    with pytest.raises(JobGone):
        store.get(job.id)


def test_a_job_that_outlived_its_time_unclaimed_is_gone_not_unknown(
    store: JobStore, client: redis.Redis, clock: Clock
) -> None:
    job = create(store)
    client.delete(f"{PREFIX}job:{job.id}")  # as its TTL will
    with pytest.raises(JobGone):
        store.get(job.id)
    clock.now += 86_401
    store.reap(max_attempts=3, lost_after_s=5, oldest_message="0" * 32)
    assert store.depth() == 0  # it no longer counts against the limit


def test_a_claimed_job_cannot_be_abandoned(store: JobStore) -> None:
    job = claim(store, create(store))
    store.abandon(job.id)
    assert store.get(job.id).status is JobStatus.RUNNING


def test_records_and_reports_of_another_version_are_passed_over(
    store: JobStore, client: redis.Redis, clock: Clock
) -> None:
    job = create(store)
    client.hset(f"{PREFIX}job:{job.id}", "kind", "of the future")
    client.hset(PREFIX + "workers", "newer", '{"shape": "unknown"}')
    more = {"name": "w", "pid": 1, "reported_at": clock.now, "state": "ready", "new_field": 1}
    client.hset(PREFIX + "workers", "w", json.dumps(more))
    clock.now += 10
    assert store.reap(max_attempts=3, lost_after_s=5, oldest_message=None).wake == []
    assert [worker.name for worker in store.workers()] == ["w"]


def test_an_abandoned_job_leaves_nothing(store: JobStore, client: redis.Redis) -> None:
    job = create(store)
    store.abandon(job.id)
    assert client.keys(PREFIX + "*") == []


def test_every_waiter_is_woken_by_the_end(client: redis.Redis) -> None:
    store = JobStore(client)
    job = create(store)
    ended: list[JobStatus] = []
    waiters = [threading.Thread(target=lambda: ended.append(store.wait(job.id, 20).status)) for _ in range(5)]
    for waiter in waiters:
        waiter.start()
    deadline = time.monotonic() + 10
    while client.info("clients")["blocked_clients"] < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    store.succeed(claim(store, job), RESULT, service_s=0.1)
    for waiter in waiters:
        waiter.join(10)
    assert ended == [JobStatus.SUCCEEDED] * 5
    assert time.monotonic() - began < 5


def test_waiting_ends_in_time_without_an_end(client: redis.Redis) -> None:
    store = JobStore(client)
    job = create(store)
    began = time.monotonic()
    assert store.wait(job.id, 0.3).status is JobStatus.QUEUED
    assert 0.25 < time.monotonic() - began < 2


def test_only_fresh_heartbeats_count_and_stale_ones_are_swept(
    store: JobStore, client: redis.Redis, clock: Clock
) -> None:
    def report(name: str) -> None:
        store.report(WorkerReport(name=name, pid=1, reported_at=clock.now, state="ready"))

    report("old")
    clock.now += 16
    report("new")
    assert [worker.name for worker in store.workers()] == ["new"]
    clock.now += 200
    report("new")
    assert client.hkeys(PREFIX + "workers") == [b"new"]
    store.retire("new")
    assert store.workers() == []


def _ids(client: redis.Redis) -> list[str]:
    return [raw.decode() for raw in client.zrange(PREFIX + "queued", 0, -1) if isinstance(raw, bytes)]
