"""Hostile and odd uploads, each with a claim: what may be answered, or whose embedding it must share. Made in code."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from tests.conftest import encode, noise_image

ACCEPTED = frozenset({200})
TOO_LARGE = frozenset({413})
UNSUPPORTED = frozenset({415})
DAMAGED = frozenset({422})
REFUSED = TOO_LARGE | UNSUPPORTED | DAMAGED
ANYTHING = REFUSED | ACCEPTED  # decoders may differ about it, so long as they survive it


@dataclass(frozen=True)
class HostileFile:
    """One upload.

    Attributes:
        claim: what it is; the test's words when it fails.
        content: the file.
        statuses: what may be answered.
        twin: a plain photo of the same thing, whose embedding must be the same.
        filename: as it stands in the form, without quotes or escapes of ours.
    """

    claim: str
    content: bytes
    statuses: frozenset[int]
    twin: bytes | None = None
    filename: bytes = b"photo.jpg"


IMAGE = noise_image(1, (300, 200))
PLAIN = encode(IMAGE, "PNG")
GREY = encode(IMAGE.convert("L"), "PNG")
JPEG = encode(IMAGE, quality=95)
SIDE = 7_900  # 62 Mpx, under the limit of 64


@cache
def hostile_files() -> list[HostileFile]:
    """All but the large ones, smallest trouble first."""
    groups = [_odd_but_honest, _odd_names, _not_photos, _cut_short, _broken, _jpeg, _png, _tiff, _animations]
    return [file for group in groups for file in group()]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, extra: bytes = b"", data: bytes | None = None
) -> bytes:
    """A PNG whose pixels are zeros, or whose data are as given."""
    if data is None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        packer = zlib.compressobj(1)
        row = b"\0" * (1 + (width * channels * depth + 7) // 8)
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_with(extra: bytes) -> bytes:
    """The plain photo with further chunks behind its header."""
    return PLAIN[:33] + extra + PLAIN[33:]


def segment(marker: int, content: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_with(*segments: bytes) -> bytes:
    """The plain photo with further segments at its start."""
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def ifd(entries: list[tuple[int, int, int, int]], next_ifd: int = 0) -> bytes:
    """A TIFF directory of (tag, type, count, value or offset)."""
    return (
        struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *e) for e in entries)
        + struct.pack("<I", next_ifd)
    )


def tiff(
    width: int, height: int, strip: bytes = b"", changes: dict[int, tuple[int, int, int]] | None = None, **options: int
) -> bytes:
    """A little-endian RGB TIFF: header, strip, directory; `changes` are (type, count, value) by tag."""
    offset = 8 + len(strip)
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, options.get("compression", 1)),
        262: (3, 1, 1), 273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, len(strip)), **(changes or {}),
    }  # fmt: skip
    entries = [(tag, *value) for tag, value in sorted(tags.items())]
    return b"II*\0" + struct.pack("<I", offset) + strip + ifd(entries, options.get("next_ifd", 0))


def exif_blob(entries: list[tuple[int, int, int, int]], payload: bytes = b"", next_ifd: int = 0) -> bytes:
    return b"II*\0\x08\0\0\0" + ifd(entries, next_ifd) + payload


def bmp(
    width: int, height: int, *, depth: int = 24, compression: int = 0, data: bytes = b"", palette: bytes = b""
) -> bytes:
    start = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(data), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def gif(width: int, height: int, body: bytes, *, flags: int = 0x80) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, flags, 0, 0)
        + (b"\0\0\0\xff\xff\xff" if flags & 0x80 else b"")
        + body
    )


GIF_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x4c\x01\x00"


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


def twin(claim: str, content: bytes, plain: bytes = PLAIN, filename: bytes = b"photo.jpg") -> HostileFile:
    return HostileFile(claim, content, ACCEPTED, plain, filename)


def ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says that its first three channels are YCbCr."""
    y, cb, cr = Image.eval(IMAGE, lambda level: 255 - level).convert("YCbCr").split()
    # Pillow writes CMYK inverted, as Adobe does.
    as_cmyk = Image.merge(
        "CMYK", [*(Image.eval(band, lambda level: 255 - level) for band in (y, cb, cr)), Image.new("L", IMAGE.size)]
    )
    plain = encode(as_cmyk, quality=95, subsampling=0)
    at = plain.index(b"Adobe")
    return plain[: at + 11] + b"\x02" + plain[at + 12 :]


def png16(levels: "np.typing.NDArray[np.uint8]", colour: int) -> bytes:
    deep = (levels.astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    return png(levels.shape[1], levels.shape[0], depth=16, colour=colour, data=zlib.compress(rows))


def interlaced() -> bytes:
    """Adam7: (first column, first row, column step, row step) of each pass."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    levels = np.asarray(IMAGE)
    rows = [b"\0" + row.tobytes() for x, y, across, down in passes for row in levels[y::down, x::across]]
    plain = png(IMAGE.width, IMAGE.height, data=zlib.compress(b"".join(rows)))
    header = plain[16:28] + b"\x01"
    return plain[:8] + chunk(b"IHDR", header) + plain[33:]


def half_clear() -> Image.Image:
    image = IMAGE.convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, 150, 200))
    return image


def half_white() -> Image.Image:
    image = IMAGE.copy()
    image.paste((255, 255, 255), (0, 0, 150, 200))
    return image


def zip_of_nothing() -> bytes:
    return b"PK\x05\x06" + b"\0" * 18


def pieces(size: int) -> bytes:
    start = PLAIN.index(b"IDAT") - 4
    length = int.from_bytes(PLAIN[start : start + 4], "big")
    data, rest = PLAIN[start + 8 : start + 8 + length], PLAIN[start + 12 + length :]
    cut = b"".join(chunk(b"IDAT", data[i : i + size]) for i in range(0, len(data), size))
    return PLAIN[:start] + cut + rest


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


def _jpeg() -> Iterator[HostileFile]:
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


def _png() -> Iterator[HostileFile]:
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


def _tiff() -> Iterator[HostileFile]:
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


def _animations() -> Iterator[HostileFile]:
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
    yield HostileFile("25 Mpx of HEIC", encode(Image.new("RGB", (5000, 5000)), "HEIF", quality=10), ACCEPTED)
    yield HostileFile("30 Mpx of HEIC", encode(Image.new("RGB", (6000, 5000)), "HEIF", quality=10), TOO_LARGE)
    for mode in ("CMYK", "F", "I;16"):
        options: dict[str, Any] = {"compression": "tiff_adobe_deflate"}
        yield HostileFile(
            f"62 Mpx of TIFF in {mode}", encode(Image.new(mode, (SIDE, SIDE)), "TIFF", **options), ACCEPTED
        )
    yield HostileFile("62 Mpx of GIF", encode(Image.new("P", (SIDE, SIDE)), "GIF"), ACCEPTED)
    yield HostileFile(
        "62 Mpx of CCITT in TIFF", encode(Image.new("1", (SIDE, SIDE)), "TIFF", compression="group4"), ACCEPTED
    )
