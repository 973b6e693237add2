"""The clock of an installation: Redis's own, so that hosts whose clocks differ agree on leases and deadlines."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

_ASK_EVERY_S = 5.0
_FIRST_TRIES = 3
# How far a monotonic clock may go wrong against Redis's, in seconds a second.
_DRIFT = 1e-3


@dataclass(frozen=True)
class _Reading:
    """An answer of Redis.

    Attributes:
        ahead_s: of Redis's time before this host's monotonic clock.
        error_s: by which that may be wrong: half the time that the answer took.
        at: when it came, by the monotonic clock.
    """

    ahead_s: float
    error_s: float
    at: float

    def error_at(self, now: float) -> float:
        """By how much it may be wrong at a later time."""
        return self.error_s + _DRIFT * (now - self.at)


class RedisClock:
    """Returns Redis's time when called, in seconds since the epoch; safe to call from many threads.

        clock = RedisClock(client)
        lease_ends = clock() + 15

    Redis is asked every five seconds; in between, the time goes on with this host's monotonic clock. So a call costs
    nothing as a rule, and neither a host whose clock is wrong nor one whose clock is put right reaps a job that lives.
    Of two answers the one counts that came faster, unless they contradict one another: then it is another Redis by now.

    Args:
        client: whose `redis.RedisError` passes through where the time is asked for.
        monotonic: returns this host's monotonic time in seconds.
    """

    def __init__(self, client: redis.Redis, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._reading: _Reading | None = None
        self._ask_at = 0.0

    def __call__(self) -> float:
        """Return the time now."""
        reading = self._reading
        if reading is None:
            reading = min((self._ask() for _ in range(_FIRST_TRIES)), key=lambda one: one.error_s)
            self._keep(reading)
        elif self._monotonic() >= self._ask_at:
            new = self._ask()
            error_s = reading.error_at(new.at)
            contradicts = abs(new.ahead_s - reading.ahead_s) > new.error_s + error_s
            if new.error_s <= error_s or contradicts:
                reading = new
            self._keep(reading)
        return self._monotonic() + reading.ahead_s

    def _keep(self, reading: _Reading) -> None:
        self._reading = reading
        self._ask_at = self._monotonic() + _ASK_EVERY_S

    def _ask(self) -> _Reading:
        asked = self._monotonic()
        seconds, microseconds = self._client.time()
        answered = self._monotonic()
        error_s = (answered - asked) / 2
        return _Reading(seconds + microseconds / 1e6 - asked - error_s, error_s, answered)
