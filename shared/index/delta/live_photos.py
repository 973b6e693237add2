"""All photos of an index with its pending changes, for work on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.index.vector_index import VectorIndex
from shared.index.vectors.stored_vectors import Vectors


class LivePhoto(NamedTuple):
    """A photo of an index with its pending changes.

    Attributes:
        sha256: of its file.
        path: of its file, as the snapshot has it; empty for a photo that came by PUT since.
    """

    image_id: str
    listing_id: str
    sha256: str
    path: str = ""


@dataclass(frozen=True)
class LivePhotos:
    """The photos that searches find: those of a snapshot, and those put since.

    Attributes:
        snapshot: the index below.
        photos: those of the snapshot's rows, then those put; the positions are the rows of search results.
        hidden: rows that were replaced or deleted.
        put: (m, dim), embeddings of those put, as they are stored.
    """

    snapshot: VectorIndex
    photos: Sequence[LivePhoto]
    hidden: frozenset[int]
    put: Vectors

    def rows(self) -> list[int]:
        """Rows of the photos that are live."""
        return [row for row in range(len(self.photos)) if row not in self.hidden]
