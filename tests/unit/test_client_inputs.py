"""Whatever is passed to the client works, or raises a LookalikeError that names the argument."""

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lookalike import AsyncClient, Client, LookalikeError
from lookalike.errors import InputError, PhotoUnreadable
from lookalike.photos import read_photo
from tests.conftest import encode, noise_image
from tests.unit.test_client import DONE

PHOTO = encode(noise_image(7))


class Service:
    """Remembers requests; every job it is sent is canceled at once."""

    def __init__(self) -> None:
        self.sent: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return httpx.Response(200, json=DONE)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client("http://127.0.0.1:8080", transport=httpx.MockTransport(service)) as client:
        yield client


Put = dict[str, Any]


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"must": [found]}
    return found


WRONG: list[tuple[str, Callable[[Client], object]]] = [
    ("image_id", lambda client: client.thumbnail(None)),  # type: ignore[arg-type]
    ("image_id", lambda client: client.thumbnail("")),
    ("image_id", lambda client: client.thumbnail("..")),
    ("image_id", lambda client: client.thumbnail("\udcff")),
    ("image_id", lambda client: client.delete_image(4711.0)),  # type: ignore[arg-type]
    ("image_id", lambda client: client.delete_image(True)),  # type: ignore[arg-type]
    ("image_id", lambda client: client.put_image(b"p1", PHOTO, listing_id="l", category="c")),  # type: ignore[arg-type]
    ("image_id", lambda client: client.search(image_id=["p1"])),  # type: ignore[arg-type]
    ("listing_id", lambda client: client.put_image("p", PHOTO, listing_id=None, category="c")),  # type: ignore[arg-type]
    ("category", lambda client: client.put_image("p", PHOTO, listing_id="l", category=None)),  # type: ignore[arg-type]
    ("job_id", lambda client: client.job(None)),  # type: ignore[arg-type]
    ("version", lambda client: client.promote(object())),  # type: ignore[arg-type]
    ("version", lambda client: client.report("")),
    ("k", lambda client: client.search(PHOTO, k=[4])),  # type: ignore[arg-type]
    ("k", lambda client: client.search(image_id="p1", k=object())),  # type: ignore[arg-type]
    ("min_score", lambda client: client.search(image_id="p1", min_score=float("nan"))),
    ("min_score", lambda client: client.search(PHOTO, min_score=np.array([0.1, 0.2]))),  # type: ignore[arg-type]
    ("category", lambda client: client.search(PHOTO, category="\udcff")),
    ("filter", lambda client: client.search(PHOTO, filter='{"must": []}')),  # type: ignore[arg-type]
    ("filter", lambda client: client.search(PHOTO, filter={"must": [{"key": "price", "range": {"lte": 1e999}}]})),
    ("filter", lambda client: client.batch([PHOTO], filter={"must": object()})),
    ("filter", lambda client: client.search(image_id="p1", filter=nested(5_000))),
    ("include", lambda client: client.search(PHOTO, include=["title", 4])),  # type: ignore[list-item]
    ("facets", lambda client: client.search(image_id="p1", facets=5)),  # type: ignore[arg-type]
    ("attributes", lambda client: client.put_image("p", PHOTO, listing_id="l", category="c", attributes=[])),  # type: ignore[arg-type]
    (
        "attributes",
        lambda client: client.put_image("p", PHOTO, listing_id="l", category="c", attributes={"a": "\udc00"}),
    ),
    ("mode", lambda client: client.reindex(mode=object())),  # type: ignore[arg-type]
    ("timeout_s", lambda client: client.search(PHOTO, timeout_s="10")),  # type: ignore[arg-type]
    ("timeout_s", lambda client: client.search(PHOTO, timeout_s=float("nan"))),
    ("timeout_s", lambda client: client.batch([PHOTO], timeout_s="10")),  # type: ignore[arg-type]
    ("limit", lambda client: client.jobs(limit="10")),  # type: ignore[arg-type]
    ("photos", lambda client: client.batch("a.jpg")),
    ("photos", lambda client: client.batch(PHOTO)),  # type: ignore[arg-type]
    ("photos", lambda client: client.batch(Path("a.jpg"))),  # type: ignore[arg-type]
    ("photos", lambda client: client.batch_embed(BytesIO(PHOTO))),
    ("photos", lambda client: client.batch(5)),  # type: ignore[arg-type]
    ("idempotency_key", lambda client: client.search(PHOTO, idempotency_key="a\nb")),
]


@pytest.mark.parametrize(("name", "call"), WRONG)
def test_an_argument_that_cannot_be_sent_is_named_and_nothing_is_sent(
    client: Client, service: Service, name: str, call: Callable[[Client], object]
) -> None:
    with pytest.raises(InputError, match=f"^{name}: "):
        call(client)
    assert service.sent == []


def test_filters_go_as_json_into_a_body_and_as_its_text_into_a_form(client: Client, service: Service) -> None:
    wanted = {"must": [{"key": "added", "range": {"gte": date(2026, 11, 1)}}, {"key": "n", "match": {"any": (1, 2)}}]}
    options: dict[str, Any] = {"filter": wanted, "include": "title, price", "facets": ["colour"], "facet_scope": "hits"}
    for query in ({"photo": PHOTO}, {"image_id": "p1"}):
        with pytest.raises(LookalikeError, match="was canceled"):
            client.search(**query, **options)
    form, body = service.sent
    sent = {
        "filter": {"must": [{"key": "added", "range": {"gte": "2026-11-01"}}, {"key": "n", "match": {"any": [1, 2]}}]},
        "include": ["title", "price"],
        "facets": ["colour"],
        "facet_scope": "hits",
    }
    asked = json.loads(body.content)
    assert {name: asked[name] for name in sent} == sent
    for name, value in sent.items():
        text = json.dumps(value, separators=(",", ":")) if name == "filter" else value
        text = ",".join(value) if isinstance(value, list) else text
        assert f'name="{name}"\r\n\r\n{text}\r\n'.encode() in form.content


def test_attributes_of_a_put_go_as_json_text(client: Client, service: Service) -> None:
    values = {"title": "Lampe „rot“", "price": {"amount": np.float32(12.5), "currency": "EUR"}, "sold": None}
    with pytest.raises(LookalikeError, match="was canceled"):
        client.put_image("p", PHOTO, listing_id="l", category="c", attributes=values)
    written = '{"title":"Lampe „rot“","price":{"amount":12.5,"currency":"EUR"},"sold":null}'
    assert f'name="attributes"\r\n\r\n{written}\r\n'.encode() in service.sent[0].content


@pytest.mark.parametrize("key", [4711, np.int64(4711), "4711"])
def test_a_whole_number_is_an_id(client: Client, service: Service, key: Any) -> None:
    for call in (
        lambda: client.put_image(key, PHOTO, listing_id=key, category="Appliances"),
        lambda: client.delete_image(key),
        lambda: client.search(image_id=key, exclude_listing="1", k=np.int32(3), min_score=np.float32(0.5)),  # type: ignore[arg-type]
    ):
        with pytest.raises(LookalikeError, match="was canceled"):
            call()
    put, delete, search = service.sent
    assert put.url.path == delete.url.path == "/v1/images/4711"
    assert b'name="listing_id"\r\n\r\n4711\r\n' in put.content
    assert b'"image_id":"4711"' in search.content
    assert b'"k":3' in search.content


@pytest.mark.parametrize("timeout_s", ["60", None, float("nan"), True])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_clients_own_timeout_is_a_number(kind: type, timeout_s: object) -> None:
    with pytest.raises(InputError, match=r"^timeout_s: "):
        kind(timeout_s=timeout_s)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"url": 8080}, "url"), ({"url": "shop"}, "url"), ({"api_key": "a b"}, "api_key"), ({"api_key": 5}, "api_key")],
)
def test_a_clients_arguments_are_named(kind: type, arguments: dict[str, object], name: str) -> None:
    with pytest.raises(LookalikeError, match=f"^{name}: "):
        kind(**arguments)


def test_a_file_at_its_end_is_told(client: Client, service: Service, tmp_path: Path) -> None:
    file = BytesIO()
    noise_image(3).save(file, "PNG")  # and no seek(0)
    with pytest.raises(PhotoUnreadable, match=r"seek\(0\)"):
        client.search(file)
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    with (tmp_path / "a.jpg").open("rb") as opened:
        assert read_photo(opened) == PHOTO
        with pytest.raises(PhotoUnreadable, match=r"seek\(0\)"):
            read_photo(opened)
    assert read_photo(BytesIO(b"")) == b""  # the service says what is wrong with an empty file
    assert service.sent == []


class Broken:
    """A response of an HTTP library whose connection breaks."""

    def read(self) -> bytes:
        raise RuntimeError("the stream was consumed")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(PhotoUnreadable, match="the stream was consumed"):
        read_photo(Broken())
    noise_image(3).save(tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    picture.close()
    with pytest.raises(PhotoUnreadable, match="cannot be sent"):
        read_photo(picture)
    with pytest.raises(PhotoUnreadable, match="not ndarray"):
        read_photo(np.zeros((2, 2)))  # type: ignore[arg-type]


class Canceled(BaseHTTPRequestHandler):
    """A service that keeps connections open, so that they outlive the event loop they were made in."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(DONE).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_async_client_with_open_connections_works_in_another_event_loop() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Canceled)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    later = AsyncClient(f"http://127.0.0.1:{server.server_port}", timeout_s=5)
    for _ in range(3):
        with pytest.raises(LookalikeError, match="was canceled"):
            asyncio.run(later.search(PHOTO))
    asyncio.run(later.close())
    server.shutdown()
    server.server_close()
    del later
    gc.collect()  # connections of ended loops cannot be closed, and Python warns of them now


def test_an_async_client_works_in_one_event_loop_after_another(service: Service) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        return service(request)

    later = AsyncClient("http://127.0.0.1:8080", transport=httpx.MockTransport(answer))
    for _ in range(3):
        with pytest.raises(LookalikeError, match="was canceled"):
            asyncio.run(later.search(PHOTO))
    asyncio.run(later.close())
    with pytest.raises(InputError, match="closed"):
        asyncio.run(later.search(PHOTO))


def test_a_closed_client_says_so(service: Service) -> None:
    client = Client(transport=httpx.MockTransport(service))
    client.close()
    with pytest.raises(InputError, match="closed"):
        client.ready()


def test_an_async_client_may_be_closed_twice_and_then_refuses_calls() -> None:
    async def close_twice() -> None:
        async with AsyncClient("http://127.0.0.1:8080") as later:
            await later.close()
        with pytest.raises(LookalikeError, match="is closed"):
            await later.search(PHOTO)

    asyncio.run(close_twice())
