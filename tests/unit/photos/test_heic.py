"""HEIC photos: turned once, brought to sRGB and eight bits, within the limits of size, tiles and memory."""

import struct
import subprocess
import sys
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from shared.errors import PhotoTooHeavy, PhotoTooLarge, PhotoUndecodable, UnsupportedFormat
from shared.photos.heif import MAX_ITEMS
from shared.photos.images import Pixels, PreprocessSpec, decode_photo, open_photo, thumbnail
from tests import ROOT
from tests.conftest import encode, noise_image
from tests.unit.photos.heic_grid import box, heic_grid
from tests.unit.photos.test_colour import COLOURS, P3, in_p3, middle, near, plain
from tests.unit.photos.test_images import STORED, distance

SPEC = PreprocessSpec()
IMAGE = noise_image(1, (300, 200))
PHOTO = encode(IMAGE, "HEIF", quality=95)


def decode(photo: bytes) -> Pixels:
    return decode_photo(photo, SPEC)


PLAIN = decode(encode(IMAGE, "PNG"))


def test_a_heic_has_the_pixels_of_its_plain_twin() -> None:
    assert distance(decode(PHOTO), PLAIN) < 2
    assert open_photo(PHOTO).format == "HEIF"


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 63), (1000, 7)])
def test_sizes_that_are_no_multiple_of_a_block_decode(size: tuple[int, int]) -> None:
    image = noise_image(2, size)
    assert distance(decode(encode(image, "HEIF", quality=95)), decode(encode(image, "PNG"))) < 4


def test_grey_and_transparent_photos_decode() -> None:
    grey = IMAGE.convert("L")
    assert distance(decode(encode(grey, "HEIF", quality=95)), decode(encode(grey, "PNG"))) < 2
    clear = Image.new("RGBA", (96, 96), (255, 0, 0, 0))
    assert (decode(encode(clear, "HEIF", quality=100)) >= 250).all()


@pytest.mark.parametrize("orientation", STORED)
def test_a_turned_photo_is_turned_once_whatever_its_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # As bytes, it is written as a turn of the container too, as phones do.
    photo = encode(IMAGE.transpose(STORED[orientation]), "HEIF", quality=95, exif=exif.tobytes())
    assert b"irot" in photo or b"imir" in photo
    assert distance(decode(photo), PLAIN) < 2
    with Image.open(BytesIO(thumbnail(open_photo(photo), 300))) as upright:
        assert upright.size == IMAGE.size


@pytest.mark.parametrize("quarter_turns", range(4))
def test_a_photo_in_tiles_as_of_phones_is_put_together_and_turned(quarter_turns: int) -> None:
    photo = heic_grid(IMAGE.rotate(-90 * quarter_turns, expand=True), 128, quarter_turns=quarter_turns)
    assert open_photo(photo).size == IMAGE.size
    assert distance(decode(photo), PLAIN) < 2


def test_a_photo_in_tiles_that_lacks_some_is_refused() -> None:
    photo = heic_grid(IMAGE, 128)
    for share in (0.5, 0.9, 0.99):
        with pytest.raises(PhotoUndecodable):
            decode(photo[: int(len(photo) * share)])


def test_a_grid_that_says_it_is_larger_than_its_tiles_is_refused() -> None:
    photo = heic_grid(IMAGE, 128)
    grid = struct.pack(">BBBBHH", 0, 0, 1, 2, *IMAGE.size)
    assert grid in photo
    for size in ((20_000, 20_000), (60_000, 60_000)):
        with pytest.raises((PhotoTooLarge, PhotoUndecodable)):
            decode(photo.replace(grid, struct.pack(">BBBBHH", 0, 0, 1, 2, *size)))


def test_an_orientation_in_exif_alone_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = encode(IMAGE, "HEIF", quality=95, exif=exif)
    assert b"irot" not in photo
    assert distance(decode(photo), PLAIN) < 2


def test_ten_bits_become_eight() -> None:
    levels = np.asarray(IMAGE).astype(np.uint16) * 257
    deep = pillow_heif.from_bytes("RGB;16", IMAGE.size, levels.tobytes())
    file = BytesIO()
    deep.save(file, quality=95)
    image = open_photo(file.getvalue())
    assert image.info["bit_depth"] > 8
    assert distance(decode(file.getvalue()), PLAIN) < 2


@pytest.mark.parametrize("colour", COLOURS)
def test_wide_colours_are_brought_to_srgb_by_profile_and_by_code(colour: tuple[int, ...]) -> None:
    image = plain(in_p3(colour))
    assert near(middle(encode(image, "HEIF", quality=98, icc_profile=P3)), colour, 5)
    photo = encode(image, "HEIF", quality=98)
    at = photo.index(b"colrnclx") + 8
    coded = photo[:at] + struct.pack(">HH", 12, 13) + photo[at + 4 :]
    assert near(middle(coded), colour, 5)


def test_several_photos_in_a_file_are_its_main_one() -> None:
    photo = encode(IMAGE, "HEIF", quality=95, save_all=True, append_images=[IMAGE.rotate(180)])
    assert distance(decode(photo), PLAIN) < 2


@pytest.mark.parametrize("brand", [b"hevc", b"hevx", b"msf1"])
def test_a_sequence_is_refused_by_name(brand: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="HEIC image sequence"):
        decode(PHOTO[:8] + brand + PHOTO[12:])


def test_a_photo_with_a_video_in_it_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat, match="video"):
        decode(PHOTO + box(b"moov", b"\0" * 100))


def test_a_picture_coded_otherwise_is_refused_by_name() -> None:
    assert PHOTO.count(b"hvc1") >= 1
    with pytest.raises(UnsupportedFormat, match="vvc1"):
        decode(PHOTO.replace(b"hvc1", b"vvc1"))


@pytest.mark.parametrize("size", [(60_000, 60_000), (20_001, 100), (8001, 8000)])
def test_a_size_over_the_limit_is_known_from_the_header(size: tuple[int, int]) -> None:
    at = PHOTO.index(b"ispe") + 8
    with pytest.raises(PhotoTooLarge):
        decode(PHOTO[:at] + struct.pack(">II", *size) + PHOTO[at + 8 :])


def test_a_size_that_lies_is_refused() -> None:
    at = PHOTO.index(b"ispe") + 8
    with pytest.raises((PhotoUndecodable, PhotoTooLarge)):
        decode(PHOTO[:at] + struct.pack(">II", 4000, 3000) + PHOTO[at + 8 :])


def test_too_many_tiles_are_refused_before_they_are_read() -> None:
    entry = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"hvc1\0")
    entries = b"".join(entry[:12] + struct.pack(">H", i) + entry[14:] for i in range(1, MAX_ITEMS + 100))
    table = box(b"iinf", b"\0\0\0\0" + struct.pack(">H", MAX_ITEMS + 99) + entries)
    photo = box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", b"\0\0\0\0" + table)
    with pytest.raises(PhotoTooLarge, match="tiles"):
        decode(photo)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.99])
def test_a_heic_that_is_cut_short_is_undecodable(share: float) -> None:
    with pytest.raises(PhotoUndecodable):
        decode(PHOTO[: int(len(PHOTO) * share)])


def test_boxes_in_boxes_and_boxes_without_end_are_refused() -> None:
    start = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    for rest in (
        b"\0\0\0\x08meta" * 50_000,
        b"\0\0\0\1meta" + b"\xff" * 8,
        b"\0\0\0\0meta\0\0\0\0",
        b"\0\0\0\x08free" * 10**6,
    ):
        with pytest.raises(PhotoUndecodable):
            decode(start + rest)


def test_memory_counts_ten_bytes_a_pixel_and_more_for_ten_bits() -> None:
    photo = encode(Image.new("RGB", (1000, 1000)), "HEIF", quality=50)
    assert open_photo(photo, max_decoding_bytes=10 << 20)
    with pytest.raises(PhotoTooHeavy):
        open_photo(photo, max_decoding_bytes=9 << 20)


def test_damaged_bytes_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(6)
    for _ in range(60):
        damaged = np.frombuffer(PHOTO, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 6)] = rng.integers(0, 256, 6)
        try:
            assert decode(damaged.tobytes()).shape == (224, 224, 3)
        except (PhotoUndecodable, PhotoTooLarge, UnsupportedFormat):
            pass


def test_without_the_package_heic_is_refused_by_name_and_the_rest_is_read() -> None:
    script = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from shared.photos.images import decode_photo\n"
        "from shared.photos.preprocessing import PreprocessSpec\n"
        "from shared.errors import UnsupportedFormat\n"
        "photos = sys.stdin.buffer.read().split(b'--NEXT--')\n"
        "decode_photo(photos[0], PreprocessSpec())\n"
        "try: decode_photo(photos[1], PreprocessSpec())\n"
        "except UnsupportedFormat as exc: print(exc)\n"
    )
    given = encode(IMAGE, "JPEG") + b"--NEXT--" + encode(IMAGE, "HEIF")
    run = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=True, cwd=ROOT)
    assert run.stdout.decode().startswith("HEIC is not read; send one of JPEG")
