"""Receives request bodies and decodes their photos. An unusable photo is answered with 4xx and never becomes a job.

A body is received whole before it is parsed, on disk if it is long: a slow client costs a socket and a file.
"""

import hashlib
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

import gevent
from flask import Request, g, request
from gevent.pool import Pool
from werkzeug import formparser
from werkzeug.datastructures import Headers
from werkzeug.sansio.multipart import MultipartDecoder

from api.uploads.decoder_pool import DecoderPool
from shared.errors import (
    BodyIncomplete,
    ImageMissing,
    InvalidRequest,
    LengthRequired,
    LookalikeError,
    RequestTimeout,
)
from shared.photos.images import PreprocessSpec

FIELD = "image"

BODY_WITHIN_S = 60
_LARGE_BODY_BYTES_PER_S = 1 << 20  # a hundred MiB may take a hundred seconds
_IN_MEMORY_BYTES = 128 << 10
_CHUNK_BYTES = 64 << 10
_MAX_TEXT = 64 << 10


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded upload.

    Attributes:
        pixels: `spec.n_bytes` bytes of RGB, followed by the working copy of a photo that is to be kept.
        spec: the preprocessing that made the pixels.
        sha256: digest of the file as it was sent, in hexadecimal; it does not depend on the preprocessing.
    """

    pixels: bytes
    spec: PreprocessSpec
    sha256: str


class PhotoReader:
    """Reads the photos of uploads, and has them decoded in other processes.

    Args:
        n_threads: number of photos decoded at the same time.
        max_pixels: number of pixels of the largest photo accepted.
    """

    def __init__(self, *, n_threads: int, max_pixels: int) -> None:
        self._n_threads = n_threads
        self._decoders = DecoderPool(n_threads, max_pixels=max_pixels)

    def read(self, upload: Request, spec: PreprocessSpec, *, keep: bool = False) -> Photo:
        """Read and decode the photo of an upload.

        Args:
            upload: a multipart request.
            spec: preprocessing of the model that serves.
            keep: append a working copy of the photo, which is stored with the index.

        Raises:
            InputError: the upload has no photo, or one that cannot be decoded; see its subclasses.
            QueueFull: too many photos wait to be decoded.
        """
        return self._decode(_photo_part(upload), spec, keep=keep)

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

    def decode_all(self, photos: list[IO[bytes]], spec: PreprocessSpec) -> list[Photo | LookalikeError]:
        """Decode many photos in parallel.

        Args:
            photos: their files.
            spec: preprocessing of the model that serves.

        Returns:
            For each photo, in their order, the decoded photo or the error that says why it cannot be decoded.
        """

        def decode(photo: IO[bytes]) -> Photo | LookalikeError:
            try:
                return self._decode(photo, spec)
            except LookalikeError as error:
                return error

        decoded: list[Photo | LookalikeError] = Pool(self._n_threads).map(decode, photos)
        return decoded

    def _decode(self, photo: IO[bytes], spec: PreprocessSpec, *, keep: bool = False) -> Photo:
        pixels = self._decoders.decode(photo, spec, keep=keep)
        photo.seek(0)
        return Photo(pixels, spec, hashlib.file_digest(photo, "sha256").hexdigest())  # type: ignore[arg-type]


class _LenientDecoder(MultipartDecoder):
    """Accepts file names in any encoding; for Werkzeug a form with a name that is not UTF-8 would be empty."""

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        return super()._parse_headers(data.decode(errors="replace").encode())


def accept_file_names_in_any_encoding() -> None:
    """Make Werkzeug parse forms with `_LenientDecoder`. It has no setting for it, so its module is patched."""
    formparser.MultipartDecoder = _LenientDecoder  # type: ignore[attr-defined]


class SpooledRequest(Request):
    """A request that keeps uploaded files over 128 KiB on disk; Werkzeug would keep up to 500 kB of each in memory."""

    def _get_file_stream(self, *_: object, **__: object) -> IO[bytes]:
        return SpooledTemporaryFile(_IN_MEMORY_BYTES)


def _photo_part(upload: Request) -> IO[bytes]:
    """The file of the multipart field `image`."""
    if upload.mimetype != "multipart/form-data":
        raise ImageMissing(f"send the photo as multipart/form-data, in a field named {FIELD!r}")
    parts = upload.files.getlist(FIELD)
    if sum(len(text) for texts in upload.form.listvalues() for text in texts) > _MAX_TEXT:
        raise InvalidRequest(f"the form has more than {_MAX_TEXT} characters of text; send the photo as a file")
    if len(parts) > 1:
        raise InvalidRequest(f"{len(parts)} parts are named {FIELD!r}; send one photo a request")
    if parts:
        photo: IO[bytes] = parts[0].stream
        return photo
    if FIELD in upload.form:
        raise ImageMissing(f"the field {FIELD!r} is text; send it as a file")
    raise ImageMissing(f"the multipart field {FIELD!r} is required")


class _Body:
    """The body of a request as a file, received whole on the first read.

    Attributes:
        missing_bytes: bytes that have not been received yet.
    """

    def __init__(self, incoming: IO[bytes], n_bytes: int) -> None:
        self._incoming = incoming
        self._received: IO[bytes] | None = None
        self.missing_bytes = n_bytes

    def read(self, size: int = -1) -> bytes:
        return self._whole().read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._whole().readline(size)

    def discard(self, within_s: float, at_most_bytes: int) -> None:
        """Read and discard what the client still sends, within a limit of time and bytes."""
        left = min(self.missing_bytes, at_most_bytes)
        with gevent.Timeout(within_s, False):
            while left > 0 and (chunk := self._incoming.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)

    def close(self) -> None:
        if self._received:
            self._received.close()

    def _whole(self) -> IO[bytes]:
        if self._received is None:
            self._received = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
            within_s = max(BODY_WITHIN_S, self.missing_bytes / _LARGE_BODY_BYTES_PER_S)
            late = RequestTimeout(f"the body did not arrive within {within_s:.0f} s; send it again")
            with gevent.Timeout(within_s, late):
                while self.missing_bytes and (chunk := self._incoming.read(min(self.missing_bytes, _CHUNK_BYTES))):
                    self._received.write(chunk)
                    self.missing_bytes -= len(chunk)
            require_whole()
            self._received.seek(0)
        return self._received


def spool_body() -> None:
    """Replace the body of the current request with a `_Body`; runs before every request.

    Raises:
        LengthRequired: the body has no Content-Length. Without it a body that is too large could not be refused before
            it is received, nor one that is cut short be recognised.
    """
    if request.method in ("POST", "PUT", "PATCH", "DELETE"):
        # Neither a length nor an encoding means no body, as in `curl -X POST`.
        if request.content_length is None and "Transfer-Encoding" in request.headers:
            raise LengthRequired("send a Content-Length header")
        g.body = request.environ["wsgi.input"] = _Body(request.environ["wsgi.input"], request.content_length or 0)


def require_whole() -> None:
    """Check that the body has as many bytes as its Content-Length says. Call it after the body was parsed.

    Raises:
        BodyIncomplete: bytes are missing.
    """
    if g.body.missing_bytes:
        raise BodyIncomplete(f"{g.body.missing_bytes} bytes of {request.content_length} are missing; send it again")


def discard_body(_: BaseException | None) -> None:
    """Close the file with the body of the current request; runs after every request."""
    if body := g.get("body"):
        body.close()
