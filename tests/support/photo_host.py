"""A host of photos on a loopback port: answers GET with what a test puts there, and notes what it was asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        host = self.server
        assert isinstance(host, PhotoHost)
        host.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        found = host.photos.get(self.path)
        if callable(found):
            found(self)
        elif found is None:
            answer(404)(self)
        else:
            etag = f'"{sha256(found).hexdigest()[:16]}"'
            if self.headers.get("if-none-match") == etag:
                answer(304, etag=etag)(self)
            else:
                answer(200, found, etag=etag)(self)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer with this status, body and headers, whose names may have `_` for `-`."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


class PhotoHost(ThreadingHTTPServer):
    """A host of photos.

    Attributes:
        photos: content, or how to answer, by path.
        asked: path and headers of each request.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.photos: dict[str, bytes | Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, *_: object) -> None:
        """Callers that hang up are part of the tests."""

    @property
    def name(self) -> str:
        """Host and port, as an operator lists them."""
        return f"localhost:{self.server_port}"

    def url(self, path: str) -> str:
        return f"http://{self.name}{path}"


@contextmanager
def photo_host() -> Iterator[PhotoHost]:
    with PhotoHost() as host:
        thread = threading.Thread(target=host.serve_forever, args=[0.01])
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join()
