"""Live changes in the worker: carries out those its jobs ask for, and follows everybody's. Knows no search."""

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO
from math import isqrt

import numpy as np
import redis
from PIL import Image

from shared.array_types import FloatArray
from shared.artifacts.home import indexed_photo, keep_live_photo, live_photo
from shared.attributes.schema import as_payload
from shared.changes.log import Change, ChangeLog, PutPhoto
from shared.errors import ImageNotFound, QueueUnavailable
from shared.exhaustion import raise_exhaustion
from shared.jobs.answers_contract import EmbedResult
from shared.jobs.contract import (
    DeleteImageRequest,
    EmbedRequest,
    Encoding,
    ImageChangeResult,
    PutImageRequest,
)
from shared.jobs.dispatcher import broker_errors
from shared.jobs.duplicates_contract import DuplicateOf
from shared.jobs.records import Claim
from shared.settings import Settings
from shared.telemetry import event
from worker.jobs.leases import Lease
from worker.jobs.retries import while_redis_is_away
from worker.serving.engine import Engine

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0  # how long a look at the log waits for something new; an entry ends it at once

DuplicatesOf = Callable[[PutImageRequest, PutPhoto, bytes], list[DuplicateOf] | None]


class ChangeWriter:
    """Runs jobs that change an image: the photo is kept on disk first, then the change is written to the log.

    Args:
        duplicates: tells what a photo that is put duplicates.
    """

    def __init__(self, log: ChangeLog, engine: Engine, settings: Settings, duplicates: DuplicatesOf) -> None:
        self._log = log
        self._engine = engine
        self._settings = settings
        self._duplicates_of = duplicates

    def run(self, claim: Claim, lease: Lease) -> ImageChangeResult:
        """Carry out a job, once however often it is run.

        Raises:
            PhotoExpired: its photo outlived its time.
            ImageNotFound: it brings no photo, and the index has none of that id, or its file is gone.
            JobCanceled, CancelledError: nobody wants it any more.
            InvalidRequest: the model has no such category.
            ArtifactUnwritable: there is no room for the photo.
        """
        request = claim.job.request
        assert isinstance(request, PutImageRequest | DeleteImageRequest)
        photo, duplicates = None, None
        if isinstance(request, PutImageRequest):
            put, file = self._said_anew(request) if request.without_photo else self._put(request, claim, lease)
            photo, duplicates = put, self._duplicates_of(request, put, file)
        append = partial(self._log.append, claim.job, request.image_id, request.sequence, photo)
        change_id = while_redis_is_away(append)
        if self._engine.ready:
            # Searches of this worker see it before the job ends; without Redis its follower of the log does it later.
            with suppress(QueueUnavailable):
                self._engine.live.log.apply(read_changes(self._log, self._engine.live.log.applied_to))
        return ImageChangeResult(image_id=request.image_id, change_id=change_id, duplicates=duplicates)

    def _put(self, request: PutImageRequest, claim: Claim, lease: Lease) -> tuple[PutPhoto, bytes]:
        """Keep the photo; returns it as the log has it, and its file."""
        n_bytes = claim.job.spec.n_bytes
        pixels, copy = (claim.pixels[:n_bytes], claim.pixels[n_bytes:]) if claim.pixels else (None, None)
        embedded = self._engine.run(
            EmbedRequest(encoding=Encoding.BASE64),
            pixels,
            spec=claim.job.spec,
            priority=claim.job.submission.priority,
            owner=claim.job.owner,
            unwanted=lease.unwanted,
        )
        assert isinstance(embedded, EmbedResult)
        assert isinstance(embedded.embedding, str)
        assert pixels is not None  # or it would not have been embedded
        file = copy or as_png(pixels)
        vector = np.frombuffer(base64.b64decode(embedded.embedding), dtype="<f4")
        scores = np.array(embedded.scores, dtype=np.float32)
        return self._kept(request, file, embedded.model_fingerprint, vector, scores), file

    def _said_anew(self, request: PutImageRequest) -> tuple[PutPhoto, bytes]:
        """Take the photo of that id with the embedding that it has; returns it as the log has it, and its file."""
        index = self._engine.live.answering(None).index
        photo = index.photo_of(request.image_id)
        if photo is None:
            raise ImageNotFound("the live index has no photo of that id; send the photo itself")
        embeddings = index.stored(request.image_id)
        storage = self._settings.storage
        path = (
            indexed_photo(self._settings, photo.path, photo.sha256) if photo.path else live_photo(storage, photo.sha256)
        )
        try:
            file = path.read_bytes()
        except OSError as exc:
            raise_exhaustion(exc)
            raise ImageNotFound("the file of that photo cannot be read any more; send the photo itself") from exc
        fingerprint = index.manifest.fingerprint
        return self._kept(request, file, fingerprint, embeddings.vectors[0], embeddings.scores[0]), file

    def _kept(
        self, request: PutImageRequest, file: bytes, fingerprint: str, vector: FloatArray, scores: FloatArray
    ) -> PutPhoto:
        """Keep the file; returns the photo as the log has it."""
        return PutPhoto(
            listing_id=request.listing_id,
            category=self._engine.categories.position(request.category),
            sha256=keep_live_photo(self._settings.storage, file),
            fingerprint=fingerprint,
            vector=vector,
            scores=scores,
            payload=as_payload(request.attributes or {}),
        )


def as_png(pixels: bytes) -> bytes:
    """The pixels of a square photo as a file: what there is of one that came without its working copy."""
    side = isqrt(len(pixels) // 3)
    file = BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
    return file.getvalue()


def read_changes(log: ChangeLog, after: str) -> Iterator[Change]:
    """The log from there on.

    Raises:
        QueueUnavailable: Redis does not answer.
    """
    with broker_errors():
        yield from log.read(after)


class ChangeFollower(threading.Thread):
    """Lets the engine's searches see each change as soon as it is written, until stopped.

    Args:
        log: on a connection of its own, which waits.
    """

    def __init__(self, log: ChangeLog, engine: Engine) -> None:
        super().__init__(name="changes", daemon=True)
        self._log = log
        self._engine = engine
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                applied_to = self._engine.live.log.applied_to
                self._engine.live.follow_lost_log(self._log.end(), applied_to)
                self._engine.live.log.apply(self._log.wait(self._engine.live.log.applied_to, _LOOK_S))
            except redis.RedisError as exc:
                event(_LOG, "changes_unreachable", level=logging.WARNING, reason=type(exc).__name__)
                self._stopping.wait(_LOOK_S)
            except Exception:  # without this thread the worker would answer from an index that stands still
                _LOG.exception("event=change_not_applied")
                self._stopping.wait(_LOOK_S)

    def stop(self) -> None:
        """End the thread after the look it is at."""
        self._stopping.set()
        self.join(timeout=_LOOK_S + 3)
