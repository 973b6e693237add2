"""Letterbox, crop, stretch: each makes a square of a photo of whatever shape, orientation and mode, and as it says."""

import numpy as np
import pytest
from PIL import Image

from shared.photos.images import Fit, Pixels, PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image
from tests.unit.photos.test_images import STORED, distance

WIDE = noise_image(1, (300, 200))
FITS: tuple[Fit, ...] = ("letterbox", "crop", "stretch")


def decode(photo: bytes, fit: Fit, size_px: int = 160) -> Pixels:
    return decode_photo(photo, PreprocessSpec(size_px=size_px, fit=fit))


def resized(image: Image.Image, size_px: int = 160) -> Pixels:
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC))


def test_a_crop_is_the_middle_square_and_a_stretch_the_whole() -> None:
    photo = encode(WIDE, "PNG")
    assert (decode(photo, "crop") == resized(WIDE.crop((50, 0, 250, 200)))).all()
    assert (decode(photo, "stretch") == resized(WIDE)).all()
    upright = encode(WIDE.transpose(Image.Transpose.ROTATE_90), "PNG")
    assert (decode(upright, "crop") == resized(WIDE.transpose(Image.Transpose.ROTATE_90).crop((0, 50, 200, 250)))).all()


def test_of_a_square_photo_every_fit_makes_the_same() -> None:
    photo = encode(noise_image(2, (240, 240)), quality=80)
    one, two, three = (decode(photo, fit) for fit in FITS)
    assert (one == two).all()
    assert (one == three).all()


# As with letterboxed photos: lossy formats at high quality stay within two grey levels.
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(fit: Fit, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = WIDE.transpose(STORED[orientation]) if orientation > 1 else WIDE
    assert distance(decode(encode(stored, quality=95, exif=exif), fit), decode(encode(WIDE, "PNG"), fit)) < 2


# A JPEG is decoded smaller than it is; of the side that counts, twice the target must be left.
@pytest.mark.parametrize("fit", FITS)
def test_a_jpeg_decoded_at_a_fraction_looks_like_its_full_twin(fit: Fit) -> None:
    fine = Image.fromarray(np.random.default_rng(3).integers(0, 256, (700, 2900, 3), dtype=np.uint8))
    assert distance(decode(encode(fine, quality=95), fit), decode(encode(fine, "PNG"), fit)) < 4


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 150), (3000, 20), (5, 4)])
def test_tiny_and_long_photos_become_squares(fit: Fit, size: tuple[int, int]) -> None:
    for image_format in ("PNG", "JPEG"):
        assert decode(encode(noise_image(4, size), image_format), fit, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_all_of_a_photo_shows_where_nothing_is_cut(fit: Fit) -> None:
    ends = Image.new("RGB", (800, 200), (0, 0, 255))
    ends.paste((255, 0, 0), (0, 0, 100, 200))
    ends.paste((0, 255, 0), (700, 0, 800, 200))
    middle = decode(encode(ends, "PNG"), fit)[80]
    assert (middle[3].argmax(), middle[-4].argmax()) == (0, 1)
    assert (decode(encode(ends, "PNG"), "crop").argmax(axis=2) == 2).all()


def test_bars_have_the_grey_that_is_asked_for() -> None:
    spec = PreprocessSpec(size_px=96, fill=128)
    pixels = decode_photo(encode(WIDE), spec)
    assert (pixels[:10] == 128).all()
    assert str(spec) == "letterbox 96 px on grey 128"
    assert len(pixels.tobytes()) == spec.n_bytes
