"""Calls that are made again while Redis or the object store is away."""

import time
from collections.abc import Callable
from typing import TypeVar

import redis

from shared.errors import StoreUnavailable

# How long what must be written is tried to be written while Redis is away, and how often.
_RETRY_WITHIN_S = 30.0
_RETRY_EVERY_S = 0.5

T = TypeVar("T")


def while_redis_is_away(call: Callable[[], T]) -> T:
    """Make a call to Redis, again for half a minute while it does not answer."""
    return _while_away(call, redis.RedisError)


def while_store_is_away(call: Callable[[], T]) -> T:
    """Make a call to the object store, again for half a minute while it does not answer."""
    return _while_away(call, StoreUnavailable)


def _while_away(call: Callable[[], T], error: type[Exception]) -> T:
    give_up_at = time.monotonic() + _RETRY_WITHIN_S
    while True:
        try:
            return call()
        except error:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_RETRY_EVERY_S)
