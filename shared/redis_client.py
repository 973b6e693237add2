"""Connects to Redis, one server or the primary behind Sentinels: clients and Celery's broker settings from one URL.

No password is shown, neither in a repr nor in an error.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import MaxConnectionsError, NoPermissionError, OutOfMemoryError
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
_OLDEST_VERSION = 7  # a release of Redis; a Valkey says 7.2.4
_NO_EVICTION = "noeviction"
_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_MASTER_NAME = re.compile(r"[A-Za-z0-9._-]+")  # what Sentinel itself allows

_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname", "ssl_certfile", "ssl_keyfile"}

# When a primary hangs, nobody closes a consumer's connection to it while Sentinel elects another. Its reads wait one
# second for a message; the connection is dropped when it has been silent for longer than these.
_CONSUMER_TIMEOUT_S = 5.0
_CONSUMER_CHECK_S = 4


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One Redis server, by a URL that both redis-py and kombu accept."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS options for connections to Sentinels and data nodes.

    Attributes:
        ca_certs: file of trusted certificate authorities; None: the system's.
        cert_reqs: `required`, or `none` to accept any certificate.
        check_hostname: whether the certificate must name the address that Sentinel returns, which is mostly an IP.
        certfile, keyfile: client certificate, for servers that require one.
    """

    ca_certs: str | None = None
    cert_reqs: str = "required"
    check_hostname: bool = True
    certfile: str | None = None
    keyfile: str | None = None

    def options(self) -> dict[str, object]:
        """Return the keyword arguments of redis-py, which kombu passes on."""
        return {f"ssl_{name}": value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """The primary that Sentinels monitor under a name."""

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
    """Celery's broker settings for the same Redis."""

    url: str = field(repr=False)
    transport_options: dict[str, object] = field(repr=False)
    tls: dict[str, object] | None = None  # None where the URL has them


def parse_redis_url(url: str) -> ServerAddress | SentinelAddress:
    """Parse LOOKALIKE_REDIS_URL.

    Args:
        url: in one of `FORMS`.

    Raises:
        ValueError: it has another form; the message does not quote it, because it may hold a password.
    """
    scheme, separator, _ = url.partition("://")
    if separator and "cluster" in scheme:
        raise ValueError(_NO_CLUSTER)
    if not separator or scheme not in _SCHEMES:
        # kombu accepts fewer schemes than redis-py: a Unix socket would work for clients but not for the broker.
        raise ValueError(f"must look like {FORMS}")
    try:
        return _parse_sentinel_url(url) if scheme.endswith("+sentinel") else _parse_server_url(url)
    except _Unreadable:
        raise
    except ValueError:  # its text may hold part of a password that has an unescaped character
        raise ValueError(f"cannot be read as {FORMS}; {_ESCAPES}") from None


def connect(url: str, *, timeout_s: float = 2.0, max_connections: int = 64) -> redis.Redis:
    """Make a Redis client that fails after `timeout_s` instead of hanging, and never silently sends a command twice.

    With Sentinel, each new connection first looks up the primary, which takes at most `timeout_s` more.

        client = connect("redis://127.0.0.1:6379/0")

    Args:
        url: in one of `FORMS`.
        timeout_s: of connecting and of every reply.
        max_connections: must exceed the number of simultaneous `JobStore.wait` calls; each holds one.

    Raises:
        ValueError: as `parse_redis_url`.
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
    """Build Celery's broker URL and kombu's transport options for the Redis at `url`.

    Args:
        url: in one of `FORMS`.
        socket_timeout_s: for processes that only publish; None for consumers, whose connection waits for messages.

    Raises:
        ValueError: as `parse_redis_url`.
    """
    address = parse_redis_url(url)
    options: dict[str, object] = {}
    if socket_timeout_s is not None:
        options |= {
            "socket_timeout": socket_timeout_s,
            "socket_connect_timeout": socket_timeout_s,
            "retry_on_timeout": False,
            "max_retries": 0,  # kombu would retry a lost Redis for 6 s before it fails
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
    # kombu tries the next URL when it cannot connect, so each must be complete.
    urls = [f"sentinel://{login}{_authority(host, port)}/{address.db}" for host, port in address.sentinels]
    return Broker(";".join(urls), options, address.tls.options() if address.tls else None)


def refuse_unusable(client: redis.Redis) -> None:
    """Check at startup that Redis is no cluster and not too old, which would fail at the first job.

    Passes if it does not answer.

    Args:
        client: closed if the check fails.

    Raises:
        CannotStart: it is connected to a node of a Redis Cluster, or to a Redis before 7.0.
    """
    try:
        info = client.info()
    except redis.RedisError:  # unreachable, or INFO is not permitted
        return
    if why := why_unusable(info):
        client.close()
        raise CannotStart(why)


def why_unusable(info: Mapping[str, object]) -> str | None:
    """Why a Redis cannot be used, by what INFO tells of it; None if it can."""
    if info.get("cluster_enabled"):
        return f"LOOKALIKE_REDIS_URL names a node of a Redis Cluster, and {_NO_CLUSTER}"
    version = str(info.get("redis_version", ""))
    if (major := re.match(r"\d+", version)) and int(major[0]) < _OLDEST_VERSION:
        return f"LOOKALIKE_REDIS_URL names a Redis {version}, which is too old: 7.0 or newer is needed, or a Valkey"
    return None


def eviction_trouble(client: redis.Redis) -> str | None:
    """Say that this Redis drops accepted jobs once it is full; None if it refuses new ones, or does not tell.

    Raises:
        redis.RedisError: it does not answer.
    """
    try:
        memory = client.info("memory")
    except redis.ResponseError:  # INFO is not permitted, or has another name, as where Redis is rented
        return None
    policy = memory.get("maxmemory_policy", _NO_EVICTION)
    if policy == _NO_EVICTION or not memory.get("maxmemory"):
        return None
    return f"Redis drops accepted jobs when it is full (maxmemory-policy {policy}): set it to {_NO_EVICTION}"


def may_have_run(error: redis.RedisError) -> bool:
    """Whether a command that failed so may have been carried out: the connection broke after it was sent."""
    refused = MasterNotFoundError | redis.AuthenticationError | redis.BusyLoadingError | MaxConnectionsError
    if isinstance(error, refused):
        return False
    return isinstance(error, redis.ConnectionError | redis.TimeoutError) and "connecting to" not in str(error)


def trouble_with(named: str, error: redis.RedisError) -> tuple[str, str]:
    """Describe a Redis that cannot be used, without redis-py's message, which may hold the URL or the command.

    Args:
        named: what says where it is.
        error: of a first call.

    Returns:
        what is wrong, and what to do.
    """
    if isinstance(error, redis.AuthenticationError):
        return f"{named} wants another user or password", "put them into the URL, with / ? # @ : % escaped"
    if isinstance(error, redis.ResponseError):
        if "DB index" in str(error):
            return f"{named} has no database of that number", "end the URL with one that it has, such as /0"
        return f"{named} refuses the first command ({type(error).__name__})", "let its user run all: ACL SETUSER"
    cause = error.__cause__ or error.__context__
    reason = (isinstance(cause, OSError) and cause.strerror) or type(error).__name__
    if isinstance(error, MasterNotFoundError):
        reason = str(error)
    return f"{named} does not answer ({reason})", "start that Redis, or correct the URL"


def queue_trouble(error: BaseException | None) -> str:
    """Say what keeps the job queue from being used, for those who send jobs."""
    if isinstance(error, redis.AuthenticationError):
        return "the job queue refuses the service: Redis wants another user or password"
    if isinstance(error, redis.BusyLoadingError):
        return "the job queue is not there yet: Redis reads its data from disk"
    if isinstance(error, NoPermissionError):
        return "the job queue refuses the service: its Redis user lacks a right"
    if isinstance(error, OutOfMemoryError):
        return "the job queue has no room: Redis has reached its maxmemory"
    if isinstance(error, redis.ResponseError):
        why = "the disk of Redis is full or fails" if "MISCONF" in str(error) else "Redis refuses it"
        return f"the job queue cannot be written: {why}"
    return "the job queue cannot be reached"


class _Unreadable(ValueError):
    """A ValueError whose message is ours and safe to show."""


class _Sentinels(Sentinel):
    """redis-py's Sentinel client, made thread-safe, with errors that name each Sentinel's problem.

    redis-py moves the Sentinel that answered to the front of its list in place: two threads that do so at once leave
    one Sentinel in the list twice and lose another for good. Here each replaces the whole list.
    """

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Ask the Sentinels in turn for the primary's address; returns host and port.

        Raises:
            MasterNotFoundError: none of them names a primary; the message says why.
        """
        asked, problems = list(self.sentinels), []
        for sentinel in asked:
            try:
                known = cast(dict[str, dict[str, Any]], sentinel.sentinel_masters())
            except redis.RedisError as exc:  # unreachable, or the command is not permitted
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
    scheme, _, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    # Each host goes through urlsplit by itself: newer Pythons refuse several of which one but the first is [IPv6].
    parts = urlsplit(f"{scheme}://{rest[len(netloc) :]}")
    login, _, hosts = netloc.rpartition("@")
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
    """Add `ssl_cert_reqs=required` to a `rediss://` URL: kombu checks no certificate without it, redis-py does."""
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return url
    return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"


def _to_sentinels(address: SentinelAddress, timeout_s: float) -> dict[str, object]:
    """Connection options for the Sentinels, such that asking all of them in turn takes `timeout_s` at most."""
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
