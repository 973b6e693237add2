"""Files that lack only their end are taken, with the pixels of the whole file; files that lack pixels are refused."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.errors import PhotoTooHeavy, PhotoUndecodable
from shared.photos.images import PreprocessSpec, decode_photo, open_photo
from tests.conftest import encode, noise_image

SPEC = PreprocessSpec()
IMAGE = noise_image(1, (301, 203))
KINDS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "baseline": (IMAGE, {"quality": 90}),
    "progressive": (IMAGE, {"quality": 90, "progressive": True}),
    "with restarts": (IMAGE, {"quality": 90, "restart_marker_blocks": 3}),
    "without subsampling": (IMAGE, {"quality": 90, "subsampling": 0}),
    "grey": (IMAGE.convert("L"), {"quality": 90}),
    "CMYK, progressive": (IMAGE.convert("CMYK"), {"quality": 90, "progressive": True}),
    "one pixel": (IMAGE.resize((1, 1)), {"quality": 90}),
}
PADDINGS = [b"", b"\0", b"\0" * 4096, b"\0" * 200_000]


def refused(photo: bytes) -> bool:
    try:
        decode_photo(photo, SPEC)
    except PhotoUndecodable:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [*PADDINGS, b"\xff", b"left over"])
def test_a_jpeg_without_its_end_marker_gives_the_pixels_of_the_whole_file(kind: str, end: bytes) -> None:
    image, options = KINDS[kind]
    photo = encode(image, "JPEG", **options)
    assert (decode_photo(photo[:-2] + end, SPEC) == decode_photo(photo, SPEC)).all()


# What is cut off is more than the last block of the picture, which may be missed.
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one pixel"])
def test_a_jpeg_that_lacks_pixels_is_refused_however_it_ends(kind: str, padding: bytes) -> None:
    image, options = KINDS[kind]
    photo = encode(image, "JPEG", **options)
    for n_missing in (20, 57, 200, 1000, len(photo) // 2):
        assert refused(photo[:-n_missing] + padding), n_missing


def test_a_progressive_jpeg_that_lacks_whole_scans_is_refused() -> None:
    photo = encode(IMAGE, "JPEG", quality=90, progressive=True)
    scans = [i for i in range(len(photo)) if photo.startswith(b"\xff\xda", i)]
    assert len(scans) >= 8
    for start in scans[1:]:
        for end in (start, photo.rindex(b"\xff\xc4", 0, start)):  # before the scan, and before its Huffman table
            assert refused(photo[:end])


def test_what_is_decoded_to_check_an_end_counts_as_memory() -> None:
    photo = encode(Image.new("RGB", (3000, 2000)), quality=50)
    assert open_photo(photo, max_decoding_bytes=4 << 20)
    with pytest.raises(PhotoTooHeavy):
        open_photo(photo[:-2], max_decoding_bytes=4 << 20)


@pytest.mark.parametrize("n_missing", [1, 4, 8, 12])
def test_a_png_without_its_last_chunk_is_taken(n_missing: int) -> None:
    photo = encode(IMAGE, "PNG")
    assert (decode_photo(photo[:-n_missing], SPEC) == decode_photo(photo, SPEC)).all()


def test_a_gif_without_its_trailer_is_taken() -> None:
    photo = encode(IMAGE, "GIF")
    assert (decode_photo(photo[:-1], SPEC) == decode_photo(photo, SPEC)).all()


def test_a_webp_that_lacks_what_follows_its_picture_is_taken() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description that is cut short" * 10
    photo = encode(IMAGE, "WEBP", exif=exif)
    picture = photo.index(b"VP8 ")
    picture_end = picture + 8 + int.from_bytes(photo[picture + 4 : picture + 8], "little")
    for end in (len(photo) - 1, len(photo) - 100, picture_end):
        assert (decode_photo(photo[:end], SPEC) == decode_photo(photo, SPEC)).all()
    for end in (picture_end - 1, picture_end - 50):
        assert refused(photo[:end])


def test_an_animated_webp_that_lacks_later_frames_is_taken() -> None:
    photo = encode(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(90)] * 3)
    first = photo.index(b"ANMF")
    first_end = first + 8 + int.from_bytes(photo[first + 4 : first + 8], "little")
    assert (decode_photo(photo[: first_end + 100], SPEC) == decode_photo(photo, SPEC)).all()
    assert refused(photo[: first_end - 100])


def test_damaged_bytes_before_a_missing_end_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(6)
    for image, options in KINDS.values():
        photo = encode(image, "JPEG", **options)[:-2]
        for _ in range(20):
            damaged = np.frombuffer(photo, np.uint8).copy()
            damaged[rng.integers(2, len(damaged), 6)] = rng.integers(0, 256, 6)
            refused(damaged.tobytes())
