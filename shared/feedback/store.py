"""FeedbackStore: feedback in Redis, until it is archived.

Keys (prefix `lookalike:`):
    feedback        sorted set job id -> when feedback of it came last, microseconds; no TTL: it is archived
    feedback:{job}  hash: what the search showed, and each event; no TTL: the only copy until it is archived
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import redis

from shared.errors import FeedbackFull
from shared.feedback.contract import FeedbackEvent, FeedbackRequest, Impression, JobFeedback, StoredEvent
from shared.jobs.records import PREFIX
from shared.lua import load_script
from shared.redis_clock import RedisClock

_ORDER = PREFIX + "feedback"
_CHUNK = 500  # searches of one round trip, and of one script
_SHOWN = b"shown"
_RETRY_AFTER_S = 60
_REPLICATED_WITHIN_MS = 1000

_FOLDER = Path(__file__).parent
_GIVE = load_script(_FOLDER / "give.lua")  # without allow-oom: what is written there stays
_FORGET = load_script(_FOLDER / "forget.lua", flags=("allow-oom",))


class Held(NamedTuple):
    """The feedback of one search in Redis.

    Attributes:
        feedback: as it was read.
        changed: when some came last, as Redis writes it.
    """

    feedback: JobFeedback
    changed: bytes


class FeedbackStore:
    """Reads and writes the feedback in Redis.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._clock = RedisClock(client)
        self._give = client.register_script(_GIVE)
        self._forget = client.register_script(_FORGET)

    def give(self, impression: Impression, request: FeedbackRequest, *, limit: int, n_replicas: int = 0) -> bool:
        """Store an event; the same one again changes nothing, and another corrected category takes the place of one.

        Args:
            impression: what its search showed.
            request: the event.
            limit: searches with feedback in Redis, at most.
            n_replicas: that must have it.

        Returns:
            whether so many have it within a second.

        Raises:
            FeedbackFull: there are so many already; nothing is stored.
        """
        replaces = request.event is FeedbackEvent.CATEGORY
        event = StoredEvent(
            event=request.event, image_id=request.image_id, category=request.category, at=round(self._clock(), 3)
        )
        args = (
            impression.job_id,
            impression.model_dump_json(exclude_none=True),
            f"{request.event} {request.image_id or ''}",
            event.model_dump_json(exclude_none=True),
            int(replaces),
            limit,
        )
        if n_replicas:
            # By one connection, so to one primary: another may take over, whose replicas would answer for that one.
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(_GIVE, 1, PREFIX, *args)
                pipe.wait(n_replicas, _REPLICATED_WITHIN_MS)
                given, n_have = pipe.execute()
        else:
            given, n_have = self._give(keys=[PREFIX], args=args), 0
        if not given:
            raise FeedbackFull(
                f"{limit} searches have feedback that no worker has archived yet; nothing was stored",
                retry_after_s=_RETRY_AFTER_S,
            )
        return int(n_have) >= n_replicas

    def count(self) -> int:
        """Count the searches with feedback in Redis."""
        return self._redis.zcard(_ORDER)

    def read(self) -> Iterator[JobFeedback]:
        """Iterate over the feedback in Redis, that of a search whose newest event is the oldest first."""
        return (held.feedback for held in self._held(-1))

    def due(self, *, older_than_s: float, at_most: int) -> list[Held]:
        """Return feedback to be archived, as seldom as can be, so that files of the archive are few.

        Args:
            older_than_s: since the last event: all that is older, once some is twice as old.
            at_most: searches with feedback; where there are more, all but half as many.
        """
        # Not the clock of this host, which may be some milliseconds behind: the order is by what Redis says itself.
        seconds, microseconds = self._redis.time()
        now, age = seconds * 1_000_000 + microseconds, int(older_than_s * 1e6)
        n = self.count()
        excess = n - at_most // 2 if n > at_most else 0
        n_old = self._redis.zcount(_ORDER, "-inf", now - age)
        overdue = self._redis.zcount(_ORDER, "-inf", now - 2 * age)
        n_due = max(n_old if overdue else 0, excess)
        return list(self._held(n_due - 1)) if n_due else []

    def forget(self, archived: Sequence[Held]) -> int:
        """Delete feedback that is archived, but for that which came meanwhile; returns of how many searches."""
        n = 0
        for start in range(0, len(archived), _CHUNK):
            some = archived[start : start + _CHUNK]
            args = [part for held in some for part in (held.feedback.impression.job_id, held.changed)]
            n += cast(int, self._forget(keys=[PREFIX], args=args))
        return n

    def _held(self, last: int) -> Iterator[Held]:
        """The feedback of the searches up to a place in the order of their newest events; -1: of all."""
        order = cast(list[tuple[bytes, float]], self._redis.zrange(_ORDER, 0, last, withscores=True))
        for start in range(0, len(order), _CHUNK):
            some = order[start : start + _CHUNK]
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id, _ in some:
                    pipe.hgetall(f"{_ORDER}:{job_id.decode()}")
                answers = cast(list[dict[bytes, bytes]], pipe.execute())
            for (_, changed), fields in zip(some, answers, strict=True):
                if shown := fields.pop(_SHOWN, None):  # or it was archived meanwhile
                    events = tuple(map(StoredEvent.model_validate_json, fields.values()))
                    feedback = JobFeedback(impression=Impression.model_validate_json(shown), events=events)
                    yield Held(feedback, b"%d" % changed)
