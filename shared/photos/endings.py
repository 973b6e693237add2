"""Files that lack only their end: taken where no pixel is missing, as viewers show them; else refused.

A PNG without IEND and a GIF without trailer need nothing done: their decoders stop at the last pixel.
"""

import hashlib
import zlib

from shared.errors import PhotoUndecodable
from shared.photos.formats import DECODER_ERRORS, open_image
from shared.photos.structure import JpegScans

JPEG_END = b"\xff\xd9"
# Entropy-coded data of no meaning, the same each time, with every restart marker twice: a scan with restart intervals
# reads on only behind the one that it waits for. 0xFF would begin a marker.
_NOISE = b"".join(
    hashlib.sha256(bytes([i])).digest().replace(b"\xff", b"\x7f") + bytes([0xFF, 0xD0 + i % 8]) for i in range(16)
)
_DATA_ZEROS = 2  # at most so many zeros end a scan's data
_FULL_SIZE_PIXELS = 32_000_000
_BAND_PIXELS = 1 << 20
_WEBP_PICTURES = frozenset({b"VP8 ", b"VP8L", b"ANMF"})


def scale_of_check(scans: JpegScans, n_pixels: int) -> int:
    """What width and height are divided by when `check_pixels` decodes a JPEG, to bound its memory.

    A sequential scan that is cut short lacks whole blocks, which shows at half the size too. A progressive one may lack
    only the last bits of fine detail.
    """
    return 2 if n_pixels > _FULL_SIZE_PIXELS and not scans.progressive else 1


def check_pixels(photo: bytes, scans: JpegScans) -> None:
    """Check that a JPEG without its end marker lacks no pixels.

    Decoders fill up what is missing without a word. So the file is decoded with the end marker behind it, and again
    with noise before the marker: where the data were whole, what follows them changes nothing.

    Args:
        photo: a JPEG without an end marker.
        scans: of this file.

    Raises:
        PhotoUndecodable: scans or parts of one are missing.
    """
    whole = scans.cover_everything
    if whole:
        data = photo.rstrip(b"\0")
        n_zeros = len(photo) - len(data)
        if n_zeros > _DATA_ZEROS:  # padding of a download that broke off; the first may be the stuffing behind 0xFF
            n_zeros = data.endswith(b"\xff")
        data = data + bytes(n_zeros) if n_zeros else data.rstrip(b"\xff")
        try:
            whole = _digest(photo + JPEG_END, scans) == _digest(data + _NOISE + JPEG_END, scans)
        except DECODER_ERRORS as exc:
            raise PhotoUndecodable("the JPEG file is damaged or cut short") from exc
    if not whole:
        raise PhotoUndecodable("the JPEG file is damaged or cut short")


def _digest(photo: bytes, scans: JpegScans) -> int:
    """CRC-32 of a JPEG's pixels."""
    image = open_image(photo)
    scale = scale_of_check(scans, image.width * image.height)
    image.draft("YCbCr", (max(1, image.width // scale), max(1, image.height // scale)))
    digest = 0
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):  # `tobytes` is a copy
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        digest = zlib.crc32(band.tobytes(), digest)
    return digest


def ended_webp(photo: bytes) -> bytes:
    """Leave out what is cut short behind the whole pictures of a WebP: metadata, padding, later frames.

    Returns:
        the file, shortened if its last chunk is cut short and a picture is whole; else as it is. libwebp refuses a file
        that is shorter than its header says.
    """
    if photo[:4] != b"RIFF" or photo[8:12] != b"WEBP" or int.from_bytes(photo[4:8], "little") + 8 <= len(photo):
        return photo
    position, end, has_picture = 12, 12, False
    while position + 8 <= len(photo):
        kind, n_bytes = photo[position : position + 4], int.from_bytes(photo[position + 4 : position + 8], "little")
        if position + 8 + n_bytes > len(photo):
            break
        has_picture |= kind in _WEBP_PICTURES
        position = end = position + 8 + n_bytes + n_bytes % 2
    if not has_picture:
        return photo
    return photo[:4] + (end - 8).to_bytes(4, "little") + photo[8:end].ljust(end - 8, b"\0")
