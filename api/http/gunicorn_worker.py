"""gunicorn's gevent worker, less patient: bounds what a client may take its time over, and refuses in our own form.

Knows nothing of the application but the shape of its problems.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gevent
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from api.http.problems import SECURITY_HEADERS, new_request_id, problem_body
from shared.telemetry import event

_LOG = logging.getLogger(__name__)

# The longest legitimate request: 100 s of a large body, a minute of decoding, 30 s of waiting, the way out.
_REQUEST_WITHIN_S = 240
# Connections without a request beyond this share of all make room, oldest first.
_SILENT_SHARE = 0.75
_LINGER_S = 1
_LINGER_BYTES = 1 << 20

_REFUSALS: list[tuple[type[BaseException], int, str, str]] = [
    (errors.LimitRequestLine, 414, "uri_too_long", "the request line is too long"),
    (errors.LimitRequestHeaders, 431, "headers_too_large", "the request has too many or too long headers"),
    (errors.ExpectationFailed, 417, "expectation_failed", "the only expectation met here is 100-continue"),
    (errors.ParseException, 400, "bad_request", "this is not HTTP as RFC 9112 has it"),
    (BaseException, 500, "internal_error", "something went wrong on our side; quote the request_id when you report it"),
]


class Worker(GeventWorker):  # type: ignore[misc]
    """One process of the API; a greenlet for each connection."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._silent: dict[gevent.Greenlet, socket.socket] = {}  # in the order in which they began to be silent

    def handle(self, listener: object, client: socket.socket, addr: object) -> None:
        gevent.getcurrent().client = client
        super().handle(listener, client, addr)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around the reading of a request's head: it must be there in time, and while others find room."""
        connection = gevent.getcurrent()
        while len(self._silent) >= self.worker_connections * _SILENT_SHARE:
            oldest = self._silent.pop(next(iter(self._silent)))
            # By another descriptor: gevent would raise in the greenlet that reads; so it reads the end and closes.
            with suppress(OSError), socket.fromfd(oldest.fileno(), oldest.family, oldest.type) as same:
                same.shutdown(socket.SHUT_RDWR)
        self._silent[connection] = connection.client
        try:
            with gevent.Timeout(self.cfg.keepalive, False):
                yield
        finally:
            self._silent.pop(connection, None)

    def handle_request(self, *args: object) -> None:
        with gevent.Timeout(_REQUEST_WITHIN_S, False):
            super().handle_request(*args)
            return
        raise StopIteration  # a client that does not read its answer: gunicorn closes the connection

    def handle_error(self, req: object, client: socket.socket, addr: object, exc: BaseException) -> None:
        """Answer what is no request. gunicorn would quote it, in its answer and in its log."""
        _, status, code, detail = next(refusal for refusal in _REFUSALS if isinstance(exc, refusal[0]))
        request_id = new_request_id()
        if status == 500:
            _LOG.error("event=unexpected_error request_id=%s", request_id, exc_info=exc)
        else:
            event(_LOG, "not_http", status=status, reason=type(exc).__name__, request_id=request_id)
        body = problem_body(status, code, detail, request_id)
        headers = {
            "Content-Type": "application/problem+json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Request-ID": request_id,
            **SECURITY_HEADERS,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with suppress(OSError), gevent.Timeout(_LINGER_S, False):
            client.sendall(f"HTTP/1.1 {status} {code}\r\n{head}\r\n".encode() + body)
            client.shutdown(socket.SHUT_WR)
            # Closing on what is still being sent would reset the connection before the answer is read.
            left = _LINGER_BYTES
            while left > 0 and (rest := client.recv(1 << 16)):
                left -= len(rest)
