"""Scales decoded photos, flattens them to RGB and turns them upright, with few copies of a large photo in memory."""

from math import ceil
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.photos.boxes import Box
from shared.photos.colour import to_srgb
from shared.photos.formats import DECODER_ERRORS, forget_xmp
from shared.photos.limits import DECODED_BYTES, MAX_DECODING_BYTES, check_weight, decoding_bytes
from shared.photos.preprocessing import Fit

Pixels: TypeAlias = npt.NDArray[np.uint8]

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

# Orientations with rows and columns exchanged, and those whose left edge is the stored photo's right one, or its upper
# the lower one, once they are exchanged back.
_SIDEWAYS = frozenset({5, 6, 7, 8})
_FROM_THE_RIGHT = frozenset({2, 3, 7, 8})
_FROM_BELOW = frozenset({3, 4, 6, 7})

_DRAFTED = frozenset({"JPEG", "MPO"})
N = TypeVar("N", int, float)

_BAND_PIXELS = 1 << 20
_PREMULTIPLIED = {"LA": "La", "RGBA": "RGBa"}
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}
_RESIZABLE_MODES = frozenset({"L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"})


def oriented_and_scaled(image: Image.Image, size_px: int, fit: Fit) -> Image.Image:
    """Scale to `_scaled_size`, flatten to RGB, convert to sRGB and apply the EXIF orientation.

    Scaling comes first, so that everything after it touches few pixels; it commutes with flips and right angles.
    """
    # JPEG can decode at 1/2, 1/4 or 1/8; twice the target keeps the final filter in charge of quality.
    image.draft(None, _scaled_size(image.size, 2 * size_px, fit))
    image.load()
    flat = _scaled(image, size_px, fit)
    turn = _TURNS.get(orientation_of(image))
    return flat if turn is None else flat.transpose(turn)


def part_scaled(
    image: Image.Image, box: Box, size_px: int, fit: Fit, *, max_decoding_bytes: int = MAX_DECODING_BYTES
) -> Image.Image:
    """Cut a part out of an opened photo, which is closed, and scale it as `oriented_and_scaled` scales a photo.

    The part is turned upright before it is scaled, so that its pixels are those of a file that holds only the part. Of
    a JPEG so large that twice the target is left of the part, it is cut out at 1/2, 1/4 or 1/8.

    Raises:
        PhotoTooHeavy: photo and part need more memory than `max_decoding_bytes`.
        PhotoTooLarge: they need more than any decoder may take.
        InvalidRequest: the part has too few pixels.
    """
    return _scaled(_cut_out(image, box, size_px, fit, max_decoding_bytes), size_px, fit)


def _cut_out(image: Image.Image, box: Box, size_px: int, fit: Fit, max_decoding_bytes: int) -> Image.Image:
    """Decode an opened photo as far as it is needed for a part, and cut that out, upright."""
    full = image.size
    several = bool(image.info.get("progressive"))
    n_bytes = decoding_bytes(image, 2 if several else 1)
    if image.format in _DRAFTED:
        image.draft(None, _draft_size(image, box, size_px, fit))
        n_bytes = several * n_bytes + DECODED_BYTES * image.width * image.height  # of one scan, nothing else is kept
    n_bytes += ceil(DECODED_BYTES * image.width * image.height * box.w * box.h)
    check_weight(full, str(image.format), n_bytes, max_decoding_bytes)
    image.load()
    orientation = orientation_of(image)
    box.require_pixels(*turned(full, orientation))
    part = image.crop(_stored(box.pixels(*turned(image.size, orientation)), image.size, orientation))
    image.close()  # frees its pixels: from here on only the part takes memory
    turn = _TURNS.get(orientation)
    return part if turn is None else part.transpose(turn)


def _draft_size(image: Image.Image, box: Box, size_px: int, fit: Fit) -> tuple[int, int]:
    """Smallest width and height to decode all of a JPEG at, so that twice the target is left of the part."""
    across, down = turned((box.w, box.h), orientation_of(image))
    wanted = _scaled_size((across * image.width, down * image.height), 2 * size_px, fit)
    return ceil(wanted[0] / across), ceil(wanted[1] / down)


def turned(size: tuple[N, N], orientation: int) -> tuple[N, N]:
    """Width and height of a stored photo once it is upright, and the other way round."""
    return size if orientation not in _SIDEWAYS else (size[1], size[0])


def _stored(edges: tuple[int, int, int, int], size: tuple[int, int], orientation: int) -> tuple[int, int, int, int]:
    """The edges in the stored photo of a box of the upright one.

    Args:
        edges: left, upper, right, lower of the upright photo.
        size: of the stored one.
    """
    left, upper, right, lower = edges
    if orientation in _SIDEWAYS:
        left, upper, right, lower = upper, left, lower, right
    if orientation in _FROM_THE_RIGHT:
        left, right = size[0] - right, size[0] - left
    if orientation in _FROM_BELOW:
        upper, lower = size[1] - lower, size[1] - upper
    return left, upper, right, lower


def _scaled(image: Image.Image, size_px: int, fit: Fit) -> Image.Image:
    """Scale a decoded image, flatten it to RGB and convert it to sRGB."""
    mode, info = image.mode, image.info
    if fit == "crop":
        image = image.crop(_middle_square(*image.size))
    if image.mode in ("I", "F"):  # the stretch to eight bits looks at all of it, and takes twelve bytes a pixel
        image = image.reduce(_factors(image.size, 2 * size_px, fit))
    elif max(factors := _factors(image.size, 3 * size_px, fit)) > 1 and not _resizes_lean(image):
        image = _reduced_in_bands(image, factors)
    small = resized(to_eight_bit(image), _scaled_size(image.size, size_px, fit))
    return to_srgb(small if small.mode == "CMYK" else flatten(small), mode, info)


def _scaled_size(size: tuple[float, float], size_px: int, fit: Fit) -> tuple[int, int]:
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


def to_eight_bit(image: Image.Image) -> Image.Image:
    """Convert every mode to one that `resize` filters correctly; `convert` alone would clip 16-bit grey."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        grey = _white_highest((levels >> (image.info.get("grey_bits", 16) - 8)).astype(np.uint8), image)
        hidden = image.info.get("transparency")
        if isinstance(hidden, int):
            alpha = Image.fromarray(np.where(levels == hidden, 0, 255).astype(np.uint8))
            return Image.merge("LA", (grey, alpha))
        return grey
    if image.mode in ("I", "F"):
        return _white_highest(_stretched(np.asarray(image)), image)
    if image.mode in ("P", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in _RESIZABLE_MODES:
        return image
    return image.convert("RGB" if image.mode != "1" else "L")


def _white_highest(grey: Pixels, image: Image.Image) -> Image.Image:
    """Make an image of grey levels, inverted if those of `image` are coded so that white is zero."""
    return Image.fromarray(255 - grey if image.info.get("white_is_zero") else grey)


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
        band = to_eight_bit(image.crop((0, top, image.width, min(top + band_px, image.height))))
        # Premultiplied, as `resize` has it: hidden colours do not bleed in.
        bands.append(band.convert(_PREMULTIPLIED.get(band.mode, band.mode)).reduce(factors))
    mode = bands[0].mode
    reduced = Image.new(mode, (bands[0].width, sum(band.height for band in bands)))
    for i, band in enumerate(bands):
        reduced.paste(band, (0, i * bands[0].height))
    return reduced.convert(_STRAIGHT.get(mode, mode))


def resized(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Bicubic with antialiasing; alpha is premultiplied by Pillow, so hidden colours do not bleed in."""
    return image.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)


def flatten(image: Image.Image) -> Image.Image:
    """Convert an image of eight bits to RGB, on white where it is transparent."""
    if image.mode in ("LA", "RGBA"):
        photo = image.convert("RGBA")
        white = Image.new("RGBA", photo.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, photo).convert("RGB")
    return image.convert("RGB")


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation of an opened photo, 1 to 8; of HEIC and TIFF 1, because their decoders turn the photo."""
    if image.format in ("HEIF", "TIFF"):
        return 1
    forget_xmp(image)  # a PNG's that lies behind its pixels
    try:
        return int(image.getexif().get(0x0112, 1))
    except DECODER_ERRORS:
        return 1  # a photo with damaged EXIF is still a photo
