"""The change log in Redis: photos put into and deleted from the live index since it was built, in order of effect.

It is a write-ahead log, kept as a stream, because every worker reads all of it at its own position. A reindex compacts
its entries into the next snapshot; only then are they truncated.

Keys (prefix `lookalike:`):
    changes           stream; no TTL: the only copy of these changes until a reindex has compacted them
    changes:count     entries ever written, which numbers them; no TTL: one number
    changes:sequence  the sequence number given last; no TTL: one number
    changed           hash image id -> its newest entry; no TTL: truncated with the log, once no late job needs it
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import redis

from shared.errors import JobCanceled
from shared.jobs.contract import Job
from shared.jobs.records import PREFIX
from shared.lua import load_script
from shared.redis_clock import RedisClock

BEGINNING = "0-0"  # before the first entry
_LOG = PREFIX + "changes"
_NEWEST = PREFIX + "changed"
_PAGE = 500

_FOLDER = Path(__file__).parent
_SEQUENCE = load_script(_FOLDER / "next_sequence.lua", flags=("allow-oom",))
_APPEND = load_script(_FOLDER / "append.lua")  # without allow-oom: what is written there stays
_FORGET = load_script(_FOLDER / "forget.lua", flags=("allow-oom",))


@dataclass(frozen=True, slots=True)
class PutPhoto:
    """A photo put into the live index.

    Attributes:
        listing_id: the listing it belongs to.
        category: position in the categories of the model that made `vector`.
        sha256: of its file, see `shared.artifacts.home.live_photo`.
        fingerprint: of the model that made `vector` and `scores`.
        vector: (dim,) float32, L2 norm 1.
        scores: (n_categories,) float32, before softmax.
        payload: the attributes as JSON, see `shared.attributes.schema.as_payload`.
    """

    listing_id: str
    category: int
    sha256: str
    fingerprint: str
    vector: npt.NDArray[np.float32] = field(compare=False)
    scores: npt.NDArray[np.float32] = field(compare=False)
    payload: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log: an image was put or deleted."""

    entry_id: str
    image_id: str
    sequence: int  # given when the change was accepted; increases from entry to entry of one image
    photo: PutPhoto | None  # None: the image was deleted


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest change of one image."""

    entry_id: str
    sha256: str | None  # None: it was deleted


class ChangeLog:
    """Reads and writes the change log.

        log = ChangeLog(connect(settings.required_redis_url))
        for change in log.read(index.applied_to): ...

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        job_ttl_s: lifetime of a job, and so the longest that a change may arrive after it was accepted.
        clock: returns seconds since the epoch; None: Redis's own clock.
    """

    def __init__(
        self, client: redis.Redis, *, job_ttl_s: int = 86_400, clock: Callable[[], float] | None = None
    ) -> None:
        self._redis = client
        self._job_ttl_s = job_ttl_s
        self._clock = clock or RedisClock(client)
        self._next = client.register_script(_SEQUENCE)
        self._append = client.register_script(_APPEND)
        self._forget = client.register_script(_FORGET)

    def next_sequence(self) -> int:
        """Draw the sequence number of a change that is being accepted, higher than all before."""
        return int(cast(bytes, self._next(keys=[PREFIX])))

    def append(self, job: Job, image_id: str, sequence: int, photo: PutPhoto | None) -> str | None:
        """Append the change that a job makes; idempotent, so that a job that runs twice appends once.

        Args:
            job: the claimed job.
            image_id: of the image that is put or deleted.
            sequence: of the change, from `next_sequence`.
            photo: that is put; None: the image is deleted.

        Returns:
            the entry's id; None when the log has a change of the image that was accepted later.

        Raises:
            JobCanceled: the attempt no longer holds the job, or the job was cancelled; nothing is written.
        """
        fields: tuple[str | int | bytes, ...] = ()
        if photo:
            fields = ("listing_id", photo.listing_id, "category", photo.category, "sha256", photo.sha256)
            fields += ("fingerprint", photo.fingerprint, "vector", _raw(photo.vector), "scores", _raw(photo.scores))
            if photo.payload:
                fields += ("attributes", photo.payload)
        held = (job.id, job.attempt, image_id, sequence, photo.sha256 if photo else "-")
        entry = cast(bytes | None, self._append(keys=[PREFIX], args=[*held, *fields]))
        if entry is None:
            raise JobCanceled("cancelled before the change was written")
        return entry.decode() or None

    def read(self, after: str = BEGINNING) -> Iterator[Change]:
        """Iterate over the entries after `after`, a page at a time, up to the end of the log at that time."""
        while page := cast(list[_Entry], self._redis.xrange(_LOG, min=f"({after}", count=_PAGE)):
            yield from map(_parse, page)
            after = page[-1][0].decode()

    def wait(self, after: str, timeout_s: float) -> list[Change]:
        """Wait for entries after `after`, for `timeout_s` at most; returns none on timeout."""
        answer = self._redis.xread({_LOG: after}, count=_PAGE, block=max(1, int(timeout_s * 1000)))
        return [_parse(entry) for _, entries in cast(list[tuple[bytes, list[_Entry]]], answer) for entry in entries]

    def end(self) -> str:
        """Id of the last entry ever written, truncated or not; of a log that nobody has written to, BEGINNING."""
        if not self._redis.exists(_LOG):
            return BEGINNING
        about = cast(Mapping[str, bytes], self._redis.xinfo_stream(_LOG))
        return about["last-generated-id"].decode()

    def count_after(self, after: str) -> int:
        """Count the entries after `after`, without reading them."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.xrange(_LOG, after, after)
            pipe.xrevrange(_LOG, count=1)
            pipe.xlen(_LOG)
            here, last, length = pipe.execute()
        if not here:  # `after` is BEGINNING, or was truncated with all before it
            return int(length)
        return int(last[0][1][b"number"]) - int(here[0][1][b"number"])

    def newest(self, image_id: str) -> Newest | None:
        """Return the newest change of an image, which may be compacted already; None when none is remembered."""
        raw = cast(bytes | None, self._redis.hget(_NEWEST, image_id))
        if raw is None:
            return None
        entry_id, _, sha256, *_ = raw.decode().split()
        return Newest(entry_id, None if sha256 == "-" else sha256)

    def photos(self) -> set[str]:
        """Return the SHA-256 of every photo in the newest entry of some image: files that must be kept."""
        newest = (raw.decode().split()[2] for raw in cast(list[bytes], self._redis.hvals(_NEWEST)))
        return {sha256 for sha256 in newest if sha256 != "-"}

    def truncate(self, up_to: str) -> int:
        """Delete the entries up to `up_to`, which the caller has made sure are compacted; returns how many."""
        milliseconds, number = entry_order(up_to)
        # An image's newest entry is remembered as long as a job whose change was accepted before it may still run.
        outlived = min(milliseconds, int((self._clock() - self._job_ttl_s) * 1000))
        cursor: bytes = b"0"
        while (cursor := cast(bytes, self._forget(keys=[PREFIX], args=[cursor, outlived]))) != b"0":
            pass
        return int(self._redis.xtrim(_LOG, minid=f"{milliseconds}-{number + 1}", approximate=False))


def entry_order(entry_id: str) -> tuple[int, int]:
    """Sort key of an entry id: (milliseconds, number)."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


_Entry = tuple[bytes, Mapping[bytes, bytes]]


def _parse(entry: _Entry) -> Change:
    entry_id, fields = entry
    photo = None
    if b"sha256" in fields:
        photo = PutPhoto(
            listing_id=fields[b"listing_id"].decode(),
            category=int(fields[b"category"]),
            sha256=fields[b"sha256"].decode(),
            fingerprint=fields[b"fingerprint"].decode(),
            vector=np.frombuffer(fields[b"vector"], dtype="<f4"),
            scores=np.frombuffer(fields[b"scores"], dtype="<f4"),
            payload=fields.get(b"attributes", b"").decode(),
        )
    return Change(entry_id.decode(), fields[b"image_id"].decode(), int(fields[b"sequence"]), photo)


def _raw(numbers: npt.NDArray[np.float32]) -> bytes:
    return numbers.astype("<f4").tobytes()
