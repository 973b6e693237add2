"""Webhook deliveries in Redis: which are due, which are in hand, how often each was tried. Knows no URL and no HTTP.

The script that ends a job also makes its delivery due, so none is lost; taking one only puts it off by a lease, so
a worker that dies with it in hand loses nothing either. A receiver may therefore see a message twice.

Keys, without TTL because an entry of each goes when its delivery is settled, and a delivery whose job has expired is
settled by whoever takes it:
    lookalike:webhooks       sorted set job id -> when it is due, seconds since the epoch
    lookalike:webhook_tries  hash job id -> tries begun
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from shared.lua import load_script

DUE_KEY = "lookalike:webhooks"
TRIES_KEY = "lookalike:webhook_tries"

# A full Redis must not keep deliveries from being settled: that is what makes room.
_FOLDER, _FLAGS = Path(__file__).parent, ("allow-oom",)
_TAKE = load_script(_FOLDER / "take.lua", flags=_FLAGS)
_SETTLE = load_script(_FOLDER / "settle.lua", flags=_FLAGS)
_RETRY = load_script(_FOLDER / "retry.lua", flags=_FLAGS)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A worker's turn to deliver."""

    job_id: str
    attempt: int  # 1 is the first


class WebhookQueue:
    """The deliveries of every worker.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        clock: seconds since the epoch.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys = [DUE_KEY, TRIES_KEY]
        self._take = client.register_script(_TAKE)
        self._settle = client.register_script(_SETTLE)
        self._retry = client.register_script(_RETRY)

    def take(self, limit: int, *, lease_s: float) -> list[Delivery]:
        """Take at most `limit` due deliveries, the longest due first, counting a try of each.

        Args:
            lease_s: after so long an unsettled delivery is due again.
        """
        if limit < 1:
            return []
        now = self._clock()
        flat = self._take(keys=self._keys, args=[repr(now), limit, repr(now + lease_s)])
        return [Delivery(raw.decode(), int(tries)) for raw, tries in zip(flat[::2], flat[1::2], strict=True)]

    def settle(self, job_id: str) -> None:
        """Forget a delivery: it arrived, or will not be tried again."""
        self._settle(keys=self._keys, args=[job_id])

    def retry(self, job_id: str, at: float) -> None:
        """Make a delivery due `at` seconds since the epoch; a no-op if it was settled."""
        self._retry(keys=self._keys, args=[job_id, repr(at)])
