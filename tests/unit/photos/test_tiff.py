"""TIFF pages and grey levels that Pillow leaves to its caller."""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shared.errors import UnsupportedFormat
from shared.photos.images import Pixels, PreprocessSpec, decode_photo, open_photo
from tests.conftest import encode, noise_image

SPEC = PreprocessSpec()
GREY = np.asarray(noise_image(1, (300, 200)).convert("L"))
PLAIN = decode_photo(encode(Image.fromarray(GREY), "PNG"), SPEC)
SUBFILE_TYPE, BITS, COMPRESSION, PHOTOMETRIC, PLANES = 254, 258, 259, 262, 284
REDUCED, WHITE_IS_ZERO, BLACK_IS_ZERO, SEPARATE = 1, 0, 1, 2


def near(one: Pixels, other: Pixels) -> bool:
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= 2)


def grey_tiff(strip: bytes, n_bits: int, photometric: int) -> bytes:
    height, width = GREY.shape
    tags = {
        256: width, 257: height, BITS: n_bits, COMPRESSION: 1, PHOTOMETRIC: photometric,
        273: 8, 277: 1, 278: height, 279: len(strip),
    }  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(strip))
    return header + strip + struct.pack("<H", len(tags)) + directory + bytes(4)


def packed(levels: npt.NDArray[np.uint16]) -> bytes:
    """Two levels of twelve bits in three bytes."""
    first, second = levels.reshape(-1, 2).T
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()


def pages(*images: Image.Image, subfile_types: Sequence[int]) -> bytes:
    copies = [image.copy() for image in images]
    for page, subfile_type in zip(copies, subfile_types, strict=True):
        page.encoderinfo = {"tiffinfo": {SUBFILE_TYPE: subfile_type}}
    return encode(copies[0], "TIFF", save_all=True, append_images=copies[1:], **copies[0].encoderinfo)


def test_deep_grey_has_the_levels_that_its_tags_say() -> None:
    inverted = (65_535 - GREY.astype(np.uint16) * 257).astype("<u2").tobytes()
    assert near(decode_photo(grey_tiff(inverted, 16, WHITE_IS_ZERO), SPEC), PLAIN)
    twelve = packed(GREY.astype(np.uint16) * 16 + 8)
    assert near(decode_photo(grey_tiff(twelve, 12, BLACK_IS_ZERO), SPEC), PLAIN)


def test_floating_point_grey_whose_white_is_zero_is_inverted() -> None:
    inverted = Image.fromarray(1 - GREY.astype(np.float32) / 255)
    photo = bytearray(encode(inverted, "TIFF"))
    entry = struct.pack("<HHIH", PHOTOMETRIC, 3, 1, BLACK_IS_ZERO)
    at = photo.index(entry)
    photo[at : at + len(entry)] = struct.pack("<HHIH", PHOTOMETRIC, 3, 1, WHITE_IS_ZERO)
    assert near(decode_photo(bytes(photo), SPEC), PLAIN)


def test_colours_of_sixteen_bits_in_planes_are_refused_by_name() -> None:
    photo = bytearray(encode(noise_image(2, (40, 30)), "TIFF"))
    at = photo.index(struct.pack("<HHIH", PLANES, 3, 1, 1))
    photo[at + 8] = SEPARATE
    assert open_photo(bytes(photo)).size == (40, 30)
    at = photo.index(struct.pack("<HHI", BITS, 3, 3))
    bits_at = int.from_bytes(photo[at + 8 : at + 12], "little")
    photo[bits_at : bits_at + 6] = struct.pack("<HHH", 16, 16, 16)
    with pytest.raises(UnsupportedFormat, match="16 bits a sample in separate planes"):
        open_photo(bytes(photo))


def test_the_main_page_is_taken_and_not_a_reduced_copy_before_it() -> None:
    small, main = Image.new("RGB", (30, 20), "red"), noise_image(3, (300, 200))
    photo = pages(small, main, subfile_types=[REDUCED, 0])
    assert (decode_photo(photo, SPEC) == decode_photo(encode(main, "PNG"), SPEC)).all()
    assert open_photo(pages(small, main, subfile_types=[0, 0])).size == small.size
    assert open_photo(pages(small, main, subfile_types=[REDUCED, REDUCED])).size == small.size
