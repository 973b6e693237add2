"""The 13 categories, and the record of one catalogue photo."""

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
