"""A job's end is told to the URL it was submitted with, signed, whatever the end."""

import base64
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from standardwebhooks import Webhook

from tests.e2e.conftest import Stack, eventually

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Receiver(ThreadingHTTPServer):
    """Verifies and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[dict[str, object]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Receiver)
        self.server.events.append(Webhook(SECRET).verify(body, dict(self.headers)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_end_of_every_job_is_told(own_stack: Stack, photos: list[Path], receiver: Receiver) -> None:
    allowed = {
        "webhook_hosts": f"127.0.0.1:{receiver.server_port}",
        "webhook_secret": SECRET,
        "webhook_allow_private": "1",
    }
    own_stack.start("api", **allowed)
    eventually(lambda: requests.get(own_stack.url + "/livez", timeout=5).ok, 30, "the API answers")

    def submit(**options: str) -> str:
        answer = requests.post(
            own_stack.url + "/v1/jobs/search",
            files={"image": photos[0].read_bytes()},
            data={"webhook_url": receiver.url, **options},
            timeout=10,
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    done, cancelled = submit(), submit()
    late = submit(deadline_s="0.01")
    assert requests.post(f"{own_stack.url}/v1/jobs/{cancelled}/cancel", timeout=10).status_code == 200
    own_stack.start("worker", **allowed)
    eventually(lambda: len(receiver.events) >= 3, 40, "three ends are told")
    told = {event["data"]["id"]: event["type"] for event in receiver.events}  # type: ignore[index]
    assert told == {done: "job.succeeded", cancelled: "job.canceled", late: "job.expired"}
    [body] = [event["data"] for event in receiver.events if event["data"]["id"] == done]  # type: ignore[index]
    assert body == requests.get(f"{own_stack.url}/v1/jobs/{done}", timeout=10).json()


def test_a_url_the_operator_did_not_allow_is_refused(stack: Stack, photos: list[Path]) -> None:
    answer = requests.post(
        stack.url + "/v1/jobs/search?webhook_url=https://example.org/",
        files={"image": photos[0].read_bytes()},
        timeout=10,
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_refused")
