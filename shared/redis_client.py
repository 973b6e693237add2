"""Where Redis is: one server, or whichever is primary under its Sentinels. One URL in; clients and Celery's broker out.

Knows nothing of jobs. No password is shown: not in a repr, not in an error.
"""

import copy
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from shared.errors import CannotStart

FORMS = (
    "redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://… for TLS, or "
    "redis+sentinel://[USER:PASSWORD@]HOST:26379,HOST:26379,HOST:26379/MASTER_NAME[/DB]"
)
_ESCAPES = "in a password, write / ? # @ : % as %2F %3F %23 %40 %3A %25"
_NO_CLUSTER = (
    "a Redis Cluster cannot be used: Celery's broker and this service's scripts need all keys on one server; "
    "for failover use Sentinel, redis+sentinel://HOST:26379,HOST:26379,HOST:26379/MASTER_NAME"
)
_SENTINEL_PORT = 26379
_MASTER_NAME = re.compile(r"[A-Za-z0-9._-]+")  # what Sentinel itself allows

# A consumer's connection to a primary that hangs is not closed by anybody while Sentinel elects another. Its reads wait
# one second for a message; it is given up when it has been silent for longer than these.
_CONSUMER_TIMEOUT_S = 5.0
_CONSUMER_CHECK_S = 4


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One Redis, named by a URL that redis-py and kombu both read."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """The primary that Sentinels know under a name."""

    sentinels: tuple[tuple[str, int], ...]
    master_name: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)  # of the data nodes
    sentinel_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Broker:
    """What Celery is told of the same Redis."""

    url: str = field(repr=False)
    transport_options: dict[str, object] = field(repr=False)


def parse_redis_url(url: str) -> ServerAddress | SentinelAddress:
    """Read the URL as an operator gives it.

    Raises:
        ValueError: it is none of `FORMS`; says why in words that hold nothing of the URL.
    """
    scheme, separator, _ = url.partition("://")
    if separator and "cluster" in scheme:
        raise ValueError(_NO_CLUSTER)
    if not separator or scheme not in ("redis", "rediss", "redis+sentinel"):
        # The broker knows fewer schemes than redis-py: a Unix socket would serve one and not the other.
        raise ValueError(f"must look like {FORMS}")
    try:
        return _parse_sentinel_url(url) if scheme == "redis+sentinel" else _parse_server_url(url)
    except _Unreadable:
        raise
    except ValueError:  # its text may hold half a password, where that has a character with a meaning in URLs
        raise ValueError(f"cannot be read as {FORMS}; {_ESCAPES}") from None


def connect(url: str, *, timeout_s: float = 2.0, max_connections: int = 64) -> redis.Redis:
    """A client that gives up after `timeout_s` instead of hanging, and never silently sends a command twice.

    With Sentinel each new connection first asks where the primary is, for at most as long again.

    Args:
        max_connections: must exceed the number of simultaneous `JobStore.wait`; each holds one.
    """
    address = parse_redis_url(url)
    if isinstance(address, ServerAddress):
        return redis.Redis.from_url(
            address.url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=max_connections,
            retry=_no_retry(),
            health_check_interval=0,
        )
    to_sentinels = _to_sentinels(address, timeout_s)
    sentinels = _Sentinels(address.sentinels, sentinel_kwargs=to_sentinels)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        address.master_name,
        db=address.db,
        username=address.username,
        password=address.password,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=max_connections,
        retry=_no_retry(),
        health_check_interval=0,
    )
    return client


def broker_at(url: str, *, socket_timeout_s: float | None = None) -> Broker:
    """Celery's broker URL and kombu's transport options for the Redis at `url`.

    Args:
        socket_timeout_s: for processes that only publish; None for consumers, whose connection waits for messages.
    """
    address = parse_redis_url(url)
    options: dict[str, object] = {}
    if socket_timeout_s is not None:
        options |= {
            "socket_timeout": socket_timeout_s,
            "socket_connect_timeout": socket_timeout_s,
            "retry_on_timeout": False,
            "max_retries": 0,  # kombu would look for a lost Redis for 6 s before it says so
        }
    if isinstance(address, ServerAddress):
        return Broker(_verified(address.url), options)
    if socket_timeout_s is None:
        options |= {
            "socket_timeout": _CONSUMER_TIMEOUT_S,
            "socket_connect_timeout": _CONSUMER_TIMEOUT_S,
            "health_check_interval": _CONSUMER_CHECK_S,
        }
    options |= {
        "master_name": address.master_name,
        "sentinel_kwargs": _to_sentinels(address, socket_timeout_s or _CONSUMER_TIMEOUT_S),
    }
    login = "" if address.password is None else f"{_quoted(address.username)}:{_quoted(address.password)}@"
    # kombu turns to the next URL when it cannot connect, so each holds everything.
    urls = [f"sentinel://{login}{_authority(host, port)}/{address.db}" for host, port in address.sentinels]
    return Broker(";".join(urls), options)


def refuse_cluster(client: redis.Redis) -> None:
    """Find out at the start what would otherwise fail at the first job. A Redis that does not answer is not judged.

    Raises:
        CannotStart: the client talks to a node of a Redis Cluster.
    """
    try:
        enabled = client.info("cluster").get("cluster_enabled")
    except redis.RedisError:  # away, or not letting us ask
        return
    if enabled:
        client.close()
        raise CannotStart(f"LOOKALIKE_REDIS_URL names a node of a Redis Cluster, and {_NO_CLUSTER}")


class _Unreadable(ValueError):
    """A ValueError in our own words."""


class _Sentinels(Sentinel):
    """redis-py's, made safe for threads.

    redis-py moves the Sentinel that answered to the front of its list in place: two threads that do so at once leave
    one Sentinel in the list twice and lose another for good. Here each works on a list of its own and replaces all.
    """

    def discover_master(self, service_name: str) -> tuple[str, int]:
        mine = copy.copy(self)
        mine.sentinels = list(self.sentinels)
        address: tuple[str, int] = Sentinel.discover_master(mine, service_name)  # type: ignore[no-untyped-call]
        self.sentinels = mine.sentinels
        return address


def _parse_server_url(url: str) -> ServerAddress:
    parts = urlsplit(url)
    if "," in parts.netloc.rpartition("@")[2]:
        raise _Unreadable(f"names several hosts, which only redis+sentinel:// does; must look like {FORMS}")
    if parts.fragment or not re.fullmatch(r"/?\d*", parts.path):
        raise _Unreadable(f"must end with /DB, a number; {_ESCAPES}")
    parse_url(url)  # type: ignore[no-untyped-call]
    return ServerAddress(url)


def _parse_sentinel_url(url: str) -> SentinelAddress:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    sentinels = tuple(_parse_host(host) for host in hosts.split(","))
    master_name, _, db = parts.path.removeprefix("/").partition("/")
    if parts.fragment or not _MASTER_NAME.fullmatch(master_name) or not re.fullmatch(r"\d*", db):
        raise _Unreadable(
            f"must end with /MASTER_NAME or /MASTER_NAME/DB, the name under which Sentinel monitors it; {_ESCAPES}"
        )
    options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    sentinel_password = options.pop("sentinel_password", [None])[0]
    if options:
        raise _Unreadable("redis+sentinel:// takes one option, ?sentinel_password=…")
    return SentinelAddress(
        sentinels=sentinels,
        master_name=master_name,
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=sentinel_password or None,
    )


def _parse_host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _verified(url: str) -> str:
    """The URL as kombu must be told it, which checks no certificate unless asked to; redis-py does by itself."""
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return url
    return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"


def _to_sentinels(address: SentinelAddress, timeout_s: float) -> dict[str, object]:
    """How the Sentinels are spoken to: asking all of them in turn takes `timeout_s` at most."""
    each_s = timeout_s / len(address.sentinels)
    return {
        "socket_timeout": each_s,
        "socket_connect_timeout": each_s,
        "password": address.sentinel_password,
        "retry": _no_retry(),
    }


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _quoted(text: str | None) -> str:
    return quote(text or "", safe="")
