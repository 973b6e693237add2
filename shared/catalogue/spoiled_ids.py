"""Tells which id is meant by one that a spreadsheet spoiled: `123.0` for `123`, `7` for `007`, if that can be told."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from shared.catalogue.scan import ENDINGS

SPOILED_LISTING, SPOILED_PHOTO = "listing id spoiled by a spreadsheet", "photo id spoiled by a spreadsheet"
_NUMBER = re.compile(r"([0-9]+)([.,]0+)?", re.ASCII)
_ROUNDED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]+", re.IGNORECASE)
_EXACT_UP_TO = 2**53  # of whole numbers that went through a float
_OTHER_ENDINGS = (".gif", ".bmp", ".tif", ".tiff")  # that ids of tables carry, too


class SpoiledListings:
    """Finds the listings of ids in another Unicode form, or that spreadsheets spoiled, where nothing else can be meant.

    Args:
        listing_ids: those that there are.
        written: ids as they stand in the photos' table.
    """

    def __init__(self, listing_ids: Iterable[str], written: Iterable[str]) -> None:
        listing_ids = list(listing_ids)
        self._composed = by_key(composed, listing_ids)
        self._listings = by_key(number_key, listing_ids)
        self._written = by_key(number_key, {_digits(text) for text in written})
        self._similar = similar_ids({listing: listing for listing in listing_ids})

    def find(self, written: str) -> list[str]:
        """Return the listings that an id may mean: one, if nothing else can be meant; several; or none."""
        if alike := self._composed.get(composed(written)):
            return sorted(alike)
        key = number_key(written)
        listings = self._listings.get(key, []) if key else []
        if len(listings) == 1 and len(rivals := self._written.get(key or "", [])) > 1:
            return sorted({*listings, *rivals})
        return sorted(listings)

    def nearest(self, written: str) -> str | None:
        """Return a listing whose id is similar, to be named; None if there is none."""
        return next((listing for key in similar_keys(written) if (listing := self._similar.get(key))), None)


def number_key(text: str) -> str | None:
    """Return what is left of an id of digits when ".0" and leading zeros are gone.

    Returns:
        None for any other text, and for a number that cannot be exact any more: it has ".0" and exceeds 2**53.
    """
    found = _NUMBER.fullmatch(text)
    if found is None or (found[2] and _is_inexact(found[1])):
        return None
    return found[1].lstrip("0") or "0"


def is_rounded(text: str) -> bool:
    """Whether an id is a number that was rounded: "1.23457E+11", or one too long for a float and with ".0"."""
    found = _NUMBER.fullmatch(text)
    return _ROUNDED.fullmatch(text) is not None or bool(found and found[2] and _is_inexact(found[1]))


def _is_inexact(digits: str) -> bool:
    significant = digits.lstrip("0")
    return len(significant) > len(str(_EXACT_UP_TO)) or int(significant or "0") > _EXACT_UP_TO


def _digits(text: str) -> str:
    found = _NUMBER.fullmatch(text)
    return found[1] if found and number_key(text) else text


def similar_ids(names: dict[str, str]) -> dict[str, str]:
    """Index names by what spreadsheets leave of an id, for `similar_keys`; of several the first counts.

    Args:
        names: what to show of each id.
    """
    index: dict[str, str] = {}
    for name in sorted(names):
        for key in similar_keys(name):
            index.setdefault(key, names[name])
    return index


def similar_keys(text: str) -> Iterator[str]:
    """Yield an id without case and Unicode form, then without folder, ending, ".0" and leading zeros too."""
    key = caseless(text)
    yield key
    key = key.replace("\\", "/").rpartition("/")[2]
    key = next((key.removesuffix(ending) for ending in (*ENDINGS, *_OTHER_ENDINGS) if key.endswith(ending)), key)
    if whole := _NUMBER.fullmatch(key):
        key = whole[1]
    yield key.lstrip("0") or key


def composed(text: str) -> str:
    """Return a text in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", text)


def caseless(text: str) -> str:
    """Return a text in composed form and without case."""
    return composed(composed(text).casefold())


def by_key(key: Callable[[str], str | None], names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by what `key` makes of them; None: in no group."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if (group := key(name)) is not None:
            found[group].append(name)
    return dict(found)
