"""Batches: many photos sent together, each a job of its own. A batch only remembers which they are.

Keys (prefix `lookalike:`):
    batch:{id}  JSON, the record; as long as an unfinished job and its result may live

Idempotency keys are those of jobs (`idempotency:{digest}`), so that one key is never both a job's and a batch's.
"""

from typing import cast

import redis
from pydantic import BaseModel, ConfigDict

from shared.errors import BatchNotFound, IdempotencyConflict, IdempotencyPending
from shared.jobs.contract import JobError, JobKind
from shared.jobs.records import PREFIX, Idempotency
from shared.jobs.store import CONFLICT, idempotency_name

# A batch being accepted: if its process dies, the key may be used again after this. Its photos have keys of their own,
# so a batch that takes longer is still not made twice.
_PENDING_S = 20


class BatchItem(BaseModel):
    """One photo of a batch: a job, or why it never became one."""

    model_config = ConfigDict(frozen=True)

    custom_id: str
    job_id: str | None = None
    error: JobError | None = None


class Batch(BaseModel):
    """Which photos were sent together."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: JobKind
    owner: str
    created_at: float
    items: list[BatchItem]


class BatchStore:
    """Remembers batches.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        ttl_s: how long a batch is kept.
    """

    def __init__(self, client: redis.Redis, *, ttl_s: int) -> None:
        self._redis = client
        self._ttl_s = ttl_s

    def begin(self, batch_id: str, owner: str, idempotency: Idempotency) -> str | None:
        """Bind an idempotency key to the batch about to be made.

        Returns:
            None when it is bound now; the id of the batch it already made otherwise.

        Raises:
            IdempotencyConflict: the key was used for another request.
            IdempotencyPending: its first request is still being accepted.
        """
        name = idempotency_name(owner, idempotency)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hsetnx(name, "digest", idempotency.digest)
            pipe.hsetnx(name, "id", batch_id)
            pipe.expire(name, _PENDING_S, nx=True)
            pipe.hmget(name, ["digest", "id"])
            digest, first = (value.decode() for value in pipe.execute()[-1])
        if first == batch_id:
            return None
        if digest != idempotency.digest:
            raise IdempotencyConflict(CONFLICT)
        if not self._redis.exists(f"{PREFIX}batch:{first}"):
            raise IdempotencyPending(
                "the first request with this Idempotency-Key is still being accepted; ask again", retry_after_s=1
            )
        return str(first)

    def give_up(self, owner: str, idempotency: Idempotency) -> None:
        """Free the key of a batch that could not be accepted."""
        self._redis.delete(idempotency_name(owner, idempotency))

    def save(self, batch: Batch, idempotency: Idempotency | None) -> None:
        """Write the batch's record."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(f"{PREFIX}batch:{batch.id}", batch.model_dump_json(), ex=self._ttl_s)
            if idempotency:
                name = idempotency_name(batch.owner, idempotency)
                pipe.hset(name, mapping={"digest": idempotency.digest, "id": batch.id})
                pipe.expire(name, self._ttl_s)
            pipe.execute()

    def get(self, batch_id: str, *, owner: str | None) -> Batch:
        """Read a batch.

        Args:
            owner: a batch of anybody else is unknown; None may read every batch.

        Raises:
            BatchNotFound: there is none, or no longer.
        """
        raw = cast(bytes | None, self._redis.get(f"{PREFIX}batch:{batch_id}"))
        batch = Batch.model_validate_json(raw) if raw else None
        if batch is None or owner not in (None, batch.owner):
            raise BatchNotFound("no such batch, or it has expired")
        return batch
