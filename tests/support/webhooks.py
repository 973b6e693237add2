"""Receivers of webhooks, and deliveries to them: what a worker does with those that are due, without a worker."""

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import redis
from celery import Celery

from shared.jobs.celery_config import WEBHOOKS, make_celery
from shared.outbound.connections import Resolve, resolve_host
from shared.outbound.hosts import parse_hosts
from shared.webhooks.queue import DUE_KEY, TRIES_KEY, Delivery, WebhookQueue
from shared.webhooks.signing import WebhookMessage, WebhookPolicy, event_body
from worker.tasks.webhooks import PARALLEL, WebhookPublisher, WebhookSender

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


class DeliveryLoop:
    """Has everything delivered that is due, by what does it in a worker: a publisher, messages, and threads."""

    def __init__(self, celery: Celery, client: redis.Redis, queue: WebhookQueue, sender: WebhookSender) -> None:
        self._client = client
        self._sender = sender
        self._publisher = WebhookPublisher(celery, client, queue, sender.deliver)

    def deliver_due(self) -> None:
        """Try every due delivery once."""
        self._publisher.publish_due()
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(PARALLEL) as threads:
            while running or self._client.llen(WEBHOOKS):
                while len(running) < PARALLEL and (message := self._client.rpop(WEBHOOKS)):
                    running.add(threads.submit(self._deliver, cast(bytes, message)))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for delivered in done:
                    delivered.result()

    def _deliver(self, message: bytes) -> None:
        self._sender.deliver(named_by(message))
        self._publisher.publish_due()


def named_by(message: bytes) -> Delivery:
    """The delivery that a message of Celery's asks for."""
    (job_id, attempt), _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return Delivery(job_id, attempt)


class Outbox:
    """Messages by job id, their queue, and senders for them."""

    def __init__(self, client: redis.Redis, url: str, clock: Callable[[], float]) -> None:
        self.celery = make_celery(url, socket_timeout_s=2)
        self.client = client
        self.clock = clock
        self.queue = WebhookQueue(client, clock=clock)
        self.messages: dict[str, WebhookMessage] = {}

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
    ) -> DeliveryLoop:
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
        return DeliveryLoop(self.celery, self.client, self.queue, sender)

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


def address(receiver: Receiver, host: str = "localhost") -> str:
    return f"{host}:{receiver.server_port}"


def url(receiver: Receiver, path: str = "/hook?token=t0p") -> str:
    return f"http://{address(receiver)}{path}"


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


def wait_until(happened: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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
