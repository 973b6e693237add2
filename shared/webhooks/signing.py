"""Webhooks: checks URLs against the operator's allow-list, and signs messages; opens no connections.

Headers and signature are those of Standard Webhooks 1.0 (https://www.standardwebhooks.com).
"""

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.errors import WebhookRefused
from shared.outbound.hosts import AllowedHosts, Target, UrlRefused

_SECRET_PREFIX = "whsec_"  # noqa: S105
_SECRET_BYTES = range(24, 65)  # lengths that the specification allows


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """A message to post, with its URL; every attempt sends the same bytes."""

    url: str = field(repr=False)  # its query may hold a token
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """The operator's settings for webhooks.

        policy = WebhookPolicy(hosts=parse_hosts("example.org"), secrets=parse_secrets(secret))
        target = policy.check("https://example.org/hook")

    Attributes:
        hosts: allow-list from `parse_hosts`: `host` for the scheme's default port, or `host:port`. Empty: webhooks are
            off.
        secrets: from `parse_secrets`; a message is signed with each, so that receivers can rotate them.
        allow_private: also allow private addresses and plain HTTP, for tests and closed networks.
    """

    hosts: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    allow_private: bool = False

    def check(self, url: str) -> Target:
        """Check a URL against the allow-list. The host name is not resolved: its addresses are checked at delivery.

        Returns:
            the parts of the URL.

        Raises:
            WebhookRefused: the message says what the caller, or the operator, would have to change.
        """
        if not self.hosts:
            raise WebhookRefused("webhooks are off here: leave the URL out, or ask the operator to switch them on")
        try:
            return AllowedHosts(self.hosts, self.allow_private, "webhook URL").check(url)
        except UrlRefused as exc:
            raise WebhookRefused(str(exc)) from exc


def parse_secrets(text: str) -> tuple[str, ...]:
    """Parse and validate secrets.

    Args:
        text: `whsec_…`, several separated by commas.

    Raises:
        ValueError: one is not `whsec_` and the base64 of 24 to 64 bytes; the message does not quote it.
    """
    secrets = tuple(secret.strip() for secret in text.split(","))
    for secret in secrets:
        try:
            fits = secret.startswith(_SECRET_PREFIX) and len(_key(secret)) in _SECRET_BYTES
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                "must be whsec_ and the base64 of 24 to 64 random bytes, several separated by commas; "
                'make one with: echo "whsec_$(openssl rand -base64 32)"'
            )
    return secrets


def sign(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """Compute the header `webhook-signature`: one HMAC-SHA256 signature per secret.

    Args:
        message_id: as in the header `webhook-id`.
        timestamp: seconds since the epoch, as in the header `webhook-timestamp`.
        body: of the message.
        secrets: from `parse_secrets`.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(_key(secret), content, "sha256") for secret in secrets)
    return " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests)


def event_body(name: str, at: float, data: Mapping[str, object]) -> bytes:
    """Build the body of a message: `{"type": "job.succeeded", "timestamp": "…Z", "data": {…}}`.

    Args:
        name: type of the event.
        at: when it happened, seconds since the epoch.
        data: JSON-able content.
    """
    timestamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": name, "timestamp": timestamp, "data": data}, separators=(",", ":")).encode()


def _key(secret: str) -> bytes:
    return b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
