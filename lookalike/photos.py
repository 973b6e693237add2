"""Photos as callers have them -> the bytes that are sent. Decodes nothing; knows no HTTP."""

from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lookalike.errors import PhotoUnreadable


@runtime_checkable
class Readable(Protocol):
    """A file opened in binary mode, or whatever reads like one."""

    def read(self) -> bytes: ...


@runtime_checkable
class Picture(Protocol):
    """A PIL image, without importing PIL."""

    @property
    def mode(self) -> str: ...

    def getexif(self) -> Any: ...

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None: ...


Photo = str | PathLike[str] | bytes | bytearray | memoryview | Readable | Picture


def read_photo(photo: Photo) -> bytes:
    """The bytes of an image file.

    Raises:
        PhotoUnreadable: there is no such file, or it cannot be read; or a picture that no file format takes.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | PathLike):
        return _read_file(fspath(photo))
    if isinstance(photo, Picture):
        return _encode(photo)
    if isinstance(photo, Readable):
        try:
            content: object = photo.read()
        except (OSError, ValueError) as exc:  # ValueError: it is closed
            raise PhotoUnreadable(f"the photo's file cannot be read: {exc}") from exc
        if not isinstance(content, bytes):
            raise PhotoUnreadable(f"reading the photo gave {type(content).__name__}, not bytes; open it with mode 'rb'")
        return content
    raise PhotoUnreadable(f"a photo is a path, bytes, a binary file or a PIL image, not {type(photo).__name__}")


def lasting(photo: Photo, content: bytes) -> Photo:
    """What can be read again: the photo itself, or of an open file, which has been read to its end, the content."""
    return content if isinstance(photo, Readable) and not isinstance(photo, Picture) else photo


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
    """JPEG of a quality that changes no answer noticeably; PNG where JPEG would lose transparency or depth."""
    buffer = BytesIO()
    turned = picture.getexif()  # the service turns photos upright by it
    try:
        if picture.mode in ("RGB", "L", "CMYK", "YCbCr"):
            picture.save(buffer, "JPEG", quality=95, subsampling=0, exif=turned)
        else:
            picture.save(buffer, "PNG", exif=turned)
    except (OSError, ValueError) as exc:
        raise PhotoUnreadable(f"a picture of mode {picture.mode} cannot be sent ({exc}); convert it to RGB") from exc
    return buffer.getvalue()
