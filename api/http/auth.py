"""Who calls and what they may do. Without any key the service is open, and then it listens on loopback only."""

import time
from dataclasses import dataclass
from math import ceil

import redis
from flask import Flask, g, request
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from shared.api_keys import ApiKey, KeyRing, Scope, require_some_key, verify
from shared.errors import ApiKeyRequired, RateLimited, ScopeMissing
from shared.settings import Settings

# Everything else needs a key once there is one: reading needs `read`, changing something `submit`.
PUBLIC = frozenset(
    {"page.root", "page.asset", "ops.livez", "ops.readyz", "seed.healthcheck"}
    | {"docs.specification", "docs.page", "docs.asset"}
)
# And what changes the index for everybody needs `admin`.
_ADMINISTRATIVE = frozenset({"index.submit_reindex", "index.promote", "index.rollback"})
_REFRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent this request.

    Attributes:
        owner: whose jobs they submit; empty without keys.
        name: for the audit log.
    """

    owner: str
    name: str
    scopes: frozenset[Scope]

    @property
    def reads(self) -> str | None:
        """Whose jobs they see; None: everybody's."""
        return None if Scope.ADMIN in self.scopes else self.owner


_ANYBODY = Caller(owner="", name="anybody", scopes=frozenset(Scope))


class Authenticator:
    """Admits requests by their API key.

    Args:
        client: for the keys and the rate limits of all API processes together.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.ring = KeyRing(client)
        self._settings = settings
        self._keys: dict[str, ApiKey] = {}
        self._known_until = 0.0
        self._limiter = SlidingWindowCounterRateLimiter(
            RedisStorage("redis://", connection_pool=client.connection_pool, key_prefix="lookalike:rate")
        )

    def require_keys_in_the_open(self) -> None:
        """Refuse to start where others can reach the service and nothing keeps them out.

        Raises:
            CannotStart: it would listen beyond loopback without API keys.
        """
        if not self._settings.reachable_by_others:
            return
        try:
            require_some_key(self.ring, self._settings.host)
        except redis.RedisError:
            return  # requests are refused for as long as no key is known

    def admit(self, scope: Scope) -> Caller:
        """The caller of the current request, who may do `scope`.

        Raises:
            ApiKeyRequired, ApiKeyInvalid, ScopeMissing: they may not.
            RateLimited: they may, but not so often.
        """
        keys = self._current_keys()
        if not keys and not self._settings.reachable_by_others:
            return _ANYBODY
        credentials = request.authorization
        if credentials is None or credentials.type != "bearer" or not credentials.token:
            raise ApiKeyRequired("send your API key in a header: Authorization: Bearer lk_…")
        key = verify(credentials.token, keys)
        if not key.may(scope):
            raise ScopeMissing(f"this call needs a key with the scope {scope}")
        self._count(key)
        return Caller(owner=key.id, name=key.id, scopes=key.scopes)

    def _current_keys(self) -> dict[str, ApiKey]:
        """Every key, at most a second old: as long may a revoked one still be used."""
        if time.monotonic() > self._known_until:
            self._keys = self.ring.all()
            self._known_until = time.monotonic() + _REFRESH_S
        return self._keys

    def _count(self, key: ApiKey) -> None:
        per_minute = key.requests_per_minute or self._settings.requests_per_minute
        if not per_minute:
            return
        limit = RateLimitItemPerMinute(per_minute)
        if not self._limiter.hit(limit, key.id):
            reset_at = self._limiter.get_window_stats(limit, key.id).reset_time
            raise RateLimited(
                f"this key may send {per_minute} requests a minute; try again later",
                retry_after_s=max(1, ceil(reset_at - time.time())),
            )


def install(app: Flask, authenticator: Authenticator) -> None:
    """Ask every request for its key before anything of it is read."""

    def admit() -> None:
        if request.endpoint is None or request.endpoint in PUBLIC:
            return
        scope = Scope.READ if request.method in ("GET", "HEAD", "OPTIONS") else Scope.SUBMIT
        g.caller = authenticator.admit(Scope.ADMIN if request.endpoint in _ADMINISTRATIVE else scope)

    app.before_request(admit)


def caller() -> Caller:
    """Who sent the current request; only in routes that are not public."""
    found: Caller = g.caller
    return found
