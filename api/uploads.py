"""Multipart -> letterboxed pixels. A bad photo is a 4xx here and never becomes a job."""

from functools import partial
from typing import IO

from flask import Request, g, request
from gevent.threadpool import ThreadPool

from shared.errors import BodyIncomplete, ImageMissing, InputError, InvalidRequest, LengthRequired
from shared.images import PreprocessSpec, decode_photo

FIELD = "image"


class PhotoReader:
    """Decodes uploads in a bounded number of real threads, so that a large photo holds up no other request.

    Args:
        n_threads: photos decoded at the same time.
        max_pixels: largest photo taken.
    """

    def __init__(self, *, n_threads: int, max_pixels: int) -> None:
        self._pool = ThreadPool(n_threads)
        self._max_pixels = max_pixels

    def read(self, upload: Request, spec: PreprocessSpec) -> bytes:
        """The upload as size_px * size_px * 3 bytes of RGB.

        Raises:
            InputError: one of its kinds for every way an upload can be wrong.
        """
        photo = _photo_bytes(upload)
        pixels: bytes | InputError = self._pool.apply(_decode, (photo, spec, self._max_pixels))
        if isinstance(pixels, InputError):
            raise pixels
        return pixels

    def decode_all(self, photos: list[bytes], spec: PreprocessSpec) -> list[bytes | InputError]:
        """Many photos at once; what is wrong with one stands in its place."""
        decode = partial(_decode, spec=spec, max_pixels=self._max_pixels)
        decoded: list[bytes | InputError] = self._pool.map(decode, photos)
        return decoded


def _decode(photo: bytes, spec: PreprocessSpec, max_pixels: int) -> bytes | InputError:
    """Returns its errors: gevent's pool would print the stack of a raised one."""
    try:
        return decode_photo(photo, spec, max_pixels=max_pixels).tobytes()
    except InputError as error:
        return error


def _photo_bytes(upload: Request) -> bytes:
    if upload.mimetype != "multipart/form-data":
        raise ImageMissing(f"send the photo as multipart/form-data, in a field named {FIELD!r}")
    parts = upload.files.getlist(FIELD)
    require_whole()  # a part that is missing because the connection broke is not the caller's mistake
    if len(parts) > 1:
        raise InvalidRequest(f"{len(parts)} parts are named {FIELD!r}; send one photo a request")
    if parts:
        photo: bytes = parts[0].read()
        return photo
    if FIELD in upload.form:
        raise ImageMissing(f"the field {FIELD!r} is text; send it as a file")
    raise ImageMissing(f"the multipart field {FIELD!r} is required")


class _Counted:
    """The request's body, counting what was read of it."""

    def __init__(self, body: IO[bytes]) -> None:
        self._body = body
        self.n_bytes = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._body.read(size)
        self.n_bytes += len(chunk)
        return chunk

    def readline(self, size: int = -1) -> bytes:
        chunk = self._body.readline(size)
        self.n_bytes += len(chunk)
        return chunk


def require_length() -> None:
    """A body of unstated length could neither be refused for its size in time nor be known to be whole."""
    if request.method in ("POST", "PUT", "PATCH"):
        # Neither a length nor an encoding means no body, as in `curl -X POST`.
        if request.content_length is None and "Transfer-Encoding" in request.headers:
            raise LengthRequired("send a Content-Length header")
        g.body = request.environ["wsgi.input"] = _Counted(request.environ["wsgi.input"])


def require_whole() -> None:
    """Refuse a body that ended before its Content-Length; call it when the body has been parsed."""
    if g.body.n_bytes < (request.content_length or 0):
        raise BodyIncomplete(f"{g.body.n_bytes} of {request.content_length} bytes arrived; send it again")
