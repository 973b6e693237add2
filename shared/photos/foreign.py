"""Names files that are no photos, or photos in a form that is not read, by how they begin; nothing is decoded."""

import re
import struct

# What files begin with, and what they are. The longest signature counts.
_SIGNATURES: dict[bytes, str] = {
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"8BPS": "a Photoshop file (PSD)",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "an icon (ICO)",
    b"\0\0\2\0": "a cursor (CUR)",
    b"\0\0\2\0\0\0": "TGA",
    b"\0\0\x0a\0\0\0": "TGA",
    b"MM\0+": "a big-endian BigTIFF",
    b"data:": "a data URL",
    b"version https://git-lfs": "a pointer of Git LFS",
    b"icns": "an icon (ICNS)",
    b"\x8aMNG": "MNG",
    b"\x8bJNG": "JNG",
    b"II\xbc": "JPEG XR",
    b"DDS ": "a DDS texture",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"qoif": "QOI",
    b"\x1aE\xdf\xa3": "a video (WebM or Matroska)",
    b"\0\0\1\xba": "a video (MPEG)",
    b"\0\0\1\xb3": "a video (MPEG)",
    b"FLV": "a video (Flash)",
    b"OggS": "a video or sound (Ogg)",
    b"ID3": "sound (MP3)",
    b"0&\xb2u\x8ef\xcf\x11": "a video (Windows Media)",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"PK\x05\x06": "a ZIP archive",
    b"\x1f\x8b": "gzip",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf'\x1c": "a 7-Zip archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an office document",
    b"FUJIFILMCCD-RAW": "a camera's RAW (RAF)",
    b"IIRO": "a camera's RAW (ORF)",
    b"IIRS": "a camera's RAW (ORF)",
    b"MMOR": "a camera's RAW (ORF)",
    b"IIU\0": "a camera's RAW (RW2)",
    b"\0MRM": "a camera's RAW (MRW)",
    b"FOVb": "a camera's RAW (X3F)",
}
_RIFF = {b"AVI ": "a video (AVI)", b"WAVE": "sound (WAV)"}
# Brands of ISO base media files (ISO/IEC 14496-12), by how they begin.
_BRANDS = {
    b"crx": "a camera's RAW (CR3)",
    b"hev": "a HEIC image sequence",
    b"msf1": "a HEIF image sequence",
    b"qt": "a video (QuickTime)",
    b"3g": "a video (3GPP)",
}
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:[?!]|svg|html)", re.IGNORECASE)
_SVG = re.compile(rb"<(?:\w+:)?svg[\s>]", re.IGNORECASE)
_MARKUP_BYTES = 4096
# How photos begin whose bytes were taken for text on the way: read as UTF-8, or as Latin-1 and written as UTF-8.
_RECODED = (b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", b"\xef\xbf\xbdPNG", b"\xc3\xbf\xc3\x98\xc3\xbf", b"\xc2\x89PNG")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\s-]{64,}")
_TEXT_BYTES = 512

_MAX_TAGS = 1_000
_COMPRESSION, _SUB_IFDS, _SUBFILE_TYPE, _MAKE, _DNG_VERSION = 259, 330, 254, 271, 50_706
_TYPE_SIZES = {3: "H", 4: "I"}
_RAW_COMPRESSIONS = frozenset({34_713, 32_767, 32_770, 65_535})  # Nikon, Sony, Samsung, Pentax

_JPEG_FRAMES = {0xC3: "a lossless JPEG", 0xC7: "a lossless JPEG", 0xCB: "a lossless JPEG", 0xCF: "a lossless JPEG"}
_JPEG_FRAMES |= dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "a hierarchical JPEG")
_JPEG_FRAMES |= dict.fromkeys((0xC9, 0xCA), "a JPEG with arithmetic coding")


def name_of(file: bytes) -> str | None:
    """Name what a file is that is none of the formats read; None if it is not known."""
    if file[:4] == b"RIFF" and file[8:12] in _RIFF:
        return _RIFF[file[8:12]]
    if file[4:8] == b"ftyp":
        brand = file[8:12]
        return next((name for start, name in _BRANDS.items() if brand.startswith(start)), "a video (MP4)")
    if file[4:8] in (b"moov", b"mdat", b"wide"):
        return "a video (QuickTime)"
    if _MARKUP.match(file[:_MARKUP_BYTES]):
        return "SVG" if _SVG.search(file[:_MARKUP_BYTES]) else "HTML or XML"
    matching = [signature for signature in _SIGNATURES if file.startswith(signature)]
    return _SIGNATURES[max(matching, key=len)] if matching else _name_of_text(file[:_TEXT_BYTES])


def _name_of_text(start: bytes) -> str | None:
    if start.startswith(_RECODED):
        return "a photo whose bytes were turned into text on the way"
    if _BASE64.fullmatch(start):
        return "a photo in base64"
    return "a text file" if _TEXT.fullmatch(start) else None


def raw_name(file: bytes) -> str | None:
    """Name a camera's RAW that is built as a TIFF, whose first picture would be a small preview; else None."""
    if file[:4] in (b"II*\0", b"MM\0*") and file[8:10] == b"CR":
        return "a camera's RAW (CR2)"
    tags = tiff_tags(file)
    if _DNG_VERSION in tags:
        return "a camera's RAW (DNG)"
    is_preview = tags.get(_SUBFILE_TYPE, 0) & 1 and _SUB_IFDS in tags and _MAKE in tags
    return "a camera's RAW" if is_preview or tags.get(_COMPRESSION) in _RAW_COMPRESSIONS else None


def tiff_tags(file: bytes) -> dict[int, int]:
    """Tags of a TIFF's first directory, with the value where it is one number, else 0; empty if they are cut short."""
    if file[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    order = "<" if file[:2] == b"II" else ">"
    tags = {}
    try:
        (offset,) = struct.unpack_from(order + "I", file, 4)
        (n_tags,) = struct.unpack_from(order + "H", file, offset)
        for i in range(min(n_tags, _MAX_TAGS)):
            tag, kind, count = struct.unpack_from(order + "HHI", file, offset + 2 + 12 * i)
            number = order + _TYPE_SIZES.get(kind, "I")
            (value,) = struct.unpack_from(number, file, offset + 10 + 12 * i)
            tags[tag] = value if count == 1 and kind in _TYPE_SIZES else 0
    except struct.error:
        return {}
    return tags


def unread_tiff(file: bytes) -> str | None:
    """Name a TIFF whose directory is whole although no decoder takes it, by its compression; else None."""
    tags = tiff_tags(file)
    return f"a TIFF of this form (compression {tags.get(_COMPRESSION, 1)})" if tags else None


def jpeg_frame_name(marker: int, precision: int) -> str | None:
    """Name the kind of a JPEG's frame if it is not read: lossless, hierarchical, or of other than eight bits."""
    return _JPEG_FRAMES.get(marker) or (f"a JPEG of {precision} bits a sample" if precision in (12, 16) else None)
