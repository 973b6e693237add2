"""Where a webhook must not go, and receivers that are slow or cannot prove their name."""

import logging
import os
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest

from tests.conftest import Clock
from tests.support.webhooks import (
    BODY,
    SECRET,
    Authority,
    Outbox,
    Receiver,
    address,
    drip,
    listening,
    serving,
    status,
    url,
    wait_until,
)
from worker.tasks.webhooks import BACKOFF_S, PARALLEL

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

    monkeypatch.setattr("shared.outbound.connections.socket.create_connection", connect)
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


# TLS


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
