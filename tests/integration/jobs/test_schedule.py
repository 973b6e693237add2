"""The schedule on a real Valkey: one job a slot, whoever looks, whatever was missed, however clocks step"""

import threading
import time

import pytest
import redis

from shared.errors import InternalError
from shared.jobs.contract import Job, JobKind
from shared.jobs.listing import JobListing
from shared.jobs.records import QueueName
from shared.jobs.reindex_contract import Promotion, ReindexRequest
from shared.jobs.store import JobStore
from shared.schedule.slots import Schedule
from tests.conftest import Clock
from tests.integration.conftest import PLENTY

HOURLY = "0 * * * *"
HOUR_S = 3600.0


@pytest.fixture
def clock(clock: Clock) -> Clock:
    clock.now = 1_000_000 * HOUR_S + 10  # ten seconds past an hour
    return clock


@pytest.fixture
def schedule(client: redis.Redis, store: JobStore, clock: Clock) -> Schedule:
    return Schedule(client, store, clock=clock)


def submitted(client: redis.Redis) -> list[Job]:
    return JobListing(client).page(owner=None, limit=200).jobs


def end_it(store: JobStore) -> None:
    taken = store.claim("w", lease_s=15, only=QueueName.REINDEX)
    assert taken is not None
    store.fail(taken.job, InternalError("over"))


def test_the_first_start_ever_runs_nothing_and_the_next_slot_does(
    client: redis.Redis, schedule: Schedule, clock: Clock
) -> None:
    assert schedule.run_due(HOURLY) is None
    clock.now += HOUR_S - 11
    assert schedule.run_due(HOURLY) is None
    clock.now += 1
    job_id = schedule.run_due(HOURLY)
    [job] = submitted(client)
    assert (job.id, job.kind, job.owner, job.request_id) == (job_id, "reindex", "", "schedule")
    last = schedule.last()
    assert last is not None
    assert (last.job, last.slot) == (job_id, 1_000_001 * HOUR_S)
    assert schedule.run_due(HOURLY) is None


def test_slots_missed_while_everything_was_down_run_once(
    client: redis.Redis, schedule: Schedule, store: JobStore, clock: Clock
) -> None:
    schedule.run_due(HOURLY)
    clock.now += 7.5 * HOUR_S
    assert schedule.run_due(HOURLY)
    end_it(store)
    assert schedule.run_due(HOURLY) is None
    assert len(submitted(client)) == 1
    clock.now += HOUR_S
    assert schedule.run_due(HOURLY)


def test_a_slot_that_comes_while_a_reindex_runs_is_that_ones(
    client: redis.Redis, schedule: Schedule, store: JobStore, clock: Clock
) -> None:
    schedule.run_due(HOURLY)
    clock.now += HOUR_S
    running = schedule.run_due(HOURLY)
    clock.now += HOUR_S
    assert schedule.run_due(HOURLY) == running
    end_it(store)
    assert schedule.run_due(HOURLY) is None
    assert len(submitted(client)) == 1


def test_another_expression_does_not_make_up_for_its_past(schedule: Schedule, clock: Clock) -> None:
    schedule.run_due(HOURLY)
    clock.now += 10
    assert schedule.run_due("0 0 * * *") is None
    assert schedule.run_due(HOURLY) is None


def test_a_clock_that_steps_back_runs_no_slot_twice(
    client: redis.Redis, schedule: Schedule, store: JobStore, clock: Clock
) -> None:
    schedule.run_due(HOURLY)
    clock.now += HOUR_S
    assert schedule.run_due(HOURLY)
    end_it(store)
    for step_s in (-15, 14, 2, -40, 120):
        clock.now += step_s
        assert schedule.run_due(HOURLY) is None
    assert len(submitted(client)) == 1


def test_a_clock_that_was_far_ahead_for_a_while_stops_no_schedule(
    schedule: Schedule, store: JobStore, clock: Clock
) -> None:
    schedule.run_due(HOURLY)
    clock.now += 1000 * HOUR_S
    assert schedule.run_due(HOURLY)
    end_it(store)
    clock.now -= 1000 * HOUR_S
    assert schedule.run_due(HOURLY) is None
    clock.now += HOUR_S  # the slot that was next when the clock was put right
    assert schedule.run_due(HOURLY) is None
    clock.now += HOUR_S
    assert schedule.run_due(HOURLY)


def test_schedulers_that_race_make_one_job_a_slot(client: redis.Redis, store: JobStore, clock: Clock) -> None:
    schedules = [Schedule(client, store, clock=clock) for _ in range(4)]
    schedules[0].run_due(HOURLY)
    for _ in range(10):
        clock.now += HOUR_S
        start = threading.Barrier(len(schedules))
        told: list[str | None] = []

        def look(schedule: Schedule, start: threading.Barrier = start, told: list[str | None] = told) -> None:
            start.wait()
            told.append(schedule.run_due(HOURLY))

        racers = [threading.Thread(target=look, args=(schedule,)) for schedule in schedules]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert len([job_id for job_id in told if job_id]) == 1
        end_it(store)
    assert len(submitted(client)) == 10


def test_a_scheduler_that_dies_after_submitting_repeats_nothing(
    client: redis.Redis, schedule: Schedule, store: JobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule.run_due(HOURLY)
    clock.now += HOUR_S
    with monkeypatch.context() as patched:
        patched.setattr(schedule, "_note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            schedule.run_due(HOURLY)
    end_it(store)
    assert Schedule(client, store, clock=clock).run_due(HOURLY)
    assert len(submitted(client)) == 1


def test_the_clock_is_rediss_own(client: redis.Redis, store: JobStore) -> None:
    assert Schedule(client, store)._clock() == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize("request_of_it", [ReindexRequest(dry_run=True), ReindexRequest(promote=Promotion.NEVER)])
def test_a_slot_waits_for_a_reindex_that_puts_nothing_live(
    client: redis.Redis, schedule: Schedule, store: JobStore, clock: Clock, request_of_it: ReindexRequest
) -> None:
    schedule.run_due(HOURLY)
    clock.now += HOUR_S
    trial = store.create(JobKind.REINDEX, request_of_it, None, admission=PLENTY).job
    assert schedule.run_due(HOURLY) is None
    clock.now += 60
    end_it(store)
    due = schedule.run_due(HOURLY)
    assert due not in (None, trial.id)
    assert store.get(str(due)).request == ReindexRequest()


def test_a_slot_waits_for_a_reindex_that_was_cancelled(schedule: Schedule, store: JobStore, clock: Clock) -> None:
    schedule.run_due(HOURLY)
    clock.now += HOUR_S
    first = str(schedule.run_due(HOURLY))
    taken = store.claim("w", lease_s=10_000, only=QueueName.REINDEX)
    assert taken is not None
    store.cancel(first)
    clock.now += HOUR_S
    assert schedule.run_due(HOURLY) is None
    store.fail(taken.job, InternalError("over"))
    assert schedule.run_due(HOURLY) not in (None, first)
