"""The frame that stands for an animation is what viewers show of it."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.errors import PhotoUndecodable
from shared.photos.images import PreprocessSpec, decode_photo, open_photo, render, thumbnail, working_copy
from tests.conftest import encode, noise_image
from tests.unit.photos.test_images import distance

SPEC = PreprocessSpec()
PHOTO = noise_image(2, (120, 90))
OTHER = noise_image(3, (120, 90))
WHITE = Image.new("RGB", PHOTO.size, "white")
# Lossless but for GIF's palette.
FORMATS: dict[str, dict[str, Any]] = {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}}


def animation(frames: list[Image.Image], image_format: str) -> bytes:
    options = FORMATS[image_format]
    return encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=100, **options)


def shows(photo: bytes, image: Image.Image) -> bool:
    return distance(decode_photo(photo, SPEC), decode_photo(encode(image, "PNG"), SPEC)) < 8  # GIF has 256 colours


def faded(share: float) -> Image.Image:
    return Image.blend(WHITE, PHOTO, share)


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_first_frame_stands_for_an_animation(image_format: str) -> None:
    assert shows(animation([PHOTO, OTHER], image_format), PHOTO)
    assert shows(animation([faded(0.3), OTHER], image_format), faded(0.3))


@pytest.mark.parametrize("n_colours", [250, 256])
def test_what_the_first_frame_of_a_gif_leaves_uncovered_shows_white(n_colours: int) -> None:
    few = PHOTO.quantize(n_colours)
    gif = encode(few, "GIF")
    place = b"," + struct.pack("<HHHH", 0, 0, *few.size)
    assert gif.count(place) == 1
    larger = gif[:6] + struct.pack("<HH", 240, 180) + gif[10:]
    shown = Image.new("RGB", (240, 180), "white")
    shown.paste(few.convert("RGB"), (100, 60))
    photo = larger.replace(place, b"," + struct.pack("<HHHH", 100, 60, *few.size))
    assert distance(decode_photo(photo, SPEC), decode_photo(encode(shown, "PNG"), SPEC)) < 2
    with pytest.raises(PhotoUndecodable):
        decode_photo(photo[: len(photo) // 2], SPEC)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("blank", ["white", "black", "#804020"])
def test_an_animation_that_fades_in_is_its_first_frame_of_nearly_full_contrast(image_format: str, blank: str) -> None:
    frames = [Image.new("RGB", PHOTO.size, blank), faded(0.2), faded(0.5), PHOTO, PHOTO.rotate(180)]
    assert shows(animation(frames, image_format), PHOTO)


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_animation_of_nothing_but_blank_frames_is_blank(image_format: str) -> None:
    frames = [Image.new("RGB", PHOTO.size, colour) for colour in ("white", "red", "blue")]
    assert shows(animation(frames, image_format), WHITE)


def test_later_frames_are_looked_for_within_bounds() -> None:
    late = [Image.new("RGB", PHOTO.size, (i, 0, 0)) for i in range(40)]
    assert not shows(animation([*late, PHOTO], "GIF"), PHOTO)
    large = Image.new("RGB", (1500, 1400), "white")
    assert shows(animation([large, PHOTO.resize(large.size)], "GIF"), large)


def test_damage_behind_the_first_frame_leaves_it_in_use() -> None:
    photo = animation([WHITE, PHOTO], "GIF")
    assert shows(photo[: len(photo) // 2], WHITE)
    assert shows(photo[: len(photo) - 200], WHITE)


def test_search_thumbnail_and_working_copy_show_the_same_frame() -> None:
    image = open_photo(animation([WHITE, PHOTO], "GIF"))
    pixels = render(image, SPEC)
    assert distance(pixels, decode_photo(encode(PHOTO, "PNG"), SPEC)) < 8
    assert shows(working_copy(image), PHOTO)
    assert shows(thumbnail(image, 200), PHOTO)


def test_the_hidden_picture_of_an_animated_png_is_never_used() -> None:
    for frames in ([PHOTO], [PHOTO, OTHER], [PHOTO, OTHER, WHITE]):
        photo = encode(OTHER, "PNG", save_all=True, append_images=frames, default_image=True)
        assert (decode_photo(photo, SPEC) == decode_photo(encode(PHOTO, "PNG"), SPEC)).all()
    grey = encode(OTHER.convert("L"), "PNG", save_all=True, append_images=[PHOTO.convert("L")], default_image=True)
    assert (decode_photo(grey, SPEC) == decode_photo(encode(PHOTO.convert("L"), "PNG"), SPEC)).all()


def test_a_hidden_picture_is_replaced_with_colours_transparency_and_orientation_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    few = PHOTO.quantize(50)
    photo = encode(few, "PNG", save_all=True, append_images=[few.rotate(180)], default_image=True, exif=exif)
    still = encode(few.rotate(180), "PNG", exif=exif)
    assert (decode_photo(photo, SPEC) == decode_photo(still, SPEC)).all()
    clear = Image.new("RGBA", PHOTO.size, (255, 0, 0, 0))
    photo = encode(PHOTO.convert("RGBA"), "PNG", save_all=True, append_images=[clear], default_image=True)
    assert (decode_photo(photo, PreprocessSpec(fit="crop")) == 255).all()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_file_that_only_says_it_is_animated_is_its_picture() -> None:
    plain = encode(PHOTO, "PNG")
    counted = plain[:33] + chunk(b"acTL", struct.pack(">II", 1, 0)) + plain[33:]
    assert (decode_photo(counted, SPEC) == decode_photo(plain, SPEC)).all()
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 120, 90, 0, 0, 1, 10, 0, 0))
    assert (decode_photo(counted[:-12] + control + counted[-12:], SPEC) == decode_photo(plain, SPEC)).all()


def test_a_cut_short_frame_behind_a_hidden_picture_is_refused() -> None:
    photo = encode(OTHER, "PNG", save_all=True, append_images=[PHOTO], default_image=True)
    with pytest.raises(PhotoUndecodable):
        decode_photo(photo[:-3000], SPEC)


def test_damaged_animations_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(6)
    hidden = encode(WHITE, "PNG", save_all=True, append_images=[PHOTO, OTHER], default_image=True)
    for photo in (hidden, *(animation([WHITE, PHOTO], image_format) for image_format in FORMATS)):
        for _ in range(30):
            damaged = np.frombuffer(photo, np.uint8).copy()
            damaged[rng.integers(8, len(damaged), 6)] = rng.integers(0, 256, 6)
            try:
                assert decode_photo(damaged.tobytes(), SPEC).shape == (224, 224, 3)
            except PhotoUndecodable:
                pass
