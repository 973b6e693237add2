"""Webhook deliveries on a real Valkey to real receivers: none lost, none misdirected, no slow one in the way."""

import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest
import redis
from standardwebhooks import Webhook

from shared.redis_client import connect
from shared.webhooks.queue import DUE_KEY, TRIES_KEY, Delivery, WebhookQueue
from shared.webhooks.signing import WebhookMessage, WebhookPolicy, event_body, parse_hosts
from tests.conftest import Clock
from worker.tasks.webhooks import BACKOFF_S, JITTER, LEASE_S, PARALLEL, Resolve, WebhookSender, resolve_host

SECRET = "whsec_" + b64encode(b"0123456789abcdefghijklmnopqrstuv").decode()
OLD_SECRET = "whsec_" + b64encode(b"an older secret, still in use by some").decode()
BODY = event_body("job.succeeded", 1e6, {"id": "a", "note": "private text"})


class Handler(BaseHTTPRequestHandler):
    """Notes every request and answers as its receiver says."""

    def do_POST(self) -> None:
        receiver = self.server
        assert isinstance(receiver, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        receiver.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        receiver.answer(self)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"content-length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


class Receiver(ThreadingHTTPServer):
    """A receiver on a loopback port of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = status(204)

    def handle_error(self, *_: object) -> None:
        """Senders that hang up are part of the tests."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    with Receiver(tls) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=[0.01])
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving() as receiver:
        yield receiver


class Outbox:
    """Messages by job id, their queue, and a sender for them."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float]) -> None:
        self.client = client
        self.clock = clock
        self.queue = WebhookQueue(client, clock=clock)
        self.messages: dict[str, WebhookMessage] = {}
        self.senders: list[WebhookSender] = []

    def sender(
        self,
        hosts: str,
        *,
        read_job: Callable[[str], WebhookMessage | None] | None = None,
        allow_private: bool = True,
        draw: float = 0.5,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_host,
        timeout_s: float = 5.0,
    ) -> WebhookSender:
        sender = WebhookSender(
            self.queue,
            read_job or self.messages.get,
            WebhookPolicy(parse_hosts(hosts), (SECRET, OLD_SECRET), allow_private),
            clock=self.clock,
            draw=lambda: draw,
            tls=tls,
            resolve=resolve,
            timeout_s=timeout_s,
        )
        self.senders.append(sender)
        return sender

    def add(self, job_id: str, url: str) -> None:
        """What the script that ends a job does."""
        self.messages[job_id] = WebhookMessage(url, BODY)
        self.client.zadd(DUE_KEY, {job_id: self.clock()})

    def due(self) -> dict[str, float]:
        """Job id -> seconds from now."""
        entries = cast(list[tuple[bytes, float]], self.client.zrange(DUE_KEY, 0, -1, withscores=True))
        return {job_id.decode(): at - self.clock() for job_id, at in entries}

    def empty(self) -> bool:
        return not self.client.exists(DUE_KEY, TRIES_KEY)


@pytest.fixture
def outbox(client: redis.Redis, clock: Clock) -> Iterator[Outbox]:
    outbox = Outbox(client, clock)
    yield outbox
    for sender in outbox.senders:
        sender.close()


def address(receiver: Receiver, host: str = "localhost") -> str:
    return f"{host}:{receiver.server_port}"


def url(receiver: Receiver, path: str = "/hook?token=t0p") -> str:
    return f"http://{address(receiver)}{path}"


# Delivery and its schedule


def test_a_message_arrives_once_and_verifies(client: redis.Redis, receiver: Receiver) -> None:
    outbox = Outbox(client, time.time)
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
    sender.close()


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
    sender = WebhookSender(WebhookQueue(connect("redis://127.0.0.1:1/0")), lambda _: None, WebhookPolicy(), clock=clock)
    sender.deliver_due()
    sender.close()
    assert "event=redis_unreachable" in caplog.text


def test_a_closed_sender_takes_nothing_more(outbox: Outbox, receiver: Receiver) -> None:
    sender = outbox.sender(address(receiver))
    sender.close()
    outbox.add("job1", url(receiver))
    sender.deliver_due()
    assert (receiver.seen, outbox.due()) == ([], {"job1": 0})


def test_closing_lets_what_is_in_hand_finish(outbox: Outbox, receiver: Receiver) -> None:
    arrived, go = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        arrived.set()
        go.wait(5)
        status(200)(handler)

    receiver.answer = answer
    sender = outbox.sender(address(receiver))
    outbox.add("job1", url(receiver))
    with ThreadPoolExecutor() as threads:
        delivering = threads.submit(sender.deliver_due)
        assert arrived.wait(5)
        closing = threads.submit(sender.close)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        go.set()
        closing.result(5)
        assert outbox.empty()
        delivering.result(5)


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


# Where a message must not go


def test_a_redirect_is_a_failure_and_not_followed(outbox: Outbox, receiver: Receiver) -> None:
    with serving() as elsewhere:
        receiver.answer = status(302, location=url(elsewhere))
        outbox.add("job1", url(receiver))
        outbox.sender(f"{address(receiver)},{address(elsewhere)}").deliver_due()
        assert (len(receiver.seen), elsewhere.seen) == (1, [])
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}


def test_a_listed_name_of_a_private_address_is_not_connected_to(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as (port, accepted):
        outbox.add("job1", f"https://localhost:{port}/")
        outbox.sender(f"localhost:{port}", allow_private=False).deliver_due()
        assert accepted == []
    assert "outcome=private_address" in caplog.text
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}


@pytest.mark.parametrize("private", ["127.0.0.1", "::ffff:127.0.0.1", "::1", "64:ff9b::7f00:1"])
def test_of_several_addresses_only_public_ones_are_used(
    outbox: Outbox, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def connect(address: object, **_: object) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr("worker.tasks.webhooks.socket.create_connection", connect)
    sender = outbox.sender("hooks.example.org", allow_private=False, resolve=lambda *_: [private, "8.8.8.8", "9.9.9.9"])
    outbox.add("job1", "https://hooks.example.org/")
    sender.deliver_due()
    assert tried == [("8.8.8.8", 443), ("9.9.9.9", 443)]


def test_the_address_that_was_checked_is_the_one_connected_to(outbox: Outbox, receiver: Receiver) -> None:
    looked_up: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        looked_up.append((host, port))
        return ["127.0.0.1"] if len(looked_up) == 1 else ["127.0.0.2"]

    name = address(receiver, "hooks.invalid")  # a name that nothing else would resolve
    outbox.add("job1", f"http://{name}/")
    outbox.sender(name, resolve=resolve).deliver_due()
    assert looked_up == [("hooks.invalid", receiver.server_port)]
    assert [headers["host"] for _, headers, _ in receiver.seen] == [name]


def test_the_next_address_is_tried_when_one_refuses(outbox: Outbox, receiver: Receiver) -> None:
    outbox.add("job1", url(receiver))
    outbox.sender(address(receiver), resolve=lambda *_: ["127.0.0.9", "127.0.0.1"]).deliver_due()
    assert len(receiver.seen) == 1


def test_a_host_no_longer_listed_is_not_called(outbox: Outbox, receiver: Receiver) -> None:
    outbox.add("job1", url(receiver))
    outbox.sender("other.example.org").deliver_due()
    assert receiver.seen == []
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}


def test_a_name_that_does_not_resolve_is_tried_again(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    def resolve(*_: object) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    outbox.add("job1", "http://hooks.invalid/")
    outbox.sender("hooks.invalid", resolve=resolve).deliver_due()
    assert "outcome=unresolved" in caplog.text
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}


def test_proxies_of_the_environment_are_not_used(
    outbox: Outbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    outbox.add("job1", url(receiver))
    outbox.sender(address(receiver)).deliver_due()
    assert len(receiver.seen) == 1


def test_logs_name_the_job_and_never_query_secret_or_body(
    outbox: Outbox, clock: Clock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def garble(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nno header at all\r\nx: y\r\n\r\n")

    sender = outbox.sender(f"{address(receiver)},localhost:1")
    for answer in (garble, status(500), status(302, location="/?token=t0p")):
        receiver.answer = answer
        outbox.add("job1", url(receiver))
        outbox.add("job2", "http://localhost:1/?token=t0p")
        outbox.add("job3", "http://elsewhere/?token=t0p")
        sender.deliver_due()
        clock.now += 1
    assert all(f"job_id=job{i}" in caplog.text for i in (1, 2, 3))
    assert not any(hidden in caplog.text for hidden in ("t0p", "token", "whsec", SECRET[6:], "private text"))


# Slow receivers


@contextmanager
def listening(serve: Callable[[socket.socket], None] | None = None) -> Iterator[tuple[int, list[socket.socket]]]:
    """A bare listener; yields its port and the connections it accepted."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test is over
                return
            accepted.append(connection)
            if serve:
                threading.Thread(target=serve, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


def drip(content: bytes, then: bytes) -> Callable[[socket.socket], None]:
    """Send `content`, and then more every few milliseconds for 5 s: no pause is ever long."""

    def serve(connection: socket.socket) -> None:
        try:
            connection.sendall(content)
            for _ in range(250):
                connection.sendall(then)
                time.sleep(0.02)
        except OSError:  # the sender has hung up
            return

    return serve


# A TLS record of 16 kB that never gets there keeps a handshake waiting.
HANDSHAKE = bytes([22, 3, 3, 0x40, 0])
SLOW = {
    "never answers": ("http", None),
    "never shakes hands": ("https", None),
    "drips its handshake": ("https", drip(HANDSHAKE, b"\0")),
    "drips its status": ("http", drip(b"HTTP/1.1 200 ", b"O")),
    "drips its headers": ("http", drip(b"HTTP/1.1 200 OK\r\n", b"x")),
}


@pytest.mark.parametrize("way", SLOW)
def test_a_slow_receiver_is_given_up_in_time(outbox: Outbox, way: str, caplog: pytest.LogCaptureFixture) -> None:
    scheme, serve = SLOW[way]
    with listening(serve) as (port, accepted):
        outbox.add("job1", f"{scheme}://localhost:{port}/")
        started = time.monotonic()
        outbox.sender(f"localhost:{port}", timeout_s=0.4).deliver_due()
        assert 0.35 < time.monotonic() - started < 3
        wait_until(lambda: len(accepted) == 1)
    assert "outcome=timeout" in caplog.text
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}


def test_a_slow_name_server_is_given_up_in_time(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    answered = threading.Event()

    def resolve(*_: object) -> list[str]:
        answered.wait(10)
        return ["127.0.0.1"]

    outbox.add("job1", "http://hooks.invalid/")
    started = time.monotonic()
    outbox.sender("hooks.invalid", resolve=resolve, timeout_s=0.3).deliver_due()
    assert time.monotonic() - started < 3
    answered.set()
    assert "outcome=timeout" in caplog.text


@pytest.mark.parametrize("endless", [b"x" * 65_536, b"x"])
def test_an_endless_answer_is_not_read_to_its_end(outbox: Outbox, endless: bytes) -> None:
    with listening(drip(b"HTTP/1.1 200 OK\r\n\r\n", endless)) as (port, _):
        outbox.add("job1", f"http://localhost:{port}/")
        started = time.monotonic()
        outbox.sender(f"localhost:{port}", timeout_s=0.5).deliver_due()
        assert time.monotonic() - started < 3
    assert outbox.empty()  # it said 200


def test_a_slow_receiver_does_not_hold_up_the_others(outbox: Outbox, receiver: Receiver) -> None:
    with listening() as (port, accepted):
        for i in range(PARALLEL - 1):
            outbox.add(f"a slow {i}", f"http://localhost:{port}/")
        for i in range(50):
            outbox.add(f"b quick {i}", url(receiver))
        sender = outbox.sender(f"{address(receiver)},localhost:{port}", timeout_s=2)
        with ThreadPoolExecutor() as threads:
            delivering = threads.submit(sender.deliver_due)
            wait_until(lambda: len(receiver.seen) == 50)
            assert not delivering.done()  # the slow ones are still being waited for
            delivering.result(10)
        wait_until(lambda: len(accepted) == PARALLEL - 1)
    assert len(outbox.due()) == PARALLEL - 1


def test_a_receiver_that_stays_silent_is_left_alone_for_a_moment(
    outbox: Outbox, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as (port, _):
        for i in range(3 * PARALLEL):
            outbox.add(f"job{i}", f"http://localhost:{port}/")
        sender = outbox.sender(f"localhost:{port}", timeout_s=0.3)
        sender.deliver_due()
        asked = caplog.text.count("outcome=timeout")
        assert PARALLEL <= asked < 2 * PARALLEL  # those that were under way, and no wave after that
        assert caplog.text.count("outcome=silent") == 3 * PARALLEL - asked
        clock.now += 11  # everything is due again, and the moment is over
        sender.deliver_due()
        assert caplog.text.count("outcome=timeout") > asked


def wait_until(happened: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# TLS


class Authority:
    """A certificate authority made for the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.certificate = directory / "ca.pem"
        extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._openssl("req", "-x509", *self._new_key("ca.key"), "-out", "ca.pem", "-subj", "/CN=test CA", *extensions)

    def context(self) -> ssl.SSLContext:
        """What a sender that trusts this authority uses."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def server(self, host: str, asked_for: list[str] | None = None) -> ssl.SSLContext:
        """A receiver's side, with a certificate for `host`; notes the names asked for."""
        (self._directory / "names").write_text(f"subjectAltName=DNS:{host}\n")
        self._openssl("req", *self._new_key("host.key"), "-out", "host.csr", "-subj", "/CN=receiver")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
        self._openssl("x509", "-req", "-in", "host.csr", "-out", "host.pem", "-days", "2", *signing)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / "host.pem", self._directory / "host.key")
        if asked_for is not None:
            context.sni_callback = lambda _socket, name, _context: asked_for.append(str(name))
        return context

    def _new_key(self, file: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file]

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None and "CI" not in os.environ:
        pytest.skip("makes certificates with openssl")
    return Authority(tmp_path_factory.mktemp("authority"))


def test_a_receiver_with_a_valid_certificate_for_its_name_gets_the_message(
    outbox: Outbox, authority: Authority
) -> None:
    asked_for: list[str] = []
    with serving(authority.server("hooks.invalid", asked_for)) as receiver:
        name = address(receiver, "hooks.invalid")
        outbox.add("job1", f"https://{name}/hook")
        outbox.sender(name, tls=authority.context(), resolve=lambda *_: ["127.0.0.1"]).deliver_due()
        assert [(path, headers["host"], body) for path, headers, body in receiver.seen] == [("/hook", name, BODY)]
        assert asked_for == ["hooks.invalid"]
    assert outbox.empty()


@pytest.mark.parametrize("wrong", ["another authority", "another name"])
def test_a_receiver_that_cannot_prove_its_name_gets_nothing(
    outbox: Outbox, authority: Authority, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    certified = "localhost" if wrong == "another authority" else "hooks.invalid"
    with serving(authority.server(certified)) as receiver:
        outbox.add("job1", f"https://{address(receiver)}/hook")
        trusted = None if wrong == "another authority" else authority.context()
        outbox.sender(address(receiver), tls=trusted).deliver_due()
        assert receiver.seen == []
    assert "outcome=tls_failed" in caplog.text
    assert outbox.due() == {"job1": pytest.approx(BACKOFF_S[0])}
