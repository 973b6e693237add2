"""The queue of webhook deliveries in Redis: when each is due, and how often it was tried.

Deliveries are at-least-once. The script that ends a job also enqueues its delivery, so none is lost. Taking a delivery
only postpones it by a lease, so it is taken again if the worker dies. A receiver may therefore get a message twice.

Keys, without TTL because their entries are removed when the delivery is settled, and the worker that takes the delivery
of an expired job settles it:
    lookalike:webhooks       sorted set job id -> when it is due, seconds since the epoch
    lookalike:webhook_tries  hash job id -> tries begun
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from shared.lua import load_script
from shared.redis_clock import RedisClock

DUE_KEY = "lookalike:webhooks"
TRIES_KEY = "lookalike:webhook_tries"
LONGEST_S = 3600.0  # that a delivery is put off

# A full Redis must not keep deliveries from being settled: that is what makes room.
_FOLDER, _FLAGS = Path(__file__).parent, ("allow-oom",)
_TAKE = load_script(_FOLDER / "take.lua", flags=_FLAGS)
_SETTLE = load_script(_FOLDER / "settle.lua", flags=_FLAGS)
_RETRY = load_script(_FOLDER / "retry.lua", flags=_FLAGS)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver a job's webhook."""

    job_id: str
    attempt: int  # 1 is the first


class WebhookQueue:
    """The queue of deliveries, shared by all workers.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        clock: returns seconds since the epoch; None: Redis's own clock.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or RedisClock(client)
        self._keys = [DUE_KEY, TRIES_KEY]
        self._take = client.register_script(_TAKE)
        self._settle = client.register_script(_SETTLE)
        self._retry = client.register_script(_RETRY)

    def now(self) -> float:
        """Return the time that deliveries are due by, seconds since the epoch."""
        return self._clock()

    def take(self, limit: int, *, lease_s: float) -> list[Delivery]:
        """Take due deliveries, the longest due first, counting one attempt of each.

        Args:
            limit: deliveries at most.
            lease_s: an unsettled delivery is due again after so many seconds.
        """
        if limit < 1:
            return []
        now = self._clock()
        flat = self._take(keys=self._keys, args=[repr(now), limit, repr(now + lease_s), repr(now + LONGEST_S)])
        return [Delivery(raw.decode(), int(tries)) for raw, tries in zip(flat[::2], flat[1::2], strict=True)]

    def settle(self, job_id: str) -> None:
        """Remove a delivery that arrived, or is not tried again."""
        self._settle(keys=self._keys, args=[job_id])

    def retry(self, job_id: str, at: float, *, counted: bool = True) -> None:
        """Make a delivery due again; does nothing if it was settled.

        Args:
            job_id: of the delivery.
            at: when it is due, seconds since the epoch; LONGEST_S from now at most.
            counted: whether the attempt just made counts; it does not where nothing was sent.
        """
        self._retry(keys=self._keys, args=[job_id, repr(at), int(counted)])
