"""Authenticates requests by API key, checks scopes, and limits the rate of each key.

Without any API key every request is allowed; the service then listens on loopback only.
"""

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

# Endpoints that need no API key. All others need one as soon as one exists: the scope `read` to read, else `submit`.
PUBLIC = frozenset(
    {"page.root", "page.asset", "ops.livez", "ops.readyz", "legacy.healthcheck"}
    | {"docs.specification", "docs.page", "docs.asset"}
)
# Endpoints that change something for everybody, or keep all workers busy, need the scope `admin`.
_ADMIN_ENDPOINTS = frozenset(
    {"index.submit_reindex", "index.promote", "index.rollback"}
    | {"duplicates.submit_duplicates", "duplicates.give_verdict"}
)
_REFRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    Attributes:
        owner: owner of the jobs that are submitted: the id of the API key; empty without API keys.
        name: for the audit log.
        scopes: what the sender may do.
    """

    owner: str
    name: str
    scopes: frozenset[Scope]

    @property
    def reads(self) -> str | None:
        """Owner whose jobs the caller may see; None means all jobs."""
        return None if Scope.ADMIN in self.scopes else self.owner


_ANONYMOUS = Caller(owner="", name="anybody", scopes=frozenset(Scope))


class Authenticator:
    """Authenticates requests by API key.

    Args:
        settings: of the service.
        client: Redis with the API keys and the rate limits, which all API processes share.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.ring = KeyRing(client)
        self._settings = settings
        self._keys: dict[str, ApiKey] = {}
        self._keys_valid_until = 0.0
        self._windows = RedisStorage("redis://", connection_pool=client.connection_pool, key_prefix="lookalike:rate")
        self._limiter = SlidingWindowCounterRateLimiter(self._windows)

    def require_keys_beyond_loopback(self) -> None:
        """Refuse to start a service that other machines can reach and that has no API key.

        Raises:
            CannotStart: it would listen beyond loopback without API keys.
        """
        if not self._settings.reachable_by_others:
            return
        try:
            require_some_key(self.ring, self._settings.host)
        except redis.RedisError:
            return  # requests are refused while no key is known

    def admit(self, scope: Scope) -> Caller:
        """Authenticate the current request.

        Args:
            scope: what the request needs.

        Returns:
            The caller, who has this scope.

        Raises:
            ApiKeyRequired: there are API keys and the request has none.
            ApiKeyInvalid: the key is not known.
            ScopeMissing: the key lacks the scope.
            RateLimited: the key has used up its requests per minute.
        """
        keys = self._current_keys()
        if not keys and not self._settings.reachable_by_others:
            return _ANONYMOUS
        credentials = request.authorization
        if credentials is None or credentials.type != "bearer" or not credentials.token:
            raise ApiKeyRequired("send your API key in a header: Authorization: Bearer lk_…")
        key = verify(credentials.token, keys)
        if not key.may(scope):
            raise ScopeMissing(f"this call needs a key with the scope {scope}")
        self._limit_rate(key)
        return Caller(owner=key.id, name=key.id, scopes=key.scopes)

    def _current_keys(self) -> dict[str, ApiKey]:
        """All API keys, read at most a second ago; so a revoked key works for one more second at most."""
        if time.monotonic() > self._keys_valid_until:
            self._keys = self.ring.all()
            self._keys_valid_until = time.monotonic() + _REFRESH_S
        return self._keys

    def _limit_rate(self, key: ApiKey) -> None:
        per_minute = key.requests_per_minute or self._settings.requests_per_minute
        if not per_minute:
            return
        limit = RateLimitItemPerMinute(per_minute)
        if not self._limiter.hit(limit, key.id):
            if self._forget_stuck_windows(limit, key) and self._limiter.hit(limit, key.id):
                return
            reset_at = self._limiter.get_window_stats(limit, key.id).reset_time
            raise RateLimited(
                f"this key may send {per_minute} requests a minute; try again later",
                retry_after_s=max(1, ceil(reset_at - time.time())),
            )

    def _forget_stuck_windows(self, limit: RateLimitItemPerMinute, key: ApiKey) -> bool:
        """Forget what a key has sent if that would count for hours; returns whether it did.

        Where the clock of Redis's host was put back, what expires does so later by as much.
        """
        _, before_s, _, now_s = self._windows.get_sliding_window(limit.key_for(key.id), limit.get_expiry())
        stuck = max(before_s, now_s) > 2 * limit.get_expiry()
        if stuck:
            self._limiter.clear(limit, key.id)
        return stuck


def install(app: Flask, authenticator: Authenticator) -> None:
    """Authenticate every request of `app` before its body is read."""

    def admit() -> None:
        if request.endpoint is None or request.endpoint in PUBLIC:
            return
        scope = Scope.READ if request.method in ("GET", "HEAD", "OPTIONS") else Scope.SUBMIT
        g.caller = authenticator.admit(Scope.ADMIN if request.endpoint in _ADMIN_ENDPOINTS else scope)

    app.before_request(admit)


def caller() -> Caller:
    """The caller of the current request. Only for endpoints that are not in PUBLIC."""
    found: Caller = g.caller
    return found
