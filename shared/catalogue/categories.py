"""The categories of a catalogue, and the record of one of its photos."""

import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Protocol

from shared.attributes.values import NOTHING
from shared.errors import CatalogueUnusable, InvalidRequest

# Those of the older service. The position is the class index of the classifier and part of the HTTP contract.
CATEGORIES: tuple[str, ...] = (
    "Home & Garden",
    "Baby & Kids Stuff",
    "DIY Tools & Materials",
    "Music, Films, Books & Games",
    "Phones, Mobile Phones & Telecoms",
    "Clothes, Footwear & Accessories",
    "Other Goods",
    "Health & Beauty",
    "Sports, Leisure & Travel",
    "Appliances",
    "Computers & Software",
    "Office Furniture & Equipment",
    "Video Games & Consoles",
)

MOST_CATEGORIES = 2_000
_FEWEST = 2
_SHOWN = 30
_ITS_OWN = 0.5  # of a catalogue's listings that are in some categories: they are its own
# Other catalogues have some categories of the older service's names, too: more listings outside are no mistakes.
_MISTAKES, _MISTAKEN_SHARE = 5, 0.1

# The last: quotation marks and an arrow to the right.
_SEPARATOR = re.compile(r"[-=]*>|[/|\\\u00bb\u203a\u2192]")
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")  # what pasted text carries along
JOINED = " / "
_AND = re.compile(r"\band\b")
_ITEM = r"""'([^'\\]*)'|"([^"\\]*)\""""  # of a list as Python writes it
_LIST = re.compile(rf"\[(?:{_ITEM})(?:, (?:{_ITEM}))*\]")


def is_missing(text: str) -> bool:
    """Whether a category, as a table has it, is none: empty, separators or brackets only, or "NULL" and the like."""
    return not text.strip("/[] ") or text.strip().casefold() in NOTHING


def _key(name: str) -> str:
    return _AND.sub("&", name.casefold())


@dataclass(frozen=True)
class CategorySource:
    """Where in `Products.csv` a listing's category stands.

    Attributes:
        column: its name.
        level: how much of the path is the category: 1 the root, 2 root and second level, and so on; 0 all of it.
    """

    column: str = "category"
    level: int = 1

    def __str__(self) -> str:
        """The first two levels of the column `category`, say, for people."""
        levels = {0: "whole paths", 1: "the first level"}.get(self.level, f"the first {self.level} levels")
        return f"{levels} of the column `{self.column}`"


ROOTS = CategorySource()


@dataclass(frozen=True)
class Categories:
    """The categories of a catalogue in their order: a position is the class index of a classifier.

        categories = Categories(("Boats", "Cars"))
        assert categories.find("cars > vans") == 1

    Attributes:
        names: without surrounding spaces, each once.
        level: as of CategorySource; of several levels the names are joined by " / ".
    """

    names: tuple[str, ...]
    level: int = 1

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> str:
        return self.names[position]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {_key(name): name for name in reversed(self.names)}  # of two that differ in case only, the first

    def position(self, name: str) -> int:
        """Return the position of a category, its letters composed or not.

        Raises:
            InvalidRequest: there is no such category; names those that are possible.
        """
        found = self._position.get(name, self._position.get(unicodedata.normalize("NFC", name)))
        if found is None:
            raise InvalidRequest(f"category: must be one of: {self.described(name)}")
        return found

    def described(self, wrong: str) -> str:
        """The names, for people; of many the ones most like a wrong one, and how many more there are."""
        if len(self) <= _SHOWN:
            return "; ".join(self.names)
        near = get_close_matches(wrong, self.names, n=3) or self.names[:3]
        return f"{'; '.join(near)}; and {len(self) - len(near)} more"

    def path(self, text: str) -> tuple[str, ...]:
        """Split a category, as a table has it, into its path from the root: "Home & Garden / Rugs" -> two names.

        Where the root is no category as it stands, it is read as spreadsheets and shops spell such a path: with HTML
        entities, hard or double spaces, other case, "and" for "&", a separator in front, or ">", "->", "|" or a
        backslash as separator. So `"home &amp; garden > rugs"` gives "Home & Garden" and "rugs".

        Returns:
            names without surrounding spaces; the first is one of the categories if it means one of them; nothing for
            empty text, and for "NULL" and the like unless a category is called so.
        """
        if is_missing(text) and text.strip() not in self._position:
            return ()
        plain = tuple(part for name in text.split("/") if (part := name.strip()))
        if plain and self.level == 1 and plain[0] in self._position:
            return plain
        path = _read_path(text)
        depth = self.level or len(path)
        if path and (name := self._by_key.get(_key(JOINED.join(path[:depth])))):
            return name, *path[depth:]
        return plain

    def find(self, text: str) -> int | None:
        """Return the position of the category that a path, as a table has it, is in; None: it is in none of them."""
        path = self.path(text)
        return self._position.get(path[0]) if path else None

    def as_written(self, text: str) -> str:
        """Return the category in a path letter by letter as a table has it, to compare it with the category's name."""
        if self == OLDER_CATEGORIES:
            return text.split("/", maxsplit=1)[0].strip()
        parts = [part for name in _SEPARATOR.split(text) if (part := name.strip())]
        return JOINED.join(parts[: self.level or None])

    def nearest(self, root: str) -> str | None:
        """Return the category that is spelled most like a root; None if none is."""
        return next(iter(get_close_matches(root, self.names, n=1)), None)


OLDER_CATEGORIES = Categories(CATEGORIES)


@lru_cache(maxsize=16)
def categories_named(names: tuple[str, ...]) -> Categories:
    """The categories of a manifest; made once for each list of names, because every search with a filter asks."""
    return Categories(names)


def joined_levels(text: str) -> str:
    """Join the levels of a category that is a list of texts, in JSON or as Python writes it; keep any other text."""
    if not text.startswith("["):
        return text
    try:
        levels = json.loads(text)
    except (ValueError, RecursionError):
        levels = [one or other for one, other in re.findall(_ITEM, text)] if _LIST.fullmatch(text) else []
    return JOINED.join(levels) if levels and all(isinstance(level, str) for level in levels) else text


def _read_path(text: str) -> tuple[str, ...]:
    plain = joined_levels(text.strip())
    unescaped = unicodedata.normalize("NFKC", _INVISIBLE.sub("", html.unescape(html.unescape(plain))))
    spaced = (" ".join(name.split()) for name in _SEPARATOR.split(unescaped))
    return tuple(name for name in spaced if name)


def categories_in(texts: Iterable[str], known: Categories | None = None, level: int = 1) -> Categories:
    """Find the categories of a catalogue in its table: the roots of its category paths, or more levels of them.

    A dump of the older service keeps that service's 13, in their order: most of them occur, or next to no listing is
    in another. In any other catalogue the known ones come first, in their order, then the new ones by name: none is
    ever moved.

    Args:
        texts: the category of each listing, as the table has it.
        known: those of the model that there is; they count if half of the listings are in them.
        level: as of CategorySource.

    Raises:
        CatalogueUnusable: there are fewer than two, or more than a classifier can tell apart.
    """
    spelled = Counter(texts)
    n_listings = sum(n for text, n in spelled.items() if not is_missing(text))

    def n_outside(categories: Categories) -> int:
        return n_listings - sum(n for text, n in spelled.items() if categories.find(text) is not None)

    def holds(categories: Categories) -> bool:
        return n_outside(categories) <= (1 - _ITS_OWN) * n_listings

    known = known and Categories(known.names, level)
    if known and not holds(known):  # of another catalogue
        known = None
    if level == 1 and known in (None, OLDER_CATEGORIES) and holds(OLDER_CATEGORIES):
        most_met = 2 * len({OLDER_CATEGORIES.find(text) for text in spelled} - {None}) > len(OLDER_CATEGORIES)
        n_mistakes = max(_MISTAKES, _MISTAKEN_SHARE * n_listings)
        if known or most_met or n_outside(OLDER_CATEGORIES) <= n_mistakes:
            return OLDER_CATEGORIES
    names: dict[str, Counter[str]] = {}
    for text, n in spelled.items():
        if not is_missing(text) and (name := JOINED.join(_read_path(text)[: level or None])):
            names.setdefault(_key(name), Counter())[name] += n
    first = known.names if known else ()
    taken = {_key(name) for name in first}
    new = sorted(max(sorted(found), key=found.__getitem__) for key, found in names.items() if key not in taken)
    found = Categories((*first, *new), level)
    if len(found) < _FEWEST:
        raise CatalogueUnusable(
            f"the table's categories are {', '.join(found)}: at least {_FEWEST} different ones are needed; "
            "is LOOKALIKE_CATEGORY_COLUMN the right column, and LOOKALIKE_CATEGORY_LEVEL deep enough?"
        )
    if len(found) > MOST_CATEGORIES:
        raise CatalogueUnusable(
            f"the table has {len(found)} categories, such as {', '.join(new[:3])}; {MOST_CATEGORIES} are the most: "
            "is LOOKALIKE_CATEGORY_COLUMN the right column, and LOOKALIKE_CATEGORY_LEVEL not too deep?"
        )
    return found


class PhotoFile(Protocol):
    """A file on disk or an object in an object store; `str(file)` is its path or URL."""

    def read_bytes(self) -> bytes:
        """Read the whole file.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class CataloguePhoto:
    """One labelled photo of a listing."""

    image_id: str
    listing_id: str
    category: int  # position in the catalogue's Categories
    path: PhotoFile
    sha256: str = ""  # of the file's bytes; empty before it was read
    payload: str = ""  # the listing's attributes as JSON, see shared.attributes.schema.as_payload; empty: none
