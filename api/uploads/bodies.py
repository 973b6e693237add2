"""Receives request bodies and decodes their photos. An unusable photo is answered with 4xx and never becomes a job.

A body is received whole before it is parsed, on disk if it is long: a slow client costs a socket and a file.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

import gevent
from flask import Request, g, request
from gevent.pool import Pool
from gunicorn.http.errors import NoMoreData, ParseException

from api.uploads.decoder_pool import DecoderPool
from shared.cores import n_cores
from shared.errors import (
    BodyIncomplete,
    ImageMissing,
    InputError,
    InvalidRequest,
    LengthRequired,
    LookalikeError,
    RequestTimeout,
    UploadTooLarge,
)
from shared.jobs.contract import Priority
from shared.photos.boxes import Box
from shared.photos.images import PreprocessSpec

FIELD = "image"
MAX_QUERY_PHOTOS = 10

BODY_WITHIN_S = 60
_LARGE_BODY_BYTES_PER_S = 1 << 20  # a hundred MiB may take a hundred seconds
_IN_MEMORY_BYTES = 128 << 10
_CHUNK_BYTES = 64 << 10
_MAX_TEXT = 64 << 10


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded upload: one photo, or the several of one query.

    Attributes:
        pixels: `spec.n_bytes` bytes of RGB for each photo, followed by the working copy of one that is to be kept.
        spec: the preprocessing that made the pixels.
        files: as they were sent; closed with the request.
    """

    pixels: bytes
    spec: PreprocessSpec
    files: tuple[IO[bytes], ...]

    @property
    def sha256(self) -> str:
        """Digest of the file as it was sent, in hexadecimal, whatever the preprocessing; of several: that of theirs."""
        digests = []
        for file in self.files:
            file.seek(0)
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


class PhotoReader:
    """Reads the photos of uploads, and has them decoded in other processes.

    Args:
        n_threads: number of photos decoded at the same time; 0: one for four cores, 2 to 4, which is as many as one API
            can read in and pass on.
        max_pixels: number of pixels of the largest photo accepted.
    """

    def __init__(self, *, n_threads: int, max_pixels: int) -> None:
        self._n_threads = n_threads or min(4, max(2, n_cores() // 4))
        self._decoders = DecoderPool(self._n_threads, max_pixels=max_pixels)

    def read(
        self,
        upload: Request,
        spec: PreprocessSpec,
        *,
        keep: bool = False,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Photo:
        """Read and decode the one photo of an upload.

        Args:
            upload: a multipart request.
            spec: preprocessing of the model that serves.
            keep: append a working copy of the photo, which is stored with the index.
            priority: of the job; no interactive photo waits behind bulk ones that wait for a decoder.

        Raises:
            InputError: the upload has no photo, several, or one that cannot be decoded; see its subclasses.
            QueueFull: too many photos wait to be decoded.
        """
        return self._decode(_photo_parts(upload, at_most=1)[0], spec, keep=keep, priority=priority)

    def read_query(
        self,
        upload: Request,
        spec: PreprocessSpec,
        *,
        box: Box | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Photo:
        """Read and decode the photos of an upload that are one query, `MAX_QUERY_PHOTOS` at most.

        Args:
            upload, spec, priority: as of `read`.
            box: the part of the upright photo to take, of a single one; None takes all of it.

        Raises:
            InputError, QueueFull: as of `read`, or too few pixels in `box`; of several photos, the error says which one
                cannot be used.
        """
        parts = _photo_parts(upload, at_most=MAX_QUERY_PHOTOS)
        if len(parts) == 1:
            return self._decode(parts[0], spec, box=box, priority=priority)
        if box is not None:
            raise InvalidRequest(f"box: it is a part of one photo, and {len(parts)} were sent; send one")
        photos = []
        for number, photo in enumerate(self.decode_all(parts, spec, priority), start=1):
            if isinstance(photo, InputError):
                raise type(photo)(f"photo {number} of {len(parts)}: {photo}")
            if isinstance(photo, LookalikeError):
                raise photo
            photos.append(photo)
        files = tuple(file for photo in photos for file in photo.files)
        return Photo(b"".join(photo.pixels for photo in photos), spec, files)

    def thumbnail(self, photo: IO[bytes], size_px: int) -> bytes:
        """Make a thumbnail of a stored photo.

        Args:
            photo: its file.
            size_px: pixels of the longer side at most.

        Returns:
            A JPEG file.

        Raises:
            InputError, QueueFull: as of `read`.
        """
        return self._decoders.thumbnail(photo, size_px)

    def size(self, photo: Photo) -> tuple[int, int]:
        """Width and height in pixels of a photo that was read, once it is upright; raises as `read`."""
        return self._decoders.size(photo.files[0])

    def decode_all(
        self, photos: list[IO[bytes]], spec: PreprocessSpec, priority: Priority
    ) -> list[Photo | LookalikeError]:
        """Decode many photos in parallel.

        Args:
            photos: their files.
            spec: preprocessing of the model that serves.
            priority: as of `read`.

        Returns:
            For each photo, in their order, the decoded photo or the error that says why it cannot be decoded.
        """

        def decode(photo: IO[bytes]) -> Photo | LookalikeError:
            try:
                return self._decode(photo, spec, priority=priority)
            except LookalikeError as error:
                return error

        decoded: list[Photo | LookalikeError] = Pool(self._n_threads).map(decode, photos)
        return decoded

    def _decode(
        self,
        photo: IO[bytes],
        spec: PreprocessSpec,
        *,
        box: Box | None = None,
        keep: bool = False,
        priority: Priority,
    ) -> Photo:
        return Photo(self._decoders.decode(photo, spec, box=box, keep=keep, priority=priority), spec, (photo,))


class SpooledRequest(Request):
    """A request that keeps uploaded files over 128 KiB on disk; Werkzeug would keep up to 500 kB of each in memory."""

    @property
    def stream(self) -> IO[bytes]:
        """The body, which has its limit already; Werkzeug would refuse one of exactly that many bytes.

        Raises:
            UploadTooLarge: it says that it is larger than the limit.
        """
        body: IO[bytes] = self.environ["wsgi.input"]
        if not isinstance(body, _Body):
            return super().stream
        if (self.content_length or 0) > (limit := self.max_content_length or 0):
            raise too_large(limit)
        return body

    def _get_file_stream(self, *_: object, **__: object) -> IO[bytes]:
        return SpooledTemporaryFile(_IN_MEMORY_BYTES)


def _photo_parts(upload: Request, *, at_most: int) -> list[IO[bytes]]:
    """The files of the multipart field `image`, one at least."""
    named = [name for name in ("text", "image_id", "listing_id") if name in upload.form]
    without_photo = f"; without a photo, send {named[0]} as JSON" if named else ""
    if upload.mimetype != "multipart/form-data":
        raise ImageMissing(f"send the photo as multipart/form-data, in a field named {FIELD!r}{without_photo}")
    parts = upload.files.getlist(FIELD)
    if sum(len(text) for texts in upload.form.listvalues() for text in texts) > _MAX_TEXT:
        raise InvalidRequest(
            f"the form has more than {_MAX_TEXT} characters of text; send the photo as a file, with a filename"
        )
    if len(parts) > at_most:
        most = "one photo" if at_most == 1 else f"{at_most} photos at most"
        raise InvalidRequest(f"{len(parts)} parts are named {FIELD!r}; send {most} a request")
    if parts:
        return [part.stream for part in parts]
    if FIELD in upload.form:
        raise ImageMissing(f"the field {FIELD!r} is text; send it as a file, with a filename")
    raise ImageMissing(f"the multipart field {FIELD!r} is required{_why_missing(upload)}{without_photo}")


def _why_missing(upload: Request) -> str:
    """What a form without a photo shows of how it was sent; empty where it shows nothing."""
    if encoded := encoding_of_body():
        return encoded
    if "boundary" not in upload.mimetype_params:
        return "; the Content-Type names no boundary: leave that header to your HTTP library"
    if upload.files:
        return f"; a file was sent in a field named {next(iter(upload.files))[:100]!r}"
    if not upload.form and body_size():
        return "; no part was found: the body must begin and end with the boundary that the Content-Type names"
    return ""


def encoding_of_body() -> str:
    """The end of a sentence about a body that cannot be read, if it is compressed; else empty."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    return (
        ""
        if encoding in ("", "identity")
        else f"; Content-Encoding {encoding[:100]} is not undone: send the body as it is"
    )


class _Body:
    """The body of a request as a file, received whole on the first read.

    Args:
        incoming: what the server received; it raises when a chunked body is cut short.
        n_bytes: the Content-Length; None for a chunked body, whose end the server tells.
    """

    def __init__(self, incoming: IO[bytes], n_bytes: int | None) -> None:
        self._incoming = incoming
        self._n_bytes = n_bytes
        self._n_received = 0
        self._received: IO[bytes] | None = None
        self._failed: LookalikeError | None = None

    @property
    def problem(self) -> LookalikeError | None:
        """Why what was received is not the whole body; None if it is."""
        if self._failed or self._n_bytes is None or self._n_bytes == self._n_received:
            return self._failed
        return self._missing()

    def read(self, size: int = -1) -> bytes:
        return self._whole().read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._whole().readline(size)

    def size(self) -> int:
        """Number of bytes of the body; a chunked one is received for that."""
        if self._n_bytes is None:
            self._whole()
            return self._n_received
        return self._n_bytes

    def discard(self, within_s: float, at_most_bytes: int) -> None:
        """Read and discard what the client still sends, within a limit of time and bytes."""
        left = at_most_bytes if self._n_bytes is None else min(self._n_bytes - self._n_received, at_most_bytes)
        with gevent.Timeout(within_s, False), suppress(ParseException):
            while left > 0 and (chunk := self._incoming.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)

    def close(self) -> None:
        if self._received:
            self._received.close()

    def _whole(self) -> IO[bytes]:
        # After a failure the server's reader may report an end that is none, so nothing is read from it again.
        if self._failed:
            raise self._failed
        if self._received is None:
            self._received = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
            self._failed = BodyIncomplete("the body was not received to its end; send it again")
            try:
                self._receive(self._received)
            except LookalikeError as exc:
                self._failed = exc
                raise
            self._failed = None
            self._received.seek(0)
        return self._received

    def _receive(self, file: IO[bytes]) -> None:
        at_most = request.max_content_length or 0
        expected = at_most if self._n_bytes is None else self._n_bytes
        within_s = max(BODY_WITHIN_S, expected / _LARGE_BODY_BYTES_PER_S)
        late = RequestTimeout(f"the body did not arrive within {within_s:.0f} s; send it again")
        # One byte more than a chunked body may have shows that it has too many.
        end = at_most + 1 if self._n_bytes is None else self._n_bytes
        with gevent.Timeout(within_s, late):
            try:
                while self._n_received < end and (
                    chunk := self._incoming.read(min(end - self._n_received, _CHUNK_BYTES))
                ):
                    file.write(chunk)
                    self._n_received += len(chunk)
            except (NoMoreData, ParseException) as exc:
                raise BodyIncomplete("the chunked body was cut short or is malformed; send it again") from exc
        if self._n_bytes is None and self._n_received > at_most:
            raise too_large(at_most)
        if self._n_bytes is not None and self._n_received < self._n_bytes:
            raise self._missing()

    def _missing(self) -> BodyIncomplete:
        missing = (self._n_bytes or 0) - self._n_received
        return BodyIncomplete(f"{missing} bytes of {self._n_bytes} are missing; send it again")


def too_large(limit: int) -> UploadTooLarge:
    """Make the error about a body of more than `limit` bytes."""
    return UploadTooLarge(f"the request is larger than {limit >> 20} MiB; send a smaller photo, or fewer")


def spool_body() -> None:
    """Replace the body of the current request with a `_Body`; runs before every request.

    Raises:
        LengthRequired: the body has no Content-Length, and the server does not tell where a chunked one ends; so one
            that is cut short could not be recognised.
    """
    if request.method in ("POST", "PUT", "PATCH", "DELETE"):
        # Neither a length nor an encoding means no body, as in `curl -X POST`.
        n_bytes = request.content_length or 0
        is_chunked = request.content_length is None and "Transfer-Encoding" in request.headers
        if is_chunked and not request.environ.get("wsgi.input_terminated"):
            raise LengthRequired("send a Content-Length header")
        g.body = request.environ["wsgi.input"] = _Body(request.environ["wsgi.input"], None if is_chunked else n_bytes)


def body_size() -> int:
    """Number of bytes of the current request's body; a chunked one is received for that."""
    n_bytes: int = g.body.size()
    return n_bytes


def require_whole() -> None:
    """Check that the body arrived to its end. Call it after the body was parsed.

    Raises:
        BodyIncomplete: bytes are missing.
        LookalikeError: what else ended its reception.
    """
    if problem := g.body.problem:
        raise problem


def discard_body(_: BaseException | None) -> None:
    """Close the file with the body of the current request; runs after every request."""
    if body := g.get("body"):
        body.close()
