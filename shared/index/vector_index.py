"""VectorIndex: what is asked of one version of the index, wherever its vectors lie. Knows neither FAISS nor Milvus."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shared.artifacts.snapshots import IndexManifest
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.errors import DimensionMismatch
from shared.jobs.contract import Neighbour, SearchRequest
from shared.model.embedder import Embeddings, FloatArray

SCORE_DECIMALS = 6

IntArray = npt.NDArray[np.int64]


class VectorIndex(Protocol):
    """One complete version, opened for searching; safe to share between threads.

    Every method may raise IndexUnavailable where the vectors lie with a server, and IndexDamaged when it lost them.
    """

    @property
    def version(self) -> str: ...

    @property
    def manifest(self) -> IndexManifest: ...

    def __len__(self) -> int: ...

    def search(self, query: FloatArray, request: SearchRequest, *, hidden: IntArray | None = None) -> list[Neighbour]:
        """Find the catalogue photos most similar to one query.

        Args:
            query: (dim,) float32, L2 norm 1.
            request: `k`, filters and `distinct`.
            hidden: rows to search as if they were not there.

        Returns:
            up to `k` neighbours, most similar first, of those as similar the older row; fewer than `k` only when fewer
            fit the filters.

        Raises:
            DimensionMismatch: the query is of another length than the version's vectors.
        """
        ...

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """What searches find, for measurements: similarities and rows, (n, k) each, best first, of queries (n, dim).

        A search that finds fewer has row -1 and similarity -2 in their places.
        """
        ...

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """What searches should find, in the same form: every vector is compared."""
        ...

    def photo(self, row: int) -> CataloguePhoto:
        """What was indexed in a row; its path is relative to the catalogue it came from, or absolute."""
        ...

    def photos(self) -> Iterator[CataloguePhoto]:
        """Every row in order, read as it goes."""
        ...

    def row_of(self, image_id: str) -> int | None: ...

    def vectors(self, rows: IntArray | slice) -> FloatArray:
        """The embeddings of some rows, (n, dim), in the order asked."""
        ...

    def scores(self, rows: IntArray | slice) -> FloatArray:
        """The category scores of some rows, (n, 13), in the order asked."""
        ...

    def stored(self, image_id: str) -> Embeddings:
        """The embedding a photo was indexed with: vectors (1, dim), scores (1, 13).

        Raises:
            ImageNotFound: the version has no such photo.
        """
        ...

    def check(self, *, live: bool) -> None:
        """Make sure that searches can be answered now, and let readers other than us find it if it is live.

        Raises:
            IndexUnavailable, IndexDamaged: they cannot.
        """
        ...


def require_dimension(query: FloatArray, manifest: IndexManifest) -> None:
    """Refuse a query that is not of the index's dimension.

    Raises:
        DimensionMismatch: it is not.
    """
    if query.shape != (manifest.dimension,):
        raise DimensionMismatch(f"query of shape {query.shape}, index of dimension {manifest.dimension}")


def rounded(scores: FloatArray) -> list[float]:
    """Similarities as they are told. Copies of one photo differ in the last bits only: rounded, they tie."""
    told: list[float] = np.clip(np.round(scores.astype(np.float64), SCORE_DECIMALS), -1, 1).tolist()
    return told


def ranked(hits: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """Scores and rows, best first; of those that tie, the older row."""
    return sorted(hits, key=lambda hit: (-hit[0], hit[1]))


def as_neighbours(
    hits: Iterable[tuple[float, int]], photos: Iterable[CataloguePhoto], request: SearchRequest
) -> list[Neighbour]:
    """The answer to a request.

    Args:
        hits: scores and rows, best first.
        photos: one per hit.
    """
    similar = [
        (score, row, photo)
        for (score, row), photo in zip(hits, photos, strict=True)
        if request.min_score is None or score >= request.min_score
    ]
    return [
        Neighbour(
            rank=rank,
            image_id=photo.image_id,
            listing_id=photo.listing_id,
            category=CATEGORIES[photo.category],
            score=score,
            row=row,
        )
        for rank, (score, row, photo) in enumerate(similar, start=1)
    ]
