"""Whatever the environment holds, the client works or raises a LookalikeError that names the variable."""

import asyncio
import socket
import ssl
from pathlib import Path

import certifi
import httpx
import pytest
from click.testing import CliRunner

from lookalike import AsyncClient, Client, LookalikeError
from lookalike.connection import Connection, connection
from lookalike.errors import NoAnswer
from lookalike.exchange import Exchange, Request
from pipeline.cli.main import main
from tests.conftest import encode, noise_image

SERVICE = "http://shop.internal.example:8080"
PROXY = "http://proxy.example:3128"
VARIABLES = [
    *(f"{scheme}_{end}" for scheme in ("http", "https", "all", "no") for end in ("proxy",)),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "LOOKALIKE_URL", "LOOKALIKE_API_KEY"),
]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("lookalike.connection.find_spec", lambda name: None)  # no socksio


def found(url: str = SERVICE) -> Connection:
    return connection(url, None, with_proxy=True)


WRONG = [
    ("ALL_PROXY", "socks5://127.0.0.1:1080", SERVICE),
    ("all_proxy", "socks5h://127.0.0.1:1080", SERVICE),
    ("HTTPS_PROXY", "socks5h://127.0.0.1:1080", "https://shop.example"),
    ("HTTP_PROXY", "ftp://proxy.example", SERVICE),
    ("HTTP_PROXY", "http://proxy.example:port", SERVICE),
    ("HTTP_PROXY", "http://", SERVICE),
    ("http_proxy", "http://proxy\nexample", SERVICE),
    ("HTTP_PROXY", "http://[::1", SERVICE),
    ("SSL_CERT_FILE", "/nonexistent/ca.pem", "https://shop.example"),
    ("SSL_CERT_DIR", "/nonexistent/certificates", "https://shop.example"),
    ("LOOKALIKE_URL", "shop.example:8080", ""),
    ("LOOKALIKE_URL", "http://shop.example:port", ""),
    ("LOOKALIKE_URL", "http://shop\nexample", ""),
    ("LOOKALIKE_URL", "http://shop.example/?k=1", ""),
    ("LOOKALIKE_API_KEY", "lk_\u00e9", SERVICE),
    ("LOOKALIKE_API_KEY", "lk_a\nlk_b", SERVICE),
]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(("name", "value", "url"), WRONG)
def test_what_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, value: str, url: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(LookalikeError, match=f"^{name}: "):
        kind(url or None)


def test_a_file_without_certificates_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(NoAnswer, match=r"SSL_CERT_FILE: .*ca.pem"):
        Client("https://shop.example")


@pytest.mark.parametrize(
    ("name", "value", "url"),
    [
        ("HTTPS_PROXY", "socks5h://127.0.0.1:1080", SERVICE),  # of another scheme
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "http://127.0.0.1:8080"),  # this machine
        ("SSL_CERT_FILE", "/nonexistent/ca.pem", SERVICE),  # without TLS
        ("LOOKALIKE_URL", " http://shop.example \n", ""),
        ("LOOKALIKE_URL", "not an address", SERVICE),  # the argument goes before
        ("LOOKALIKE_API_KEY", "lk_a\r\n", SERVICE),
        ("HTTP_PROXY", f"{PROXY}\n", SERVICE),
        ("NO_PROXY", "[::1, http://x:y, a b, ://, :, *.[", SERVICE),
        ("SSL_CERT_FILE", f"{certifi.where()}\n", "https://shop.example"),
    ],
)
def test_what_does_no_harm_is_passed_over(monkeypatch: pytest.MonkeyPatch, name: str, value: str, url: str) -> None:
    monkeypatch.setenv(name, value)
    Client(url or None).close()


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_exempt"),
    [
        ("", SERVICE, False),
        ("*", SERVICE, True),
        ("other.example, internal.example", SERVICE, True),
        (".internal.example", SERVICE, True),
        ("*.internal.example", SERVICE, True),
        ("shop.internal.example:8080", SERVICE, True),
        ("shop.internal.example:9090", SERVICE, False),
        ("http://shop.internal.example", SERVICE, True),
        ("nternal.example", SERVICE, False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.1.2.3", "http://10.1.2.3:8080", True),
        ("10.1.2.4", "http://10.1.2.3:8080", False),
        ("[fd00::7]", "http://[fd00::7]", True),
        ("[::1, a b", SERVICE, False),
    ],
)
def test_no_proxy_names_hosts_reached_directly(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, is_exempt: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (found(url).proxy is None) == is_exempt


def test_a_proxy_without_a_scheme_is_one_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "user:secret@proxy.example:3128")
    proxy = found().proxy
    assert proxy is not None
    assert str(proxy) == "the proxy http://proxy.example:3128 (ALL_PROXY)"
    assert proxy.url.username == "user"


def test_certificates_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "verify" not in found("https://shop.example").options(None)
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    context = found("https://shop.example").options(None)["verify"]
    assert isinstance(context, ssl.SSLContext)
    assert context.get_ca_certs()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_a_dead_proxy_is_blamed_and_not_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{closed_port()}")
    with Client(SERVICE, timeout_s=0.3) as client, pytest.raises(NoAnswer) as refused:
        client.ready()
    assert str(refused.value).startswith("the proxy http://127.0.0.1:")
    assert "HTTP_PROXY" in str(refused.value)
    assert "secret" not in str(refused.value)


async def _ask(url: str) -> None:
    async with AsyncClient(url, timeout_s=0.3) as client:
        await client.ready()


def test_a_dead_proxy_is_blamed_by_the_asynchronous_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"127.0.0.1:{closed_port()}")
    with pytest.raises(NoAnswer, match=r"^the proxy http://127.0.0.1:.*ALL_PROXY.* cannot be reached"):
        asyncio.run(_ask(SERVICE))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (httpx.ProxyError("403 Forbidden"), "the proxy P does not connect to http://shop"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "http://shop cannot be reached"),
        (httpx.Response(407, request=httpx.Request("GET", "http://shop/readyz")), "the proxy P asks for"),
    ],
)
def test_what_a_proxy_refuses_is_told_as_such(said: httpx.Response | httpx.RequestError, expected: str) -> None:
    exchange = Exchange(0, proxy="the proxy P")
    going = exchange.send(Request(method="GET", path="/readyz"), exchange.deadline(0))
    next(going)
    if isinstance(said, httpx.RequestError):
        said.request = httpx.Request("GET", "http://shop/readyz")
    with pytest.raises(NoAnswer) as refused:
        going.throw(said) if isinstance(said, Exception) else going.send(said)
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://[::1", "http://127.0.0.1:1"])
def test_the_command_line_tells_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setattr("pipeline.cli.remote._TIMEOUT_S", 0.2)
    (tmp_path / "a.jpg").write_bytes(encode(noise_image(7)))
    told = CliRunner().invoke(main, ["search", str(tmp_path / "a.jpg"), "--url", SERVICE])
    assert isinstance(told.exception, SystemExit)
    assert told.exit_code == 1
    assert "ALL_PROXY" in told.output


def test_no_proxy_stands_before_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    assert found("http://localhost:1").proxy is found("http://127.0.0.2:1").proxy is None
    assert found().proxy is not None


def test_a_transport_of_the_callers_needs_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    Client("https://shop.example", transport=httpx.MockTransport(lambda request: httpx.Response(200))).close()


def test_a_host_name_that_cannot_be_looked_up_is_told() -> None:
    with Client(f"http://{'a' * 70}.example", timeout_s=0.2) as client, pytest.raises(NoAnswer):
        client.ready()
