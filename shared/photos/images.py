"""Decodes photo files to square pixels, uint8 (S, S, 3); the only decoder in the project.

Training, indexing and queries all use `decode_photo`, so the same bytes give the same pixels wherever they are decoded.
Normalisation by mean and standard deviation is part of the network's graph, not of this module.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image

from shared.errors import PhotoUndecodable
from shared.photos.animation import clear_uncovered, seek_shown_frame, without_hidden_picture
from shared.photos.boxes import Box
from shared.photos.colour import set_colour_codes
from shared.photos.endings import JPEG_END, check_pixels, ended_webp, scale_of_check
from shared.photos.formats import DECODER_ERRORS, open_image
from shared.photos.formats import FORMATS as FORMATS  # noqa: PLC0414 - re-exported beside decode_photo
from shared.photos.limits import DECODED_BYTES, MAX_DECODING_BYTES, MAX_PIXELS, check_size, check_weight, decoding_bytes
from shared.photos.png import prepare_png
from shared.photos.preprocessing import Fit as Fit  # noqa: PLC0414
from shared.photos.preprocessing import PreprocessSpec as PreprocessSpec  # noqa: PLC0414
from shared.photos.resize import Pixels as Pixels  # noqa: PLC0414
from shared.photos.resize import orientation_of, oriented_and_scaled, part_scaled, turned
from shared.photos.structure import check_structure
from shared.photos.tiff import prepare_tiff

# Size of the copy kept of a photo put live, and of augmentation's input: larger than most networks' input, so that a
# later model with another spec has enough pixels.
WORKING_SIDE_PX = 384

_THUMBNAIL_QUALITY = 85


def decode_photo(photo: bytes, spec: PreprocessSpec, *, box: Box | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode one photo, orient it by EXIF, flatten it to sRGB and make it square.

    Args:
        photo: the bytes of one image file; of an animation, the frame of `seek_shown_frame` is used.
        spec: size, and how a photo that is not square is fitted.
        box: the part of the upright photo to take; None takes all of it.
        max_pixels: largest width x height, checked in the header before anything is decoded.

    Returns:
        (size_px, size_px, 3) uint8 RGB.

    Raises:
        UnsupportedFormat: not an image, or a format outside `FORMATS`.
        PhotoTooLarge: more pixels, longer sides or a more extreme aspect than allowed, or too much memory needed.
        PhotoUndecodable: empty, truncated or corrupt.
        InvalidRequest: `box` has too few pixels.
    """
    return render(open_photo(photo, max_pixels=max_pixels), spec, box)


def open_photo(
    photo: bytes, *, max_pixels: int = MAX_PIXELS, max_decoding_bytes: int = MAX_DECODING_BYTES
) -> Image.Image:
    """Open a photo and check its header; nothing is decoded yet, but for animations and JPEGs without an end.

    Raises:
        PhotoTooHeavy: decoding would need more than `max_decoding_bytes`, but not more than MAX_DECODING_BYTES.
        UnsupportedFormat, PhotoTooLarge, PhotoUndecodable: as `decode_photo`.
    """
    photo = ended_webp(photo)
    scans = check_structure(photo, max_pixels, max_decoding_bytes)
    lacks_end = scans is not None and not scans.ends
    photo = without_hidden_picture(photo)
    image = open_image(photo + JPEG_END if lacks_end else photo)
    prepare_tiff(image)
    check_size(*image.size, max_pixels)
    try:
        n_bytes = decoding_bytes(image, scans.n_scans if scans else 1)
    except DECODER_ERRORS as exc:
        raise PhotoUndecodable("the photo's header is damaged") from exc
    if scans and lacks_end:
        n_pixels = image.width * image.height
        n_bytes += DECODED_BYTES * n_pixels // scale_of_check(scans, n_pixels) ** 2
    check_weight(image.size, str(image.format), n_bytes, max_decoding_bytes)
    if scans and lacks_end:
        check_pixels(photo, scans)
    seek_shown_frame(image, photo)
    clear_uncovered(image)
    set_colour_codes(image, photo)
    prepare_png(image, photo)
    return image


def render(
    image: Image.Image,
    spec: PreprocessSpec,
    box: Box | None = None,
    *,
    max_decoding_bytes: int = MAX_DECODING_BYTES,
) -> Pixels:
    """Decode an opened photo, or a part of it, and make it square: (size_px, size_px, 3) uint8 RGB, as `decode_photo`.

    Raises:
        PhotoUndecodable: truncated or corrupt.
        PhotoTooHeavy, PhotoTooLarge, InvalidRequest: of a part; see `shared.photos.resize.part_scaled`.
    """
    if box is None:
        oriented = _decoded(image, spec.size_px, spec.fit)
    else:
        with _damage_named(image):
            oriented = part_scaled(image, box, spec.size_px, spec.fit, max_decoding_bytes=max_decoding_bytes)
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


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened photo in pixels, once it is upright; nothing is decoded."""
    return turned(image.size, orientation_of(image))


def _encoded(image: Image.Image, image_format: str, **options: int) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _decoded(image: Image.Image, size_px: int, fit: Fit = "letterbox") -> Image.Image:
    with _damage_named(image):
        return oriented_and_scaled(image, size_px, fit)


@contextmanager
def _damage_named(image: Image.Image) -> Iterator[None]:
    try:
        yield
    except DECODER_ERRORS as exc:
        raise PhotoUndecodable(f"the {image.format} file is damaged or cut short") from exc
