"""Multipart -> letterboxed pixels. A bad photo is a 4xx here and never becomes a job."""

from flask import Request
from gevent.threadpool import ThreadPool

from shared.errors import ImageMissing, InputError, InvalidRequest
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

    def read(self, request: Request, spec: PreprocessSpec) -> bytes:
        """The upload as size_px * size_px * 3 bytes of RGB.

        Raises:
            InputError: one of its kinds for every way an upload can be wrong.
        """
        photo = _photo_bytes(request)
        pixels: bytes | InputError = self._pool.apply(_decode, (photo, spec, self._max_pixels))
        if isinstance(pixels, InputError):
            raise pixels
        return pixels


def _decode(photo: bytes, spec: PreprocessSpec, max_pixels: int) -> bytes | InputError:
    """Returns its errors: gevent's pool would print the stack of a raised one."""
    try:
        return decode_photo(photo, spec, max_pixels=max_pixels).tobytes()
    except InputError as error:
        return error


def _photo_bytes(request: Request) -> bytes:
    if request.mimetype != "multipart/form-data":
        raise ImageMissing(f"send the photo as multipart/form-data, in a field named {FIELD!r}")
    parts = request.files.getlist(FIELD)
    if len(parts) > 1:
        raise InvalidRequest(f"{len(parts)} parts are named {FIELD!r}; send one photo a request")
    if parts:
        photo: bytes = parts[0].read()
        return photo
    if FIELD in request.form:
        raise ImageMissing(f"the field {FIELD!r} is text; send it as a file")
    raise ImageMissing(f"the multipart field {FIELD!r} is required")
