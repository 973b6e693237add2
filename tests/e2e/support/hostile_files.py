"""Hostile and odd uploads, each with a claim: what may be answered, or whose embedding it must share. Made in code."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from tests.conftest import encode, noise_image
from tests.e2e.support.hostile_file import (
    ACCEPTED,
    ANYTHING,
    DAMAGED,
    REFUSED,
    TOO_LARGE,
    UNSUPPORTED,
    HostileFile,
    twin,
)
from tests.e2e.support.hostile_formats import animations, jpeg_files, png_files, tiff_files
from tests.e2e.support.photo_bytes import (
    GIF_FRAME,
    GREY,
    IMAGE,
    JPEG,
    PLAIN,
    SIDE,
    bmp,
    chunk,
    gif,
    half_clear,
    half_white,
    interlaced,
    jpeg_with,
    pieces,
    png,
    png16,
    png_with,
    segment,
    tiff,
    ycck,
    zip_of_nothing,
)


@cache
def hostile_files() -> list[HostileFile]:
    """All but the large ones, smallest trouble first."""
    groups = [
        _odd_but_honest,
        _odd_names,
        _not_photos,
        _cut_short,
        _broken,
        jpeg_files,
        png_files,
        tiff_files,
        animations,
    ]
    return [file for group in groups for file in group()]


def _odd_but_honest() -> Iterator[HostileFile]:
    stored = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_90, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_270,
    }  # fmt: skip
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = IMAGE.transpose(stored[orientation]) if orientation > 1 else IMAGE
        yield twin(f"a JPEG stored in EXIF orientation {orientation}", encode(image, quality=95, exif=exif))
    rgba, grey, few = IMAGE.convert("RGBA"), IMAGE.convert("L"), IMAGE.quantize(200)
    levels = np.asarray(grey)
    photos: dict[str, tuple[bytes, bytes]] = {
        "a PNG": (PLAIN, PLAIN),
        "a CMYK JPEG as Adobe inverts it": (encode(IMAGE.convert("CMYK"), quality=95), PLAIN),
        "a YCCK JPEG": (ycck(), PLAIN),
        "a CMYK TIFF": (encode(IMAGE.convert("CMYK"), "TIFF"), PLAIN),
        "a progressive JPEG": (encode(IMAGE, quality=95, progressive=True), PLAIN),
        "an MPO of two pictures": (encode(IMAGE, "MPO", save_all=True, append_images=[grey], quality=95), PLAIN),
        "a JPEG without chroma subsampling": (encode(IMAGE, quality=95, subsampling=0), PLAIN),
        "a JPEG with restart markers": (encode(IMAGE, quality=95, restart_marker_blocks=1), PLAIN),
        "a WebP": (encode(IMAGE, "WEBP", quality=95), PLAIN),
        "a lossless WebP": (encode(IMAGE, "WEBP", lossless=True), PLAIN),
        "an AVIF": (encode(IMAGE, "AVIF", quality=95), PLAIN),
        "a HEIC": (encode(IMAGE, "HEIF", quality=95), PLAIN),
        "a BMP": (encode(IMAGE, "BMP"), PLAIN),
        "a TIFF in LZW": (encode(IMAGE, "TIFF", compression="tiff_lzw"), PLAIN),
        "a TIFF with JPEG inside": (encode(IMAGE, "TIFF", compression="jpeg", quality=95), PLAIN),
        "a TIFF with many IFDs": (
            encode(IMAGE.copy(), "TIFF", save_all=True, append_images=[grey.copy().resize((30, 20))] * 300),
            PLAIN,
        ),
        "an opaque RGBA PNG": (encode(rgba, "PNG"), PLAIN),
        "a 16-bit RGB PNG": (png16(np.asarray(IMAGE), 2), PLAIN),
        "a 16-bit RGBA PNG": (png16(np.asarray(rgba), 6), PLAIN),
        "an interlaced PNG": (interlaced(), PLAIN),
        "a GIF": (encode(few, "GIF"), encode(few.convert("RGB"), "PNG")),
        "a palette PNG": (encode(few, "PNG"), encode(few.convert("RGB"), "PNG")),
        "a palette PNG with a transparent colour nobody uses": (
            encode(few, "PNG", transparency=255),
            encode(few.convert("RGB"), "PNG"),
        ),
        "a grey JPEG": (encode(grey, quality=95), GREY),
        "a grey PNG with alpha": (encode(grey.convert("LA"), "PNG"), GREY),
        "a 16-bit grey PNG": (encode(Image.fromarray(levels.astype(np.uint16) * 257), "PNG"), GREY),
        "a 16-bit grey TIFF": (encode(Image.fromarray(levels.astype(np.uint16) * 257), "TIFF"), GREY),
        "a 32-bit grey TIFF": (encode(Image.fromarray(levels.astype(np.int32) * 257), "TIFF"), GREY),
        "a floating-point TIFF": (encode(Image.fromarray(levels.astype(np.float32) / 255), "TIFF"), GREY),
        "a 1-bit PNG": (encode(grey.convert("1"), "PNG"), encode(grey.convert("1").convert("L"), "PNG")),
        "transparency shown on white": (encode(half_clear(), "PNG"), encode(half_white(), "PNG")),
        "an animated WebP": (
            encode(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(180)], lossless=True),
            PLAIN,
        ),
        "an animated PNG": (encode(IMAGE, "PNG", save_all=True, append_images=[IMAGE.rotate(180)]), PLAIN),
        "a JPEG with garbage behind it": (JPEG + b"\xff\xda" * 50_000, PLAIN),
        "a JPEG that is a ZIP too": (JPEG + zip_of_nothing(), PLAIN),
        "a JPEG with a comment of HTML": (jpeg_with(segment(0xFE, b"<script>alert(1)</script>")), PLAIN),
        "a JPEG of fill bytes between its segments": (jpeg_with(b"\xff" * 500), PLAIN),
        "a PNG in many IDAT pieces": (pieces(50), PLAIN),
        "a PNG with an unknown private chunk": (png_with(chunk(b"prVt", b"\0" * 5000)), PLAIN),
        "a PNG that calls itself .jpg.exe": (PLAIN, PLAIN),
    }
    for claim, (content, plain) in photos.items():
        yield twin(claim, content, plain)
    yield HostileFile("one pixel", encode(Image.new("RGB", (1, 1)), "PNG"), ACCEPTED)
    yield HostileFile("one pixel wide, 200 high", encode(noise_image(2, (1, 200)), "PNG"), ACCEPTED)


def _odd_names() -> Iterator[HostileFile]:
    names = {
        "climbs": b"../../../../etc/passwd",
        "is absolute": b"/etc/passwd",
        "climbs as Windows does": b"..\\..\\windows\\system32\\config",
        "is four kilobytes long": b"n" * 4096 + b".jpg",
        "reads from right to left": "\u202egpj.exe".encode(),
        "is emoji": "\U0001f9f8.jpg".encode(),
        "is not UTF-8": b"\xff\xfe\x80.jpg",
        "holds a NUL": b"photo\0.jpg",
        "has another ending": b"photo.png",
        "has no ending": b"photo",
        "is a device": b"CON",
        "is a shell command": b"$(touch pwned);`id`.jpg",
        "is HTML": b"<img src=x onerror=alert(1)>.jpg",
        "is a format string": b"%s%n{0.__class__}.jpg",
        "has a quote": b'pho\\"to.jpg',
    }
    for what, name in names.items():
        yield twin(f"a name that {what}", JPEG, filename=name)
    injected = b'a"\r\nX-Injected: yes\r\nContent-Type: text/html; x="'
    yield HostileFile("a name that ends its line", JPEG, ANYTHING, filename=injected)
    yield HostileFile("no name", JPEG, ANYTHING, filename=b"")


def _not_photos() -> Iterator[HostileFile]:
    small = IMAGE.resize((64, 64))
    for image_format in ("ICO", "ICNS", "JPEG2000", "PPM", "TGA", "PCX", "DDS", "EPS", "PDF", "SGI", "QOI", "XBM"):
        image = small.convert("1") if image_format == "XBM" else small
        yield HostileFile(f"a file in {image_format}", encode(image, image_format), UNSUPPORTED)
    others = {
        "a sentence": b"hello",
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "SVG that reads a file": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "XML with a bomb of entities": b"<!DOCTYPE l [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><l>&b;</l>",
        "PostScript that runs a command": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(%pipe%id) (r) file\n",
        "an ImageMagick script": b"push graphic-context\nfill 'url(https://127.0.0.1/x.jpg\"|id \")'\n",
        "a gzipped photo": gzip.compress(JPEG),
        "a ZIP": zip_of_nothing(),
        "an ELF binary": b"\x7fELF\x02\x01\x01" + b"\0" * 100,
        "zeros": b"\0" * 1_000_000,
        "random bytes": np.random.default_rng(1).bytes(1_000_000),
        "a HEIC sequence": b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc" + b"\0" * 200,
        "MP4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\0" * 200,
        "PSD": b"8BPS\0\x01" + b"\0" * 6 + struct.pack(">HIIHH", 3, 100, 100, 8, 3) + b"\0" * 100,
        "FITS": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
        "JPEG XL": b"\xff\x0a\xfa\x1f\x01\x91\x08\x06\x01\x00",
        "a pickle": b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
        "a path": b"file:///etc/passwd",
        "WAV in RIFF": b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 100,
    }
    for claim, content in others.items():
        yield HostileFile(claim, content, UNSUPPORTED)
    yield HostileFile("nothing", b"", DAMAGED)


def _cut_short() -> Iterator[HostileFile]:
    for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"):
        whole = encode(IMAGE, image_format)
        for share in (0.1, 0.5, 0.95):
            yield HostileFile(f"{share:.0%} of a {image_format}", whole[: int(len(whole) * share)], DAMAGED)
    yield HostileFile("a JPEG's first marker", JPEG[:3], DAMAGED)
    yield HostileFile("a PNG's signature", PLAIN[:8], DAMAGED)
    yield twin("a PNG without its end", PLAIN[:-12])
    yield twin("a JPEG without its end", JPEG[:-2])
    yield twin("a JPEG without its end, padded with zeros", JPEG[:-2] + b"\0" * 4096)
    yield HostileFile("half a JPEG, padded with zeros", JPEG[: len(JPEG) // 2] + b"\0" * 500_000, DAMAGED)
    heic = encode(IMAGE, "HEIF")
    yield HostileFile("a HEIC's first box", heic[:28], DAMAGED)


def _broken() -> Iterator[HostileFile]:
    rng = np.random.default_rng(3)
    for image_format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "HEIF"):
        damaged = np.frombuffer(encode(IMAGE, image_format), np.uint8).copy()
        damaged[rng.integers(12, len(damaged), 20)] = rng.integers(0, 256, 20)
        yield HostileFile(f"a {image_format} with flipped bytes", damaged.tobytes(), ANYTHING)
    wrong_sum = bytearray(PLAIN)
    wrong_sum[PLAIN.index(b"IDAT") + 10] ^= 1
    yield HostileFile("a PNG with a wrong check sum", bytes(wrong_sum), DAMAGED)
    yield HostileFile("a BMP of negative width", bmp(-10, 10, data=b"\0" * 400), REFUSED)
    yield HostileFile("a BMP upside down", bmp(10, -10, data=b"\0" * 400), ANYTHING)
    yield HostileFile("a BMP of absurd size", bmp(2**31 - 1, 2**31 - 1), REFUSED)
    yield HostileFile("a BMP of the most negative height", bmp(10, -(2**31), data=b"\0" * 400), REFUSED)
    yield HostileFile("a BMP of 19,000 x 3,000 without pixels", bmp(19_000, 3_000), DAMAGED)
    yield HostileFile("a BMP with a palette of nothing", bmp(8, 8, depth=8, data=b"\xff" * 64), ANYTHING)
    runs = b"\x01\x00" * 4_000_000
    yield HostileFile(
        "an RLE BMP in four million runs",
        bmp(4000, 4000, depth=8, compression=1, data=runs, palette=b"\0" * 1024),
        ANYTHING,
    )
    webp = encode(IMAGE, "WEBP")
    huge = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xfe\x3f\x00" * 2
    yield HostileFile("a WebP that says 16,383 x 16,383", webp[:12] + huge + webp[12:], TOO_LARGE)
    yield HostileFile("a WebP with a wrong length", webp[:4] + b"\xff\xff\xff\x7f" + webp[8:], ANYTHING)
    avif = encode(IMAGE, "AVIF")
    spot = avif.index(b"ispe") + 8
    yield HostileFile(
        "an AVIF that says 60,000 x 60,000",
        avif[:spot] + struct.pack(">II", 60_000, 60_000) + avif[spot + 8 :],
        REFUSED,
    )
    heic = encode(IMAGE, "HEIF")
    spot = heic.index(b"ispe") + 8
    for side in (60_000, 7_900):
        lie = heic[:spot] + struct.pack(">II", side, side) + heic[spot + 8 :]
        yield HostileFile(f"a HEIC that says {side} x {side}", lie, REFUSED)
    yield HostileFile(
        "a HEIC of boxes in boxes", b"\0\0\0\x1cftypheic\0\0\0\0heicmif1miaf" + b"\0\0\0\x08meta" * 50_000, DAMAGED
    )
    yield HostileFile(
        "an AVIF of boxes in boxes", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0\0\0\x08meta" * 50_000, DAMAGED
    )


@cache
def large_files() -> list[HostileFile]:
    return [*_large()]


def _large() -> Iterator[HostileFile]:
    """Near the limit of pixels, in every form that costs a decoder memory or time; each a few kilobytes."""
    large = encode(Image.new("L", (SIDE, SIDE)), quality=10, progressive=True)
    first = large.index(b"\xff\xda")
    leaps = b"\x00\x02\xff\xff" * 100_000
    packed = zlib.compress(b"\0" * SIDE * SIDE, 1)
    yield HostileFile(
        "an RLE BMP of leaps", bmp(7000, 7000, depth=8, compression=1, data=leaps, palette=b"\0" * 1024), ANYTHING
    )
    yield HostileFile("62 Mpx in 60 scans", large[:first] + large[first:-2] * 10 + b"\xff\xd9", ANYTHING)
    yield HostileFile("62 Mpx promised, nothing there", png(SIDE, SIDE, data=zlib.compress(b"")), DAMAGED)
    yield HostileFile("one strip of 62 Mpx", tiff(SIDE, SIDE, packed, compression=8), ANYTHING)
    yield HostileFile("one pixel on a GIF screen of 62 Mpx", gif(SIDE, SIDE, GIF_FRAME + b";"), ACCEPTED)
    for claim, colour, extra in (
        ("RGB", 2, b""),
        ("RGBA", 6, b""),
        ("RGB with a transparent colour", 2, chunk(b"tRNS", b"\0" * 6)),
    ):
        yield HostileFile(f"62 Mpx of {claim} PNG", png(SIDE, SIDE, colour=colour, extra=extra), ACCEPTED)
    clear = chunk(b"PLTE", b"\0" * 768) + chunk(b"tRNS", b"\0" * 256)
    yield HostileFile("62 Mpx of palette PNG", png(SIDE, SIDE, colour=3, extra=clear), ACCEPTED)
    yield HostileFile("62 Mpx of JPEG", encode(Image.new("RGB", (SIDE, SIDE)), quality=10), ACCEPTED)
    yield HostileFile(
        "62 Mpx of WebP", encode(Image.new("RGB", (SIDE, SIDE)), "WEBP", lossless=True, method=0), TOO_LARGE
    )
    yield HostileFile(
        "16 Mpx of WebP", encode(Image.new("RGB", (4000, 4000)), "WEBP", lossless=True, method=0), ACCEPTED
    )
    yield HostileFile("21 Mpx of AVIF", encode(Image.new("RGB", (4600, 4600)), "AVIF", speed=10), ACCEPTED)
    hasty: dict[str, Any] = {"quality": 10, "enc_params": {"preset": "ultrafast"}}  # else a minute of a busy machine
    yield HostileFile("25 Mpx of HEIC", encode(Image.new("RGB", (5000, 5000)), "HEIF", **hasty), ACCEPTED)
    yield HostileFile("30 Mpx of HEIC", encode(Image.new("RGB", (6000, 5000)), "HEIF", **hasty), TOO_LARGE)
    for mode in ("CMYK", "F", "I;16"):
        options: dict[str, Any] = {"compression": "tiff_adobe_deflate"}
        yield HostileFile(
            f"62 Mpx of TIFF in {mode}", encode(Image.new(mode, (SIDE, SIDE)), "TIFF", **options), ACCEPTED
        )
    yield HostileFile("62 Mpx of GIF", encode(Image.new("P", (SIDE, SIDE)), "GIF"), ACCEPTED)
    yield HostileFile(
        "62 Mpx of CCITT in TIFF", encode(Image.new("1", (SIDE, SIDE)), "TIFF", compression="group4"), ACCEPTED
    )
