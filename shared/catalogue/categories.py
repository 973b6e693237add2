"""The 13 categories, and the record of one catalogue photo."""

import html
import re
import unicodedata
from dataclasses import dataclass
from typing import Protocol

# The position is the class index of the classifier and part of the HTTP contract: never reorder.
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

CATEGORY_INDEX: dict[str, int] = {name: index for index, name in enumerate(CATEGORIES)}

_SEPARATOR = re.compile(r"[/>|\\\u00bb\u203a\u2192]")  # the last: quotation marks and an arrow to the right
_AND = re.compile(r"\band\b")


def _key(name: str) -> str:
    return _AND.sub("&", name.casefold())


_BY_KEY = {_key(name): name for name in CATEGORIES}


def category_path(text: str) -> tuple[str, ...]:
    """Split a category, as a table has it, into its path from the root: "Home & Garden / Rugs" -> two names.

    Where the root is not one of the 13 as it stands, it is read as spreadsheets and shops spell such a path: with HTML
    entities, hard or double spaces, other case, "and" for "&", a separator in front, or ">", "|" or a backslash as
    separator. So `"home &amp; garden > rugs"` gives "Home & Garden" and "rugs".

    Returns:
        names without surrounding spaces; the first is one of the 13 if it means one of them; nothing for empty text.
    """
    plain = tuple(part for name in text.split("/") if (part := name.strip()))
    if plain and plain[0] in CATEGORY_INDEX:
        return plain
    unescaped = unicodedata.normalize("NFKC", html.unescape(html.unescape(text)))
    spaced = (" ".join(name.split()) for name in _SEPARATOR.split(unescaped))
    path = tuple(name for name in spaced if name)
    if path and (root := _BY_KEY.get(_key(path[0]))):
        return root, *path[1:]
    return plain


def category_index(text: str) -> int | None:
    """Return the position in CATEGORIES of the root of a category as a table has it; None: it is not one of them."""
    path = category_path(text)
    return CATEGORY_INDEX.get(path[0]) if path else None


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
    category: int  # position in CATEGORIES
    path: PhotoFile
    sha256: str = ""  # of the file's bytes; empty before it was read
