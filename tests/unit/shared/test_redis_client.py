"""Redis URLs: every form is read, what cannot be read is explained, and no password shows anywhere."""

import re
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from kombu.utils.url import parse_url as parse_broker_url
from redis.exceptions import NoPermissionError, OutOfMemoryError
from redis.sentinel import MasterNotFoundError

from shared.errors import CannotStart
from shared.jobs.celery_config import make_celery
from shared.redis_client import (
    SentinelAddress,
    ServerAddress,
    Tls,
    _Sentinels,
    broker_at,
    connect,
    may_have_run,
    parse_redis_url,
    queue_trouble,
    trouble_with,
    why_unusable,
)
from shared.settings import load_settings

THREE = (("a", 26379), ("b", 26380), ("c", 26379))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis+sentinel://a,b:26380,c:26379/main", SentinelAddress(THREE, "main")),
        ("redis+sentinel://a,b:26380,c/main/", SentinelAddress(THREE, "main")),
        ("redis+sentinel://a,b:26380,c/my-main.1/3", SentinelAddress(THREE, "my-main.1", db=3)),
        ("redis+sentinel://:s3%40%2Fcret@a/m", SentinelAddress(THREE[:1], "m", password="s3@/cret")),
        ("redis+sentinel://joe:pw@a/m/1", SentinelAddress(THREE[:1], "m", db=1, username="joe", password="pw")),
        ("redis+sentinel://a/m?sentinel_password=x%26y", SentinelAddress(THREE[:1], "m", sentinel_password="x&y")),
        (
            "redis+sentinel://a/m?sentinel_username=joe&sentinel_password=x",
            SentinelAddress(THREE[:1], "m", sentinel_username="joe", sentinel_password="x"),
        ),
        ("rediss+sentinel://a/m", SentinelAddress(THREE[:1], "m", tls=Tls())),
        (
            "rediss+sentinel://a/m?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
            SentinelAddress(THREE[:1], "m", tls=Tls(ca_certs="/etc/ca.pem", check_hostname=False)),
        ),
        (
            "rediss+sentinel://a/m?ssl_certfile=c&ssl_keyfile=k&ssl_cert_reqs=none",
            SentinelAddress(THREE[:1], "m", tls=Tls(cert_reqs="none", certfile="c", keyfile="k")),
        ),
        ("redis+sentinel://[::1]:7,10.0.0.2/m", SentinelAddress((("::1", 7), ("10.0.0.2", 26379)), "m")),
    ],
)
def test_sentinel_urls_in_the_common_notation_are_read(url: str, address: SentinelAddress) -> None:
    assert parse_redis_url(url) == address
    assert load_settings(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://127.0.0.1",
        "redis://:pw@[::1]:6379/15",
        "rediss://joe:pw@redis.example.org:6380/0?ssl_cert_reqs=required",
    ],
)
def test_a_single_server_is_named_as_before(url: str) -> None:
    assert parse_redis_url(url) == ServerAddress(url)
    assert broker_at(url).url == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("rediss://a/0", "rediss://a/0?ssl_cert_reqs=required"),
        ("rediss://a/0?ssl_ca_certs=x", "rediss://a/0?ssl_ca_certs=x&ssl_cert_reqs=required"),
        ("rediss://a/0?ssl_cert_reqs=none", "rediss://a/0?ssl_cert_reqs=none"),
    ],
)
def test_the_broker_checks_certificates_unless_told_not_to(url: str, told: str) -> None:
    assert broker_at(url).url == told


REFUSED = {
    "unix:///tmp/redis.sock": "must look like redis://",
    "http://127.0.0.1:6379": "must look like redis://",
    "sentinel://a:26379": "must look like redis://",
    "127.0.0.1:6379": "must look like redis://",
    "redis+cluster://a:6379,b:6379": "a Redis Cluster cannot be used",
    "redis://a:6379,b:6379/0": r"several hosts, which only redis\+sentinel",
    "redis://s3cret@a,b/0": r"several hosts, which only redis\+sentinel",
    "redis://127.0.0.1:6379/zero": "must end with /DB, a number",
    "redis://127.0.0.1:port/0": "cannot be read as redis://",
    "redis://:s3cret#x@127.0.0.1:6379/0": "write / . # @ : % as %2F",
    "redis://:12/s3cret@127.0.0.1:6379/0": "write / . # @ : % as %2F",
    "redis://:s3cret/x@127.0.0.1:6379/0": "write / . # @ : % as %2F",
    "redis+sentinel://a:26379,b:26379": "must end with /MASTER_NAME",
    "redis+sentinel://a:26379/0/main": "must end with /MASTER_NAME",
    "redis+sentinel://a:26379/the main": "must end with /MASTER_NAME",
    "redis+sentinel://:s3cret@a/m#x": "must end with /MASTER_NAME",
    "redis+sentinel://:s3cret/x@a/m": "write / . # @ : % as %2F",
    "redis+sentinel://a,,b/main": r"cannot be read as .*redis\+sentinel://",
    "redis+sentinel:///main": r"cannot be read as .*redis\+sentinel://",
    "redis+sentinel://a:99999/main": r"cannot be read as .*redis\+sentinel://",
    "redis+sentinel://a/main?sentinel_pasword=s3cret": "takes the options sentinel_password, ",
    "redis+sentinel://a/main?ssl_ca_certs=s3cret": "ssl_… is for rediss.sentinel://",
    "rediss+sentinel://a/main?ssl_cert_reqs=s3cret": "ssl_cert_reqs=required or none",
    "rediss+sentinel://a/main?ssl_check_hostname=s3cret": "ssl_check_hostname=true or false",
    "rediss+sentinel://a/main?ssl_ca_cert=s3cret": "takes the options sentinel_password, ",
    "redis+sentinel://a/main?s3cret": r"cannot be read as .*redis\+sentinel://",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_cannot_be_read_is_refused_in_words_that_hold_no_password(url: str) -> None:
    with pytest.raises(CannotStart, match=f"LOOKALIKE_REDIS_URL: .*{REFUSED[url]}") as refused:
        load_settings(redis_url=url)
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


SENTINEL_URL = "redis+sentinel://joe:s3%3Bcret@a,b:26380,[::1]/main/2?sentinel_password=s3ntinel"


def test_kombu_reads_the_same_sentinels_master_database_and_login() -> None:
    urls = [parse_broker_url(url) for url in make_celery(SENTINEL_URL).connection().alt]
    assert [(url["hostname"], url["port"]) for url in urls] == [("a", 26379), ("b", 26380), ("::1", 26379)]
    assert {(url["transport"], url["userid"], url["password"], url["virtual_host"]) for url in urls} == {
        ("sentinel", "joe", "s3;cret", "2")
    }
    options = make_celery(SENTINEL_URL, socket_timeout_s=3).conf.broker_transport_options
    assert (options["master_name"], options["socket_timeout"], options["socket_connect_timeout"]) == ("main", 3, 3)
    to_sentinels = options["sentinel_kwargs"]
    assert (to_sentinels["password"], to_sentinels["socket_timeout"]) == ("s3ntinel", 1)  # three are asked in turn
    assert to_sentinels["retry"].get_retries() == 0


def test_a_consumer_notices_a_primary_that_hangs_and_one_without_sentinel_waits_as_before() -> None:
    options = broker_at(SENTINEL_URL).transport_options
    assert 1 < float(str(options["socket_timeout"])) <= 5  # a read waits a second for a message
    assert float(str(options["health_check_interval"])) <= 5
    assert broker_at("redis://127.0.0.1/0").transport_options == {}


@pytest.mark.parametrize("url", [SENTINEL_URL, "redis://127.0.0.1/2"])
def test_a_client_never_sends_twice_and_is_bounded(url: str) -> None:
    pool = connect(url, timeout_s=2, max_connections=7).connection_pool
    connection: Any = pool.make_connection()
    assert connection.retry.get_retries() == 0
    assert (connection.socket_timeout, connection.socket_connect_timeout, connection.db) == (2, 2, 2)
    assert pool.max_connections == 7


def test_nothing_that_may_be_logged_shows_a_password() -> None:
    pool: Any = connect(SENTINEL_URL).connection_pool
    shown = [
        parse_redis_url(SENTINEL_URL),
        parse_redis_url("redis://:s3cret@a/0"),
        broker_at(SENTINEL_URL),
        load_settings(redis_url=SENTINEL_URL),
        pool,
        pool.sentinel_manager.sentinels,  # named in the error when none answers
        make_celery(SENTINEL_URL).connection(),
    ]
    for each in shown:
        for secret in ("s3;cret", "s3%3Bcret", "s3cret", "s3ntinel"):
            assert secret not in f"{each!r} {each!s}"


def test_sentinels_that_name_no_primary_say_why() -> None:
    sentinels: Any = _Sentinels([])  # type: ignore[no-untyped-call]
    sentinels.sentinels = [_DeadSentinel(), _DeadSentinel(), _SlowSentinel(1)]
    with pytest.raises(redis.ConnectionError, match=r"primary other: refused; it knows main$"):
        sentinels.discover_master("other")


class _DeadSentinel:
    def sentinel_masters(self) -> dict[str, object]:
        raise redis.ConnectionError("refused")


class _SlowSentinel:
    """Answers when everybody has asked."""

    def __init__(self, n_asking: int) -> None:
        self._asked = threading.Barrier(n_asking)

    def sentinel_masters(self) -> dict[str, object]:
        self._asked.wait(10)
        return {
            "main": {
                "ip": "10.0.0.1", "port": 6379, "is_master": True, "is_sdown": False, "is_odown": False,
                "num-other-sentinels": 2,
            }
        }  # fmt: skip


def test_threads_that_ask_at_once_lose_no_sentinel() -> None:
    dead, slow, third = _DeadSentinel(), _SlowSentinel(8), _DeadSentinel()
    sentinels: Any = _Sentinels([])  # type: ignore[no-untyped-call]
    sentinels.sentinels = [dead, slow, third]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(sentinels.discover_master, ["main"] * 8))
    assert set(found) == {("10.0.0.1", 6379)}
    assert sentinels.sentinels[0] is slow
    assert {id(each) for each in sentinels.sentinels} == {id(dead), id(slow), id(third)}


def _connection_error(cause: Exception) -> redis.ConnectionError:
    error = redis.ConnectionError("Error connecting to redis://user:secret@h:6379")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (redis.AuthenticationError("WRONGPASS secret"), "X wants another user or password"),
        (redis.ResponseError("DB index is out of range"), "X has no database of that number"),
        (NoPermissionError("secret"), "X refuses the first command (NoPermissionError)"),
        (redis.TimeoutError("secret"), "X does not answer (TimeoutError)"),
        (_connection_error(OSError(111, "Connection refused")), "X does not answer (Connection refused)"),
        (MasterNotFoundError("no Sentinel knows it"), "X does not answer (no Sentinel knows it)"),
    ],
)
def test_what_is_wrong_with_a_redis_is_said_without_what_may_hold_a_password(
    error: redis.RedisError, wrong: str
) -> None:
    said, advice = trouble_with("X", error)
    assert said == wrong
    assert "secret" not in said + advice


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"redis_version": "7.2.4", "cluster_enabled": 1}, "a node of a Redis Cluster"),
        ({"redis_version": "6.2.5", "cluster_enabled": 0}, r"a Redis 6\.2\.5, which is too old: 7\.0 or newer"),
    ],
)
def test_a_redis_that_cannot_be_used_is_named(told: dict[str, object], why: str) -> None:
    assert re.search(why, why_unusable(told) or "")


@pytest.mark.parametrize("told", [{"redis_version": "7.0.15"}, {"redis_version": "10.0.0"}, {}, {"redis_version": ""}])
def test_any_other_redis_can_be_used(told: dict[str, object]) -> None:
    assert why_unusable(told) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutOfMemoryError("command not allowed"), "maxmemory"),
        (redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), "disk of Redis"),
        (redis.AuthenticationError("secret"), "wants another user or password"),
        (NoPermissionError("secret"), "lacks a right"),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), "reads its data"),
        (redis.ReadOnlyError("You can't write against a read only replica."), "Redis refuses it"),
        (redis.ConnectionError("secret"), "cannot be reached"),
        (None, "cannot be reached"),
    ],
)
def test_senders_learn_what_keeps_the_queue_from_being_used(error: redis.RedisError | None, said: str) -> None:
    assert said in queue_trouble(error)


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (redis.TimeoutError("Timeout reading from socket"), True),
        (redis.ConnectionError("Connection closed by server."), True),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), False),
        (redis.AuthenticationError("invalid username-password pair"), False),
        (redis.ResponseError("MISCONF"), False),
    ],
)
def test_a_command_that_redis_refused_has_not_run(error: redis.RedisError, may: bool) -> None:
    assert may_have_run(error) is may
