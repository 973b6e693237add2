"""Checks URLs that the service is to call against the operator's list of hosts; opens no connections."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

MAX_URL_CHARS = 2048
_DEFAULT_PORTS = {"https": 443, "http": 80}
# The characters of RFC 3986. Parsers disagree about others, and the URL that was checked must be the one called.
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_LISTED = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ip_network("2000::/3")
# Not for hosts on the internet, though some releases of `ipaddress` report them as global.
_RESERVED = tuple(ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20"))


class UrlRefused(ValueError):
    """A URL may not be called; the message says what whoever gave it, or the operator, would have to change."""


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a checked URL, so that exactly what was checked is called."""

    scheme: str
    host: str  # lower case; an IPv6 address without its brackets
    port: int
    path: str = field(repr=False)  # with the query, as in the HTTP request line


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that the operator allows to be called.

        allowed = AllowedHosts(parse_hosts("example.org"))
        target = allowed.check("https://example.org/photo.jpg")

    Attributes:
        hosts: from `parse_hosts`: `host` for the scheme's default port, or `host:port`.
        allow_private: also allow private addresses and plain HTTP, for tests and closed networks.
        what: what is called there, for messages.
    """

    hosts: tuple[str, ...] = ()
    allow_private: bool = False
    what: str = "URL"

    def check(self, url: str) -> Target:
        """Check a URL. The host name is not resolved: its addresses are checked when it is called.

        Returns:
            the parts of the URL.

        Raises:
            UrlRefused: it is malformed, or may not be called.
        """
        scheme, host, port, path = _take_apart(url, self.what)
        if scheme != "https" and not (scheme == "http" and self.allow_private):
            raise UrlRefused(f"the {self.what} must begin with https://")
        port = _DEFAULT_PORTS[scheme] if port is None else port
        self._check_listed(scheme, _bracketed(host), port)
        if not (self.allow_private or _is_a_name(host) or is_public(host)):
            raise UrlRefused(f"{host} is not an address on the internet; use one that is, or a name")
        return Target(scheme, host, port, path)

    def _check_listed(self, scheme: str, name: str, port: int) -> None:
        if f"{name}:{port}" in self.hosts or (port == _DEFAULT_PORTS[scheme] and name in self.hosts):
            return
        if any(listed == name or listed.startswith(f"{name}:") for listed in self.hosts):
            raise UrlRefused(f"{name} may not be called on port {port}; ask the operator to allow {name}:{port}")
        raise UrlRefused(f"{name} is not among the hosts that may be called; ask the operator to allow it")


def parse_hosts(text: str) -> tuple[str, ...]:
    """Parse an allow-list of hosts into the form that `AllowedHosts` takes.

    Args:
        text: `host` or `host:port`, separated by commas.

    Raises:
        ValueError: names the entry that is not a host.
    """
    return tuple(dict.fromkeys(_listed(entry.strip().lower()) for entry in text.split(",") if entry.strip()))


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


def _take_apart(url: str, what: str) -> tuple[str, str, int | None, str]:
    """Parse a URL into scheme, host, port if given, and path with query."""
    if len(url) > MAX_URL_CHARS:
        raise UrlRefused(f"the {what} has {len(url)} characters, {MAX_URL_CHARS} is the limit")
    if not _URL.fullmatch(url):
        raise UrlRefused(f"the {what} holds characters that a URL must not; percent-encode them")
    if "#" in url:
        raise UrlRefused(f"the {what} has a fragment, which is never sent; leave out # and what follows")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise UrlRefused(f"the {what} cannot be read; it must look like https://host/path") from exc
    if "@" in parts.netloc:
        raise UrlRefused(f"the {what} must not hold a user name or password")
    if not parts.hostname:
        raise UrlRefused(f"the {what} names no host; it must look like https://host/path")
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
