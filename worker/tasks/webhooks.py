"""Webhook deliveries: what is due is published as a task each, signed, posted, and tried again by schedule.

A message goes to the very address that was checked: the name is resolved once, here, and TLS still verifies the name.
Redirects are answers like any other, and proxies are not used.
"""

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException

import redis
from celery import Celery
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection

from shared.errors import QueueUnavailable, WebhookRefused
from shared.jobs.celery_config import DELIVER_WEBHOOK, WEBHOOKS
from shared.jobs.dispatcher import broker_errors
from shared.telemetry import event
from shared.webhooks.queue import Delivery, WebhookQueue
from shared.webhooks.signing import WebhookMessage, WebhookPolicy, WebhookTarget, is_public, sign

_LOG = logging.getLogger(__name__)
BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0)
JITTER = 0.2
PARALLEL = 8
TIMEOUT_S = 5.0
# Longer than a delivery with all it asks of Redis can take.
LEASE_S = 30.0
_MAX_ANSWER_BYTES = 4096
# A receiver that let so many messages in a row time out is left alone for a moment: its backlog must not
# take every thread from the others.
_SILENT_AFTER = 3
_SILENT_S = 10.0

Resolve = Callable[[str, int], Sequence[str]]


def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system prefers them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


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
            event(_LOG, "redis_unreachable", level=logging.WARNING, reason=type(exc.__cause__).__name__)

    def _publish(self, delivery: Delivery) -> None:
        run_id = f"{delivery.job_id}.webhook-{delivery.attempt}"
        arguments = (delivery.job_id, delivery.attempt)
        try:
            with broker_errors():
                self._celery.send_task(DELIVER_WEBHOOK, arguments, task_id=run_id, queue=WEBHOOKS)
        except QueueUnavailable:  # full, or away since a moment ago; a try is counted, so it is made
            self._deliver(delivery)


class WebhookSender:
    """Posts the ends of jobs to their receivers; safe to call from many threads.

    Args:
        queue: of all deliveries.
        read_job: what to post for a job id; None when the job has expired.
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
        except _Undelivered as error:
            if error.reason != "silent":
                self._silent.note(host, timed_out=error.reason == "timeout")
            return _Outcome(error.reason, host, detail=error.detail, seconds=time.perf_counter() - started)
        self._silent.note(host, timed_out=False)
        final = 200 <= status < 300 or status == HTTPStatus.GONE
        return _Outcome(f"status_{status}", host, seconds=time.perf_counter() - started, final=final)

    def _post(self, target: WebhookTarget, job_id: str, body: bytes) -> int:
        deadline = _Deadline(self._timeout_s)
        timestamp = int(self._clock())
        headers = {
            "content-type": "application/json",
            "user-agent": "Lookalike-Webhooks",
            "webhook-id": job_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(job_id, timestamp, body, self._policy.secrets),
            "connection": "close",
        }
        return _post(target, self._addresses(target, deadline), headers, body, deadline, self._tls)

    def _addresses(self, target: WebhookTarget, deadline: "_Deadline") -> list[str]:
        """The addresses of the target that may be called.

        Raises:
            _Undelivered: it has none.
        """
        try:
            addresses = _within(deadline, lambda: self._resolve(target.host, target.port))
        except TimeoutError as exc:
            raise _Undelivered("timeout", "its name was not resolved in time") from exc
        except (OSError, UnicodeError) as exc:
            raise _Undelivered("unresolved", type(exc).__name__) from exc
        allowed = [address for address in addresses if self._policy.allow_private or is_public(address)]
        if not allowed:
            raise _Undelivered("private_address", "its name resolves to no address on the internet")
        return allowed

    def _conclude(self, delivery: Delivery, outcome: "_Outcome") -> None:
        if outcome.final:
            self._queue.settle(delivery.job_id)
            _tell("webhook_settled", delivery, outcome)
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


class _Undelivered(Exception):
    """No answer was had; `reason` is for machines, `detail` for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class _SilentReceivers:
    """Hosts whose messages timed out several times in a row, and when they last did. At most as many as are allowed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timeouts: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def check(self, host: str) -> None:
        """Raises _Undelivered while `host` is to be left alone."""
        with self._lock:
            count, last = self._timeouts.get(host, (0, 0.0))
        if count >= _SILENT_AFTER and self._clock() < last + _SILENT_S:
            raise _Undelivered("silent", f"its last {count} messages timed out")

    def note(self, host: str, *, timed_out: bool) -> None:
        with self._lock:
            count, _ = self._timeouts.pop(host, (0, 0.0))
            if timed_out:
                self._timeouts[host] = (count + 1, self._clock())


class _Deadline:
    """The end of one delivery: whatever blocks asks how much time is left."""

    def __init__(self, timeout_s: float) -> None:
        self._ends = time.monotonic() + timeout_s

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._ends

    def left_s(self) -> float:
        """Raises TimeoutError when nothing is left."""
        if (left_s := self._ends - time.monotonic()) <= 0:
            raise TimeoutError
        return left_s

    @contextmanager
    def shutting(self, sock: socket.socket) -> Iterator[None]:
        """Shut the connection under `sock` when time is up: a timeout of the socket's starts again with every byte."""
        with sock.dup() as plain:  # of the TCP connection, whatever TLS does with `sock` meanwhile
            timer = threading.Timer(max(0.0, self._ends - time.monotonic()), _shut, [plain])
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()  # else it could shut whatever has the descriptor next


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # the receiver was faster
        sock.shutdown(socket.SHUT_RDWR)


class _PinnedHTTP(HTTPConnection):
    """urllib3's connection, over the socket it is given a way to open."""

    dial: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        return self.dial()


class _PinnedHTTPS(HTTPSConnection):
    """The same with TLS, which names and verifies the host of the URL."""

    dial: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        return self.dial()


def _post(
    target: WebhookTarget,
    addresses: Sequence[str],
    headers: dict[str, str],
    body: bytes,
    deadline: _Deadline,
    tls: ssl.SSLContext,
) -> int:
    """Post to the first address that can be reached and return the status of the answer.

    Raises:
        _Undelivered: no answer before the deadline.
    """
    with ExitStack() as closing:

        def dial() -> socket.socket:
            sock = _dial(addresses, target.port, deadline)
            closing.enter_context(deadline.shutting(sock))
            return sock

        connection: _PinnedHTTP | _PinnedHTTPS
        try:
            if target.scheme == "https":
                connection = _PinnedHTTPS(target.host, target.port, timeout=deadline.left_s(), ssl_context=tls)
            else:
                connection = _PinnedHTTP(target.host, target.port, timeout=deadline.left_s())
            connection.dial = dial
            closing.callback(connection.close)
            connection.request("POST", target.path, body=body, headers=headers, preload_content=False)
            response = connection.getresponse()
        except (OSError, HTTPException, urllib3_errors.HTTPError) as exc:
            raise _undelivered(exc, deadline) from exc
        closing.callback(response.close)
        if deadline.passed:  # what came may be what was cut short
            raise _Undelivered("timeout")
        with suppress(OSError, HTTPException, urllib3_errors.HTTPError):
            response.read(_MAX_ANSWER_BYTES, decode_content=False)  # lets the receiver finish a short answer
        return response.status


def _dial(addresses: Sequence[str], port: int, deadline: _Deadline) -> socket.socket:
    """Connect to the first address that answers; each gets its share of the time."""
    for index, address in enumerate(addresses):
        try:
            return socket.create_connection((address, port), timeout=deadline.left_s() / (len(addresses) - index))
        except OSError:
            if index == len(addresses) - 1:
                raise
    raise AssertionError("there is always an address")


def _undelivered(error: Exception, deadline: _Deadline) -> _Undelivered:
    if deadline.passed or isinstance(error, TimeoutError | urllib3_errors.TimeoutError):
        return _Undelivered("timeout")
    detail = getattr(error, "verify_message", "") or type(error).__name__
    return _Undelivered("tls_failed" if isinstance(error, ssl.SSLError) else "unreachable", detail)


def _within(deadline: _Deadline, look_up: Callable[[], Sequence[str]]) -> Sequence[str]:
    """The answer of a call that has no timeout of its own. A late one ends in its thread, unheard."""
    answer: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            answer.set_result(look_up())
        except Exception as exc:  # the waiting thread raises it
            answer.set_exception(exc)

    threading.Thread(target=run, name="webhook-dns", daemon=True).start()
    return answer.result(timeout=deadline.left_s())
