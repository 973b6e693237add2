"""A form that is not read is refused by its name, and never called damaged."""

import struct
from base64 import b64encode, encodebytes
from io import BytesIO

import pytest

from shared.errors import PhotoUndecodable, UnsupportedFormat
from shared.photos.images import PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image

IMAGE = noise_image(1, (64, 48))
SPEC = PreprocessSpec()


def container(brand: bytes) -> bytes:
    """The start of an ISO base media file."""
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + b"\0\0\1\0mdat" + b"\0" * 200


def tiff(tags: dict[int, int]) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4096


PREVIEW = {254: 1, 256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 271: 8, 273: 300, 277: 1, 278: 16, 279: 256, 330: 400}
JPEG = encode(IMAGE, quality=90)
FRAME = JPEG.index(b"\xff\xc0")
FILES = {
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "SVG ": b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg:svg width='9'/>",
    "HTML": b"\n<!doctype html><p>Not found</p>",
    "PDF": b"%PDF-1.7\n",
    "PSD": b"8BPS\0\1" + bytes(200),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "JPEG XL": b"\xff\x0a\xfa\x1f\x01\x91\x08\x06\x01\x00",
    "ICO": encode(IMAGE, "ICO"),
    "JPEG 2000": encode(IMAGE, "JPEG2000"),
    "MP4": container(b"isom"),
    "QuickTime": container(b"qt  "),
    "3GPP": container(b"3gp4"),
    "WebM": b"\x1aE\xdf\xa3" + bytes(100),
    "AVI": b"RIFF\x24\0\0\0AVI LIST" + bytes(100),
    "CR3": container(b"crx "),
    "CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(4096),
    "DNG": tiff(PREVIEW | {50_706: 0x0104}),
    "RAW": tiff(PREVIEW),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(100),
    "ORF": b"IIRO\x08\0\0\0" + bytes(100),
    "RW2": b"IIU\0\x18\0\0\0" + bytes(100),
    "compression 999": tiff(PREVIEW | {254: 0, 259: 999}),
    "compression 34892": tiff(PREVIEW | {254: 0, 259: 34_892}),
    "lossless JPEG": JPEG[: FRAME + 1] + b"\xc3" + JPEG[FRAME + 2 :],
    "JPEG of 12 bits": JPEG[: FRAME + 4] + b"\x0c" + JPEG[FRAME + 5 :],
    "JPEG with arithmetic coding": JPEG[: FRAME + 1] + b"\xc9" + JPEG[FRAME + 2 :],
    "big-endian BigTIFF": b"MM\0+\0\x08\0\0" + bytes(100),
    "ZIP": b"PK\3\4" + bytes(100),
    "CUR": b"\0\0\2\0\1\0\x20\x20" + bytes(100),
    "TGA": encode(IMAGE, "TGA"),
    "TGA ": encode(IMAGE, "TGA", compression="tga_rle"),
    "a data URL": b"data:image/jpeg;base64," + b64encode(JPEG),
    "base64": b64encode(JPEG),
    "base64 ": encodebytes(JPEG),
    "^a text file is not read": b'{"error": "not found"}',
    "turned into text": JPEG.decode(errors="replace").encode(),
    "turned into text ": JPEG.decode("latin-1").encode(),
    "turned into text  ": encode(IMAGE, "PNG").decode(errors="replace").encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_read_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name.strip()) as refusal:
        decode_photo(FILES[name], SPEC)
    assert "JPEG, PNG, WEBP" in str(refusal.value)


def test_what_nobody_knows_is_not_given_a_name() -> None:
    with pytest.raises(UnsupportedFormat, match="not a photo"):
        decode_photo(b"\x93\x01\x02\x03" * 100, SPEC)


def test_a_tiff_with_tags_of_cameras_and_pyramids_is_still_a_photo() -> None:
    file = BytesIO()
    IMAGE.save(file, "TIFF", tiffinfo={271: "Maker", 272: "Model"})
    assert decode_photo(file.getvalue(), SPEC).any()
    assert decode_photo(encode(IMAGE, "TIFF", save_all=True, append_images=[IMAGE.resize((9, 9))]), SPEC).any()


@pytest.mark.parametrize("image_format", ["TIFF", "JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_a_damaged_photo_is_not_called_another_format(image_format: str) -> None:
    photo = encode(IMAGE, image_format)
    for share in (0.1, 0.3, 0.6):
        with pytest.raises(PhotoUndecodable):
            decode_photo(photo[: int(len(photo) * share)], SPEC)
