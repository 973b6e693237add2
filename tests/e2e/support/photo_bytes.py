"""Photos byte by byte: chunks, segments and directories of PNG, JPEG, TIFF, BMP and GIF, to make odd files of."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.conftest import encode, noise_image

IMAGE = noise_image(1, (300, 200))
PLAIN = encode(IMAGE, "PNG")
GREY = encode(IMAGE.convert("L"), "PNG")
JPEG = encode(IMAGE, quality=95)
SIDE = 7_900  # 62 Mpx, under the limit of 64


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
