"""Decodes a table: UTF-8, UTF-16 with a byte-order mark, or Windows-1252, or Turkish, where it can be nothing else."""

import re
from typing import NamedTuple

from shared.errors import CatalogueUnusable

SAVE_AS = 'save it as "CSV UTF-8"'
_ARCHIVES = {
    b"PK\x03\x04": "a spreadsheet or an archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x1f\x8b": "compressed",
}
# What Windows-1252 makes of other encodings: words of its letters alone, as of Cyrillic, and signs or capitals inside
# words, as of Polish. "Müller" and "crème brûlée" hold neither; "þýðir" does, so it takes many such words.
_HIGH_CAPITALS = "ŠŒŽŸÀ-ÖØ-Þ"
_HIGH = f"{_HIGH_CAPITALS}ƒšœžß-öø-ÿ"
_SIGNS = "\u02c6\u2030\u201e\u201a¡¢£¤¥§¬¶¹³¼¾¿"
_WORD = re.compile(rf"[A-Za-z{_HIGH}{_SIGNS}]{{2,}}")
_STRANGE = re.compile(
    rf"[{_HIGH}]{{3}}|(?<=[A-Za-z{_HIGH}])[{_SIGNS}](?=[A-Za-z{_HIGH}])|(?<=[a-z])[{_HIGH_CAPITALS}](?=[a-z])"
)
# Of the words with letters or signs beyond ASCII. Measured on translations of programs: at most .01 in 25 languages
# that Windows-1252 is for, .38 in Polish, .34 and more in Cyrillic, Greek, Hebrew, Arabic, Thai and East Asian ones; up
# to .07 in Czech, Slovak, Hungarian, Turkish and Baltic ones, which these signs do not tell.
_STRANGE_SHARE, _FEW = 0.2, 2
# Windows-1254 differs in six letters: the dotless i and five more of Turkish are those of Icelandic, which has as many
# vowels with acutes beside them. Measured on the same translations, 20 texts at a time: .92 of the Turkish ones are
# told, and none in the languages that Windows-1252 is for.
_OF_TURKISH = re.compile("[ÐÝÞðýþ]")
_BESIDE_IN_ICELANDIC = re.compile("[ÁÆÉÍÓÚáæéíóú]")
_TURKISH_FEW, _TURKISH_SHARE = 3, 0.1
_EXAMINED_CHARS = 2_000_000
_UTF8_LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_SHOWN = 30


class Decoded(NamedTuple):
    """The text of a table.

    Attributes:
        text: without byte-order mark.
        encoding: "UTF-8", "UTF-16", "Windows-1252" or "Windows-1254".
        line, sample: of the last two, where the first byte stands that is not UTF-8, and the text around it.
    """

    text: str
    encoding: str
    line: int = 1
    sample: str = ""


def decode_table(content: bytes, name: str) -> Decoded:
    """Decode a table.

    Windows-1252 is what spreadsheets on Windows write as "CSV" in Western Europe, Windows-1254 in Turkey. Most other
    encodings decode as that as well. Where that gives words that no Western language has the table is refused; else it
    is a guess, and who uses it must not let ids depend on it.

    Args:
        content: of the file.
        name: of the file, for errors.

    Raises:
        CatalogueUnusable: it is in another encoding, damaged, or not a text.
    """
    if kind := next((kind for begin, kind in _ARCHIVES.items() if content.startswith(begin)), None):
        raise CatalogueUnusable(f"{name} is {kind} and not a text; {SAVE_AS}")
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
            mixed = "and what may be UTF-8 elsewhere: it is in another encoding, or mixes several"
            raise CatalogueUnusable(f"{problem}, {mixed}; {_convert(name)}") from exc
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            text = ""
        if not text or _is_strange(text):
            raise CatalogueUnusable(f"{problem}, and it is not Windows-1252 either; {_convert(name)}") from exc
        if _is_turkish(text):
            return Decoded(content.decode("cp1254"), "Windows-1254", line, sample.decode("cp1254").strip())
        return Decoded(text, "Windows-1252", line, sample.decode("cp1252").strip())


def _convert(name: str) -> str:
    return f"{SAVE_AS}, or convert it: iconv -f ENCODING -t UTF-8 {name}"


def _is_strange(text: str) -> bool:
    """Whether a text that was decoded as Windows-1252 must be in another encoding."""
    words = [word for word in _WORD.findall(text[:_EXAMINED_CHARS]) if not word.isascii()]
    return sum(map(bool, map(_STRANGE.search, words))) > max(_FEW, _STRANGE_SHARE * len(words))


def _is_turkish(text: str) -> bool:
    """Whether a text that was decoded as Windows-1252 is Turkish in Windows-1254."""
    if "Ž" in text or "ž" in text:  # which Windows-1254 does not have
        return False
    examined = text[:_EXAMINED_CHARS]
    n_letters = len(_OF_TURKISH.findall(examined))
    return n_letters >= _TURKISH_FEW and len(_BESIDE_IN_ICELANDIC.findall(examined)) < _TURKISH_SHARE * n_letters
