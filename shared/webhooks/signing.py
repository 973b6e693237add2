"""Webhooks: checks URLs against the operator's allow-list, and signs messages; opens no connections.

Headers and signature are those of Standard Webhooks 1.0 (https://www.standardwebhooks.com).
"""

import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from shared.errors import WebhookRefused

MAX_URL_CHARS = 2048
_SECRET_PREFIX = "whsec_"  # noqa: S105
_SECRET_BYTES = range(24, 65)  # lengths that the specification allows
_DEFAULT_PORTS = {"https": 443, "http": 80}
# The characters of RFC 3986. Parsers disagree about others, and the URL that was checked must be the one called.
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_LISTED = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ip_network("2000::/3")
# Not for hosts on the internet, though some releases of `ipaddress` report them as global.
_RESERVED = tuple(ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20"))


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """A message to post, with its URL; every attempt sends the same bytes."""

    url: str = field(repr=False)  # its query may hold a token
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """The parts of a checked URL, so that the delivery calls exactly what was checked."""

    scheme: str
    host: str  # lower case; an IPv6 address without its brackets
    port: int
    path: str = field(repr=False)  # with the query, as in the HTTP request line


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """The operator's settings for webhooks.

        policy = WebhookPolicy(hosts=parse_hosts("example.org"), secrets=parse_secrets(secret))
        target = policy.check("https://example.org/hook")

    Attributes:
        hosts: allow-list from `parse_hosts`: `host` for the scheme's default port, or `host:port`. Empty: webhooks are
            off.
        secrets: from `parse_secrets`; a message is signed with each, so that receivers can rotate them.
        allow_private: also allow private addresses and plain HTTP, for tests and closed networks.
    """

    hosts: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    allow_private: bool = False

    def check(self, url: str) -> WebhookTarget:
        """Check a URL against the allow-list. The host name is not resolved: its addresses are checked at delivery.

        Returns:
            the parts of the URL.

        Raises:
            WebhookRefused: the message says what the caller, or the operator, would have to change.
        """
        if not self.hosts:
            raise WebhookRefused("webhooks are off here: leave the URL out, or ask the operator to switch them on")
        scheme, host, port, path = _take_apart(url)
        if scheme != "https" and not (scheme == "http" and self.allow_private):
            raise WebhookRefused("the webhook URL must begin with https://")
        port = _DEFAULT_PORTS[scheme] if port is None else port
        self._check_listed(scheme, _bracketed(host), port)
        if not (self.allow_private or _is_a_name(host) or is_public(host)):
            raise WebhookRefused(f"{host} is not an address on the internet; use one that is, or a name")
        return WebhookTarget(scheme, host, port, path)

    def _check_listed(self, scheme: str, name: str, port: int) -> None:
        if f"{name}:{port}" in self.hosts or (port == _DEFAULT_PORTS[scheme] and name in self.hosts):
            return
        if any(listed == name or listed.startswith(f"{name}:") for listed in self.hosts):
            raise WebhookRefused(f"{name} may not be called on port {port}; ask the operator to allow {name}:{port}")
        raise WebhookRefused(f"{name} is not among the hosts that may be called; ask the operator to allow it")


def parse_hosts(text: str) -> tuple[str, ...]:
    """Parse an allow-list of hosts into the form that `WebhookPolicy` takes.

    Args:
        text: `host` or `host:port`, separated by commas.

    Raises:
        ValueError: names the entry that is not a host.
    """
    return tuple(dict.fromkeys(_listed(entry.strip().lower()) for entry in text.split(",") if entry.strip()))


def parse_secrets(text: str) -> tuple[str, ...]:
    """Parse and validate secrets.

    Args:
        text: `whsec_…`, several separated by commas.

    Raises:
        ValueError: one is not `whsec_` and the base64 of 24 to 64 bytes; the message does not quote it.
    """
    secrets = tuple(secret.strip() for secret in text.split(","))
    for secret in secrets:
        try:
            fits = secret.startswith(_SECRET_PREFIX) and len(_key(secret)) in _SECRET_BYTES
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                "must be whsec_ and the base64 of 24 to 64 random bytes, several separated by commas; "
                'make one with: echo "whsec_$(openssl rand -base64 32)"'
            )
    return secrets


def sign(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """Compute the header `webhook-signature`: one HMAC-SHA256 signature per secret.

    Args:
        message_id: as in the header `webhook-id`.
        timestamp: seconds since the epoch, as in the header `webhook-timestamp`.
        body: of the message.
        secrets: from `parse_secrets`.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(_key(secret), content, "sha256") for secret in secrets)
    return " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests)


def event_body(name: str, at: float, data: Mapping[str, object]) -> bytes:
    """Build the body of a message: `{"type": "job.succeeded", "timestamp": "…Z", "data": {…}}`.

    Args:
        name: type of the event.
        at: when it happened, seconds since the epoch.
        data: JSON-able content.
    """
    timestamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": name, "timestamp": timestamp, "data": data}, separators=(",", ":")).encode()


def is_public(address: str) -> bool:
    """Tell whether an IP address is public; an IPv6 address that embeds an IPv4 address is judged by the latter.

    Raises:
        ValueError: it is no IP address.
    """
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        if (carried := _carried(parsed)) is not None:
            parsed = carried
        elif parsed not in _GLOBAL_UNICAST:
            return False
    return parsed.is_global and not parsed.is_multicast and not any(parsed in network for network in _RESERVED)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside a mapped, 6to4 (RFC 3056) or NAT64 (RFC 6052) one: where its packets end up."""
    nat64 = IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None
    return address.ipv4_mapped or address.sixtofour or nat64


def _take_apart(url: str) -> tuple[str, str, int | None, str]:
    """Parse a URL into scheme, host, port if given, and path with query."""
    if len(url) > MAX_URL_CHARS:
        raise WebhookRefused(f"the webhook URL has {len(url)} characters, {MAX_URL_CHARS} is the limit")
    if not _URL.fullmatch(url):
        raise WebhookRefused("the webhook URL holds characters that a URL must not; percent-encode them")
    if "#" in url:
        raise WebhookRefused("the webhook URL has a fragment, which is never sent; leave out # and what follows")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise WebhookRefused("the webhook URL cannot be read; it must look like https://host/path") from exc
    if "@" in parts.netloc:
        raise WebhookRefused("the webhook URL must not hold a user name or password; messages are signed instead")
    if not parts.hostname:
        raise WebhookRefused("the webhook URL names no host; it must look like https://host/path")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, _canonical(parts.hostname), port, path


def _listed(entry: str) -> str:
    match = _LISTED.fullmatch(entry)
    host = (match["address"] or match["name"]) if match else ""
    port = match["port"] if match else None
    if not (_is_a_name(host) or _is_an_address(host)) or not 0 < int(port or 443) < 65_536:
        raise ValueError(f"{entry!r} is not a host; write example.org or example.org:8443, without https:// or a path")
    name = _bracketed(_canonical(host))
    return name if port is None else f"{name}:{int(port)}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _canonical(host: str) -> str:
    return ip_address(host).compressed if _is_an_address(host) else host


def _is_a_name(host: str) -> bool:
    """Whether a host is a DNS name; one whose last label is a number is an IPv4 address, as in the URL standard."""
    labels = host.split(".")
    spelt = len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    return spelt and not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1])


def _is_an_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # a zone means something on one machine only


def _key(secret: str) -> bytes:
    return b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
