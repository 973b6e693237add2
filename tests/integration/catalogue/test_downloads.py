"""Downloads from hosts: bounded, to addresses that were checked, through redirects, and again only what has changed."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from shared.outbound.connections import Unanswered
from shared.outbound.downloads import Downloaded, Downloader, Validators
from shared.outbound.hosts import AllowedHosts, UrlRefused, parse_hosts
from tests.support.photo_host import PhotoHost, answer, photo_host
from tests.support.webhooks import drip, listening


@pytest.fixture
def host() -> Iterator[PhotoHost]:
    with photo_host() as host:
        yield host


def downloader(hosts: str, *, allow_private: bool = True, max_bytes: int = 1 << 20, **more: Any) -> Downloader:
    return Downloader(AllowedHosts(parse_hosts(hosts), allow_private, "photo's URL"), max_bytes=max_bytes, **more)


def unanswered(host: PhotoHost, path: str = "/p.jpg", **more: Any) -> Unanswered:
    with pytest.raises(Unanswered) as raised:
        downloader(host.name, **more).get(host.url(path))
    return raised.value


def test_a_file_comes_with_what_it_is_asked_for_again_with(host: PhotoHost) -> None:
    at, modified = "/a/K%C3%BCche%201.jpg?size=1", "Sun, 01 Nov 2026 00:00:00 GMT"
    host.photos[at] = answer(200, b"photo", etag='"1"', last_modified=modified)
    got = downloader(host.name).get(host.url("/a/Küche 1.jpg?size=1#top"))
    assert got == Downloaded(b"photo", Validators('"1"', modified))
    host.photos[at] = answer(304)
    again = downloader(host.name).get(host.url("/a/Küche 1.jpg?size=1"), got.validators)
    assert again == Downloaded(None, got.validators)
    headers = host.asked[-1][1]
    assert headers["if-none-match"] == '"1"'
    assert headers["if-modified-since"] == modified
    assert headers["host"] == host.name


def test_redirects_are_followed_to_hosts_that_are_listed(host: PhotoHost) -> None:
    with photo_host() as other:
        host.photos["/p.jpg"] = answer(302, location=other.url("/q.jpg"))
        host.photos["/here.jpg"] = answer(308, location="/p.jpg#x")
        other.photos["/q.jpg"] = b"photo"
        assert downloader(f"{host.name},{other.name}").get(host.url("/here.jpg")).content == b"photo"
        asked = len(other.asked)
        with pytest.raises(UrlRefused, match=f"localhost may not be called on port {other.server_port}"):
            downloader(host.name).get(host.url("/p.jpg"))
        assert len(other.asked) == asked


@pytest.mark.parametrize("location", ["http://[", "ftp://localhost/x", "http://user@localhost/x", "http://local host/"])
def test_redirects_to_what_may_not_be_called_are_refused(host: PhotoHost, location: str) -> None:
    host.photos["/p.jpg"] = answer(301, location=location)
    with pytest.raises(UrlRefused):
        downloader(host.name).get(host.url("/p.jpg"))


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (404, {}, "status_404"),
        (500, {}, "status_500"),
        (206, {}, "status_206"),
        (304, {}, "status_304"),  # of a file that nobody has
        (301, {}, "redirects"),
        (301, {"location": "/p.jpg"}, "redirects"),
        (200, {"content_encoding": "gzip"}, "encoded"),
        (200, {"content_length": "0"}, "empty"),
        (200, {"content_length": "2000000"}, "too_large"),
        (200, {"content_length": "50"}, "unreachable"),  # and then it is cut
    ],
)
def test_other_answers_are_no_file(host: PhotoHost, status: int, headers: dict[str, str], reason: str) -> None:
    host.photos["/p.jpg"] = answer(status, b"photo", **headers)
    assert unanswered(host).reason == reason


def test_a_file_without_a_length_is_cut_off_at_the_limit() -> None:
    endless = drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)
    with listening(endless) as (port, _), pytest.raises(Unanswered) as raised:
        downloader(f"localhost:{port}", max_bytes=5000).get(f"http://localhost:{port}/p.jpg")
    assert raised.value.reason == "too_large"


@pytest.mark.parametrize(
    "beginning", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"]
)
def test_a_host_that_takes_its_time_is_left_when_the_time_is_up(beginning: bytes) -> None:
    with listening(drip(beginning, b"x")) as (port, _), pytest.raises(Unanswered) as raised:
        downloader(f"localhost:{port}", timeout_s=0.4).get(f"http://localhost:{port}/p.jpg")
    assert raised.value.reason == "timeout"


def test_private_addresses_are_refused_whatever_name_leads_there(host: PhotoHost) -> None:
    def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1", "::1", "169.254.169.254"]

    public_only = downloader("photos.example.org", allow_private=False, resolve=resolve)
    with pytest.raises(Unanswered) as raised:
        public_only.get("https://photos.example.org/p.jpg")
    assert raised.value.reason == "private_address"
    for url in ("https://127.0.0.1/p.jpg", "http://photos.example.org/p.jpg"):
        with pytest.raises(UrlRefused):
            downloader("photos.example.org,127.0.0.1", allow_private=False).get(url)


def test_headers_that_could_not_be_sent_back_are_not_kept(host: PhotoHost) -> None:
    host.photos["/p.jpg"] = answer(200, b"photo", etag='"\xe9"', last_modified="now")
    assert downloader(host.name).get(host.url("/p.jpg")).validators == Validators("", "now")


def test_a_name_that_is_not_known_is_told() -> None:
    def resolve(name: str, port: int) -> list[str]:
        raise socket.gaierror

    with pytest.raises(Unanswered) as raised:
        downloader("photos.example.org", resolve=resolve).get("https://photos.example.org/p.jpg")
    assert raised.value.reason == "unresolved"
