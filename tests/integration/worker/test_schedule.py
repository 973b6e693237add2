"""Celery beat over the schedule in Redis: what is due has a message at once, from whichever scheduler looks."""

import logging
from collections.abc import Callable, Iterator
from typing import cast

import pytest
import redis
from celery import Celery

from shared.jobs.celery_config import NAMED_QUEUES, TASKS, make_celery
from shared.jobs.contract import JobKind
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from shared.redis_client import connect
from tests.integration.conftest import settings
from tests.support.runners import job_named_by
from worker.schedule import ReindexSchedule, ReindexScheduler, reindex_schedule

HOURLY = "0 * * * *"
HOUR_S = 3600.0


@pytest.fixture
def app(valkey_url: str) -> Iterator[Celery]:
    app = make_celery(valkey_url, socket_timeout_s=2)
    yield app
    app.close()


@pytest.fixture
def schedule(app: Celery, client: redis.Redis, valkey_url: str) -> ReindexSchedule:
    return reindex_schedule(settings(valkey_url, reindex_cron=HOURLY), app, client)


@pytest.fixture
def an_hour_later(client: redis.Redis) -> Callable[[], None]:
    """As if the last slot were an hour longer ago: the clock is Redis's."""

    def move() -> None:
        last = cast(bytes, client.hget(f"{PREFIX}schedule", "slot"))
        client.hset(f"{PREFIX}schedule", "slot", repr(float(last) - HOUR_S))

    return move


def named(client: redis.Redis) -> list[str]:
    """The jobs that messages name."""
    return [job_named_by(cast(bytes, raw)) for raw in client.lrange(NAMED_QUEUES[JobKind.REINDEX], 0, -1)]


def test_a_due_slot_is_a_reindex_whose_message_is_published(
    client: redis.Redis, jobs: JobStore, schedule: ReindexSchedule, an_hour_later: Callable[[], None]
) -> None:
    schedule.run_due()
    assert named(client) == []
    an_hour_later()
    for _ in range(2):
        schedule.run_due()
        [job_id] = named(client)
    job = jobs.get(job_id)
    assert (job.kind, job.request_id) == (JobKind.REINDEX, "schedule")


def test_without_a_schedule_nothing_is_due(client: redis.Redis, app: Celery, valkey_url: str) -> None:
    schedule = reindex_schedule(settings(valkey_url), app, client)
    schedule.run_due()
    assert client.keys(f"{PREFIX}*") == []


def test_redis_being_away_is_logged_and_the_next_look_goes_on(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    away = connect("redis://127.0.0.1:1/0")
    with caplog.at_level(logging.WARNING):  # a worker that another test started here leaves ERROR
        reindex_schedule(settings("redis://127.0.0.1:1/0", reindex_cron=HOURLY), app, away).run_due()
    assert "event=schedule_waits" in caplog.text


def test_celery_beat_submits_what_is_due_and_keeps_no_file(
    client: redis.Redis,
    app: Celery,
    valkey_url: str,
    an_hour_later: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    monkeypatch.setenv("LOOKALIKE_REINDEX_CRON", HOURLY)
    beat = ReindexScheduler(app, lazy=True)
    beat.setup_schedule()
    assert [entry.task for entry in beat.schedule.values()] == [TASKS[JobKind.REINDEX]]
    assert beat.tick() > 0
    an_hour_later()
    assert beat.tick() > 0
    assert len(named(client)) == 1
    beat.close()


def test_two_schedulers_that_look_submit_one_reindex(
    client: redis.Redis, app: Celery, valkey_url: str, schedule: ReindexSchedule, an_hour_later: Callable[[], None]
) -> None:
    other = reindex_schedule(settings(valkey_url, reindex_cron=HOURLY), app, client)
    schedule.run_due()
    an_hour_later()
    for each in (schedule, other, schedule):
        each.run_due()
    assert len(set(named(client))) == 1
