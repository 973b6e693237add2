"""Parses the operator's settings of hosts, origins and the path prefix, and compares request headers with them."""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

_ENTRY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@]+)")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_SCHEME_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class TrustedHost:
    """One entry of `LOOKALIKE_TRUSTED_HOSTS`.

    Attributes:
        host: lower-case name or address in its shortest form, an IPv6 address with brackets; `.example.org` stands for
            every name below example.org, an empty one for every host.
        port: the only port accepted; None: any.
    """

    host: str
    port: int | None = None

    def matches(self, host: str, port: int | None) -> bool:
        """Whether a Host header's name and port are this entry's. A header without a port has the scheme's default."""
        accepted = (self.port, None) if self.port in _SCHEME_PORTS.values() else (self.port,)
        if self.port is not None and port not in accepted:
            return False
        if not self.host:
            return True
        return host.endswith(self.host) and len(host) > len(self.host) if self.host[0] == "." else host == self.host

    def __str__(self) -> str:
        host = f"*{self.host}" if self.host[:1] in ("", ".") else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_trusted_hosts(text: str) -> tuple[TrustedHost, ...]:
    """Parse a list of hosts.

    Args:
        text: by commas, each a name, an IPv4 address or an IPv6 address with or without brackets; with `:port` for this
            port alone; `*.example.org` for every name below example.org; `*` for any host.

    Raises:
        ValueError: names the entry that could match no Host header, and why; or there is no entry.
    """
    entries = tuple(_parse_entry(entry) for part in text.split(",") if (entry := part.strip().lower()))
    if not entries:
        raise ValueError("it names no host; leave it unset for the default, or write * for any host")
    return entries


@lru_cache(maxsize=256)
def is_trusted(header: str, trusted: tuple[TrustedHost, ...]) -> bool:
    """Whether a Host header is one of the trusted hosts; a malformed header is none."""
    try:
        host, port = _split(header.lower())
    except ValueError:
        return False
    return any(entry.matches(host, port) for entry in trusted)


def parse_origins(text: str) -> tuple[str, ...]:
    """Parse a list of web origins into the form in which browsers send them.

    Args:
        text: by commas, each `https://host` or `http://host:port`.

    Raises:
        ValueError: names the entry that is no origin.
    """
    origins = []
    for entry in filter(None, (part.strip().lower() for part in text.split(","))):
        found = _ORIGIN.fullmatch(entry.removesuffix("/"))
        if found is None:
            raise ValueError(f"{entry!r} is not an origin; write scheme and host, as https://shop.example.org")
        try:
            host, port = _split(found["authority"])
        except ValueError as exc:
            raise ValueError(f"{entry!r} is not an origin: {exc}") from exc
        origins.append(f"{found['scheme']}://{_authority(host, port, found['scheme'])}")
    return tuple(origins)


def parse_prefix(text: str) -> str:
    """Parse a path prefix into the form that begins with a slash and does not end with one; empty for none.

    Raises:
        ValueError: it is not a path of letters, digits and `._~-`.
    """
    path = text.strip().strip("/")
    prefix = f"/{path}" if path else ""
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{text!r} is not a path; write it as /lookalike, of letters, digits and ._~-")
    return prefix


def is_origin_of(origin: str, header: str) -> bool:
    """Whether an Origin header belongs to a page of the host that the Host header names.

    Proxies may pass the host on without its port; then the names alone are compared.
    """
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        return False
    try:
        host, port = _split(found["authority"])
        asked_host, asked_port = _split(header.lower())
    except ValueError:
        return False
    return host == asked_host and asked_port in (None, port or _SCHEME_PORTS[found["scheme"]])


def _parse_entry(entry: str) -> TrustedHost:
    if "://" in entry:
        raise ValueError(f"{entry!r} is a URL; write the host alone, as shop.example.org")
    if "/" in entry:
        raise ValueError(f"{entry!r} is a path or a network; write a host name or one address")
    try:
        if entry.count(":") > 1 and "[" not in entry:  # an IPv6 address without brackets, so without a port
            return TrustedHost(_canonical(f"[{entry}]"))
        found = _ENTRY.fullmatch(entry)
        if found and found["host"] == "*":
            return TrustedHost("", _port(found["port"]))
        if entry.startswith("*."):
            host, port = _split(entry[2:])
            if host[0] == "[" or host.rpartition(".")[2].isdigit():
                raise ValueError("a wildcard stands before a name, not before an address")
            return TrustedHost(f".{host}", port)
        if "*" in entry:
            raise ValueError("a wildcard is possible as the first label only, as *.example.org")
        return TrustedHost(*_split(entry))
    except ValueError as exc:
        raise ValueError(f"{entry!r} can match no request: {exc}") from exc


def _split(authority: str) -> tuple[str, int | None]:
    """Split `host[:port]`, in lower case, into the host in its shortest form and the port.

    Raises:
        ValueError: it is malformed.
    """
    found = _ENTRY.fullmatch(authority)
    if found is None:
        raise ValueError("it is not a host or host:port")
    return _canonical(found["host"]), _port(found["port"])


def _port(text: str | None) -> int | None:
    if not text:  # RFC 3986 allows a colon without a port
        return None
    if len(text) > 5 or not 0 < int(text) < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


def _canonical(host: str) -> str:
    if host.startswith("["):
        address = ip_address(host[1:-1])
        if address.version != 6 or "%" in host:
            raise ValueError("brackets are for IPv6 addresses without a zone")
        return f"[{address}]"
    host = host.removesuffix(".")
    if not host.isascii():
        raise ValueError("browsers send such a name in ASCII; write it so, as xn--…")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError("it is not a host name")
    if host.rpartition(".")[2].isdigit():
        return str(ip_address(host))  # raises for 127.1 and 300.0.0.1
    return host


def _authority(host: str, port: int | None, scheme: str) -> str:
    return host if port in (None, _SCHEME_PORTS[scheme]) else f"{host}:{port}"
