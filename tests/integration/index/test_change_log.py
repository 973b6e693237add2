"""The change log on a real Valkey: each change once, the later accepted one stands, and cutting it loses nothing"""

import threading
import time

import numpy as np
import pytest
import redis

from shared.changes.log import BEGINNING, Change, ChangeLog, Newest, PutPhoto
from shared.errors import JobCanceled
from shared.jobs.contract import DeleteImageRequest, Job, JobKind, JobStatus
from shared.jobs.store import JobStore
from tests.conftest import Clock
from tests.integration.conftest import PLENTY


@pytest.fixture
def log(client: redis.Redis) -> ChangeLog:
    return ChangeLog(client)


def held(jobs: JobStore) -> Job:
    """A job that a worker has just claimed."""
    jobs.create(JobKind.DELETE_IMAGE, DeleteImageRequest(image_id="a"), None, admission=PLENTY)
    claim = jobs.claim("w", lease_s=15)
    assert claim
    return claim.job


def photo(sha256: str = "5a", category: int = 3) -> PutPhoto:
    vector, scores = np.arange(4, dtype=np.float32), np.ones(13, np.float32)
    return PutPhoto("l ü", category, sha256, "f", vector, scores)


def append(log: ChangeLog, jobs: JobStore, image_id: str, sequence: int, put: PutPhoto | None = None) -> str | None:
    return log.append(held(jobs), image_id, sequence, put)


def test_what_is_read_is_what_was_written_in_its_order(log: ChangeLog, jobs: JobStore) -> None:
    first, second = append(log, jobs, "a é", 7, photo()), append(log, jobs, "b", 3)
    assert first
    assert second
    put, deleted = log.read()
    assert put == Change(first, "a é", 7, photo())
    assert put.photo
    assert put.photo.vector.tolist() == [0, 1, 2, 3]
    assert put.photo.scores.tolist() == [1] * 13
    assert deleted == Change(second, "b", 3, None)
    assert list(log.read(first)) == [deleted]
    assert log.newest("a é") == Newest(first, "5a")
    assert log.newest("b") == Newest(second, None)
    assert log.newest("c") is None


def test_a_log_longer_than_a_page_is_read_whole(log: ChangeLog, jobs: JobStore) -> None:
    job = held(jobs)
    for i in range(1201):
        log.append(job, str(i), i, None)
    assert [change.image_id for change in log.read()] == [str(i) for i in range(1201)]


def test_the_change_accepted_later_stands_whichever_runs_first(log: ChangeLog, jobs: JobStore) -> None:
    earlier, later = log.next_sequence(), log.next_sequence()
    assert append(log, jobs, "a", later, photo("1a7e"))
    assert append(log, jobs, "a", earlier) is None
    assert [change.sequence for change in log.read()] == [later]
    assert append(log, jobs, "b", earlier)


def test_a_job_that_runs_twice_writes_once(log: ChangeLog, jobs: JobStore) -> None:
    job = held(jobs)
    assert log.append(job, "a", 5, photo()) == log.append(job, "a", 5, photo())
    assert len(list(log.read())) == 1


def test_a_zombie_and_a_cancelled_job_write_nothing(log: ChangeLog, store: JobStore, clock: Clock) -> None:
    zombie = held(store)
    clock.now += 16
    store.reap(max_attempts=9)
    again = store.claim("another", lease_s=15)
    assert again
    with pytest.raises(JobCanceled):
        log.append(zombie, "a", 1, None)
    assert store.cancel(again.job.id).status is JobStatus.CANCELING
    with pytest.raises(JobCanceled):
        log.append(again.job, "a", 1, None)
    assert list(log.read()) == []
    assert log.newest("a") is None


def test_sequences_rise_across_threads_and_go_on_after_redis_lost_everything(
    client: redis.Redis, log: ChangeLog
) -> None:
    given: list[int] = []
    threads = [threading.Thread(target=lambda: given.extend(log.next_sequence() for _ in range(100))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 400
    client.flushall()
    assert log.next_sequence() > max(given)


def test_waiting_ends_with_the_first_entry_or_in_time(log: ChangeLog, jobs: JobStore) -> None:
    assert log.wait(BEGINNING, 0.01) == []
    got: list[Change] = []
    waiting = threading.Thread(target=lambda: got.extend(log.wait(BEGINNING, 1.5)))
    waiting.start()
    append(log, jobs, "a", 1)
    waiting.join()
    assert [change.image_id for change in got] == ["a"]


def test_entries_are_counted_from_any_place(log: ChangeLog, jobs: JobStore) -> None:
    assert log.count_after(BEGINNING) == 0
    entries = [append(log, jobs, image_id, 1) for image_id in "abcd"]
    assert [log.count_after(str(entry)) for entry in entries] == [3, 2, 1, 0]
    assert log.count_after(BEGINNING) == 4
    log.truncate(str(entries[1]))
    assert [log.count_after(str(entry)) for entry in entries[1:]] == [2, 1, 0]


def test_truncation_takes_what_is_folded_and_nothing_else(log: ChangeLog, jobs: JobStore) -> None:
    entries = [append(log, jobs, image_id, 1) for image_id in "abc"]
    assert log.truncate(str(entries[1])) == 2
    assert [change.image_id for change in log.read()] == ["c"]
    assert log.truncate(str(entries[2])) == 1
    later = append(log, jobs, "d", 1)
    assert [change.entry_id for change in log.wait(str(entries[2]), 1)] == [later]


def test_a_late_job_is_refused_for_as_long_as_one_may_come_though_the_log_was_cut(
    client: redis.Redis, jobs: JobStore
) -> None:
    clock = Clock()
    log = ChangeLog(client, job_ttl_s=3600, clock=clock)
    entry = str(append(log, jobs, "a", 5))
    clock.now = int(entry.partition("-")[0]) / 1000 + 3500
    log.truncate(entry)
    assert append(log, jobs, "a", 4) is None
    clock.now += 200
    log.truncate(entry)
    assert log.newest("a") == Newest(entry, None)  # an entry of the very millisecond may come after it
    time.sleep(0.002)  # so that the next entry is of a later millisecond, and the first is older than it
    later = str(append(log, jobs, "b", 1))
    clock.now += 3600
    log.truncate(later)
    assert log.newest("a") is None


def test_nothing_is_written_when_redis_is_full(client: redis.Redis, log: ChangeLog, jobs: JobStore) -> None:
    job = held(jobs)
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.ResponseError):
            log.append(job, "a", 1, photo())
    finally:
        client.config_set("maxmemory", "0")
    assert log.append(job, "a", 1, photo())
