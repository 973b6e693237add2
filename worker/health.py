"""`python -m worker.health`: whether the worker of this container serves, by its own heartbeat. For health checks."""

import socket
import sys

import redis

from shared.errors import CannotStart
from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_client import connect
from shared.settings import load_settings


def trouble(client: redis.Redis, hostname: str) -> str | None:
    """What keeps the workers of a host from serving, or None."""
    try:
        mine = [worker for worker in WorkerRegistry(client).live() if worker.name.rpartition("-")[0] == hostname]
    except redis.RedisError as exc:
        return f"redis does not answer ({type(exc).__name__})"
    if not mine:
        return "no worker of this host has reported within 15 s"
    return next((worker.problem or "not ready yet" for worker in mine if worker.state != "ready"), None)


if __name__ == "__main__":
    try:
        sys.exit(trouble(connect(load_settings().required_redis_url), socket.gethostname()))
    except CannotStart as exc:
        sys.exit(str(exc))
