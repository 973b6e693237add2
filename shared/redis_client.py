"""Clients of Redis that give up instead of hanging."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, *, timeout_s: float = 2.0, max_connections: int = 64) -> redis.Redis:
    """A client that gives up after `timeout_s` instead of hanging, and never silently sends a command twice.

    Args:
        max_connections: must exceed the number of simultaneous `JobStore.wait`; each holds one.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
