"""Where and how the client connects: the service's address, the API key, the environment's proxies and certificates."""

import os
import re
import ssl
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from lookalike.errors import InputError, NoAnswer

DEFAULT_URL = "http://127.0.0.1:8080"
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Proxy:
    """A proxy that the environment names.

    Attributes:
        url: its address, perhaps with a password.
        variable: what names it, for people.
    """

    url: httpx.URL
    variable: str

    def __str__(self) -> str:
        return f"the proxy {self.url.scheme}://{self.url.netloc.decode('ascii')} ({self.variable})"


@dataclass(frozen=True)
class Connection:
    """How to reach a service.

    Attributes:
        url: its address.
        headers: of every request.
        proxy: that requests go through; None: none.
    """

    url: httpx.URL
    headers: dict[str, str]
    proxy: Proxy | None

    def options(self, transport: object) -> dict[str, Any]:
        """Keyword arguments of an httpx client.

        Args:
            transport: of the caller, which does without proxy and certificates; None: the client makes its own.

        Raises:
            NoAnswer: the environment names certificates that cannot be read.
        """
        options: dict[str, Any] = {"base_url": self.url, "headers": self.headers, "trust_env": False}
        if transport is not None:
            return {**options, "transport": transport}
        if self.proxy:
            options["proxy"] = httpx.Proxy(self.proxy.url)
        if self.url.scheme == "https" and (certificates := _certificates()):
            options["verify"] = certificates
        return options


def connection(url: str | None, api_key: str | None, *, with_proxy: bool) -> Connection:
    """Find out how to reach a service.

    Args:
        url: its address; by default LOOKALIKE_URL, else http://127.0.0.1:8080.
        api_key: by default LOOKALIKE_API_KEY.
        with_proxy: go through the proxy that the environment names for this address, if it names one.

    Raises:
        NoAnswer: the address or a variable of the environment is wrong; it is named.
        InputError: the API key cannot be sent.
    """
    address = _address(url)
    headers = {"User-Agent": _user_agent(), "Accept": "application/json"}
    if key := _key(api_key):
        headers["Authorization"] = f"Bearer {key}"
    return Connection(address, headers, _proxy_of(address) if with_proxy else None)


def _address(url: str | None) -> httpx.URL:
    name = "url" if url else "LOOKALIKE_URL"
    given = url or os.environ.get("LOOKALIKE_URL", "").strip() or DEFAULT_URL
    try:
        address = httpx.URL(given.strip() if isinstance(given, str) else given)
    except (httpx.InvalidURL, TypeError) as exc:
        raise NoAnswer(f"{name}: {given!r} is no address of a service ({exc}); it looks like {DEFAULT_URL}") from exc
    if address.scheme not in ("http", "https") or not address.host:
        raise NoAnswer(f"{name}: {str(address)!r} is no address of a service; it looks like {DEFAULT_URL}")
    if address.query or address.fragment:
        raise NoAnswer(f"{name}: {str(address)!r} has a query or a fragment; an address of a service has neither")
    return address


def _key(api_key: str | None) -> str:
    name = "api_key" if api_key else "LOOKALIKE_API_KEY"
    key = api_key or os.environ.get("LOOKALIKE_API_KEY", "")
    if not isinstance(key, str):
        raise InputError(f"{name}: text is needed, not {type(key).__name__}")
    key = key.strip()  # secrets read from files end with a newline
    if key and not _VISIBLE.fullmatch(key):
        raise InputError(f"{name}: an API key has visible ASCII characters only")
    return key


def _proxy_of(address: httpx.URL) -> Proxy | None:
    """The proxy that the environment, or the system's settings, name for an address; None for none."""
    if is_loopback(address.host):
        return None
    proxies = getproxies()
    scheme = next((scheme for scheme in (address.scheme, "all") if proxies.get(scheme, "").strip()), None)
    if scheme is None or _is_exempt(address, proxies):
        return None
    given = proxies[scheme].strip()
    variable = _variable(f"{scheme}_proxy")
    try:
        url = httpx.URL(given if "://" in given else f"http://{given}")
        httpx.Proxy(url)
    except (httpx.InvalidURL, ValueError) as exc:
        raise NoAnswer(f"{variable}: it is no address of a proxy ({exc}); it looks like http://proxy:3128") from exc
    if not url.host:
        raise NoAnswer(f"{variable}: it names no host; a proxy's address looks like http://proxy:3128")
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise NoAnswer(
            f"{variable}: a SOCKS proxy needs a package that is not installed: pip install 'httpx[socks]'; "
            f"or reach the service directly: NO_PROXY={address.host}"
        )
    return Proxy(url, variable)


def _is_exempt(address: httpx.URL, proxies: dict[str, str]) -> bool:
    """Whether NO_PROXY, or the system's settings, name the host. Entries that are no host match none, as with curl."""
    if "no" not in proxies:
        return bool(proxy_bypass(address.host))
    return any(_matches(entry.strip().lower(), address) for entry in proxies["no"].split(","))


def _matches(entry: str, address: httpx.URL) -> bool:
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2]
    host, port = address.host.lower(), address.port or {"http": 80, "https": 443}[address.scheme]
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of them is a name, or an address with a port
        name = entry.removesuffix(f":{port}").strip("[]").removeprefix("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def _certificates() -> ssl.SSLContext | None:
    """Certificates that SSL_CERT_FILE or SSL_CERT_DIR name instead of those that come with the client."""
    file, directory = (os.environ.get(name, "").strip() for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if file:
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as exc:  # SSLError is one
            raise NoAnswer(f"SSL_CERT_FILE: {file!r} holds no certificates ({exc.strerror or exc})") from exc
    if directory:
        if not os.path.isdir(directory):
            raise NoAnswer(f"SSL_CERT_DIR: there is no directory {directory!r}")
        return ssl.create_default_context(capath=directory)
    return None


def _variable(name: str) -> str:
    """The variable that holds a proxy, as it is written in the environment."""
    return next((found for found in (name, name.upper()) if os.environ.get(found)), "the system's proxy settings")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, which no proxy can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _user_agent() -> str:
    try:
        ours = version("lookalike")
    except PackageNotFoundError:  # run from a checkout
        ours = "0"
    return f"lookalike/{ours} python/{sys.version_info.major}.{sys.version_info.minor}"
