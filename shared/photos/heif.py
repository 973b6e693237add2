"""Checks how a HEIC file is built before it is decoded: its size, its number of tiles, and that it is one still photo.

Its boxes are those of ISO/IEC 14496-12 and 23008-12; only their headers and the few tables needed are read.
"""

from collections.abc import Iterator

from shared.errors import PhotoTooLarge, PhotoUndecodable
from shared.photos.formats import unsupported
from shared.photos.limits import check_size

# A grid of 48 megapixels in tiles of 512 pixels has 192, and its gain map as many again.
MAX_ITEMS = 1_000
_MAX_BOXES = 20_000
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1"})
_SEQUENCE_BRANDS = frozenset({b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"})
_META_VERSION_BYTES = 4
# Kinds of the main picture: HEVC, or a grid or turned copy of such.
_PICTURES = frozenset({b"hvc1", b"grid", b"iden"})


def is_heif(photo: bytes) -> bool:
    """Whether a file begins as HEIC does, or as a sequence of such pictures."""
    return photo[4:8] == b"ftyp" and photo[8:12] in _BRANDS | _SEQUENCE_BRANDS


def check_heif(photo: bytes, max_pixels: int) -> None:
    """Refuse what is no still HEIC photo of allowed size.

    Raises:
        UnsupportedFormat: an image sequence, a video, or a photo coded otherwise than by HEVC.
        PhotoTooLarge: one of its pictures is larger than allowed, or they are too many.
        PhotoUndecodable: tiles of its main picture lie beyond the end of the file; the decoder would leave them out.
    """
    if photo[8:12] in _SEQUENCE_BRANDS or any(kind == b"moov" for kind, _, _ in _boxes(photo, 0, len(photo))):
        raise unsupported("a HEIC image sequence or video")
    meta = _box(photo, (0, len(photo)), b"meta")
    if not meta:
        return  # the decoder will say that it is damaged, or is an AVIF
    inside = (meta[0] + _META_VERSION_BYTES, meta[1])
    kinds = dict(_items(photo, inside))
    if len(kinds) > MAX_ITEMS:
        raise PhotoTooLarge(f"the HEIC has more than {MAX_ITEMS} pictures and tiles; send a JPEG")
    main = _main_item(photo, inside)
    kind_of_main = kinds.get(main, b"av01")
    if kind_of_main not in _PICTURES and kind_of_main != b"av01":
        raise unsupported(f"HEIF coded as {kind_of_main.decode('ascii', 'replace')!r}")
    needed = {main, *_tiles(photo, inside, main)}
    if any(end > len(photo) for item, end in _data_ends(photo, inside) if item in needed):
        raise PhotoUndecodable("the HEIC file is cut short")
    properties = _box(photo, _box(photo, inside, b"iprp"), b"ipco")
    for kind, start, _ in _boxes(photo, *(properties or (0, 0))):
        if kind == b"ispe":
            check_size(_number(photo, start + 4, 4), _number(photo, start + 8, 4), max_pixels)


def _items(photo: bytes, meta: tuple[int, int]) -> Iterator[tuple[int, bytes]]:
    """Id and kind of each item."""
    table = _box(photo, meta, b"iinf")
    if not table:
        return
    n_bytes = 2 if _number(photo, table[0], 1) == 0 else 4
    for kind, start, _ in _boxes(photo, table[0] + 4 + n_bytes, table[1]):
        if kind == b"infe":
            id_bytes = 2 if _number(photo, start, 1) <= 2 else 4
            yield _number(photo, start + 4, id_bytes), photo[start + 6 + id_bytes : start + 10 + id_bytes]


def _main_item(photo: bytes, meta: tuple[int, int]) -> int:
    found = _box(photo, meta, b"pitm")
    return _number(photo, found[0] + 4, 2 if _number(photo, found[0], 1) == 0 else 4) if found else 0


def _tiles(photo: bytes, meta: tuple[int, int], item: int) -> Iterator[int]:
    """Items that a picture is put together from."""
    table = _box(photo, meta, b"iref")
    if not table:
        return
    id_bytes = 2 if _number(photo, table[0], 1) == 0 else 4
    for kind, start, end in _boxes(photo, table[0] + 4, table[1]):
        if kind == b"dimg" and _number(photo, start, id_bytes) == item:
            first = start + id_bytes + 2
            yield from (
                _number(photo, at, id_bytes) for at in range(first, min(end, first + MAX_ITEMS * id_bytes), id_bytes)
            )


def _data_ends(photo: bytes, meta: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Id of each item whose data lie in the file itself, and where they end."""
    table = _box(photo, meta, b"iloc")
    if not table:
        return
    version, at = _number(photo, table[0], 1), table[0] + 4
    sizes = _number(photo, at, 2)
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version else 0
    id_bytes = 4 if version == 2 else 2
    at += 2 + id_bytes  # behind the number of items
    n_read = 0
    while at + id_bytes < table[1]:
        item = _number(photo, at, id_bytes)
        at += id_bytes
        in_file = version == 0 or _number(photo, at, 2) & 15 == 0
        at += (2 if version else 0) + 2
        base = _number(photo, at, base_bytes)
        at += base_bytes
        n_extents = _number(photo, at, 2)
        at += 2
        for _ in range(n_extents):
            n_read += 1
            if at >= table[1] or n_read > _MAX_BOXES:
                return
            at += index_bytes
            end = base + _number(photo, at, offset_bytes) + _number(photo, at + offset_bytes, length_bytes)
            at += offset_bytes + length_bytes
            if in_file:
                yield item, end


def _box(photo: bytes, within: tuple[int, int] | None, wanted: bytes) -> tuple[int, int] | None:
    """Start and end of a box's content."""
    if not within:
        return None
    return next(((start, end) for kind, start, end in _boxes(photo, *within) if kind == wanted), None)


def _boxes(photo: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and start and end of the content, of each box; those of a file that is cut short end with it."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        n_bytes, header = _number(photo, start, 4), 8
        if n_bytes == 1:
            n_bytes, header = _number(photo, start + 8, 8), 16
        stop = end if n_bytes == 0 else min(end, start + n_bytes)
        if stop < start + header:
            return
        yield photo[start + 4 : start + 8], start + header, stop
        start = stop


def _number(photo: bytes, at: int, n_bytes: int) -> int:
    return int.from_bytes(photo[at : at + n_bytes], "big")
