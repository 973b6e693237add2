"""Photos of a wide gamut are brought to sRGB; all others keep their pixels bit by bit."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from shared.photos.colour import SRGB_CURVE, matrix_profile
from shared.photos.images import PreprocessSpec, decode_photo, open_photo, thumbnail, working_copy
from tests.conftest import encode, noise_image
from tests.unit.photos.test_images import distance

SPEC = PreprocessSpec()
D65 = (0.3127, 0.3290)
P3 = matrix_profile(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65, SRGB_CURVE)
PROPHOTO = matrix_profile(
    ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), (1.8, 1.0, 0.0, 1 / 16, 1 / 512)
)
SRGB = matrix_profile(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65, SRGB_CURVE)
BUILT_IN = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = BUILT_IN[:16] + b"GRAY" + BUILT_IN[20:]
# What printed inks look like: nothing like the complements of red, green and blue.
INKS = {"cyan": (90, 160, 230), "magenta": (230, 90, 130), "yellow": (255, 240, 90), "black": (40, 40, 40)}
# Linear sRGB to linear P3, as CSS Color 4 has it, rounded.
TO_P3 = np.array([[0.82246, 0.17754, 0.0], [0.03319, 0.96681, 0.0], [0.01708, 0.07240, 0.91052]])
IMAGE = noise_image(1, (300, 200))
# Colours that differ much between the two, away from the edges of sRGB.
COLOURS = [(200, 60, 60), (60, 190, 70), (50, 60, 180), (128, 128, 128), (240, 200, 40), (255, 255, 255)]
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 98, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 98, "subsampling": "4:4:4"},
}


def in_p3(colour: tuple[int, ...]) -> tuple[int, ...]:
    """The code of an sRGB colour in Display P3."""
    levels = np.array(colour) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    wide = TO_P3 @ linear
    coded = np.where(wide <= 0.0031308, wide * 12.92, 1.055 * wide ** (1 / 2.4) - 0.055)
    return tuple(int(level) for level in np.round(coded * 255))


def profile_of(space: bytes, device: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2."""
    table, content, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", start + len(content), len(tag))
        content += tag.ljust(-(-len(tag) // 4) * 4, b"\0")
    header = struct.pack(">I4sI4s4s4s", start + len(content), b"", 0x02400000, device, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def cmyk_profile() -> bytes:
    """Inks that lie on one another: a table (ICC.1:2001, 6.5.8) of the 16 colours with each of them in full or not."""
    overprints = np.full((16, 3), 255.0)
    for i in range(16):
        for bit, ink in zip((8, 4, 2, 1), INKS.values(), strict=True):
            overprints[i] *= np.array(ink) / 255 if i & bit else 1
    lab = ImageCms.createProfile("LAB")
    nodes = Image.fromarray(overprints.clip(min=40).round().astype(np.uint8)[None])
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB", intent)
    shown = to_lab.apply(nodes)
    signed = np.frombuffer(shown.tobytes(), np.uint8).reshape(-1, 3) ^ np.array(
        [0, 128, 128], np.uint8
    )  # a, b from -128
    ramps = bytes(range(256))
    unit = b"".join(struct.pack(">i", 65_536 * (i % 4 == 0)) for i in range(9))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + ramps * 4 + signed.tobytes() + ramps * 3
    white = b"XYZ " + bytes(4) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return profile_of(b"CMYK", b"scnr", b"Lab ", {b"A2B0": lut, b"A2B1": lut, b"wtpt": white})


def grey_profile(gamma: float) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    white = b"XYZ " + bytes(4) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return profile_of(b"GRAY", b"mntr", b"XYZ ", {b"kTRC": curve, b"wtpt": white})


def plain(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (600, 600), colour).convert(mode)


def middle(photo: bytes) -> tuple[int, ...]:
    return tuple(int(level) for level in decode_photo(photo, SPEC)[112, 112])


def near(one: tuple[int, ...], other: tuple[int, ...], levels: int = 3) -> bool:
    return all(abs(a - b) <= levels for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_display_p3_photo_has_the_colours_that_it_shows(image_format: str, colour: tuple[int, ...]) -> None:
    photo = encode(plain(in_p3(colour)), image_format, icc_profile=P3, **FORMATS[image_format])
    assert near(middle(photo), colour, 6 if image_format == "AVIF" else 3)


def test_a_prophoto_photo_is_converted_and_colours_beyond_srgb_are_clipped() -> None:
    assert near(middle(encode(plain((128, 128, 128)), "PNG", icc_profile=PROPHOTO)), (145, 145, 145), 2)
    assert middle(encode(plain((20, 240, 20)), "PNG", icc_profile=PROPHOTO))[:2] == (0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_and_palette_photos_are_converted(mode: str) -> None:
    assert near(middle(encode(plain(in_p3(COLOURS[0]), mode), "PNG", icc_profile=P3)), COLOURS[0])


@pytest.mark.parametrize("profile", [b"", SRGB, BUILT_IN], ids=["none", "sRGB", "lcms's sRGB"])
@pytest.mark.parametrize("image_format", FORMATS)
def test_a_photo_without_profile_or_with_one_of_srgb_keeps_its_pixels(image_format: str, profile: bytes) -> None:
    bare = encode(IMAGE, image_format, **FORMATS[image_format])
    with_profile = encode(IMAGE, image_format, icc_profile=profile or None, **FORMATS[image_format])
    assert (decode_photo(with_profile, SPEC) == decode_photo(bare, SPEC)).all()


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        P3[:200],
        P3[:128] + b"\xff" * 400,
        GREY,
        b"\0" * 16 + b"RGB " + b"\0" * 200,
        P3 + b"\0" * (5 << 20),
    ],
    ids=["text", "cut short", "broken", "grey", "zeros", "too large"],
)
def test_a_profile_that_cannot_be_used_is_ignored(profile: bytes) -> None:
    photo = encode(IMAGE, "JPEG", icc_profile=profile)
    assert (decode_photo(photo, SPEC) == decode_photo(encode(IMAGE, "JPEG"), SPEC)).all()


@pytest.mark.parametrize("mode", ["L", "LA", "CMYK", "1", "I;16"])
def test_a_profile_of_rgb_in_a_photo_without_rgb_is_ignored(mode: str) -> None:
    image = Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else IMAGE
    image = image if mode == "I;16" else image.convert(mode)
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    photo = encode(image, image_format, icc_profile=P3)
    assert (decode_photo(photo, SPEC) == decode_photo(encode(image, image_format), SPEC)).all()


def test_a_cmyk_jpeg_with_a_profile_of_rgb_decodes() -> None:
    image = IMAGE.convert("CMYK")
    photo = encode(image, "JPEG", icc_profile=P3)
    assert (decode_photo(photo, SPEC) == decode_photo(encode(image, "JPEG"), SPEC)).all()


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("amounts", "colour"),
    [((255, 0, 0, 0), INKS["cyan"]), ((0, 255, 0, 0), INKS["magenta"]), ((0, 0, 0, 0), (255, 255, 255))],
)
def test_a_cmyk_photo_has_the_colours_of_its_inks(
    image_format: str, amounts: tuple[int, ...], colour: tuple[int, ...]
) -> None:
    photo = Image.new("CMYK", (600, 600), amounts)
    assert near(middle(encode(photo, image_format, icc_profile=cmyk_profile())), colour, 12)
    complement = tuple(255 - amount for amount in amounts[:3])
    assert near(middle(encode(photo, image_format)), complement)


def test_black_of_print_is_black() -> None:
    photo = encode(Image.new("CMYK", (600, 600), (255, 255, 255, 255)), icc_profile=cmyk_profile())
    assert near(middle(photo), (0, 0, 0), 8)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_photo_has_the_tones_that_its_profile_says(mode: str) -> None:
    linear = (
        Image.fromarray(np.full((600, 600), 55 * 257, dtype=np.uint16)) if mode == "I;16" else plain((55,) * 3, mode)
    )
    assert near(middle(encode(linear, "PNG", icc_profile=grey_profile(1.0))), (128, 128, 128))
    assert near(middle(encode(linear, "PNG", icc_profile=grey_profile(2.2))), (55, 55, 55), 0)  # as good as sRGB's


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_colour_spaces_by_code_are_converted_in_png_and_avif() -> None:
    colour = COLOURS[0]
    photo = encode(plain(in_p3(colour)), "PNG")
    assert near(middle(photo[:33] + chunk(b"cICP", bytes([12, 13, 0, 1])) + photo[33:]), colour)
    assert middle(photo[:33] + chunk(b"cICP", bytes([1, 13, 0, 1])) + photo[33:]) == in_p3(colour)
    assert middle(photo[:33] + chunk(b"cICP", bytes([9, 16, 0, 1])) + photo[33:]) == in_p3(colour)  # PQ: left alone
    avif = encode(plain(in_p3(colour)), "AVIF", **FORMATS["AVIF"])
    at = avif.index(b"colrnclx") + 8
    assert near(middle(avif[:at] + struct.pack(">HH", 12, 13) + avif[at + 4 :]), colour)


def test_thumbnail_and_working_copy_are_converted_once() -> None:
    photo = open_photo(encode(plain(in_p3(COLOURS[0])), "PNG", icc_profile=P3))
    assert near(middle(thumbnail(photo, 300)), COLOURS[0])
    assert near(middle(working_copy(photo)), COLOURS[0])


def test_turned_and_reduced_photos_are_converted_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.merge("RGB", [band.resize((2400, 1600)) for band in IMAGE.split()])
    photo = encode(wide, "PNG", icc_profile=P3, exif=exif, compress_level=1)
    upright = encode(wide.transpose(Image.Transpose.ROTATE_270), "PNG", icc_profile=P3, compress_level=1)
    assert distance(decode_photo(photo, SPEC), decode_photo(upright, SPEC)) < 1
    assert distance(decode_photo(photo, SPEC), decode_photo(encode(wide, "PNG", exif=exif), SPEC)) > 3
