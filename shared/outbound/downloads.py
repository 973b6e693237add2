"""Downloads a file from a host that the operator allows: bounded in bytes and time, again only where it has changed."""

import ssl
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from urllib.parse import quote, urldefrag, urljoin

from urllib3.response import BaseHTTPResponse

from shared.outbound.connections import (
    BROKEN,
    Deadline,
    Resolve,
    Unanswered,
    allowed_addresses,
    requested,
    resolve_host,
    unanswered,
)
from shared.outbound.hosts import AllowedHosts, UrlRefused

TIMEOUT_S = 20.0
_MAX_REDIRECTS = 4
_PIECE_BYTES = 1 << 16
_REDIRECTS = (
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
)
_URL_CHARACTERS = "%:/?#[]@!$&'()*+,;=~"  # beside letters, digits and -._


@dataclass(frozen=True, slots=True)
class Validators:
    """What a host says by which it tells later whether a file has changed (RFC 9110, section 8.8)."""

    etag: str = ""
    last_modified: str = ""

    def headers(self) -> dict[str, str]:
        """The headers that ask for the file only if it has changed."""
        headers = {"if-none-match": self.etag, "if-modified-since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The answer of a host.

    Attributes:
        content: of the file; None: it has not changed.
        validators: to ask with the next time.
    """

    content: bytes | None
    validators: Validators


class Downloader:
    """Downloads files; safe to call from many threads.

    Args:
        allowed: hosts that may be asked, redirects to them included.
        max_bytes: of a file.
        timeout_s: of a file, with its redirects.
        tls: verifies hosts; None: the system's certificates.
        resolve: addresses of a host and port, the preferred first.
    """

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        max_bytes: int,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_host,
    ) -> None:
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._given_tls = tls
        self._resolve = resolve

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or ssl.create_default_context()

    def get(self, url: str, known: Validators | None = None) -> Downloaded:
        """Download a file, if it has changed.

        Args:
            url: of the file.
            known: of the copy that there is; None: there is none.

        Raises:
            UrlRefused: it, or where it redirects to, may not be called.
            Unanswered: the host does not answer in time, or with something else.
        """
        deadline = Deadline(self._timeout_s)
        headers = {
            "accept": "image/*",
            "accept-encoding": "identity",
            "user-agent": "Lookalike-Photos",
            "connection": "close",
            **(known.headers() if known else {}),
        }
        for _ in range(_MAX_REDIRECTS + 1):
            target = self._allowed.check(urldefrag(quote(url, safe=_URL_CHARACTERS)).url)
            addresses = allowed_addresses(target, self._resolve, deadline, allow_private=self._allowed.allow_private)
            with requested("GET", target, addresses, headers, deadline, self._tls) as response:
                if response.status not in _REDIRECTS:
                    return self._answer(response, known, deadline)
                url = _redirected(url, response.headers.get("location", ""))
        raise Unanswered("redirects", f"it redirects more than {_MAX_REDIRECTS} times")

    def _answer(self, response: BaseHTTPResponse, known: Validators | None, deadline: Deadline) -> Downloaded:
        if response.status == HTTPStatus.NOT_MODIFIED and known:
            return Downloaded(None, known)
        if response.status != HTTPStatus.OK:
            raise Unanswered(f"status_{response.status}", f"the host answers {response.status}")
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise Unanswered("encoded", f"the host sends it as {encoding}, which was not asked for")
        content = self._body(response, deadline)
        if not content:
            raise Unanswered("empty", "the host sends nothing")
        return Downloaded(content, Validators(_header(response, "etag"), _header(response, "last-modified")))

    def _body(self, response: BaseHTTPResponse, deadline: Deadline) -> bytes:
        length = response.headers.get("content-length", "")
        too_large = Unanswered("too_large", f"it has more than {self._max_bytes >> 20} MiB")
        if length.isdecimal() and len(length) < 20 and int(length) > self._max_bytes:
            raise too_large
        content = bytearray()
        try:
            for piece in response.stream(_PIECE_BYTES, decode_content=False):
                content += piece
                if len(content) > self._max_bytes:
                    raise too_large
        except BROKEN as exc:
            raise unanswered(exc, deadline) from exc
        if deadline.passed:  # what came may be what was cut short
            raise Unanswered("timeout")
        return bytes(content)


def _redirected(url: str, location: str) -> str:
    if not location:
        raise Unanswered("redirects", "it redirects nowhere")
    try:
        return urljoin(url, location)
    except ValueError as exc:
        raise UrlRefused("it redirects to what is no URL") from exc


def _header(response: BaseHTTPResponse, name: str) -> str:
    """A header that can be sent back; empty: there is none."""
    text = response.headers.get(name, "")
    return text if text.isascii() and text.isprintable() else ""
