"""What a PNG says in chunks that Pillow leaves to its caller."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from shared.photos.colour import SRGB_CURVE, matrix_profile
from shared.photos.images import Pixels, PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image

SPEC = PreprocessSpec()
IMAGE = noise_image(1, (300, 200))
PLAIN = encode(IMAGE, "PNG")
SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
DISPLAY_P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)


def decode(photo: bytes) -> Pixels:
    return decode_photo(photo, SPEC)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(photo: bytes, *chunks: bytes) -> bytes:
    return photo[:33] + b"".join(chunks) + photo[33:]


def gamma(exponent: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(exponent * 100_000)))


def primaries(values: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


def shallow_grey(levels: Image.Image, depth: int, transparent: int) -> bytes:
    """Grey of two or four bits; `levels` are those of the file."""
    bits = np.unpackbits(np.asarray(levels)[..., None], axis=2)[:, :, 8 - depth :].reshape(levels.height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    header = struct.pack(">IIBBBBB", levels.width, levels.height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            chunk(b"IHDR", header),
            chunk(b"tRNS", struct.pack(">H", transparent)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize("depth", [2, 4])
def test_the_transparent_level_of_shallow_grey_shows_white(depth: int) -> None:
    highest = (1 << depth) - 1
    levels = IMAGE.convert("L").point([level * highest // 255 for level in range(256)])
    shown = Image.fromarray(
        np.where(np.asarray(levels) == 1, 255, np.asarray(levels) * (255 // highest)).astype(np.uint8)
    )
    assert np.abs(decode(shallow_grey(levels, depth, 1)).astype(int) - decode(encode(shown, "PNG"))).mean() < 1


def test_colours_by_gamma_are_converted() -> None:
    linear = encode(Image.new("RGB", (80, 80), (55, 128, 10)), "PNG")
    assert np.abs(decode(with_chunks(linear, gamma(1.0)))[112, 112].astype(int) - (128, 188, 56)).max() <= 2


def test_colours_by_primaries_are_those_of_their_profile() -> None:
    profile = matrix_profile(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.3127, 0.3290), SRGB_CURVE)
    by_profile = decode(encode(IMAGE, "PNG", icc_profile=profile)).astype(int)
    by_chunks = decode(with_chunks(PLAIN, gamma(0.45455), primaries(DISPLAY_P3)))
    assert np.abs(by_profile - by_chunks).mean() < 2
    assert np.abs(by_profile - decode(PLAIN)).mean() > 3


@pytest.mark.parametrize(
    "chunks",
    [
        [gamma(0.45455)],
        [gamma(0.45), primaries(SRGB)],
        [gamma(1.0), chunk(b"sRGB", b"\0")],
        [gamma(1.0), chunk(b"cICP", bytes([1, 13, 0, 1]))],
        [gamma(0.0)],
        [gamma(40_000.0)],
        [gamma(1.0), primaries((0.0,) * 8)],
        [gamma(1.0), primaries((0.3,) * 8)],
        [gamma(1.0), primaries((40_000.0, 0.00001) * 4)],
    ],
    ids=[
        "of sRGB",
        "about sRGB's",
        "sRGB chunk",
        "code",
        "zero",
        "absurd",
        "no primaries",
        "one primary",
        "beyond reason",
    ],
)
def test_a_gamma_that_says_nothing_new_or_nothing_sensible_changes_no_pixel(chunks: list[bytes]) -> None:
    assert (decode(with_chunks(PLAIN, *chunks)) == decode(PLAIN)).all()
