"""The formats that photos may have: opens a file with the decoder of its format, and names what is refused."""

import struct
import zlib
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from shared.errors import PhotoUndecodable, UnsupportedFormat

# MPO, the two-picture JPEG of stereo and depth cameras, is opened by Pillow's JPEG plugin.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# Whatever a damaged file makes Pillow's plugins raise. MemoryError too: a forged header can ask for any size.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, AssertionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


def open_image(photo: bytes) -> Image.Image:
    if not photo:
        raise PhotoUndecodable("the photo is empty (0 bytes)")
    # Pillow would only warn between one and two times its own limit; ours is always checked, in the header.
    Image.MAX_IMAGE_PIXELS = None
    Image.init()  # registers every plugin once; `formats` may only name registered ones
    try:
        return Image.open(BytesIO(photo), formats=FORMATS)
    except UnidentifiedImageError as exc:
        if claimed := _sniff(photo):
            raise PhotoUndecodable(f"the {claimed} file is damaged or cut short") from exc
        if photo[4:8] == b"ftyp":
            raise UnsupportedFormat("HEIC and other video-like containers are not read; export it as JPEG") from exc
        raise UnsupportedFormat(f"not a photo we can read; send one of {', '.join(FORMATS)}") from exc
    except DECODER_ERRORS as exc:
        raise PhotoUndecodable("the photo's header is damaged") from exc


def _sniff(photo: bytes) -> str | None:
    """Name the allowed format whose signature the bytes begin with, if any."""
    signatures = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG": "PNG",
        b"GIF87a": "GIF",
        b"GIF89a": "GIF",
        b"BM": "BMP",
        b"II*\x00": "TIFF",
        b"MM\x00*": "TIFF",
    }
    if photo[:4] == b"RIFF" and photo[8:12] == b"WEBP":
        return "WEBP"
    if photo[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return next((name for signature, name in signatures.items() if photo.startswith(signature)), None)
