"""Decodes photo files to square pixels, uint8 (S, S, 3); the only decoder in the project.

Training, indexing and queries all use `decode_photo`, so the same bytes give the same pixels wherever they are decoded.
Normalisation by mean and standard deviation is part of the network's graph, not of this module.
"""

import re
import struct
import zlib
from functools import partial
from io import BytesIO
from operator import mul
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from shared.errors import PhotoTooHeavy, PhotoTooLarge, PhotoUndecodable, UnsupportedFormat
from shared.photos.preprocessing import Fit as Fit  # noqa: PLC0414 - re-exported beside decode_photo
from shared.photos.preprocessing import PreprocessSpec as PreprocessSpec  # noqa: PLC0414

Pixels: TypeAlias = npt.NDArray[np.uint8]

# MPO, the two-picture JPEG of stereo and depth cameras, is opened by Pillow's JPEG plugin.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

MAX_PIXELS = 64_000_000
MAX_SIDE_PX = 20_000
MAX_ASPECT = 200
# Estimated memory that decoding one photo may take.
MAX_DECODING_BYTES = 256 << 20
_WEBP_BYTES = 16  # a pixel: two canvases of the animation, the frame, its copy in Pillow
# A progressive JPEG pays a full pass for every scan; real encoders write about ten.
MAX_JPEG_SCANS = 64
# Chunks of a PNG, segments of a JPEG: Pillow reads them in Python. Photos have tens, odd ones thousands.
MAX_PIECES = 20_000
MAX_RLE_BYTES = 1 << 20  # of a BMP, which Pillow unpacks in Python too
# 0xFF followed by anything but stuffing, fill bytes, restarts and TEM, which carry no segment (ITU-T T.81, B.1.1).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"

# Whatever a damaged file makes Pillow's plugins raise. MemoryError too: a forged header can ask for any size.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, AssertionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip

# EXIF orientation -> what turns the stored pixels upright (EXIF 2.32, tag 0x0112).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Size of the copy kept of a photo put live, and of augmentation's input: larger than most networks' input, so that a
# later model with another spec has enough pixels.
WORKING_SIDE_PX = 384

_BAND_PIXELS = 1 << 20
_THUMBNAIL_QUALITY = 85
_PREMULTIPLIED = {"LA": "La", "RGBA": "RGBa"}
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}
_RESIZABLE_MODES = frozenset({"L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"})


def decode_photo(photo: bytes, spec: PreprocessSpec, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode one photo, orient it by EXIF, flatten it to RGB and make it square.

    Args:
        photo: the bytes of one image file; of an animation the first frame is used.
        spec: size, and how a photo that is not square is fitted.
        max_pixels: largest width x height, checked in the header before anything is decoded.

    Returns:
        (size_px, size_px, 3) uint8 RGB.

    Raises:
        UnsupportedFormat: not an image, or a format outside `FORMATS`.
        PhotoTooLarge: more pixels, longer sides or a more extreme aspect than allowed, or too much memory needed.
        PhotoUndecodable: empty, truncated or corrupt.
    """
    return render(open_photo(photo, max_pixels=max_pixels), spec)


def open_photo(
    photo: bytes, *, max_pixels: int = MAX_PIXELS, max_decoding_bytes: int = MAX_DECODING_BYTES
) -> Image.Image:
    """Open a photo and check its header; nothing is decoded yet.

    Raises:
        PhotoTooHeavy: decoding would need more than `max_decoding_bytes`, but not more than MAX_DECODING_BYTES.
        UnsupportedFormat, PhotoTooLarge, PhotoUndecodable: as `decode_photo`.
    """
    n_scans = _check_structure(photo, max_pixels, max_decoding_bytes)
    image = _open(photo)
    _check_size(*image.size, max_pixels)
    try:
        n_bytes = _decoding_bytes(image, n_scans)
    except _DECODER_ERRORS as exc:
        raise PhotoUndecodable("the photo's header is damaged") from exc
    _check_weight(image.size, str(image.format), n_bytes, max_decoding_bytes)
    return image


def render(image: Image.Image, spec: PreprocessSpec) -> Pixels:
    """Decode an opened photo and make it square: (size_px, size_px, 3) uint8 RGB, as `decode_photo`.

    Raises:
        PhotoUndecodable: truncated or corrupt.
    """
    oriented = _decoded(image, spec.size_px, spec.fit)
    canvas = Image.new("RGB", (spec.size_px, spec.size_px), (spec.fill,) * 3)
    canvas.paste(oriented, ((spec.size_px - oriented.width) // 2, (spec.size_px - oriented.height) // 2))
    return np.array(canvas, dtype=np.uint8)


def thumbnail(image: Image.Image, size_px: int) -> bytes:
    """Encode an opened photo as an upright JPEG whose longer side is `size_px` at most.

    Raises:
        PhotoUndecodable: truncated or corrupt.
    """
    return _encoded(upright(image, size_px), "JPEG", quality=_THUMBNAIL_QUALITY)


def working_copy(image: Image.Image) -> bytes:
    """Encode an opened photo as an upright PNG of `WORKING_SIDE_PX`, from which any spec can make pixels later.

    If `render` was called on it before, a JPEG keeps the scale it was decoded at then. Raises as `upright`.
    """
    return _encoded(upright(image, WORKING_SIDE_PX), "PNG")


def upright(image: Image.Image, size_px: int) -> Image.Image:
    """Decode an opened photo to RGB, oriented by EXIF and flattened, whose longer side is `size_px` at most.

    Raises:
        PhotoUndecodable: truncated or corrupt.
    """
    scaled = _decoded(image, min(size_px, max(image.size)))
    canvas = Image.new("RGB", scaled.size)  # a new image, so that the file's metadata is dropped
    canvas.paste(scaled)
    return canvas


def _encoded(image: Image.Image, image_format: str, **options: int) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _decoded(image: Image.Image, size_px: int, fit: Fit = "letterbox") -> Image.Image:
    try:
        return _oriented_and_scaled(image, size_px, fit)
    except _DECODER_ERRORS as exc:
        raise PhotoUndecodable(f"the {image.format} file is damaged or cut short") from exc


def _open(photo: bytes) -> Image.Image:
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
    except _DECODER_ERRORS as exc:
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


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < 1:
        raise PhotoUndecodable(f"the photo has no area ({width}x{height} px)")
    if width * height > max_pixels:
        raise PhotoTooLarge(f"{width}x{height} px exceeds {max_pixels} pixels; send a smaller copy")
    if max(width, height) > MAX_SIDE_PX:
        raise PhotoTooLarge(f"{width}x{height} px has a side longer than {MAX_SIDE_PX} px; send a smaller copy")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PhotoTooLarge(f"{width}x{height} px is more than {MAX_ASPECT} times as long as wide; crop it")


def _check_weight(size: tuple[int, int], image_format: str, n_bytes: int, max_bytes: int) -> None:
    shape = f"{size[0]}x{size[1]} px of {image_format} would need {n_bytes >> 20} MiB to decode"
    if n_bytes > MAX_DECODING_BYTES:
        raise PhotoTooLarge(f"{shape}; send a smaller copy or a plain JPEG")
    if n_bytes > max_bytes:
        raise PhotoTooHeavy(shape)


def _webp_size(photo: bytes) -> tuple[int, int] | None:
    """Width and height as a WebP's first chunk states them (RFC 9649, 2.5 to 2.7)."""
    little = partial(int.from_bytes, byteorder="little")
    match photo[12:16]:
        case b"VP8X":
            return little(photo[24:27]) + 1, little(photo[27:30]) + 1
        case b"VP8L":
            return little(photo[21:25]) % (1 << 14) + 1, (little(photo[21:25]) >> 14) % (1 << 14) + 1
        case b"VP8 ":
            return little(photo[26:28]) % (1 << 14), little(photo[28:30]) % (1 << 14)
    return None


def _decoding_bytes(image: Image.Image, n_scans: int) -> int:
    """Estimate the memory that decoding takes, per pixel and format, from measurements (Pillow 13), rounded up."""
    n_pixels = image.width * image.height
    if image.format == "WEBP":
        return _WEBP_BYTES * n_pixels
    if image.format == "AVIF":
        return 12 * n_pixels
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # Several scans need every coefficient kept, two bytes each; a single one is scaled as it is read.
        across, down = ([component[axis] for component in image.layer] for axis in (1, 2))
        n_coefficients = n_pixels * sum(map(mul, across, down)) // (max(across) * max(down))
        return 2 * n_coefficients if n_scans > 1 else n_pixels // 3
    return 4 * n_pixels + (_largest_block(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0)


def _largest_block(image: TiffImagePlugin.TiffImageFile) -> int:
    """Bytes libtiff unpacks at once: a strip, or a tile, which may be larger than the photo."""
    tags = image.tag_v2
    rows = min(int(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height)), image.height)
    across, down = (int(tags.get(tag, 0)) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
    n_bits = sum(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    return max(image.width * rows, across * down) * max(n_bits, 32) // 8


def _check_structure(photo: bytes, max_pixels: int, max_decoding_bytes: int) -> int:
    """Refuse files that would take much time or memory just to open; returns the number of a JPEG's scans, else 1."""
    if photo.startswith(b"RIFF") and (size := _webp_size(photo)):  # libwebp reserves its canvases
        _check_size(*size, max_pixels)
        _check_weight(size, "WEBP", _WEBP_BYTES * size[0] * size[1], max_decoding_bytes)
    if photo.startswith(b"\x89PNG"):
        _count_png_chunks(photo)
    if photo.startswith(b"BM") and photo[30:31] in (b"\x01", b"\x02") and len(photo) > MAX_RLE_BYTES:
        raise PhotoTooLarge(f"a run-length coded BMP may have {MAX_RLE_BYTES >> 20} MiB; send a PNG or JPEG")
    return _count_jpeg_scans(photo) if photo.startswith(b"\xff\xd8\xff") else 1


def _count_png_chunks(photo: bytes) -> None:
    position = 8
    for _ in range(MAX_PIECES):
        if position >= len(photo):
            return
        position += 12 + int.from_bytes(photo[position : position + 4], "big")
    raise PhotoUndecodable(f"the PNG has more than {MAX_PIECES} chunks; save it again")


def _count_jpeg_scans(photo: bytes) -> int:
    """Count the start-of-scan markers of the first picture; pictures that cameras append behind it do not count."""
    n_scans, position = 0, 2
    for _ in range(MAX_PIECES):
        found = _JPEG_MARKER.search(photo, position)
        if not found or found[0] == _JPEG_END:
            return n_scans
        n_scans += found[0] == _JPEG_SCAN
        if n_scans > MAX_JPEG_SCANS:
            raise PhotoUndecodable(f"the JPEG has more than {MAX_JPEG_SCANS} scans; save it again")
        # A marker's segment begins with its length; the entropy-coded data behind it holds no marker.
        position = found.end() + int.from_bytes(photo[found.end() : found.end() + 2], "big")
    raise PhotoUndecodable(f"the JPEG has more than {MAX_PIECES} segments; save it again")


def _oriented_and_scaled(image: Image.Image, size_px: int, fit: Fit) -> Image.Image:
    """Scale to `_scaled_size`, flatten to RGB and apply the EXIF orientation.

    Scaling comes first, so that everything after it touches few pixels; it commutes with flips and right angles.
    """
    # JPEG can decode at 1/2, 1/4 or 1/8; twice the target keeps the final filter in charge of quality.
    image.draft(None, _scaled_size(image.size, 2 * size_px, fit))
    image.load()
    orientation = _orientation(image)
    if fit == "crop":
        image = image.crop(_middle_square(*image.size))
    if image.mode in ("I", "F"):  # the stretch to eight bits looks at all of it, and takes twelve bytes a pixel
        image = image.reduce(_factors(image.size, 2 * size_px, fit))
    elif max(factors := _factors(image.size, 3 * size_px, fit)) > 1 and not _resizes_lean(image):
        image = _reduced_in_bands(image, factors)
    flat = _flatten(_resized(_eight_bit(image), _scaled_size(image.size, size_px, fit)))
    turn = _TURNS.get(orientation)
    return flat if turn is None else flat.transpose(turn)


def _scaled_size(size: tuple[int, int], size_px: int, fit: Fit) -> tuple[int, int]:
    """Width and height to scale a photo to, so that it fits into a square of `size_px`, or covers it when cropped."""
    if fit == "stretch":
        return size_px, size_px
    scale = size_px / (min(size) if fit == "crop" else max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _middle_square(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _factors(size: tuple[int, int], size_px: int, fit: Fit) -> tuple[int, int]:
    """Integers by which width and height can be divided so that at least `size_px` is left."""
    across, down = size if fit == "stretch" else (max(size), max(size))
    return max(1, across // size_px), max(1, down // size_px)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert every mode to one that `resize` filters correctly; `convert` alone would clip 16-bit grey."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray((levels >> 8).astype(np.uint8))
        hidden = image.info.get("transparency")
        if isinstance(hidden, int):
            alpha = Image.fromarray(np.where(levels == hidden, 0, 255).astype(np.uint8))
            return Image.merge("LA", (grey, alpha))
        return grey
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(image)))
    if image.mode in ("P", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in _RESIZABLE_MODES:
        return image
    return image.convert("RGB" if image.mode != "1" else "L")


def _stretched(levels: npt.NDArray[np.generic]) -> Pixels:
    """Map 32-bit grey to 0..255: by the 16-bit range when it fits into it, else by the photo's own range."""
    values = np.nan_to_num(levels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and levels.dtype.kind == "i" and high <= 65_535:
        low, high = 0.0, (255.0 if high <= 255 else 65_535.0)
    elif low >= 0 and levels.dtype.kind == "f" and high <= 255:
        low, high = 0.0, (1.0 if high <= 1 else 255.0)
    span = (high - low) or 1.0
    return ((values - low) * (255.0 / span) + 0.5).clip(0, 255).astype(np.uint8)


def _resizes_lean(image: Image.Image) -> bool:
    """Whether a large photo can be scaled without a full second copy of it in memory."""
    return image.mode in ("L", "RGB", "CMYK", "YCbCr") and "transparency" not in image.info


def _reduced_in_bands(image: Image.Image, factors: tuple[int, int]) -> Image.Image:
    """Reduce a large photo to eight bits and by `factors`, band by band: copies made by conversions stay small."""
    bands = []
    band_px = factors[1] * max(1, _BAND_PIXELS // (image.width * factors[1]))
    for top in range(0, image.height, band_px):
        band = _eight_bit(image.crop((0, top, image.width, min(top + band_px, image.height))))
        # Premultiplied, as `resize` has it: hidden colours do not bleed in.
        bands.append(band.convert(_PREMULTIPLIED.get(band.mode, band.mode)).reduce(factors))
    mode = bands[0].mode
    reduced = Image.new(mode, (bands[0].width, sum(band.height for band in bands)))
    for i, band in enumerate(bands):
        reduced.paste(band, (0, i * bands[0].height))
    return reduced.convert(_STRAIGHT.get(mode, mode))


def _resized(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Bicubic with antialiasing; alpha is premultiplied by Pillow, so hidden colours do not bleed in."""
    return image.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "RGBA"):
        photo = image.convert("RGBA")
        white = Image.new("RGBA", photo.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, photo).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except _DECODER_ERRORS:
        return 1  # a photo with damaged EXIF is still a photo
