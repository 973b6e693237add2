"""Verdicts: what people have decided of pairs of photos, kept in Redis beside the change log.

A verdict is of two images, and holds as long as both show what they showed when it was given: it names the SHA-256 of
their files. So it outlives reindexes, and does not silence another listing that takes the same photo, nor another photo
that takes the image's id.

Keys (prefix `lookalike:`):
    duplicates:verdicts  hash of a pair's image ids -> its verdict; no TTL: the only copy
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple, cast

import redis

from shared.jobs.duplicates_contract import Verdict
from shared.jobs.records import PREFIX

_KEY = PREFIX + "duplicates:verdicts"
_PAGE = 1000

Pair = tuple[str, str]


class StoredVerdict(NamedTuple):
    """A verdict on two images.

    Attributes:
        image_ids: sorted.
        sha256s: of their files when it was given.
        verdict: what was decided.
    """

    image_ids: Pair
    sha256s: Pair
    verdict: Verdict

    def holds(self, content: Mapping[str, str]) -> bool:
        """Whether both images show what they showed: SHA-256 by image id."""
        return tuple(map(content.get, self.image_ids)) == self.sha256s


class VerdictStore:
    """Reads and writes the verdicts.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def give(self, photos: Mapping[str, str], verdict: Verdict | None) -> int:
        """Store a verdict on every pair of some photos, and return how many pairs those are.

        Args:
            photos: SHA-256 of the file by image id, two at least.
            verdict: what was decided; None: earlier verdicts on the pairs are forgotten.
        """
        pairs = list(combinations(sorted(photos), 2))
        if verdict is None:
            self._redis.hdel(_KEY, *map(json.dumps, pairs))
        else:
            values = {json.dumps(pair): json.dumps([verdict, photos[pair[0]], photos[pair[1]]]) for pair in pairs}
            self._redis.hset(_KEY, mapping=values)  # type: ignore[arg-type]
        return len(pairs)

    def of(self, pairs: Iterable[Pair]) -> list[StoredVerdict]:
        """Return the verdicts on some pairs of image ids, each sorted."""
        fields = list(map(json.dumps, pairs))
        if not fields:
            return []
        values = cast(list[bytes | None], self._redis.hmget(_KEY, fields))
        return [_parse(field, value) for field, value in zip(fields, values, strict=True) if value is not None]

    def all(self) -> Iterator[StoredVerdict]:
        """Iterate over all verdicts, in no order."""
        for field, value in self._redis.hscan_iter(_KEY, count=_PAGE):
            yield _parse(field, value)

    def page(self, cursor: int) -> tuple[list[StoredVerdict], int]:
        """Return some verdicts, and the cursor of the next ones; 0 begins, and ends."""
        after, found = cast(tuple[int, dict[bytes, bytes]], self._redis.hscan(_KEY, cursor=cursor, count=_PAGE))
        return [_parse(field, value) for field, value in found.items()], int(after)


def _parse(field: str | bytes, value: bytes) -> StoredVerdict:
    one, other = json.loads(field)
    verdict, sha256, other_sha256 = json.loads(value)
    return StoredVerdict((one, other), (sha256, other_sha256), Verdict(verdict))
