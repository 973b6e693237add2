"""The one decoder: what it accepts, refuses, and that odd files give the pixels of their plain twin."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Transpose
from PIL.PngImagePlugin import PngInfo

from shared.errors import InputError, PhotoTooHeavy, PhotoTooLarge, PhotoUndecodable, UnsupportedFormat
from shared.photos.images import FORMATS, Pixels, PreprocessSpec, decode_photo, open_photo, upright_size
from tests.conftest import encode, noise_image

SPEC = PreprocessSpec()
IMAGE = noise_image(1, (300, 200))
# What a camera does to the pixels so that the EXIF orientation undoes it.
STORED = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def decode(photo: bytes) -> Pixels:
    return decode_photo(photo, SPEC)


def distance(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


PLAIN = decode(encode(IMAGE, "PNG"))


def test_a_photo_becomes_a_letterboxed_square() -> None:
    assert PLAIN.shape == (224, 224, 3)
    assert PLAIN.dtype == np.uint8
    bar_px = (224 - round(200 * 224 / 300)) // 2
    assert (PLAIN[:bar_px] == 0).all()
    assert (PLAIN[-bar_px:] == 0).all()
    assert (PLAIN[bar_px : 224 - bar_px].max(axis=2) > 0).mean() > 0.99


def test_identical_bytes_give_identical_pixels() -> None:
    photo = encode(IMAGE, quality=70)
    assert (decode(photo) == decode(photo)).all()


def test_channels_stay_in_their_order() -> None:
    red = decode(encode(Image.new("RGB", (50, 50), (250, 10, 20)), quality=95))
    assert np.abs(red[112, 112].astype(int) - (250, 10, 20)).max() <= 3


# Lossy formats at high quality stay within two grey levels; lossless ones only rotate the filter's rounding.
@pytest.mark.parametrize("image_format", ["JPEG", "MPO", "WEBP", "AVIF", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = IMAGE.transpose(STORED[orientation]) if orientation > 1 else IMAGE
    quality = {} if image_format in ("PNG", "TIFF") else {"quality": 95}
    assert distance(decode(encode(stored, image_format, exif=exif, **quality)), PLAIN) < 2


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF", "PNG", "AVIF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_upright_size_is_known_before_the_photo_is_decoded(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = encode(IMAGE.transpose(STORED[6]) if orientation == 6 else IMAGE, image_format, exif=exif)
    assert upright_size(open_photo(photo)) == IMAGE.size


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF", "WEBP", "AVIF"])
def test_an_orientation_in_xmp_counts_for_nothing(image_format: str) -> None:
    bare = encode(IMAGE, image_format)
    with_xmp = encode(IMAGE, image_format, **({"tiffinfo": {700: XMP}} if image_format == "TIFF" else {"xmp": XMP}))
    assert Image.open(BytesIO(with_xmp)).info["xmp"] == XMP
    assert (decode(with_xmp) == decode(bare)).all()
    assert upright_size(open_photo(with_xmp)) == IMAGE.size


def test_an_orientation_in_xmp_behind_a_pngs_pixels_counts_for_nothing() -> None:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    photo = encode(IMAGE, "PNG", pnginfo=text)
    start = photo.index(b"iTXt") - 4
    end = start + 12 + int.from_bytes(photo[start : start + 4], "big")
    late = photo[:start] + photo[end:-12] + photo[start:end] + photo[-12:]
    assert (decode(photo) == PLAIN).all()
    assert (decode(late) == PLAIN).all()


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_allowed_format_decodes(image_format: str) -> None:
    assert distance(decode(encode(IMAGE, image_format)), PLAIN) < 8  # GIF has 256 colours


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "YCbCr", "RGBX"])
def test_colour_modes_give_the_pixels_of_their_plain_twin(mode: str) -> None:
    assert distance(decode(encode(IMAGE.convert(mode), "TIFF")), PLAIN) < 2


def test_cmyk_jpeg_is_not_inverted() -> None:
    assert distance(decode(encode(IMAGE.convert("CMYK"), "JPEG", quality=95)), PLAIN) < 3


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "I", "F"])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_grey_of_any_depth_gives_the_same_grey(mode: str, image_format: str) -> None:
    if image_format == "PNG" and mode in ("F", "I"):
        pytest.skip("PNG has no such mode")
    grey = IMAGE.convert("L")
    levels = np.asarray(grey)
    deep = {
        "I;16": Image.fromarray(levels.astype(np.uint16) * 257),
        "I": Image.fromarray(levels.astype(np.int32) * 257),
        "F": Image.fromarray(levels.astype(np.float32) / 255),
    }
    photo = encode(deep[mode] if mode in deep else grey.convert(mode), image_format)
    assert distance(decode(photo), decode(encode(grey, "PNG"))) < 1


def test_transparency_shows_white_and_never_the_hidden_colour() -> None:
    image = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    assert (decode(encode(image, "PNG")) == 255).all()
    palette = Image.new("P", (80, 80), 3)
    palette.putpalette([0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0])
    assert (decode(encode(palette, "PNG", transparency=3)) == 255).all()


def test_only_the_first_frame_counts() -> None:
    frames = [noise_image(2, (90, 90)), noise_image(3, (90, 90))]
    animation = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert distance(decode(animation), decode(encode(frames[0], "PNG"))) < 1


@pytest.mark.parametrize("size", [(1, 1), (1, 150), (3000, 20)])
def test_tiny_and_long_photos_decode(size: tuple[int, int]) -> None:
    assert decode(encode(noise_image(4, size), "PNG")).shape == (224, 224, 3)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_photo_is_undecodable(image_format: str, share: float) -> None:
    photo = encode(IMAGE, image_format)
    with pytest.raises(PhotoUndecodable):
        decode(photo[: int(len(photo) * share)])


def test_no_bytes_are_undecodable() -> None:
    with pytest.raises(PhotoUndecodable, match="empty"):
        decode(b"")


@pytest.mark.parametrize(
    "content",
    [b"hello", b"%PDF-1.7 ...", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x00" * 4096, b"GIF", b"PK\x03\x04"],
)
def test_what_is_no_photo_is_an_unsupported_format(content: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(content)


@pytest.mark.parametrize("image_format", ["ICO", "PPM", "TGA", "PCX", "ICNS", "JPEG2000"])
def test_formats_outside_the_list_are_refused(image_format: str) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(encode(IMAGE.resize((64, 64)), image_format))


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose data are missing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8001, 8000), (20_001, 10), (10, 20_001), (201, 1), (2**31 - 1, 2**31 - 1)])
def test_too_large_is_known_from_the_header(size: tuple[int, int]) -> None:
    with pytest.raises(PhotoTooLarge):
        decode(png_header(*size))


def test_the_pixel_limit_is_a_setting() -> None:
    photo = encode(noise_image(5, (100, 100)))
    assert decode_photo(photo, SPEC, max_pixels=10_000).shape == (224, 224, 3)
    with pytest.raises(PhotoTooLarge, match="9999"):
        decode_photo(photo, SPEC, max_pixels=9_999)


def test_a_jpeg_with_absurdly_many_scans_is_refused() -> None:
    photo = encode(IMAGE, quality=80, progressive=True)
    scans = photo.index(b"\xff\xda")
    again = photo[scans:-2]
    with pytest.raises(PhotoUndecodable, match="scans"):
        decode(photo[:scans] + again * 20 + b"\xff\xd9")


def test_what_a_camera_appends_to_a_jpeg_counts_for_nothing() -> None:
    photo = encode(IMAGE, quality=80)
    assert (decode(photo + b"\xff\xda" * 100) == decode(photo)).all()  # as chance will have it in a long video
    progressive = encode(IMAGE, quality=80, progressive=True)
    assert distance(decode(progressive), decode(photo)) < 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_large_deep_photo_is_reduced_before_it_is_stretched(mode: str) -> None:
    grey = noise_image(8, (2000, 1500)).convert("L")
    scaled: dict[str, Any] = {
        "I": np.asarray(grey).astype(np.int32) * 257,
        "F": np.asarray(grey).astype(np.float32) / 255,
    }
    photo = encode(Image.fromarray(scaled[mode]), "TIFF")
    assert distance(decode(photo), decode(encode(grey, "PNG"))) < 1


def test_transparency_of_sixteen_bit_grey_shows_white() -> None:
    deep = Image.fromarray(np.full((80, 80), 700, dtype=np.uint16))
    assert (decode(encode(deep, "PNG", transparency=700)) == 255).all()


def test_damaged_bytes_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(6)
    originals = [encode(IMAGE.resize((60, 40)), image_format) for image_format in FORMATS]
    for _ in range(40):
        for original in originals:
            damaged = np.frombuffer(original, np.uint8).copy()
            damaged[rng.integers(0, len(damaged), 8)] = rng.integers(0, 256, 8)
            try:
                assert decode(damaged.tobytes()).shape == (224, 224, 3)
            except InputError:
                pass


def test_hidden_colours_of_a_large_photo_do_not_bleed_in() -> None:
    image = Image.new("RGBA", (3000, 3000), (255, 0, 0, 0))
    assert (decode(encode(image, "PNG")) == 255).all()


@pytest.mark.parametrize(
    ("image_format", "options"),
    [("WEBP", {"lossless": True, "method": 0}), ("WEBP", {"method": 0}), ("AVIF", {"speed": 10})],
)
def test_a_format_that_costs_much_memory_a_pixel_may_have_fewer(image_format: str, options: dict[str, Any]) -> None:
    photo = encode(Image.new("RGB", (5000, 5000)), image_format, **options)
    with pytest.raises(PhotoTooLarge, match="MiB to decode"):
        decode(photo)
    with pytest.raises(PhotoTooHeavy):
        open_photo(encode(Image.new("RGB", (2000, 2000)), image_format, **options), max_decoding_bytes=40 << 20)


def test_a_jpeg_in_one_scan_costs_little_and_one_in_several_its_coefficients() -> None:
    image = Image.new("CMYK", (4000, 4000))
    assert open_photo(encode(image, quality=10), max_decoding_bytes=6 << 20).size == (4000, 4000)
    with pytest.raises(PhotoTooHeavy, match="122 MiB"):
        open_photo(encode(image, quality=10, progressive=True), max_decoding_bytes=6 << 20)


def test_a_tile_larger_than_its_tiff_counts() -> None:
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40_000, 323: 40_000, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4 if value > 300 else 3, 1, value) for tag, value in tags.items())
    photo = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 200
    with pytest.raises(PhotoTooLarge, match="MiB to decode"):
        decode(photo)


def test_a_png_of_too_many_chunks_is_refused_before_it_is_read() -> None:
    photo = encode(IMAGE, "PNG")
    empty = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    assert (decode(photo[:33] + empty * 1_000 + photo[33:]) == PLAIN).all()
    with pytest.raises(PhotoUndecodable, match="chunks"):
        decode(photo[:33] + empty * 30_000 + photo[33:])


def test_a_jpeg_of_too_many_segments_is_refused_before_it_is_read() -> None:
    photo = encode(IMAGE)
    empty = b"\xff\xef\x00\x02"
    assert (decode(photo[:2] + empty * 1_000 + photo[2:]) == decode(photo)).all()
    with pytest.raises(PhotoUndecodable, match="segments"):
        decode(photo[:2] + empty * 30_000 + photo[2:])


def test_a_long_run_length_coded_bmp_is_refused() -> None:
    photo = bytearray(encode(Image.new("P", (1200, 1000)), "BMP"))
    photo[30] = 1
    with pytest.raises(PhotoTooLarge, match="run-length"):
        decode(bytes(photo))
