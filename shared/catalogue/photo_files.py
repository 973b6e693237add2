"""Finds the file of each photo id, and says for those without one what was looked for and what is there instead."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from shared.catalogue.scan import ENDINGS, Scan, Stat

AMBIGUOUS = "photo file is ambiguous"
_FLOAT = re.compile(r"([0-9]+)\.0+")
_ROUNDED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]+", re.IGNORECASE)
_OTHER_ENDINGS = (".gif", ".bmp", ".tif", ".tiff")  # that ids of tables carry, too
_N_NAMED = 4


class FileProblem(NamedTuple):
    """Why a photo has no file.

    Attributes:
        reason: one of a fixed set of texts.
        detail: for people.
    """

    reason: str
    detail: str


class PhotoFiles:
    """Finds the files of photo ids: by the exact name, or else by one that differs in case or Unicode form only.

    Ids such as base62 tell upper from lower case, so a name that is not exact counts only where it is the one file that
    can be meant, and the id the one that can mean it.

    Args:
        found: the listing of the catalogue.
        image_ids: all ids of the catalogue.
    """

    def __init__(self, found: Scan, image_ids: Iterable[str]) -> None:
        self._found = found
        self._image_ids = frozenset(image_ids)
        # By each way to compare names; made when the first id has no file of its exact name.
        self._names: list[tuple[Callable[[str], str], dict[str, list[str]], dict[str, list[str]]]] = []
        self._similar: dict[str, str] = {}

    def find(self, image_id: str) -> tuple[str, Stat] | FileProblem:
        """Return the address and metadata of a photo's file, or why there is none."""
        if image_id in self._found.photos:
            return self._named(image_id, image_id)
        if not self._names:
            self._names = [
                (key, _by(key, self._found.photos), _by(key, self._image_ids)) for key in (_composed, _caseless)
            ]
        for key, files, ids in self._names:
            names, rivals = files.get(key(image_id), []), ids.get(key(image_id), [])
            if len(names) == 1 and len(rivals) == 1:
                return self._named(image_id, names[0])
            if names:
                return FileProblem(AMBIGUOUS, self._ambiguous(image_id, names, rivals))
        return FileProblem("photo without file", self._missing(image_id))

    def _named(self, image_id: str, name: str) -> tuple[str, Stat] | FileProblem:
        """The file of a name, unless several folders have one."""
        if addresses := self._found.repeated.get(name):
            there = ", ".join(sorted(map(self._shown, addresses))[:_N_NAMED])
            return FileProblem(AMBIGUOUS, f"looked for {image_id} in the folders of images/; there is {there}")
        return self._found.photos[name]

    def _shown(self, address: str) -> str:
        return address.removeprefix(f"{self._found.folder}/")

    def _ambiguous(self, image_id: str, names: list[str], rivals: list[str]) -> str:
        there = ", ".join(self._shown(self._found.photos[name][0]) for name in sorted(names)[:_N_NAMED])
        others = ", ".join(sorted(rival for rival in rivals if rival != image_id)[:_N_NAMED])
        may_be = f", which may be that of {others}" if others else ""
        return f"looked for images/{image_id}.jpg; there is {there}{may_be}"

    def _missing(self, image_id: str) -> str:
        if not self._similar:
            names = {name: self._shown(address) for name, (address, _) in self._found.photos.items()}
            self._similar = similar_ids({**self._found.others, **names})
        there = next((name for key in similar_keys(image_id) if (name := self._similar.get(key))), None)
        hint = f"; there is {there}" if there else ""
        if there and not there.lower().endswith(ENDINGS):
            hint += f", and only {', '.join(ENDINGS)} are read"
        elif not there and self._found.closed:
            hint = f"; user {os.geteuid()} may not read {', '.join(map(self._shown, self._found.closed[:_N_NAMED]))}"
        return f"looked for images/{image_id}.jpg{hint}"


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
    key = _caseless(text)
    yield key
    key = key.replace("\\", "/").rpartition("/")[2]
    key = next((key.removesuffix(ending) for ending in (*ENDINGS, *_OTHER_ENDINGS) if key.endswith(ending)), key)
    if whole := _FLOAT.fullmatch(key):
        key = whole[1]
    yield key.lstrip("0") or key


def is_rounded(text: str) -> bool:
    """Whether an id is a number as spreadsheets show long ones, "1.23457E+11"."""
    return _ROUNDED.fullmatch(text) is not None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _caseless(text: str) -> str:
    return unicodedata.normalize("NFC", _composed(text).casefold())


def _by(key: Callable[[str], str], names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return dict(found)
