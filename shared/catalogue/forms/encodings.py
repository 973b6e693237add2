"""Decodes a table: UTF-8, UTF-16 with a byte-order mark, or Windows-1252 where it can be nothing else."""

import re
from typing import NamedTuple

from shared.errors import CatalogueUnusable

SAVE_AS = 'save it as "CSV UTF-8"'
_UTF8_LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_SHOWN = 30


class Decoded(NamedTuple):
    """The text of a table.

    Attributes:
        text: without byte-order mark.
        encoding: "UTF-8", "UTF-16" or "Windows-1252".
        line, sample: of Windows-1252, where the first byte stands that is not UTF-8, and the text around it.
    """

    text: str
    encoding: str
    line: int = 1
    sample: str = ""


def decode_table(content: bytes, name: str) -> Decoded:
    """Decode a table.

    Windows-1252 is what spreadsheets on Windows write as "CSV". Any other encoding of one byte a letter would decode as
    that as well, so it is a guess; who uses it must not let ids depend on it.

    Args:
        content: of the file.
        name: of the file, for errors.

    Raises:
        CatalogueUnusable: it is in another encoding, damaged, or not a text.
    """
    if content.startswith(b"PK\x03\x04"):
        raise CatalogueUnusable(f"{name} is a spreadsheet or an archive and not a text; {SAVE_AS}")
    decoded = _decode(content, name)
    if "\0" in decoded.text.partition("\n")[0]:
        raise CatalogueUnusable(
            f"{name} is not UTF-8: line 1 has zero bytes, as UTF-16 without a byte-order mark or UTF-32 has; {SAVE_AS}"
        )
    return decoded


def _decode(content: bytes, name: str) -> Decoded:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return Decoded(content.decode("utf-16"), "UTF-16")
        except UnicodeDecodeError as exc:
            line = content[: exc.start].decode("utf-16", "ignore").count("\n") + 1
            raise CatalogueUnusable(f"{name} cannot be read as UTF-16: line {line}: {exc.reason}; {SAVE_AS}") from exc
    try:
        return Decoded(content.decode("utf-8-sig"), "UTF-8")
    except UnicodeDecodeError as exc:
        # The codec strips the mark before it counts.
        start = exc.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, start) + 1
        begin = max(content.rfind(b"\n", 0, start) + 1, start - _SHOWN)
        sample = content[begin : start + _SHOWN].split(b"\n")[0]
        problem = f"{name} cannot be read as UTF-8: line {line} holds byte 0x{content[start]:02x} in {sample!r}"
        if _UTF8_LETTER.search(content) or content.startswith(b"\xef\xbb\xbf"):
            raise CatalogueUnusable(f"{problem}, and UTF-8 elsewhere: it mixes encodings; {SAVE_AS}") from exc
        try:
            return Decoded(content.decode("cp1252"), "Windows-1252", line, sample.decode("cp1252").strip())
        except UnicodeDecodeError:
            raise CatalogueUnusable(f"{problem}, and it is not Windows-1252 either; {SAVE_AS}") from exc
