"""Where Redis is: one server, or whichever is primary under its Sentinels. One URL in; clients and Celery's broker out.

Knows nothing of jobs. No password is shown: not in a repr, not in an error.
"""

import re
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from shared.errors import CannotStart

FORMS = (
    "redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://… for TLS, or "
    "redis+sentinel://[USER:PASSWORD@]HOST:26379,HOST:26379,HOST:26379/MASTER_NAME[/DB], rediss+sentinel://… for TLS"
)
_ESCAPES = "in a password, write / ? # @ : % as %2F %3F %23 %40 %3A %25"
_NO_CLUSTER = (
    "a Redis Cluster cannot be used: Celery's broker and this service's scripts need all keys on one server; "
    "for failover use Sentinel, redis+sentinel://HOST:26379,HOST:26379,HOST:26379/MASTER_NAME"
)
_SENTINEL_PORT = 26379
_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_MASTER_NAME = re.compile(r"[A-Za-z0-9._-]+")  # what Sentinel itself allows

_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname", "ssl_certfile", "ssl_keyfile"}

# A consumer's connection to a primary that hangs is not closed by anybody while Sentinel elects another. Its reads wait
# one second for a message; it is given up when it has been silent for longer than these.
_CONSUMER_TIMEOUT_S = 5.0
_CONSUMER_CHECK_S = 4


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One Redis, named by a URL that redis-py and kombu both read."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """How Sentinels and data nodes are spoken to over TLS.

    Attributes:
        ca_certs: file of who may vouch for them; None: whom the system trusts.
        cert_reqs: `none` to believe any certificate.
        check_hostname: whether the certificate must name the address that Sentinel gives, which is an IP mostly.
        certfile, keyfile: what we show them, where they want to see something.
    """

    ca_certs: str | None = None
    cert_reqs: str = "required"
    check_hostname: bool = True
    certfile: str | None = None
    keyfile: str | None = None

    def options(self) -> dict[str, object]:
        """As redis-py takes it, and kombu hands it on."""
        return {f"ssl_{name}": value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """The primary that Sentinels know under a name."""

    sentinels: tuple[tuple[str, int], ...]
    master_name: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)  # of the data nodes
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Broker:
    """What Celery is told of the same Redis."""

    url: str = field(repr=False)
    transport_options: dict[str, object] = field(repr=False)
    tls: dict[str, object] | None = None  # unless the URL says it


def parse_redis_url(url: str) -> ServerAddress | SentinelAddress:
    """Read the URL as an operator gives it.

    Raises:
        ValueError: it is none of `FORMS`; says why in words that hold nothing of the URL.
    """
    scheme, separator, _ = url.partition("://")
    if separator and "cluster" in scheme:
        raise ValueError(_NO_CLUSTER)
    if not separator or scheme not in _SCHEMES:
        # The broker knows fewer schemes than redis-py: a Unix socket would serve one and not the other.
        raise ValueError(f"must look like {FORMS}")
    try:
        return _parse_sentinel_url(url) if scheme.endswith("+sentinel") else _parse_server_url(url)
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
        **_tls_options(address),
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
    return Broker(";".join(urls), options, address.tls.options() if address.tls else None)


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


def reason_of(error: redis.RedisError) -> str:
    """What may be told of why Redis does not answer: texts of redis-py may hold what they were given."""
    return str(error) if isinstance(error, MasterNotFoundError) else type(error).__name__


class _Unreadable(ValueError):
    """A ValueError in our own words."""


class _Sentinels(Sentinel):
    """redis-py's, made safe for threads, and plain about what is wrong.

    redis-py moves the Sentinel that answered to the front of its list in place: two threads that do so at once leave
    one Sentinel in the list twice and lose another for good. Here each replaces the whole list.
    """

    def discover_master(self, service_name: str) -> tuple[str, int]:
        asked, problems = list(self.sentinels), []
        for sentinel in asked:
            try:
                known = cast(dict[str, dict[str, Any]], sentinel.sentinel_masters())
            except redis.RedisError as exc:  # away, or not letting us ask
                problems.append(str(exc))
                continue
            state = known.get(service_name)
            if state and self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                self.sentinels = [sentinel, *(other for other in asked if other is not sentinel)]
                return state["ip"], state["port"]
            problems.append("it takes the primary for dead" if state else f"it knows {', '.join(known) or 'none'}")
        raise MasterNotFoundError(f"no Sentinel names a primary {service_name}: {'; '.join(dict.fromkeys(problems))}")


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
    given = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    options = {name: values[-1] for name, values in given.items()}
    if unknown := options.keys() - _SENTINEL_OPTIONS - (_TLS_OPTIONS if parts.scheme == "rediss+sentinel" else set()):
        need_tls = "; ssl_… is for rediss+sentinel://" if unknown & _TLS_OPTIONS else ""
        raise _Unreadable(f"takes the options {', '.join(sorted(_SENTINEL_OPTIONS | _TLS_OPTIONS))}{need_tls}")
    return SentinelAddress(
        sentinels=sentinels,
        master_name=master_name,
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username") or None,
        sentinel_password=options.get("sentinel_password") or None,
        tls=_parse_tls(options) if parts.scheme == "rediss+sentinel" else None,
    )


def _parse_tls(options: dict[str, str]) -> Tls:
    cert_reqs, check_hostname = options.get("ssl_cert_reqs", "required"), options.get("ssl_check_hostname", "true")
    if cert_reqs not in ("required", "none") or check_hostname not in ("true", "false"):
        raise _Unreadable("takes ssl_cert_reqs=required or none, ssl_check_hostname=true or false")
    return Tls(
        ca_certs=options.get("ssl_ca_certs") or None,
        cert_reqs=cert_reqs,
        check_hostname=check_hostname == "true",
        certfile=options.get("ssl_certfile") or None,
        keyfile=options.get("ssl_keyfile") or None,
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
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        "retry": _no_retry(),
        **_tls_options(address),
    }


def _tls_options(address: SentinelAddress) -> dict[str, object]:
    return {"ssl": True, **address.tls.options()} if address.tls else {}


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _quoted(text: str | None) -> str:
    return quote(text or "", safe="")
