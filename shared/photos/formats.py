"""The formats that photos may have: opens a file with the decoder of its format, and names what is refused."""

import struct
import zlib
from importlib.util import find_spec
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from shared.errors import PhotoUndecodable, UnsupportedFormat
from shared.photos.foreign import name_of, raw_name, unread_tiff

# MPO, the two-picture JPEG of stereo and depth cameras, is opened by Pillow's JPEG plugin.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# Its wheels hold code under the GPL: who does not want them removes the package, and HEIC is refused by name.
READS_HEIC = find_spec("pillow_heif") is not None
if READS_HEIC:
    from pillow_heif import register_heif_opener

    FORMATS += ("HEIF",)
    # One thread: decoders run side by side. Only the photo itself: neither previews nor depth and gain maps.
    register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)

# Whatever a damaged file makes Pillow's plugins raise. MemoryError too: a forged header can ask for any size.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, AssertionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip

_XMP = ("xmp", "XML:com.adobe.xmp")


def open_image(photo: bytes) -> Image.Image:
    """Open a photo with the decoder of its format, which reads its header.

    Raises:
        PhotoUndecodable: empty or damaged.
        UnsupportedFormat: another format, which is named where it is known.
    """
    if not photo:
        raise PhotoUndecodable("the photo is empty (0 bytes)")
    if raw := raw_name(photo):
        raise unsupported(raw)
    # Pillow would only warn between one and two times its own limit; ours is always checked, in the header.
    Image.MAX_IMAGE_PIXELS = None
    Image.init()  # registers every plugin once; `formats` may only name registered ones
    try:
        return Image.open(BytesIO(photo), formats=FORMATS)
    except DECODER_ERRORS as exc:  # UnidentifiedImageError is an OSError
        if unread := unread_tiff(photo):
            raise unsupported(unread) from exc
        claimed = _sniff(photo)
        if claimed == "HEIC" and not READS_HEIC:
            raise unsupported("HEIC") from exc
        if claimed:
            raise PhotoUndecodable(f"the {claimed} file is damaged or cut short") from exc
        if isinstance(exc, UnidentifiedImageError):
            raise unsupported(name_of(photo)) from exc
        raise PhotoUndecodable("the photo's header is damaged") from exc


def forget_xmp(image: Image.Image) -> None:
    """Drop a photo's XMP: Pillow takes the orientation from there where EXIF has none, and no browser does.

    Tools that turn the pixels and drop EXIF leave it behind.
    """
    for name in _XMP:
        image.info.pop(name, None)


def unsupported(found: str | None) -> UnsupportedFormat:
    """Make the error for a file that is not read: `found` says what it is, None that it is not known."""
    what = f"{found} is not read" if found else "not a photo we can read"
    return UnsupportedFormat(f"{what}; send one of {', '.join(FORMATS)}")


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
    if photo[4:8] == b"ftyp" and photo[8:11] in (b"hei", b"mif"):
        return "HEIC"
    return next((name for signature, name in signatures.items() if photo.startswith(signature)), None)
