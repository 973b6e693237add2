"""Checks how a photo file is built, without a decoder: files that cost much time or memory just to open are refused."""

import re
from dataclasses import dataclass, field
from functools import partial

from shared.errors import PhotoTooLarge, PhotoUndecodable
from shared.photos.foreign import jpeg_frame_name
from shared.photos.formats import unsupported
from shared.photos.heif import check_heif, is_heif
from shared.photos.limits import WEBP_BYTES, check_size, check_weight

# A progressive JPEG pays a full pass for every scan; real encoders write about ten.
MAX_JPEG_SCANS = 64
# Chunks of a PNG, segments of a JPEG: Pillow reads them in Python. Photos have tens, odd ones thousands.
MAX_PIECES = 20_000
MAX_RLE_BYTES = 1 << 20  # of a BMP, which Pillow unpacks in Python too
# 0xFF followed by anything but stuffing, fill bytes, restarts and TEM, which carry no segment (ITU-T T.81, B.1.1).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_JPEG_TABLES = b"\xc4\xc8\xcc"  # among the codes of frames, 0xC0 to 0xCF
_PROGRESSIVE = b"\xc2\xc6\xca\xce"
_N_COEFFICIENTS = 64


@dataclass
class JpegScans:
    """The scans of a JPEG's first picture, as its headers state them.

    Attributes:
        n_scans: number of start-of-scan markers.
        ends: whether the end-of-image marker is there.
        progressive: whether a scan may hold only some bits of some coefficients.
    """

    n_scans: int = 0
    ends: bool = False
    progressive: bool = False
    _missing: dict[int, list[int]] = field(default_factory=dict)  # by component: bits not yet coded, by coefficient

    @property
    def cover_everything(self) -> bool:
        """Whether the scans, if their data are whole, code every bit of every coefficient."""
        return bool(self._missing) and not any(any(bits) for bits in self._missing.values())

    def add_frame(self, marker: int, header: bytes) -> None:
        """Take in a start-of-frame segment: its marker's code, and what follows its length."""
        self.progressive = marker in _PROGRESSIVE
        self._missing = {component: [1] * _N_COEFFICIENTS for component in header[6::3]}

    def add_scan(self, header: bytes) -> None:
        """Take in a start-of-scan segment: what follows its length."""
        self.n_scans += 1
        n_components = header[0] if header else 0
        first, last, bits = (*header[1 + 2 * n_components :], 0, 0, 0)[:3]
        if not self.progressive:
            first, last, bits = 0, _N_COEFFICIENTS - 1, 0
        for component in header[1 : 1 + 2 * n_components : 2]:
            if component in self._missing:
                n_coded = len(self._missing[component][first : last + 1])
                self._missing[component][first : last + 1] = [bits & 15] * n_coded


def check_structure(photo: bytes, max_pixels: int, max_decoding_bytes: int) -> JpegScans | None:
    """Refuse files that would take much time or memory just to open; returns the scans of a JPEG."""
    if photo.startswith(b"RIFF") and (size := _webp_size(photo)):  # libwebp reserves its canvases
        check_size(*size, max_pixels)
        check_weight(size, "WEBP", WEBP_BYTES * size[0] * size[1], max_decoding_bytes)
    if is_heif(photo):
        check_heif(photo, max_pixels)
    if photo.startswith(b"\x89PNG"):
        _count_png_chunks(photo)
    if photo.startswith(b"BM") and photo[30:31] in (b"\x01", b"\x02") and len(photo) > MAX_RLE_BYTES:
        raise PhotoTooLarge(f"a run-length coded BMP may have {MAX_RLE_BYTES >> 20} MiB; send a PNG or JPEG")
    return _jpeg_scans(photo) if photo.startswith(b"\xff\xd8\xff") else None


def _webp_size(photo: bytes) -> tuple[int, int] | None:
    """Width and height as a WebP's first chunk states them (RFC 9649, 2.5 to 2.7)."""
    little = partial(int.from_bytes, byteorder="little")
    match photo[12:16]:
        case b"VP8X":
            return little(photo[24:27]) + 1, little(photo[27:30]) + 1
        case b"VP8L":
            return little(photo[21:25]) % (1 << 14) + 1, (little(photo[21:25]) >> 14) % (1 << 14) + 1
        case b"VP8 ":
            return little(photo[26:28]) % (1 << 14), little(photo[28:30]) % (1 << 14)
    return None


def _count_png_chunks(photo: bytes) -> None:
    position = 8
    for _ in range(MAX_PIECES):
        if position >= len(photo):
            return
        position += 12 + int.from_bytes(photo[position : position + 4], "big")
    raise PhotoUndecodable(f"the PNG has more than {MAX_PIECES} chunks; save it again")


def _jpeg_scans(photo: bytes) -> JpegScans:
    """Read the scans of the first picture; pictures that cameras append behind it do not count."""
    scans, position = JpegScans(), 2
    for _ in range(MAX_PIECES):
        found = _JPEG_MARKER.search(photo, position)
        if not found or found[0] == _JPEG_END:
            scans.ends = found is not None
            return scans
        # A marker's segment begins with its length; the entropy-coded data behind it holds no marker.
        position = found.end() + int.from_bytes(photo[found.end() : found.end() + 2], "big")
        header, code = photo[found.end() + 2 : min(position, found.end() + 1_000)], found[0][1]
        if found[0] == _JPEG_SCAN:
            scans.add_scan(header)
        elif 0xC0 <= code <= 0xCF and code not in _JPEG_TABLES:
            if unread := jpeg_frame_name(code, header[0] if header else 0):
                raise unsupported(unread)
            scans.add_frame(code, header)
        if scans.n_scans > MAX_JPEG_SCANS:
            raise PhotoUndecodable(f"the JPEG has more than {MAX_JPEG_SCANS} scans; save it again")
    raise PhotoUndecodable(f"the JPEG has more than {MAX_PIECES} segments; save it again")
