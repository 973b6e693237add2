"""A part of a photo: its pixels are those of a file that holds only the part, whatever format and orientation."""

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydantic import TypeAdapter, ValidationError

from shared.errors import InvalidRequest, PhotoTooHeavy, PhotoTooLarge
from shared.photos.boxes import Box, BoxOption
from shared.photos.images import Fit, Pixels, PreprocessSpec, decode_photo, open_photo, render
from tests.conftest import encode, noise_image
from tests.unit.photos.test_fits import FITS
from tests.unit.photos.test_images import STORED, distance

BOX = Box(0.1, 0.25, 0.5, 0.6)
SPEC = PreprocessSpec(size_px=64)
OPTION: TypeAdapter[Box] = TypeAdapter(BoxOption)


def stored(image: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """What a camera writes that was held so, and its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return (image.transpose(STORED[orientation]) if orientation > 1 else image), exif


def part_of(photo: bytes, box: Box = BOX) -> bytes:
    """A lossless file of the part, cut by Pillow out of the upright photo."""
    upright = ImageOps.exif_transpose(Image.open(BytesIO(photo)))
    width, height = upright.size
    edges = (box.x * width, box.y * height, (box.x + box.w) * width, (box.y + box.h) * height)
    part = upright.crop(tuple(map(round, edges)))  # type: ignore[arg-type]
    for name in ("exif", "xmp", "XML:com.adobe.xmp"):  # the part is upright
        part.info.pop(name, None)
    return encode(part, "PNG")


def decoded(photo: bytes, fit: Fit = "letterbox", box: Box | None = BOX, size_px: int = 64) -> Pixels:
    return decode_photo(photo, PreprocessSpec(size_px=size_px, fit=fit), box=box)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_has_the_pixels_of_a_file_of_the_part_in_every_orientation(orientation: int, image_format: str) -> None:
    image, exif = stored(noise_image(1, (301, 203)), orientation)
    photo = encode(image, image_format, exif=exif)
    assert (decoded(photo, size_px=128) == decoded(part_of(photo), box=None, size_px=128)).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_is_fitted_as_a_photo_is(orientation: int, fit: Fit) -> None:
    image, exif = stored(noise_image(2, (601, 403)), orientation)
    photo = encode(image, "PNG", exif=exif)
    assert (decoded(photo, fit) == decoded(part_of(photo), fit, None)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "I;16", "CMYK"])
def test_a_part_of_an_odd_mode_has_the_pixels_of_a_file_of_the_part(mode: str) -> None:
    plain = noise_image(3, (300, 200))
    image = {
        "I;16": lambda: Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257),
        "P": lambda: plain.quantize(64),
    }.get(mode, lambda: plain.convert(mode))()
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    part = image.crop((30, 50, 180, 170))
    assert (decoded(encode(image, image_format)) == decoded(encode(part, image_format), box=None)).all()


@cache
def fine_photo() -> tuple[Image.Image, bytes]:
    """Noise of single pixels, and a file of its part."""
    fine = Image.fromarray(np.random.default_rng(3).integers(0, 256, (900, 1400, 3), dtype=np.uint8))
    return fine, part_of(encode(fine, "PNG"))


# A JPEG is decoded at 1/2 or 1/4 where twice the target is left of the part: then it has the pixels of a part that was
# cut out of that, and those of the full one within what another filter does to noise of single pixels.
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_of_a_jpeg_decoded_at_a_fraction_looks_like_that_of_its_full_twin(orientation: int, fit: Fit) -> None:
    fine, part = fine_photo()
    image, exif = stored(fine, orientation)
    photo = encode(image, quality=95, exif=exif)
    assert distance(decoded(photo, fit), decoded(part, fit, None)) < 4


@pytest.mark.parametrize(("side", "decoded_at"), [(1.0, (200, 150)), (0.5, (400, 300)), (0.4, (800, 600))])
def test_a_jpeg_is_decoded_at_a_fraction_that_leaves_the_part_twice_its_pixels(
    side: float, decoded_at: tuple[int, int]
) -> None:
    image = open_photo(encode(noise_image(4, (800, 600)), quality=95))
    render(image, PreprocessSpec(size_px=96), Box(0, 0, side, side))
    assert image.size == decoded_at


def test_a_part_with_too_few_pixels_is_refused_with_its_size() -> None:
    photo = encode(noise_image(5, (100, 80)))
    assert decoded(photo, box=Box(0.5, 0.5, 0.16, 0.2)).any()
    with pytest.raises(InvalidRequest, match="box: it has 15x16 px of the photo's 100x80"):
        decoded(photo, box=Box(0.5, 0.5, 0.15, 0.2))


def test_the_pixels_of_a_large_jpegs_part_are_counted_before_it_is_decoded_smaller() -> None:
    photo = encode(Image.new("RGB", (4000, 100)))
    assert not decoded(photo, box=Box(0, 0, 1, 0.16)).any()
    with pytest.raises(InvalidRequest, match="4000x15 px"):
        decoded(photo, box=Box(0, 0, 1, 0.15))


def test_a_part_counts_towards_the_memory_that_decoding_may_take() -> None:
    photo = encode(Image.new("RGB", (4000, 3000)), "PNG", compress_level=1)
    with pytest.raises(PhotoTooHeavy):
        render(open_photo(photo), SPEC, Box(0, 0, 1, 1), max_decoding_bytes=48 << 20)
    assert not render(open_photo(photo), SPEC, Box(0, 0, 0.2, 0.2), max_decoding_bytes=48 << 20).any()
    jpeg = encode(Image.new("L", (4000, 3000)))
    assert not render(open_photo(jpeg), SPEC, Box(0, 0, 0.05, 0.05), max_decoding_bytes=48 << 20).any()
    progressive = open_photo(encode(Image.new("RGB", (4000, 3000)), progressive=True))
    with pytest.raises(PhotoTooHeavy):
        render(progressive, SPEC, Box(0, 0, 0.05, 0.05), max_decoding_bytes=48 << 20)
    with pytest.raises(PhotoTooLarge, match="smaller copy"):
        decoded(encode(Image.new("L", (8000, 7000)), "PNG", compress_level=1), box=Box(0, 0, 1, 1))


@pytest.mark.parametrize("given", ["0,0,1,1", "0.1,0.2,0.5,0.6", "0.7,0.5,0.3000001,0.5", [0.1, 0.2, 0.5, 0.6]])
def test_a_box_is_four_numbers_inside_the_photo(given: Any) -> None:
    box = OPTION.validate_python(given)
    assert OPTION.validate_json(OPTION.dump_json(box)) == box
    left, upper, right, lower = box.pixels(100, 50)
    assert 0 <= left < right <= 100
    assert 0 <= upper < lower <= 50


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "four numbers"),
        ("0,0,1", "four numbers"),
        ("0,0,1,1,1", "four numbers"),
        ("0,0,1,1\n", "four numbers"),
        ("-0.1,0,1,1", "four numbers"),
        ("0,0,1.5,1", "four numbers"),
        ("0,0,nan,1", "four numbers"),
        ("0,0,1e0,1", "four numbers"),
        ("a", "four numbers"),
        ([0, 0, float("nan"), 1], "four numbers"),
        ("0,0,0,1", "more than 0"),
        ("0.5,0,0.6,1", "beyond the photo"),
        ("0,0.5,1,0.51", "beyond the photo"),
    ],
)
def test_what_is_no_box_is_refused_in_words(given: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        OPTION.validate_python(given)
