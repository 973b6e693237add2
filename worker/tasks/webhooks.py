"""Webhook deliveries: what is due is published as a task each, signed, posted, and tried again by schedule.

A message goes to the very address that was checked: the name is resolved once, here, and TLS still verifies the name.
Redirects are answers like any other, and proxies are not used.
"""

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import redis
from celery import Celery

from shared.errors import QueueUnavailable, WebhookRefused
from shared.jobs.celery_config import DELIVER_WEBHOOK, WEBHOOKS
from shared.jobs.dispatcher import broker_errors
from shared.outbound.connections import (
    BROKEN,
    Deadline,
    Resolve,
    Unanswered,
    allowed_addresses,
    requested,
    resolve_host,
)
from shared.outbound.hosts import Target
from shared.redis_client import queue_trouble
from shared.telemetry import event
from shared.webhooks.queue import Delivery, WebhookQueue
from shared.webhooks.signing import WebhookMessage, WebhookPolicy, sign

_LOG = logging.getLogger(__name__)
BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0)
JITTER = 0.2
PARALLEL = 8
TIMEOUT_S = 5.0
# Longer than a delivery with all it asks of Redis can take.
LEASE_S = 30.0
_MAX_ANSWER_BYTES = 4096
_ENDED_WITHIN_S = 5.0  # a job whose end may not be told yet is looked at again after this
# A receiver that let so many messages in a row time out is left alone for a moment: its backlog must not
# take every thread from the others.
_SILENT_AFTER = 3
_SILENT_S = 10.0


class WebhookPublisher:
    """Publishes a message for each delivery that is due.

    Args:
        celery: from `make_celery`, with a time limit.
        client: of its Redis.
        deliver: tries a delivery at once; for when Redis is too full for messages.
    """

    def __init__(
        self, celery: Celery, client: redis.Redis, queue: WebhookQueue, deliver: Callable[[Delivery], object]
    ) -> None:
        self._celery = celery
        self._client = client
        self._queue = queue
        self._deliver = deliver
        self._publishing = threading.Lock()

    def publish_due(self) -> None:
        """Publish what is due, as far as there are threads; calls of several threads follow one another.

        Redis being away is logged, and what was taken falls due again with its lease.
        Never more at once than one worker has threads for: a delivery that waits for one would use up its lease.
        """
        try:
            with self._publishing, broker_errors():
                for _ in range(PARALLEL - int(self._client.llen(WEBHOOKS))):
                    # One at a time: its lease begins when it is published, or delivered here.
                    if not (taken := self._queue.take(1, lease_s=LEASE_S)):
                        break
                    self._publish(taken[0])
        except QueueUnavailable as exc:
            event(_LOG, "redis_unreachable", level=logging.WARNING, reason=queue_trouble(exc.__cause__))

    def _publish(self, delivery: Delivery) -> None:
        run_id = f"{delivery.job_id}.webhook-{delivery.attempt}"
        arguments = (delivery.job_id, delivery.attempt)
        try:
            with broker_errors():
                self._celery.send_task(DELIVER_WEBHOOK, arguments, task_id=run_id, queue=WEBHOOKS)
        except QueueUnavailable:  # full, or away since a moment ago; a try is counted, so it is made
            self._deliver(delivery)


class NotEnded(Exception):
    """The job of a delivery has no end that may be told: replicas of Redis lack it, or a failover took it back."""


class WebhookSender:
    """Posts the ends of jobs to their receivers; safe to call from many threads.

    Args:
        queue: of all deliveries.
        read_job: what to post for a job id; None when the job has expired. Raises NotEnded when it is too early.
        clock: seconds since the epoch.
        draw: a number in [0, 1), for the jitter.
        tls: verifies receivers; None: the system's certificates.
        resolve: addresses of a host and port, the preferred first.
    """

    def __init__(
        self,
        queue: WebhookQueue,
        read_job: Callable[[str], WebhookMessage | None],
        policy: WebhookPolicy,
        *,
        clock: Callable[[], float] | None = None,
        draw: Callable[[], float] = random.random,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_host,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._queue = queue
        self._read_job = read_job
        self._policy = policy
        self._clock = clock or queue.now
        self._draw = draw
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve
        self._timeout_s = timeout_s
        self._silent = _SilentReceivers(self._clock)
        # Its warnings quote whole URLs, and a query may hold a token.
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def deliver(self, delivery: Delivery) -> str:
        """Try one delivery; returns what became of it. What cannot be written down is due again after its lease."""
        try:
            with broker_errors():
                message = self._read_job(delivery.job_id)
            outcome = _EXPIRED if message is None else self._attempt(delivery.job_id, message)
        except QueueUnavailable as exc:
            reason = type(exc.__cause__).__name__
            event(_LOG, "webhook_unread", level=logging.WARNING, job_id=delivery.job_id, reason=reason)
            return "unread"
        except NotEnded:
            outcome = _NOT_ENDED
        except Exception:  # one message must not end the thread that delivers the others
            _LOG.exception("event=webhook_crashed job_id=%s", delivery.job_id)
            outcome = _Outcome("crashed")
        try:
            with broker_errors():
                self._conclude(delivery, outcome)
        except QueueUnavailable as exc:
            reason = type(exc.__cause__).__name__
            event(_LOG, "webhook_unrecorded", level=logging.WARNING, job_id=delivery.job_id, reason=reason)
        return outcome.reason

    def _attempt(self, job_id: str, message: WebhookMessage) -> "_Outcome":
        host = ""
        started = time.perf_counter()
        try:
            target = self._policy.check(message.url)
            host = target.host
            self._silent.check(host)
            status = self._post(target, job_id, message.body)
        except WebhookRefused as error:
            return _Outcome("refused", host, detail=str(error))
        except Unanswered as error:
            if error.reason != "silent":
                self._silent.note(host, timed_out=error.reason == "timeout")
            return _Outcome(error.reason, host, detail=error.detail, seconds=time.perf_counter() - started)
        self._silent.note(host, timed_out=False)
        final = 200 <= status < 300 or status == HTTPStatus.GONE
        return _Outcome(f"status_{status}", host, seconds=time.perf_counter() - started, final=final)

    def _post(self, target: Target, job_id: str, body: bytes) -> int:
        deadline = Deadline(self._timeout_s)
        timestamp = int(self._clock())
        headers = {
            "content-type": "application/json",
            "user-agent": "Lookalike-Webhooks",
            "webhook-id": job_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(job_id, timestamp, body, self._policy.secrets),
            "connection": "close",
        }
        addresses = allowed_addresses(target, self._resolve, deadline, allow_private=self._policy.allow_private)
        with requested("POST", target, addresses, headers, deadline, self._tls, body=body) as response:
            with suppress(*BROKEN):
                response.read(_MAX_ANSWER_BYTES, decode_content=False)  # lets the receiver finish a short answer
            return response.status

    def _conclude(self, delivery: Delivery, outcome: "_Outcome") -> None:
        if outcome.final:
            self._queue.settle(delivery.job_id)
            _tell("webhook_settled", delivery, outcome)
        elif outcome is _NOT_ENDED:
            self._queue.retry(delivery.job_id, self._clock() + _ENDED_WITHIN_S, counted=False)
            _tell("webhook_put_off", delivery, outcome)
        elif delivery.attempt > len(BACKOFF_S):
            self._queue.settle(delivery.job_id)
            _tell("webhook_given_up", delivery, outcome, level=logging.ERROR)
        else:
            delay_s = BACKOFF_S[delivery.attempt - 1] * (1 + JITTER * (2 * self._draw() - 1))
            self._queue.retry(delivery.job_id, self._clock() + delay_s)
            _tell("webhook_failed", delivery, outcome, level=logging.WARNING)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one try."""

    reason: str
    host: str = ""
    detail: str = ""
    seconds: float = 0.0
    final: bool = False  # accepted, or not wanted any more


_EXPIRED = _Outcome("expired", detail="the job's result was not kept long enough", final=True)
_NOT_ENDED = _Outcome("not_ended", detail="its end may not be told yet")


def _tell(name: str, delivery: Delivery, outcome: _Outcome, *, level: int = logging.INFO) -> None:
    event(
        _LOG,
        name,
        level=level,
        job_id=delivery.job_id,
        host=outcome.host,
        attempt=delivery.attempt,
        outcome=outcome.reason,
        detail=outcome.detail,
        seconds=outcome.seconds,
    )


class _SilentReceivers:
    """Hosts whose messages timed out several times in a row, and when they last did. At most as many as are allowed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timeouts: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def check(self, host: str) -> None:
        """Raises Unanswered while `host` is to be left alone."""
        with self._lock:
            count, last = self._timeouts.get(host, (0, 0.0))
        if count >= _SILENT_AFTER and self._clock() < last + _SILENT_S:
            raise Unanswered("silent", f"its last {count} messages timed out")

    def note(self, host: str, *, timed_out: bool) -> None:
        with self._lock:
            count, _ = self._timeouts.pop(host, (0, 0.0))
            if timed_out:
                self._timeouts[host] = (count + 1, self._clock())
