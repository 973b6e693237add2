"""Webhook deliveries on a real Valkey to real receivers: none lost, each tried by schedule."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
import redis
from standardwebhooks import Webhook

from shared.jobs.celery_config import DELIVER_WEBHOOK, WEBHOOKS, job_id_of, make_celery
from shared.redis_client import connect
from shared.webhooks.queue import DUE_KEY, TRIES_KEY, Delivery, WebhookQueue
from shared.webhooks.signing import WebhookMessage
from tests.conftest import Clock
from tests.support.webhooks import (
    BODY,
    OLD_SECRET,
    SECRET,
    Outbox,
    Receiver,
    address,
    named_by,
    status,
    url,
)
from worker.tasks.webhooks import BACKOFF_S, JITTER, LEASE_S, PARALLEL, NotEnded, WebhookPublisher

# Delivery and its schedule


def test_a_message_arrives_once_and_verifies(client: redis.Redis, valkey_url: str, receiver: Receiver) -> None:
    outbox = Outbox(client, valkey_url, time.time)
    sender = outbox.sender(address(receiver))
    outbox.add("job1", url(receiver))
    sender.deliver_due()
    sender.deliver_due()
    ((path, headers, body),) = receiver.seen
    assert (path, headers["host"], headers["content-type"]) == (
        "/hook?token=t0p",
        address(receiver),
        "application/json",
    )
    assert (headers["webhook-id"], headers["user-agent"], body) == ("job1", "Lookalike-Webhooks", BODY)
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(body, headers)["type"] == "job.succeeded"
    assert outbox.empty()
    outbox.celery.close()


def test_a_refused_message_is_tried_again_by_schedule_and_then_given_up(
    outbox: Outbox, clock: Clock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    sender = outbox.sender(address(receiver))
    receiver.answer = status(503)
    outbox.add("job1", url(receiver))
    for tries, wait_s in enumerate(BACKOFF_S, start=1):
        sender.deliver_due()
        assert len(receiver.seen) == tries
        assert outbox.due()["job1"] == pytest.approx(wait_s)
        clock.now += wait_s - 0.1
        sender.deliver_due()
        assert len(receiver.seen) == tries
        clock.now += 0.2
    sender.deliver_due()
    assert len(receiver.seen) == 1 + len(BACKOFF_S)
    assert outbox.empty()
    assert [record.levelname for record in caplog.records if "webhook_given_up" in record.message] == ["ERROR"]
    assert len({headers["webhook-id"] for _, headers, _ in receiver.seen}) == 1
    assert len({headers["webhook-timestamp"] for _, headers, _ in receiver.seen}) == 1 + len(BACKOFF_S)


def test_a_message_refused_once_is_settled_by_the_second_try(outbox: Outbox, clock: Clock, receiver: Receiver) -> None:
    sender = outbox.sender(address(receiver))
    receiver.answer = status(500)
    outbox.add("job1", url(receiver))
    sender.deliver_due()
    receiver.answer = status(200)
    clock.now += 5
    sender.deliver_due()
    assert len(receiver.seen) == 2
    assert outbox.empty()


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 1 - JITTER), (0.75, 1 + JITTER / 2)])
def test_waiting_times_are_spread(outbox: Outbox, receiver: Receiver, draw: float, factor: float) -> None:
    receiver.answer = status(500)
    outbox.add("job1", url(receiver))
    outbox.sender(address(receiver), draw=draw).deliver_due()
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0] * factor)}


@pytest.mark.parametrize("code", [200, 202, 204, 299, 410])
def test_a_message_accepted_or_not_wanted_any_more_is_settled(outbox: Outbox, receiver: Receiver, code: int) -> None:
    receiver.answer = status(code)
    outbox.add("job1", url(receiver))
    outbox.sender(address(receiver)).deliver_due()
    assert outbox.empty()


def test_the_message_of_an_expired_job_is_settled_unsent(outbox: Outbox, receiver: Receiver) -> None:
    outbox.add("job1", url(receiver))
    outbox.messages.clear()
    outbox.sender(address(receiver)).deliver_due()
    assert (receiver.seen, outbox.empty()) == ([], True)


def test_a_message_of_an_end_that_may_not_be_told_yet_waits_and_no_try_is_counted(
    outbox: Outbox, clock: Clock, receiver: Receiver
) -> None:
    early = [NotEnded()] * 8  # more than there are tries

    def read_job(job_id: str) -> WebhookMessage | None:
        if early:
            raise early.pop()
        return outbox.messages[job_id]

    sender = outbox.sender(address(receiver), read_job=read_job)
    outbox.add("job1", url(receiver))
    while early:
        sender.deliver_due()
        assert outbox.due() == {"job1": pytest.approx(5)}
        clock.now += 5
    receiver.answer = status(500)
    sender.deliver_due()
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}


# What dies in between


def test_what_a_dead_sender_had_in_hand_is_delivered_after_its_lease(
    outbox: Outbox, clock: Clock, receiver: Receiver
) -> None:
    outbox.add("job1", url(receiver))
    assert outbox.queue.take(8, lease_s=LEASE_S) == [Delivery("job1", 1)]  # and its worker is killed
    sender = outbox.sender(address(receiver))
    clock.now += LEASE_S - 1
    sender.deliver_due()
    assert receiver.seen == []
    clock.now += 1
    sender.deliver_due()
    assert len(receiver.seen) == 1
    assert outbox.empty()


def test_a_message_whose_job_cannot_be_read_now_is_kept(outbox: Outbox, clock: Clock, receiver: Receiver) -> None:
    answers: list[Exception] = [redis.ConnectionError("away"), KeyError("a defect")]

    def read_job(job_id: str) -> WebhookMessage | None:
        if answers:
            raise answers.pop(0)
        return outbox.messages[job_id]

    sender = outbox.sender(address(receiver), read_job=read_job)
    outbox.add("job1", url(receiver))
    sender.deliver_due()
    assert outbox.due() == {"job1": pytest.approx(LEASE_S)}
    clock.now += LEASE_S
    sender.deliver_due()
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[1])}
    clock.now += BACKOFF_S[1]
    sender.deliver_due()
    assert (len(receiver.seen), outbox.empty()) == (1, True)


def test_redis_being_away_is_logged_and_not_raised(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    away = "redis://127.0.0.1:1/0"
    celery, client = make_celery(away, socket_timeout_s=2), connect(away)
    WebhookPublisher(celery, client, WebhookQueue(client, clock=clock), lambda _: None).publish_due()
    assert "event=redis_unreachable" in caplog.text


# Messages


@pytest.fixture
def publisher(outbox: Outbox) -> WebhookPublisher:
    """Of the outbox; nobody reads what it publishes."""

    def deliver(delivery: Delivery) -> None:
        raise AssertionError(f"{delivery} was delivered without a message")

    return WebhookPublisher(outbox.celery, outbox.client, outbox.queue, deliver)


def test_a_due_delivery_is_one_message_under_a_name_of_its_own(
    outbox: Outbox, publisher: WebhookPublisher, client: redis.Redis, clock: Clock
) -> None:
    outbox.add("job1", "http://hooks.invalid/")
    for attempt in (1, 2):
        publisher.publish_due()
        publisher.publish_due()
        [message] = cast(list[bytes], client.lrange(WEBHOOKS, 0, -1))
        headers = json.loads(message)["headers"]
        assert (headers["task"], headers["id"]) == (DELIVER_WEBHOOK, f"job1.webhook-{attempt}")
        assert named_by(message) == Delivery("job1", attempt)
        assert job_id_of(headers["id"]) == "job1"
        assert outbox.due() == {"job1": pytest.approx(LEASE_S)}
        client.delete(WEBHOOKS)  # and its worker is killed
        clock.now += LEASE_S


def test_no_more_is_published_than_one_worker_has_threads_for_while_nobody_reads(
    outbox: Outbox, publisher: WebhookPublisher, client: redis.Redis, clock: Clock
) -> None:
    for i in range(3 * PARALLEL):
        outbox.add(f"job{i}", "http://hooks.invalid/")
    for _ in range(3):
        publisher.publish_due()
        assert client.llen(WEBHOOKS) == PARALLEL
        clock.now += LEASE_S
    assert set(client.hvals(TRIES_KEY)) == {b"1"}  # what waits uses up no try


# The queue


def test_each_due_delivery_is_taken_by_one_worker_only(client: redis.Redis, clock: Clock) -> None:
    client.zadd(DUE_KEY, {f"job{i}": clock.now for i in range(100)})
    with ThreadPoolExecutor(4) as workers:
        rounds = workers.map(lambda _: WebhookQueue(client, clock=clock).take(7, lease_s=30), range(20))
        taken = [delivery for deliveries in rounds for delivery in deliveries]
    assert sorted(delivery.job_id for delivery in taken) == sorted(f"job{i}" for i in range(100))
    assert {delivery.attempt for delivery in taken} == {1}


def test_the_longest_due_are_taken_first_and_no_more_than_asked_for(client: redis.Redis, clock: Clock) -> None:
    client.zadd(DUE_KEY, {"late": clock.now, "early": clock.now - 2, "later": clock.now + 0.1})
    queue = WebhookQueue(client, clock=clock)
    assert queue.take(0, lease_s=30) == []
    assert queue.take(1, lease_s=30) == [Delivery("early", 1)]
    assert queue.take(9, lease_s=30) == [Delivery("late", 1)]
    assert queue.take(9, lease_s=30) == []


def test_deliveries_do_not_wait_for_a_clock_that_was_set_back(client: redis.Redis, clock: Clock) -> None:
    queue = WebhookQueue(client, clock=clock)
    client.zadd(DUE_KEY, {"new": clock.now, "tried": clock.now + BACKOFF_S[-1] * (1 + JITTER)})
    assert queue.take(9, lease_s=30) == [Delivery("new", 1)]
    clock.now -= 86_400
    assert queue.take(9, lease_s=30) == [Delivery("new", 2), Delivery("tried", 1)]
    assert queue.take(9, lease_s=30) == []


def test_a_settled_delivery_is_not_brought_back_by_a_late_retry(client: redis.Redis, clock: Clock) -> None:
    queue = WebhookQueue(client, clock=clock)
    client.zadd(DUE_KEY, {"job1": clock.now})
    queue.take(1, lease_s=30)
    queue.settle("job1")
    queue.retry("job1", clock.now)
    assert queue.take(1, lease_s=30) == []
    assert not client.exists(DUE_KEY, TRIES_KEY)


def test_deliveries_go_on_while_redis_is_full(outbox: Outbox, client: redis.Redis, receiver: Receiver) -> None:
    receiver.answer = status(500)
    outbox.add("job1", url(receiver))
    outbox.add("job2", f"http://{address(receiver, 'other')}/")
    del outbox.messages["job2"]
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            client.set("x", "y")
        outbox.sender(address(receiver)).deliver_due()
    finally:
        client.config_set("maxmemory", "0")
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}
    assert client.hgetall(TRIES_KEY) == {b"job1": b"1"}
