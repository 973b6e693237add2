"""HTTP requests to the very addresses that were checked: a name is resolved once, and TLS still verifies the name.

Redirects are answers like any other, and proxies are not used. One deadline holds for all of a request.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException

from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse

from shared.outbound.hosts import Target, is_public

BROKEN = (OSError, HTTPException, urllib3_errors.HTTPError)  # what reading an answer may raise

Resolve = Callable[[str, int], Sequence[str]]


class Unanswered(Exception):
    """No answer was had; `reason` is for machines, `detail` for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system prefers them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Deadline:
    """The end of one request: whatever blocks asks how much time is left."""

    def __init__(self, timeout_s: float) -> None:
        self._ends = time.monotonic() + timeout_s

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
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


def allowed_addresses(target: Target, resolve: Resolve, deadline: Deadline, *, allow_private: bool) -> list[str]:
    """Resolve the host of a target to the addresses that may be called.

    Raises:
        Unanswered: it has none.
    """
    try:
        addresses = _within(deadline, lambda: resolve(target.host, target.port))
    except TimeoutError as exc:
        raise Unanswered("timeout", "its name was not resolved in time") from exc
    except (OSError, UnicodeError) as exc:
        raise Unanswered("unresolved", type(exc).__name__) from exc
    allowed = [address for address in addresses if allow_private or is_public(address)]
    if not allowed:
        raise Unanswered("private_address", "its name resolves to no address on the internet")
    return allowed


@contextmanager
def requested(
    method: str,
    target: Target,
    addresses: Sequence[str],
    headers: Mapping[str, str],
    deadline: Deadline,
    tls: ssl.SSLContext,
    *,
    body: bytes | None = None,
) -> Iterator[BaseHTTPResponse]:
    """Ask the first address that can be reached; the connection is closed with the context.

    Args:
        method: of HTTP.
        target: from `AllowedHosts.check`.
        addresses: from `allowed_addresses`.
        headers: of the request.
        deadline: by which everything is done.
        tls: verifies the host.
        body: of the request.

    Yields:
        the answer, of which nothing but the head has been read; reading it may raise what BROKEN lists.

    Raises:
        Unanswered: no answer before the deadline.
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
            connection.request(method, target.path, body=body, headers=dict(headers), preload_content=False)
            response = connection.getresponse()
        except BROKEN as exc:
            raise unanswered(exc, deadline) from exc
        closing.callback(response.close)
        if deadline.passed:  # what came may be what was cut short
            raise Unanswered("timeout")
        yield response


def _dial(addresses: Sequence[str], port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first address that answers; each gets its share of the time."""
    for index, address in enumerate(addresses):
        try:
            return socket.create_connection((address, port), timeout=deadline.left_s() / (len(addresses) - index))
        except OSError:
            if index == len(addresses) - 1:
                raise
    raise AssertionError("there is always an address")


def unanswered(error: Exception, deadline: Deadline) -> Unanswered:
    """Say why an answer could not be had, or not to its end."""
    if deadline.passed or isinstance(error, TimeoutError | urllib3_errors.TimeoutError):
        return Unanswered("timeout")
    detail = getattr(error, "verify_message", "") or type(error).__name__
    return Unanswered("tls_failed" if isinstance(error, ssl.SSLError) else "unreachable", detail)


def _within(deadline: Deadline, look_up: Callable[[], Sequence[str]]) -> Sequence[str]:
    """The answer of a call that has no timeout of its own. A late one ends in its thread, unheard."""
    answer: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            answer.set_result(look_up())
        except Exception as exc:  # the waiting thread raises it
            answer.set_exception(exc)

    threading.Thread(target=run, name="outbound-dns", daemon=True).start()
    return answer.result(timeout=deadline.left_s())
