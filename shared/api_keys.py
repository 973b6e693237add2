"""API keys in Redis: creates, verifies and revokes them. Only hashes are stored; a token is shown once, when made.

Redis keys (prefix `lookalike:`), without a TTL because only an operator ends them:
    keys    hash id -> ApiKey as JSON
    audit   stream of administrative actions, the last 10,000
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import redis
from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.errors import ApiKeyInvalid, CannotStart, InvalidRequest
from shared.jobs.records import PREFIX

_KEYS = PREFIX + "keys"
_AUDIT = PREFIX + "audit"
_AUDIT_LENGTH = 10_000
_TOKEN = re.compile(r"lk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class Scope(StrEnum):
    """A permission of an API key."""

    SUBMIT = "submit"  # submit jobs and cancel its own
    READ = "read"  # read its own jobs, the index, the metrics
    ADMIN = "admin"  # everything, for every key's jobs


class ApiKey(BaseModel):
    """One API key as it is stored.

    Attributes:
        id: public part of the token; the owner of the jobs that the key submits.
        name: for people.
        scopes: permissions; those that only a newer version knows are ignored.
        requests_per_minute: rate limit; 0: the default of the settings.
        created_at: seconds since the epoch.
        sha256: of the secret part, which has 256 random bits, so that no slow hash is needed.
        revoked_at: seconds since the epoch; None: valid. Revoked keys are kept, because without any key the service
            would be open to everybody.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str = Field(min_length=1, max_length=100)
    scopes: frozenset[Scope]
    requests_per_minute: int = Field(0, ge=0)
    created_at: float
    sha256: str
    revoked_at: float | None = None

    @field_validator("scopes", mode="before")
    @classmethod
    def _known_scopes(cls, scopes: Iterable[str]) -> list[str]:
        return [scope for scope in scopes if scope in set(Scope)]

    def may(self, scope: Scope) -> bool:
        """Tell whether the key has a scope; admin includes all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One administrative action."""

    at: float  # seconds since the epoch
    actor: str  # a key's id, or the name of a command line's user
    action: str
    subject: str


class KeyRing:
    """Creates, lists and revokes API keys, and keeps the audit log.

        ring = KeyRing(connect(settings.required_redis_url))
        key, token = ring.create("shop", {Scope.SUBMIT, Scope.READ})

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        clock: returns seconds since the epoch.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = client
        self._clock = clock

    def create(self, name: str, scopes: set[Scope], *, requests_per_minute: int = 0) -> tuple[ApiKey, str]:
        """Create a key.

        Args:
            name: for people, 1 to 100 characters.
            scopes: permissions, at least one.
            requests_per_minute: rate limit; 0: the default of the settings.

        Returns:
            the key, and its token, which is not stored and cannot be shown again.
        """
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        key = ApiKey(
            id=key_id,
            name=name,
            scopes=frozenset(scopes),
            requests_per_minute=requests_per_minute,
            created_at=self._clock(),
            sha256=_digest(secret),
        )
        self._redis.hset(_KEYS, key_id, key.model_dump_json())
        return key, f"lk_{key_id}_{secret}"

    def all(self) -> dict[str, ApiKey]:
        """Return every key by id, including revoked ones."""
        stored = cast(dict[bytes, bytes], self._redis.hgetall(_KEYS))
        return {key_id.decode(): ApiKey.model_validate_json(raw) for key_id, raw in stored.items()}

    def revoke(self, key_id: str) -> None:
        """Revoke a key; its jobs stay, readable by administrators.

        Raises:
            InvalidRequest: no key has that id.
        """
        key = self.all().get(key_id)
        if key is None:
            raise InvalidRequest(f"no key has the id {key_id!r}; see the list of keys")
        ended = key.model_copy(update={"revoked_at": key.revoked_at or self._clock()})
        self._redis.hset(_KEYS, key_id, ended.model_dump_json())

    def forget_all(self) -> int:
        """Delete every key, after which the service needs none; returns how many there were."""
        count = len(self.all())
        self._redis.delete(_KEYS)
        return count

    def record(self, actor: str, action: str, subject: str) -> None:
        """Append an administrative action to the audit log.

        Args:
            actor: id of a key, or name of a command-line user.
            action: what was done.
            subject: what it was done to.
        """
        entry = {"at": repr(self._clock()), "actor": actor, "action": action, "subject": subject}
        self._redis.xadd(_AUDIT, entry, maxlen=_AUDIT_LENGTH, approximate=True)  # type: ignore[arg-type]

    def audit(self, limit: int = 100) -> list[AuditEntry]:
        """Return the latest `limit` administrative actions, newest first."""
        found = cast(list[tuple[bytes, dict[bytes, bytes]]], self._redis.xrevrange(_AUDIT, count=limit))
        entries = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]
        return [AuditEntry(float(e["at"]), e["actor"], e["action"], e["subject"]) for e in entries]


def require_some_key(ring: KeyRing, host: str) -> None:
    """Check that a valid API key exists before the API listens on an address that other machines reach.

    Args:
        ring: the API keys.
        host: address to listen on, for the message.

    Raises:
        CannotStart: there is no key that is not revoked.
    """
    if all(key.revoked_at is not None for key in ring.all().values()):
        raise CannotStart(
            f"LOOKALIKE_HOST={host} opens the service to other machines, and there is no API key. Start it on "
            "127.0.0.1, make one with `lookalike keys create --name NAME`, and start again; or set "
            "LOOKALIKE_PUBLISHED_ELSEWHERE=1 where a proxy or a container network decides who gets in"
        )


def verify(token: str, keys: dict[str, ApiKey]) -> ApiKey:
    """Find the key of a token and check its secret in constant time.

    Args:
        token: `lk_<id>_<secret>`.
        keys: by id.

    Raises:
        ApiKeyInvalid: the id or the secret is wrong, which the message does not tell, or the key was revoked.
    """
    parsed = _TOKEN.fullmatch(token)
    key = keys.get(parsed[1]) if parsed else None
    # Compared even without a key, so that the time taken does not reveal which ids exist.
    matches = hmac.compare_digest(key.sha256 if key else _digest(""), _digest(parsed[2] if parsed else "-"))
    if key is None or key.revoked_at is not None or not matches:
        raise ApiKeyInvalid("the API key is not valid; it may have been revoked")
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
