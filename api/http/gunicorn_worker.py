"""gunicorn's gevent worker with time limits for slow clients, and with this API's form of errors.

It answers requests that are not HTTP itself, since they never reach the application.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gevent
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from api.http.problems import SECURITY_HEADERS, new_request_id, problem_body
from shared.collector import collector_paused
from shared.telemetry import event

_LOG = logging.getLogger(__name__)

# The longest legitimate request: 100 s for a large body, 60 s of decoding, 30 s of waiting, sending the answer.
_REQUEST_WITHIN_S = 240
# Idle connections, which have sent no request, are closed beyond this share of all connections, oldest first.
_IDLE_SHARE = 0.75
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
    """A process of the API that serves each connection in a greenlet."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._idle: dict[gevent.Greenlet, socket.socket] = {}  # oldest first

    def load_wsgi(self) -> None:
        """Import the application, and make it."""
        with collector_paused():
            super().load_wsgi()

    def handle(self, listener: object, client: socket.socket, addr: object) -> None:
        """Serve a connection, and remember its socket so that it can be closed while it is idle."""
        gevent.getcurrent().client = client
        super().handle(listener, client, addr)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Limit the time for reading a request's head, and close the oldest idle connections if there are too many."""
        connection = gevent.getcurrent()
        while len(self._idle) >= self.worker_connections * _IDLE_SHARE:
            oldest = self._idle.pop(next(iter(self._idle)))
            # Through a second descriptor: on the first, gevent would raise in the greenlet that reads from it. This way
            # that greenlet reads the end of the connection, and closes it.
            with suppress(OSError), socket.fromfd(oldest.fileno(), oldest.family, oldest.type) as same:
                same.shutdown(socket.SHUT_RDWR)
        self._idle[connection] = connection.client
        try:
            with gevent.Timeout(self.cfg.keepalive, False):
                yield
        finally:
            self._idle.pop(connection, None)

    def handle_request(self, *args: object) -> None:
        """Handle a request within 240 s.

        Raises:
            StopIteration: time is up, for instance because the client does not read; gunicorn closes the connection.
        """
        with gevent.Timeout(_REQUEST_WITHIN_S, False):
            super().handle_request(*args)
            return
        raise StopIteration

    def handle_error(self, req: object, client: socket.socket, addr: object, exc: BaseException) -> None:
        """Answer what is not HTTP with problem+json. gunicorn itself would repeat the bytes in answer and log."""
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
            # Closing while the client still sends would reset the connection before it has read the answer.
            left = _LINGER_BYTES
            while left > 0 and (rest := client.recv(1 << 16)):
                left -= len(rest)
