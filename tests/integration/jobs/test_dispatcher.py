"""Messages and notifications on a real Valkey: enough, none too many, and those that were lost again."""

import json
import time
from typing import cast
from unittest import mock

import pytest
import redis
from kombu.exceptions import OperationalError

from shared.errors import QueueUnavailable
from shared.jobs.celery_config import NAMED_QUEUES, QUEUES, TASKS, make_celery
from shared.jobs.contract import (
    EmbedRequest,
    Job,
    JobKind,
    JobRequest,
    Priority,
    Submission,
)
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.duplicates_contract import DuplicatesRequest
from shared.jobs.records import PREFIX
from shared.jobs.reindex_contract import ReindexRequest, ShardRequest
from shared.jobs.reindex_jobs import SHARD_OWNER
from shared.jobs.store import JobStore
from tests.integration.conftest import PLENTY
from tests.support.runners import job_named_by


def submit_of(client: redis.Redis, priority: Priority, *, age_s: float = 0) -> Job:
    store = JobStore(client, clock=lambda: time.time() - age_s)
    return store.create(
        JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, submission=Submission(priority=priority)
    )[0]


def n_messages(client: redis.Redis) -> dict[Priority, int]:
    return {priority: int(client.llen(queue)) for priority, queue in QUEUES.items()}


def test_lost_messages_are_replaced_where_they_are_missing(client: redis.Redis, valkey_url: str) -> None:
    celery, store = make_celery(valkey_url, socket_timeout_s=2), JobStore(client)
    for priority in [Priority.BULK, Priority.BULK, Priority.INTERACTIVE]:
        submit_of(client, priority, age_s=60)
    Dispatcher(celery, client).send_token()
    assert Dispatcher(celery, client).republish_lost(store) == 2
    assert n_messages(client) == {Priority.INTERACTIVE: 1, Priority.BULK: 2}


def test_a_message_that_cannot_be_sent_is_told_at_once(client: redis.Redis) -> None:
    publisher = make_celery("redis://127.0.0.1:1/0", socket_timeout_s=2)
    with mock.patch("kombu.utils.functional.sleep") as pause, pytest.raises(QueueUnavailable):
        Dispatcher(publisher, client).send_token()
    assert not pause.called


def test_no_more_messages_are_sent_than_workers_could_need(client: redis.Redis, valkey_url: str) -> None:
    publisher = make_celery(valkey_url)
    for n_sent in range(1, 41):
        Dispatcher(publisher, client).send_token()
        assert client.llen(QUEUES[Priority.INTERACTIVE]) == min(n_sent, 16)


def test_a_redis_long_away_is_looked_for_at_a_steady_pace() -> None:
    pauses_s: list[float] = []

    def refused(_error: Exception, pause_s: float) -> None:
        pauses_s.append(pause_s)

    consumer = make_celery("redis://127.0.0.1:1/0").connection_for_read()
    with mock.patch("kombu.utils.functional.sleep"), pytest.raises(OperationalError):
        consumer.ensure_connection(refused, 40)
    assert len(pauses_s) == 40
    assert max(pauses_s) <= 2


# --- reindexes and shards, whose messages name them ---


NAMED: dict[JobKind, JobRequest] = {
    JobKind.REINDEX: ReindexRequest(),
    JobKind.SHARD: ShardRequest(bundle_version="b", scope="known", photos=()),
    JobKind.DUPLICATES: DuplicatesRequest(),
}


def submit_named(store: JobStore, kind: JobKind) -> Job:
    owner = SHARD_OWNER if kind is JobKind.SHARD else ""
    return store.create(kind, NAMED[kind], None, admission=PLENTY, owner=owner).job


def messages(client: redis.Redis, queue: str) -> list[tuple[str, str, str]]:
    """Task, task id and job of what lies unread, the oldest first."""
    raw = cast(list[bytes], client.lrange(queue, 0, -1))[::-1]
    headers = [json.loads(message)["headers"] for message in raw]
    return [(each["task"], each["id"], job_named_by(message)) for each, message in zip(headers, raw, strict=True)]


@pytest.fixture
def dispatcher(client: redis.Redis, valkey_url: str) -> Dispatcher:
    return Dispatcher(make_celery(valkey_url, socket_timeout_s=2), client)


@pytest.mark.parametrize("kind", NAMED)
def test_a_reindex_or_shard_has_a_message_that_names_it_and_its_coming_attempt(
    client: redis.Redis, dispatcher: Dispatcher, jobs: JobStore, kind: JobKind
) -> None:
    job = submit_named(jobs, kind)
    dispatcher.dispatch(job)
    claim = jobs.claim_job(job.id, "w", lease_s=15)
    assert claim
    jobs.release(claim.job)
    dispatcher.dispatch(claim.job)
    named = [(TASKS[kind], job.id, job.id), (TASKS[kind], f"{job.id}.2", job.id)]
    assert messages(client, NAMED_QUEUES[kind]) == named
    assert n_messages(client) == {Priority.INTERACTIVE: 0, Priority.BULK: 0}


@pytest.mark.parametrize("kind", NAMED)
def test_the_lost_message_of_a_reindex_or_shard_is_published_again_and_no_other(
    client: redis.Redis, dispatcher: Dispatcher, kind: JobKind
) -> None:
    old, store = JobStore(client, clock=lambda: time.time() - 60), JobStore(client)
    lost = submit_named(old, kind)
    assert dispatcher.republish_lost(old) == 0  # it was submitted just now
    assert dispatcher.republish_lost(store) == 1
    assert messages(client, NAMED_QUEUES[kind]) == [(TASKS[kind], lost.id, lost.id)]
    client.delete(f"{PREFIX}replacing-messages")  # as its time will
    assert dispatcher.republish_lost(store) == 0  # it lies there unread
    assert n_messages(client) == {Priority.INTERACTIVE: 0, Priority.BULK: 0}
    claim = store.claim_job(lost.id, "w", lease_s=15)
    assert claim
    client.delete(NAMED_QUEUES[kind], f"{PREFIX}replacing-messages")
    assert dispatcher.republish_lost(store) == 0  # it is in hand
    store.release(claim.job)
    assert dispatcher.republish_lost(store) == 1
    assert messages(client, NAMED_QUEUES[kind]) == [(TASKS[kind], f"{lost.id}.2", lost.id)]


def test_lost_messages_are_published_by_one_worker_at_a_time(client: redis.Redis, dispatcher: Dispatcher) -> None:
    submit_named(JobStore(client, clock=lambda: time.time() - 60), JobKind.SHARD)
    client.set(f"{PREFIX}replacing-messages", "1")
    assert dispatcher.republish_lost(JobStore(client)) == 0
    assert client.llen(NAMED_QUEUES[JobKind.SHARD]) == 0
