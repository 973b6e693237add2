"""What is known of a job whose write Redis may not have answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from shared.errors import AcceptanceUnknown, JobNotFound
from shared.redis_client import may_have_run

_RETRY_AFTER_S = 5


@contextmanager
def acceptance_unknown(job_id: str) -> Iterator[None]:
    """Turn whatever Redis raises in the body, where a job may have been written, into AcceptanceUnknown.

    So is JobNotFound: a primary had the job a moment ago, and another has taken over without it.
    """
    try:
        yield
    except JobNotFound as exc:
        lost = "a failover of the job queue has lost the job that was accepted; send it again"
        raise AcceptanceUnknown(lost, retry_after_s=_RETRY_AFTER_S, job_id=job_id) from exc
    except redis.RedisError as exc:
        raise AcceptanceUnknown(
            "the job queue broke off, and whether the job was accepted is not known; ask for it at `job` "
            "before you send it again. With an Idempotency-Key the same request can just be repeated",
            retry_after_s=_RETRY_AFTER_S,
            job_id=job_id,
        ) from exc


def answered(write: Callable[[], object], job_id: str) -> object:
    """Write a job and return the answer; where the connection broke as it was awaited, ask for it once more.

    Not after a timeout: Redis hangs, and whoever waits for us has waited long enough.

    Raises:
        AcceptanceUnknown: the answer is lost.
        redis.RedisError: nothing was written.
    """
    try:
        return write()
    except redis.RedisError as exc:
        if not may_have_run(exc):
            raise
        with acceptance_unknown(job_id):
            if isinstance(exc, redis.TimeoutError):
                raise
            return write()
