"""Batches in Redis: which jobs were submitted together; each photo of a batch is a job of its own.

Keys (prefix `lookalike:`):
    batch:{id}  JSON, the record; TTL: as long as an unfinished job and its result may live

Idempotency keys are shared with jobs (`idempotency:{digest}`), so that one key is never both a job's and a batch's.
"""

from typing import cast

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import BatchNotFound, IdempotencyConflict, IdempotencyPending
from shared.jobs.contract import JobError, JobKind, unreadable
from shared.jobs.records import PREFIX, Idempotency
from shared.jobs.store import CONFLICT, idempotency_name

# Seconds that a batch being accepted holds its key: if its process dies, the key may be used again after this. Its
# photos have keys of their own, so a batch that takes longer is still not made twice.
_PENDING_S = 20


class BatchItem(BaseModel):
    """One photo of a batch: its job, or the error because of which none was submitted."""

    model_config = ConfigDict(frozen=True)

    custom_id: str
    job_id: str | None = None
    error: JobError | None = None


class Batch(BaseModel):
    """The record of a batch: the photos that were submitted together."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: JobKind
    owner: str
    created_at: float
    items: list[BatchItem]


class BatchStore:
    """Stores the records of batches.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        ttl_s: seconds that a record is kept.
    """

    def __init__(self, client: redis.Redis, *, ttl_s: int) -> None:
        self._redis = client
        self._ttl_s = ttl_s

    def begin(self, batch_id: str, owner: str, idempotency: Idempotency) -> Batch | None:
        """Bind an idempotency key to a batch that is about to be accepted.

        Args:
            batch_id: of the new batch.
            owner: id of the API key.
            idempotency: key and digest of the request.

        Returns:
            None if the key is bound now; else the batch that it was used for before.

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
        try:
            return self.get(first, owner=owner)
        except BatchNotFound as exc:
            raise IdempotencyPending(
                "the first request with this Idempotency-Key is still being accepted; ask again", retry_after_s=1
            ) from exc

    def give_up(self, owner: str, idempotency: Idempotency) -> None:
        """Release the idempotency key of a batch that could not be accepted."""
        self._redis.delete(idempotency_name(owner, idempotency))

    def save(self, batch: Batch, idempotency: Idempotency | None) -> None:
        """Write the batch's record, and keep its idempotency key as long.

        Args:
            batch: to write.
            idempotency: that `begin` bound; None: the request had no key.
        """
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
            batch_id: of the batch.
            owner: whose batch it must be; None: anybody's.

        Raises:
            BatchNotFound: there is no such batch, it has expired, or it is another owner's.
            RecordUnreadable: it was written by a newer version.
        """
        raw = cast(bytes | None, self._redis.get(f"{PREFIX}batch:{batch_id}"))
        try:
            batch = Batch.model_validate_json(raw) if raw else None
        except ValidationError as exc:
            raise unreadable(f"batch {batch_id}") from exc
        if batch is None or owner not in (None, batch.owner):
            raise BatchNotFound("no such batch, or it has expired")
        return batch
