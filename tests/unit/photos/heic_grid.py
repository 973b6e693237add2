"""Builds HEIC files as phones do: one picture in a grid of tiles, turned by the container."""

import struct

from PIL import Image

from tests.conftest import encode


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full_box(kind: bytes, *content: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *content)


def content_of(file: bytes, kind: bytes) -> bytes:
    """Content of the first box of a kind, wherever it lies."""
    at = file.index(kind)
    return file[at + 4 : at - 4 + int.from_bytes(file[at - 4 : at], "big")]


def heic_grid(image: Image.Image, tile_px: int, *, quarter_turns: int = 0) -> bytes:
    """Encode a photo in tiles.

    Args:
        image: its sides are filled up to whole tiles with black.
        tile_px: side of a tile.
        quarter_turns: anticlockwise, which the decoder applies.
    """
    across, down = (-(-side // tile_px) for side in image.size)
    corners = [(x * tile_px, y * tile_px) for y in range(down) for x in range(across)]
    tiles = [encode(image.crop((x, y, x + tile_px, y + tile_px)), "HEIF", quality=95) for x, y in corners]
    grid = struct.pack(">BBBBHH", 0, 0, down - 1, across - 1, *image.size)
    data = [grid, *(content_of(tile, b"mdat") for tile in tiles)]

    n_items = len(data)
    kinds = [b"grid\0"] + [b"hvc1\0"] * (n_items - 1)
    infos = [full_box(b"infe", struct.pack(">HH", i + 1, 0), kind, version=2) for i, kind in enumerate(kinds)]
    table = full_box(b"iinf", struct.pack(">H", n_items), *infos)
    tile_ids = struct.pack(f">{n_items - 1}H", *range(2, n_items + 1))
    references = full_box(b"iref", box(b"dimg", struct.pack(">HH", 1, n_items - 1), tile_ids))
    sizes = [full_box(b"ispe", struct.pack(">II", *size)) for size in (image.size, (tile_px, tile_px))]
    properties = box(b"ipco", *sizes, box(b"hvcC", content_of(tiles[0], b"hvcC")), box(b"irot", bytes([quarter_turns])))
    of_grid = struct.pack(">HBBB", 1, 2, 1, 0x80 | 4)
    of_tiles = [struct.pack(">HBBB", i, 2, 2, 0x80 | 3) for i in range(2, n_items + 1)]
    associations = full_box(b"ipma", struct.pack(">I", n_items), of_grid, *of_tiles)
    handler = full_box(b"hdlr", bytes(4), b"pict", bytes(13))

    def meta(offset: int) -> bytes:
        places = b""
        for i, content in enumerate(data):
            places += struct.pack(">HHHII", i + 1, 0, 1, offset, len(content))
            offset += len(content)
        location = full_box(b"iloc", b"\x44\x00", struct.pack(">H", n_items), places)
        main = full_box(b"pitm", struct.pack(">H", 1))
        return full_box(b"meta", handler, main, location, table, references, box(b"iprp", properties, associations))

    brand = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    start = len(brand) + len(meta(0)) + 8
    return brand + meta(start) + box(b"mdat", *data)
