"""Read photos, in the forms in which callers have them, into the bytes that are sent. Decodes nothing."""

from collections.abc import Sequence
from io import BytesIO
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lookalike.errors import InputError, PhotoUnreadable


@runtime_checkable
class Readable(Protocol):
    """A file opened in binary mode, or an object with its `read` method."""

    def read(self) -> bytes:
        """Read the rest of the file."""
        ...


@runtime_checkable
class Picture(Protocol):
    """A PIL image, known by its attributes so that PIL need not be installed."""

    @property
    def mode(self) -> str:
        """Pixel format, as PIL names it."""
        ...

    def getexif(self) -> Any:
        """Return the EXIF data, which holds the orientation."""
        ...

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Encode the image into a file."""
        ...


Photo = str | PathLike[str] | bytes | bytearray | memoryview | Readable | Picture
Photos = Sequence[Photo]  # a list or a tuple


def read_photo(photo: Photo) -> bytes:
    """Read a photo.

    Args:
        photo: a path, bytes, a file opened in binary mode, or a PIL image.

    Returns:
        The content of an image file; a PIL image is encoded as JPEG or PNG.

    Raises:
        PhotoUnreadable: there is no such file, it cannot be read, or the image has a mode that cannot be encoded.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | PathLike):
        return _read_file(fsdecode(photo))
    if isinstance(photo, Picture):
        return _encode(photo)
    if isinstance(photo, Readable):
        try:
            content: object = photo.read()
        except Exception as exc:  # of whatever the caller's object reads from
            raise PhotoUnreadable(f"the photo's file cannot be read: {exc or type(exc).__name__}") from exc
        if not isinstance(content, bytes):
            raise PhotoUnreadable(f"reading the photo gave {type(content).__name__}, not bytes; open it with mode 'rb'")
        if not content and _is_past_its_start(photo):
            raise PhotoUnreadable("the photo's file is at its end, so nothing is left to read; call its seek(0) first")
        return content
    raise PhotoUnreadable(f"a photo is a path, bytes, a binary file or a PIL image, not {type(photo).__name__}")


def read_photos(photos: Sequence[Photo]) -> list[bytes]:
    """Read the photos of one query.

    Args:
        photos: as of `read_photo`, one at least.

    Raises:
        PhotoUnreadable: as of `read_photo`; of several photos the message says which one.
        InputError: there is none.
    """
    if not photos:
        raise InputError("photo: the list is empty; give one photo at least")
    contents = []
    for number, photo in enumerate(photos, start=1):
        try:
            contents.append(read_photo(photo))
        except PhotoUnreadable as exc:
            if len(photos) == 1:
                raise
            raise PhotoUnreadable(f"photo {number} of {len(photos)}: {exc.detail}") from exc
    return contents


def rereadable(photo: Photo, content: bytes) -> Photo:
    """Return a form of the photo that can be read again.

    Args:
        photo: as the caller gave it.
        content: what `read_photo` returned for it.

    Returns:
        The content for an open file, which is at its end now; else the photo itself.
    """
    return content if isinstance(photo, Readable) and not isinstance(photo, Picture) else photo


def _is_past_its_start(file: object) -> bool:
    try:
        return bool(file.tell() > 0)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError, TypeError):  # it has no position
        return False


def _read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as exc:
        if path.startswith(("http://", "https://")):
            raise PhotoUnreadable(f"{path[:200]} is an address: fetch the photo and pass its bytes") from exc
        raise PhotoUnreadable(
            f"there is no file {path[:200]!r}; a photo of the index is named by image_id=, not by the first argument"
        ) from exc
    except (OSError, ValueError) as exc:  # ValueError: a zero byte in the path
        raise PhotoUnreadable(f"{path[:200]!r} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc


def _encode(picture: Picture) -> bytes:
    """Encode as JPEG, of a quality that does not change results; as PNG where JPEG would lose transparency or depth."""
    buffer = BytesIO()
    try:
        exif = picture.getexif()  # holds the orientation, by which the service turns the photo upright
        if picture.mode in ("RGB", "L", "CMYK", "YCbCr"):
            picture.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
        else:
            picture.save(buffer, "PNG", exif=exif)
    except Exception as exc:  # PIL's plugins raise what they like for a closed or damaged file
        raise PhotoUnreadable(f"a picture of mode {picture.mode} cannot be sent ({exc}); convert it to RGB") from exc
    return buffer.getvalue()
