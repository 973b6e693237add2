"""The clock of an installation: Redis's own, so that hosts whose clocks differ agree on leases and deadlines."""

import time
from collections.abc import Callable
from typing import cast

import redis

_ASK_EVERY_S = 5.0
# An answer that took so long says too little of the moment that it is about.
_SLOW_S = 0.5


class RedisClock:
    """Returns Redis's time when called, in seconds since the epoch; safe to call from many threads.

        clock = RedisClock(client)
        lease_ends = clock() + 15

    Redis is asked every five seconds; in between, the time goes on with this host's monotonic clock. So a call costs
    nothing as a rule, and neither a host whose clock is wrong nor one whose clock is put right reaps a job that lives.

    Args:
        client: whose `redis.RedisError` passes through where the time is asked for.
        monotonic: returns this host's monotonic time in seconds.
    """

    def __init__(self, client: redis.Redis, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._ahead_s: float | None = None  # of the monotonic clock
        self._ask_at = 0.0

    def __call__(self) -> float:
        """Return the time now."""
        now = self._monotonic()
        if self._ahead_s is None or now >= self._ask_at:
            self._ask(now)
        return self._monotonic() + cast(float, self._ahead_s)

    def _ask(self, asked: float) -> None:
        seconds, microseconds = self._client.time()
        answered = self._monotonic()
        if self._ahead_s is None or answered - asked < _SLOW_S:
            self._ahead_s = seconds + microseconds / 1e6 - (asked + answered) / 2
        self._ask_at = answered + _ASK_EVERY_S
