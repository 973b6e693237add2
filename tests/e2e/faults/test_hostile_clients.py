"""Clients that are slow, silent, many or malformed, against the real processes: the others are served meanwhile."""

import json
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import encode, noise_image
from tests.e2e.conftest import Stack, eventually

HEAD = b"POST /v1/jobs/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
SECRET = b"do-not-repeat-me"
# The API with limits short enough for a test: a second for a head, two for a body.
IMPATIENT = """
from gevent import monkey
monkey.patch_all()
import sys
import api.uploads.bodies
from gunicorn.app.wsgiapp import run
api.uploads.bodies.BODY_WITHIN_S = 2
sys.argv = ["gunicorn", "--keep-alive", "1", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"]
run()
"""

# The API where no more than 128 files may be opened.
FEW_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
gunicorn = ["-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"]
os.execv(sys.executable, [sys.executable, *gunicorn])
"""


@contextmanager
def connections(stack: Stack, n: int, first_words: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that have said so much and no more."""
    with ExitStack() as opened:
        made = [opened.enter_context(socket.create_connection(("127.0.0.1", stack.port), timeout=30)) for _ in range(n)]
        for connection in made:
            connection.sendall(first_words)
        yield made


def exchange(stack: Stack, request: bytes) -> bytes:
    """Everything that is answered until the connection is closed."""
    with connections(stack, 1, request) as (connection,):
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def search_status(stack: Stack) -> str:
    answer = requests.post(
        stack.url + "/v1/jobs/search",
        files={"image": encode(noise_image(5))},
        headers={"Prefer": "wait=20"},
        timeout=30,
    )
    return str(answer.json()["status"])


@pytest.mark.alone
def test_slow_heads_slow_bodies_and_idle_connections_hold_up_nobody(stack: Stack) -> None:
    slow_body = HEAD + b"Content-Length: 5000000\r\n\r\n--x\r\n" + b"x" * 100_000
    with (
        connections(stack, 50, HEAD + b"X-Slow: ") as slow_heads,
        connections(stack, 50, slow_body) as slow_bodies,
        connections(stack, 50),
    ):
        took = []
        for i in range(200):
            if i % 20 == 0:
                for connection in slow_heads + slow_bodies:
                    connection.sendall(b"x")
            started = time.monotonic()
            assert requests.get(stack.url + "/livez", timeout=10).status_code == 200
            took.append(time.monotonic() - started)
        assert search_status(stack) == "succeeded"
    print(f"/livez beside 150 slow connections: p99 {sorted(took)[-2] * 1e3:.0f} ms")
    assert sorted(took)[-2] < 1


@pytest.mark.alone
def test_1200_silent_connections_lock_nobody_out(stack: Stack) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with connections(stack, 1200, b"GET / HTTP/1.1\r\n") as silent:
        started = time.monotonic()
        assert requests.get(stack.url + "/livez", timeout=10).status_code == 200
        assert search_status(stack) == "succeeded"
        assert time.monotonic() - started < 10
        assert silent[0].recv(100) == b""  # the oldest made room
        silent[-1].sendall(b"Host: localhost\r\nConnection: close\r\n\r\n")  # the newest was left its time
        assert silent[-1].recv(100).startswith(b"HTTP/1.1 200")


def test_silent_connections_lock_nobody_out_where_few_files_may_be_opened(own_stack: Stack) -> None:
    own_stack.launch("api", ["-c", FEW_FILES])
    eventually(lambda: requests.get(own_stack.url + "/livez", timeout=5).ok, 60, "the API answers")
    with connections(own_stack, 200) as silent:
        started = time.monotonic()
        answer = requests.post(
            own_stack.url + "/v1/jobs/embed", files={"image": encode(noise_image(5)) + bytes(1_000_000)}, timeout=20
        )
        assert answer.status_code == 202, answer.text
        assert time.monotonic() - started < 10
        assert silent[0].recv(100) == b""  # the oldest made room


@pytest.fixture
def impatient(home: Path, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(home, tmp_path / "valkey")
    stack.launch("api", ["-c", IMPATIENT])
    eventually(lambda: requests.get(stack.url + "/livez", timeout=5).ok, 60, "the API answers")
    yield stack
    stack.close()


def test_who_takes_too_long_is_told_or_cut_off(impatient: Stack) -> None:
    slow_body = HEAD + b"Content-Length: 5000\r\n\r\n--x\r\n"
    with (
        connections(impatient, 1) as (idle,),
        connections(impatient, 1, HEAD + b"X-Slow: ") as (slow_head,),
        connections(impatient, 1, slow_body) as (slow,),
    ):
        started = time.monotonic()
        assert idle.recv(1) == slow_head.recv(1) == b""
        answer = b"".join(iter(lambda: slow.recv(1 << 16), b""))
        assert time.monotonic() - started < 10
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["code"] == "request_timeout"


GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/jobs/embed HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (SECRET + b"\r\n\r\n", 400),
        (b"GET " + SECRET + b" HTTP/9.9\r\n\r\n", 400),
        (b"get /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"x" * 9_000 + SECRET + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /livez\x00" + SECRET + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\n" + SECRET + b"\n\n", 400),
        (GET + b"X-Big: " + SECRET * 1_000 + b"\r\n\r\n", 431),
        (GET + b"X-Many: 1\r\n" * 200 + b"\r\n", 431),
        (GET + b"X-Endless: " + b"x" * 2_000_000, 431),
        (GET + SECRET + b"\r\n\r\n", 400),
        (GET + SECRET + b" : x\r\n\r\n", 400),
        (GET + b"X-Folded: a\r\n " + SECRET + b"\r\n\r\n", 400),
        (GET + b"X-Nul: " + SECRET + b"\x00\r\n\r\n", 400),
        (GET + b"Host: " + SECRET + b"\r\n\r\n", 400),
        (GET + b"Expect: " + SECRET + b"\r\n\r\n", 417),
        (POST + b"Content-Length: " + SECRET + b"\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: +5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (POST + b"Transfer-Encoding: " + SECRET + b"\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500 + b"\r\n", 400),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GET + b"\r\n", 400),
    ],
)
def test_what_is_not_http_gets_one_clean_4xx_and_a_closed_connection(
    stack: Stack, request_bytes: bytes, status: int
) -> None:
    answer = exchange(stack, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Content-Type: application/problem+json" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert json.loads(body)["status"] == status
    assert SECRET not in answer


def test_a_body_of_stated_length_ends_there_and_what_follows_is_another_request(stack: Stack) -> None:
    closing = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = exchange(stack, POST + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" + closing)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"422", b"404"]


def test_chunked_bodies_are_never_read_as_requests(stack: Stack) -> None:
    chunked = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(SMUGGLED),
        SMUGGLED,
    )
    answer = exchange(stack, POST + chunked)
    assert answer.startswith(b"HTTP/1.1 422")
    assert answer.count(b"HTTP/1.1") == 1


PHOTO = encode(noise_image(6))
TEXT = b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n'
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + PHOTO + b"\r\n"


@pytest.mark.alone
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", PART + b"--x--\r\n"),
        ("multipart/form-data; boundary=", PART),
        ("multipart/form-data; boundary=" + "x" * 5_000, PART),
        ("multipart/form-data; boundary=\u00e9", PART),
        ("multipart/form-data; boundary=x", PART),
        ("multipart/form-data; boundary=x", PART * 1_000 + b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" * 500_000),
        ("multipart/form-data; boundary=x", b"--x\r\nX: " + b"y" * 5_000_000),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"X: y\r\n" * 500_000),
        ("multipart/form-data; boundary=x", b"\r\n--x\r" * 1_000_000),
        ("multipart/form-data; boundary=x", b"\r\n" * 4_000_000),
        ("multipart/form-data; boundary=x", TEXT + b"9" * 9_000_000 + b"\r\n" + PART + b"--x--\r\n"),
        ("multipart/form-data; boundary=x", PART.replace(b'e"', b'e";' + b" a=b;" * 100_000, 1) + b"--x--\r\n"),
        ("multipart/form-data; boundary=x; charset=utf-7", PART[:50]),
        ("application/json", b"[" * 60_000),
        ("application/json", b'{"image_id": "' + b"x" * 9_000_000 + b'"}'),
        ("application/json", b'{"image_id": "\\ud800\\u0000../../etc/passwd"}'),
        ("application/x-www-form-urlencoded", b"k=" + b"9" * 9_000_000),
        ("application/x-www-form-urlencoded", b"&" * 5_000_000),
    ],
)
def test_hostile_bodies_get_a_short_4xx_or_are_taken(stack: Stack, content_type: str, body: bytes) -> None:
    started = time.monotonic()
    headers = {"Content-Type": content_type.encode()}
    answer = requests.post(stack.url + "/v1/jobs/embed", data=body, headers=headers, timeout=30)
    assert time.monotonic() - started < 5
    assert answer.status_code in (202, 400, 413, 422), answer.text
    assert len(answer.content) < 2_000
    assert "Traceback" not in answer.text
    assert answer.status_code == 202 or answer.json()["code"]


def test_a_header_cannot_move_the_service(stack: Stack) -> None:
    moved = b"Accept: text/html\r\nSCRIPT_NAME: /evil\r\nPATH_INFO: /evil\r\nX-Forwarded-Prefix: /evil\r\n"
    answer = exchange(stack, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + moved + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"evil" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/../../etc/passwd",
        "/v1/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/jobs/%00",
        "/v1/jobs/a%0d%0aX-Injected:%20yes",
        "/v1/jobs/" + "0" * 3_000,
        "/v1/jobs/%ff%fe",
        "/v1/batches/..%2f..%2f",
        "/%0d%0aX-Injected:%20yes",
        "//127.0.0.1/livez",
        "/v1/jobs/*",
        "/v1/jobs/" + "a" * 31 + "%0a",
    ],
)
def test_hostile_paths_and_ids_are_404_and_not_repeated(stack: Stack, path: str) -> None:
    answer = exchange(stack, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404"), answer
    assert b"X-Injected" not in answer
    assert b"passwd" not in answer


def test_every_answer_says_what_a_browser_may_do_with_it(stack: Stack) -> None:
    for answer in (
        requests.get(stack.url + "/livez", timeout=10),
        requests.get(stack.url + "/nowhere", timeout=10),
        requests.get(stack.url + "/metrics", timeout=10),
        requests.post(stack.url + "/v1/jobs/embed", files={"image": PHOTO}, timeout=10),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
