"""Hostile and odd JPEG, PNG, TIFF and animated files, made in code."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.conftest import encode
from tests.e2e.support.hostile_file import ACCEPTED, ANYTHING, DAMAGED, REFUSED, TOO_LARGE, HostileFile, twin
from tests.e2e.support.photo_bytes import (
    GIF_FRAME,
    IMAGE,
    JPEG,
    PLAIN,
    SIDE,
    chunk,
    exif_blob,
    gif,
    jpeg_with,
    pieces,
    png,
    png_with,
    segment,
    tiff,
)


def jpeg_files() -> Iterator[HostileFile]:
    """Hostile and odd JPEG files."""
    progressive = encode(IMAGE, quality=80, progressive=True)
    first = progressive.index(b"\xff\xda")
    scans = progressive[:first] + progressive[first:-2] * 500 + b"\xff\xd9"
    yield HostileFile("a JPEG of 5,000 scans", scans, DAMAGED)
    bands = encode(Image.new("CMYK", (SIDE, SIDE)), quality=10, progressive=True)
    yield HostileFile("62 Mpx of progressive CMYK", bands, TOO_LARGE)
    yield HostileFile("160 full APP segments", jpeg_with(*[segment(0xEF, b"\0" * 65_000)] * 140), ACCEPTED, PLAIN)
    yield HostileFile("two million empty segments", jpeg_with(segment(0xEF, b"") * 2_000_000), ANYTHING)
    yield HostileFile("a hundred thousand comments", jpeg_with(segment(0xFE, b"x" * 60) * 100_000), ANYTHING)
    yield HostileFile(
        "a hundred thousand Huffman tables", jpeg_with(segment(0xC4, b"\0" + b"\0" * 16) * 100_000), ANYTHING
    )
    resources = segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5_000)
    yield HostileFile("800,000 Photoshop resources", jpeg_with(*[resources] * 150), ANYTHING)
    profile = b"ICC_PROFILE\0" + b"\x01\xff" + b"\xff" * 65_000
    yield HostileFile("a broken colour profile of 9 MB", jpeg_with(*[segment(0xE2, profile)] * 140), ANYTHING)
    amplified = exif_blob([(40_000 + i, 7, 60_000, 100) for i in range(5_000)], b"\0" * 3_000)
    yield HostileFile("EXIF whose 5,000 tags share 60 kB", jpeg_with(segment(0xE1, b"Exif\0\0" + amplified)), ANYTHING)
    looped = exif_blob([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8)], next_ifd=8)
    yield HostileFile("EXIF that points at itself", jpeg_with(segment(0xE1, b"Exif\0\0" + looped)), ACCEPTED, PLAIN)
    lies = exif_blob([(0x0112, 5, 2**31, 2**31), (0x011A, 5, 2**32 - 1, 4)])
    yield HostileFile("EXIF of absurd counts", jpeg_with(segment(0xE1, b"Exif\0\0" + lies)), ACCEPTED, PLAIN)
    turned = exif_blob([(0x0112, 3, 1, 99)])
    yield HostileFile("EXIF orientation 99", jpeg_with(segment(0xE1, b"Exif\0\0" + turned)), ACCEPTED, PLAIN)
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + b"<x:xmpmeta>" + b"<a>" * 20_000
    yield HostileFile("XMP of twenty thousand tags", jpeg_with(*[segment(0xE1, xmp)] * 50), ACCEPTED, PLAIN)
    many = b"MPF\0" + exif_blob([(0xB000, 7, 4, 0x30303130), (0xB001, 4, 1, 2**31), (0xB002, 7, 60_000, 50)])
    yield HostileFile("an MPO of two billion pictures", jpeg_with(segment(0xE2, many)), ANYTHING)
    yield HostileFile(
        "an MPO of 300 pictures",
        encode(IMAGE, "MPO", save_all=True, append_images=[IMAGE.resize((9, 9))] * 300),
        ACCEPTED,
    )
    frame = JPEG.index(b"\xff\xc0")
    arithmetic = JPEG[: frame + 1] + b"\xc9" + JPEG[frame + 2 :]
    yield HostileFile("a JPEG that says it is arithmetic-coded", arithmetic, ANYTHING)
    yield HostileFile("a JPEG of 12 bits", JPEG[: frame + 4] + b"\x0c" + JPEG[frame + 5 :], REFUSED)
    yield HostileFile("a lossless JPEG", JPEG[: frame + 1] + b"\xc3" + JPEG[frame + 2 :], REFUSED)
    yield HostileFile("a JPEG of 65,535 x 65,535", JPEG[: frame + 5] + b"\xff" * 4 + JPEG[frame + 9 :], TOO_LARGE)
    yield HostileFile(
        "a JPEG of 7,900 x 7,900 that ends at once",
        JPEG[: frame + 5] + struct.pack(">HH", SIDE, SIDE) + JPEG[frame + 9 :],
        ANYTHING,
    )
    yield HostileFile("a JPEG without height", JPEG[: frame + 5] + b"\0\0" + JPEG[frame + 7 :], REFUSED)
    scan = JPEG.index(b"\xff\xda")
    yield HostileFile(
        "three million restart markers", JPEG[: scan + 14] + b"\xff\xd0" * 3_000_000 + JPEG[scan + 14 :], ANYTHING
    )


def png_files() -> Iterator[HostileFile]:
    """Hostile and odd PNG files."""
    text = zlib.compress(b"x" * 50_000_000)
    yield HostileFile("a compressed text of 50 MB", png_with(chunk(b"zTXt", b"a\0\0" + text)), ANYTHING)
    yield HostileFile(
        "a hundred texts of 900 kB", png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000)) * 100), ANYTHING
    )
    yield HostileFile(
        "an international text of 5 MB", png_with(chunk(b"iTXt", b"a\0\0\0\0\0" + b"x" * 5_000_000)), ANYTHING
    )
    yield HostileFile("a colour profile that unpacks to 50 MB", png_with(chunk(b"iCCP", b"a\0\0" + text)), ANYTHING)
    yield HostileFile("700,000 empty chunks", png_with(chunk(b"prVt", b"") * 700_000), ANYTHING)
    yield HostileFile("its data in pieces of one byte", pieces(1), DAMAGED)
    amplified = exif_blob([(i, 7, 5_000_000, 100) for i in range(1, 60_000)], b"\0" * 5_000_000)
    yield HostileFile("EXIF whose 60,000 tags share 5 MB", png_with(chunk(b"eXIf", amplified)), ANYTHING)
    profile = b"Raw profile type exif\0" + b"\nexif\n     100\n" + b"zz\n" * 1000
    yield HostileFile("EXIF in text that is no EXIF", png_with(chunk(b"tEXt", profile)), ANYTHING)
    yield HostileFile("a chunk that says it has 2 GB", png_with(b"\x7f\xff\xff\xffprVt"), DAMAGED)
    yield HostileFile(
        "two headers", png_with(chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))), REFUSED
    )
    yield HostileFile("a PNG of no width", png(0, 10, data=zlib.compress(b"")), REFUSED)
    yield HostileFile("400 million pixels in one bit", png(20_000, 20_000, depth=1, colour=0), TOO_LARGE)
    yield HostileFile("2^62 pixels", png(2**31 - 1, 2**31 - 1, data=zlib.compress(b"")), TOO_LARGE)
    yield HostileFile("one pixel by twenty thousand", png(1, 20_000), TOO_LARGE)
    yield HostileFile("twenty thousand pixels by one", png(20_000, 1), TOO_LARGE)
    yield HostileFile("a palette PNG without a palette", png(50, 50, colour=3), ANYTHING)
    yield HostileFile("an impossible depth", png(50, 50, depth=8, colour=2)[:24] + b"\x07" + png(50, 50)[25:], REFUSED)
    yield HostileFile("3 GB behind ten pixels", png(10, 10, data=zlib.compress(b"\0" * 300_000_000, 1)), ANYTHING)


def tiff_files() -> Iterator[HostileFile]:
    """Hostile and odd TIFF files."""
    grey = b"\x80" * 10_000
    yield HostileFile("a TIFF made by hand", tiff(100, 100, grey), ACCEPTED)
    yield HostileFile("a TIFF of 2^64 pixels", tiff(2**32 - 1, 2**32 - 1, grey), REFUSED)
    yield HostileFile("strips beyond the end", tiff(100, 100, grey, {273: (4, 1, 2**31)}), DAMAGED)
    yield HostileFile("a billion strips", tiff(100, 100, grey, {273: (4, 2**30, 8), 279: (4, 2**30, 8)}), REFUSED)
    yield HostileFile("a directory that follows itself", tiff(100, 100, grey, next_ifd=8 + len(grey)), ACCEPTED)
    yield HostileFile("a directory beyond the end", b"II*\0\xff\xff\xff\x7f", DAMAGED)
    yield HostileFile("a directory of 65,535 entries that are missing", b"II*\0\x08\0\0\0\xff\xff", DAMAGED)
    shared = exif_blob([(i, 7, 9_000_000, 8) for i in range(1, 60_000)], b"\0" * 8_500_000)
    yield HostileFile("60,000 tags that share 9 MB", shared, REFUSED)
    tags = dict.fromkeys(range(40000, 45000), (7, 9000000, 8))
    yield HostileFile("a TIFF with 5,000 tags of 9 MB", tiff(100, 100, b"\x80" * 9_500_000, tags), ANYTHING)
    packed = zlib.compress(b"\0" * 400_000_000, 1)
    tile = {322: (4, 1, 60_000), 323: (4, 1, 60_000), 324: (4, 1, 8), 325: (4, 1, len(packed))}
    yield HostileFile("a tile of 3.6 Gpx on ten pixels", tiff(10, 10, packed, tile, compression=8), REFUSED)
    tile = {322: (4, 1, 16_000), 323: (4, 1, 16_000), 324: (4, 1, 8), 325: (4, 1, len(packed))}
    yield HostileFile("a tile of 256 Mpx on ten pixels", tiff(10, 10, packed, tile, compression=8), REFUSED)
    tile = {322: (4, 1, 0), 323: (4, 1, 0), 324: (4, 1, 8), 325: (4, 1, 100)}
    yield HostileFile("tiles of no size", tiff(100, 100, grey, tile), ANYTHING)
    for name, compression in (
        ("LZW", 5),
        ("CCITT group 4", 4),
        ("JPEG", 7),
        ("PackBits", 32773),
        ("WebP", 50001),
        ("zstd", 50000),
        ("nothing known", 999),
    ):
        yield HostileFile(
            f"random bytes as {name} in TIFF",
            tiff(2000, 2000, np.random.default_rng(5).bytes(50_000), compression=compression),
            ANYTHING,
        )
    yield HostileFile("a thousand samples a pixel", tiff(100, 100, grey, {277: (3, 1, 1000)}), REFUSED)
    yield HostileFile("an unknown colour space", tiff(100, 100, grey, {262: (3, 1, 77)}), REFUSED)
    yield HostileFile("BigTIFF beyond the end", b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**60), REFUSED)
    levels = np.full((50, 50), np.nan, dtype=np.float32)
    yield HostileFile("a TIFF of NaN", encode(Image.fromarray(levels), "TIFF"), ACCEPTED)
    levels[:25] = np.inf
    yield HostileFile("a TIFF of NaN and infinity", encode(Image.fromarray(levels), "TIFF"), ACCEPTED)


def animations() -> Iterator[HostileFile]:
    """Hostile and odd animated files."""
    yield HostileFile("a GIF of ten thousand frames", gif(1, 1, GIF_FRAME * 10_000 + b";"), ACCEPTED)
    yield HostileFile("a GIF on a screen of 65,535 x 65,535", gif(65_535, 65_535, GIF_FRAME + b";"), TOO_LARGE)
    yield HostileFile("a GIF of no size", gif(0, 0, GIF_FRAME + b";"), ANYTHING)
    yield HostileFile("a GIF of no frames", gif(10, 10, b";"), REFUSED)
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 35_000 + b"\0"
    yield HostileFile("a GIF with a comment of 9 MB", gif(1, 1, comment + GIF_FRAME + b";"), ANYTHING)
    yield HostileFile(
        "a GIF of a million extensions", gif(1, 1, b"!\xf9\x04\0\0\0\0\0" * 1_000_000 + GIF_FRAME + b";"), ANYTHING
    )
    yield HostileFile("a GIF that is JavaScript", b"GIF89a=1;/*" + gif(1, 1, GIF_FRAME)[11:] + b"*/alert(1);", ANYTHING)
    outside = b"," + struct.pack("<HHHHB", 60_000, 60_000, 60_000, 60_000, 0) + GIF_FRAME[10:]
    yield HostileFile("a GIF frame far outside its screen", gif(10, 10, outside + b";"), REFUSED)
    yield twin(
        "a hidden picture before an animation",
        encode(Image.new("RGB", IMAGE.size), "PNG", save_all=True, append_images=[IMAGE], default_image=True),
    )
    few = IMAGE.quantize(200)
    yield twin(
        "a GIF that fades in",
        encode(Image.new("P", few.size), "GIF", save_all=True, append_images=[few], duration=100),
        encode(few.convert("RGB"), "PNG"),
    )
    frames = [Image.new("RGB", (64, 64), (i % 256, i // 256, 0)) for i in range(600)]
    yield HostileFile(
        "a WebP of 600 frames", encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0), ACCEPTED
    )
    yield HostileFile(
        "an APNG of 600 frames", encode(frames[0], "PNG", save_all=True, append_images=frames[1:]), ACCEPTED
    )
    actl = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield HostileFile("an APNG that says two billion frames", png_with(actl), ANYTHING)
