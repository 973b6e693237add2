"""VectorIndex: the interface of one index version, implemented by files with FAISS and by Milvus."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from shared.array_types import DoubleArray, FloatArray, IntArray
from shared.artifacts.snapshots import IndexManifest
from shared.attributes.schema import Values
from shared.catalogue.categories import CataloguePhoto
from shared.errors import DimensionMismatch
from shared.index.metadata.facets import Facets
from shared.index.query import WordsQuery
from shared.index.traffic import Audit, TrafficReference
from shared.index.vectors.stored_vectors import Codebook
from shared.index.words.postings import WordWeights
from shared.jobs.answers_contract import Neighbour
from shared.jobs.contract import (
    SearchRequest,
)
from shared.model.embedder import Embeddings
from shared.text.encoder import Words

SCORE_DECIMALS = 6


class LabelledRows(NamedTuple):
    """Photos of an index with their categories.

    Attributes:
        scores: (m,) float32 similarities to the query.
        categories: (m,) int64.
        rows: (m,) int64.
    """

    scores: FloatArray
    categories: IntArray
    rows: IntArray


class VectorIndex(Protocol):
    """One complete index version, opened for searching; safe to share between threads. `open_snapshot` returns one.

    Where the vectors are in a Milvus server, every method may raise IndexUnavailable when it does not answer, and
    IndexDamaged when it has lost them.
    """

    @property
    def version(self) -> str:
        """Name of the version in the artifact store."""
        ...

    @property
    def manifest(self) -> IndexManifest:
        """The manifest it was sealed with."""
        ...

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def search(
        self,
        query: FloatArray,
        request: SearchRequest,
        *,
        hidden: IntArray | None = None,
        words: WordsQuery | None = None,
    ) -> list[Neighbour]:
        """Find the catalogue photos most similar to one query.

        Args:
            query: (dim,) float32, L2 norm 1: of a photo, or what words map to where there is none.
            request: `k`, filters and `distinct`.
            hidden: rows to leave out.
            words: of the query; None: photos alone are compared.

        Returns:
            up to `k` neighbours, most similar first, ties by row; fewer than `k` only when fewer meet the filters.
            Scores are cosine similarities in [-1, 1]; of a query with words the weighted sum of the photos' and the
            words'.

        Raises:
            DimensionMismatch: the query's dimension is not that of the version's vectors.
            InvalidRequest: the index has no such category, or the filter does not fit its attributes.
        """
        ...

    def labelled(
        self, query: FloatArray, n: int, request: SearchRequest, *, hidden: IntArray | None = None
    ) -> LabelledRows:
        """Find the categories of the photos most similar to one photo.

        Args:
            query: (dim,) float32, L2 norm 1.
            n: neighbours wanted.
            request: its filters.
            hidden: rows to leave out.

        Returns:
            the photos, in no order; `n`, or less where fewer are allowed.
        """
        ...

    def word_weights(self, words: Words) -> WordWeights | None:
        """How much the words of a query count when they are found word for word; None: they are not searched so."""
        ...

    def verbatim(self, rows: IntArray, words: Words) -> FloatArray:
        """How much of a query's words the listings of some rows say word for word: (n,) -> (n,) float32, 0..1."""
        ...

    def count(self, request: SearchRequest, hidden: IntArray | None = None) -> Facets:
        """Count the values of `request.facets` among the listings that the filters allow.

        Args:
            request: filters and facets.
            hidden: rows to leave out.

        Raises:
            InvalidRequest: the index has no such attribute or category, or the filter does not fit its attributes.
        """
        ...

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search for many queries without filters, to measure recall.

        Args:
            queries: (n, dim) float32, L2 norm 1.
            k: neighbours per query; the version's size where that is less.

        Returns:
            cosine similarities float32 and rows int64, (n, k) each, most similar first; where a search finds fewer,
            the rest are similarity -2 and row -1.
        """
        ...

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search by brute force, as the ground truth for `nearest`; the same arguments and result."""
        ...

    def photo(self, row: int) -> CataloguePhoto:
        """Return the photo of a row; its path is relative to the catalogue it came from, or absolute."""
        ...

    def photos(self) -> Iterator[CataloguePhoto]:
        """Iterate over the photos in row order, reading them page by page."""
        ...

    def row_of(self, image_id: str) -> int | None:
        """Return the row of an image; None if the version has none."""
        ...

    def payload_of(self, listing_id: str) -> str:
        """Return the attributes of a listing as JSON; empty text if it has none, or is not there."""
        ...

    def rows_of(self, listing_id: str) -> list[int]:
        """Return the rows of a listing; empty if it has none."""
        ...

    def vectors(self, rows: IntArray | slice) -> FloatArray:
        """Return the embeddings of some rows, (n, dim) float32, in the given order."""
        ...

    def scores(self, rows: IntArray | slice) -> FloatArray:
        """Return the category scores of some rows, (n, n_categories) float32, in the given order."""
        ...

    def stored(self, image_id: str) -> Embeddings:
        """Return the embedding a photo was indexed with: vectors (1, dim), scores (1, n_categories).

        Raises:
            ImageNotFound: the version has no such photo.
        """
        ...

    @property
    def reference(self) -> TrafficReference | None:
        """What ordinary queries are like; None: the version was written without."""
        ...

    def lists_of(self, vectors: FloatArray) -> npt.NDArray[np.uint16] | None:
        """The inverted list that each of some embeddings (n, dim) belongs in, (n,); None: there are no lists here."""
        ...

    def lists_near(self, query: FloatArray, n: int) -> IntArray | None:
        """The inverted lists that a search for the `n` nearest to a query (dim,) looks into; None: as `lists_of`."""
        ...

    @property
    def codebook(self) -> Codebook | None:
        """What its embeddings are stored by in int8; None: they are stored otherwise."""
        ...

    def audit(self, n: int, rng: np.random.Generator) -> Audit:
        """Compare rows drawn at random with what was written: their vectors by digests, their codes by the vectors.

        Args:
            n: rows.
            rng: draws them.
        """
        ...

    def check(self, *, live: bool) -> None:
        """Check that searches can be answered now.

        Args:
            live: it is the live version; in Milvus, its alias is then pointed at it, for readers outside Lookalike.

        Raises:
            IndexUnavailable, IndexDamaged: searches cannot be answered.
        """
        ...


def require_dimension(query: FloatArray, manifest: IndexManifest) -> None:
    """Check that a query has the index's dimension.

    Args:
        query: (dim,) float32.
        manifest: of the index.

    Raises:
        DimensionMismatch: it has another shape.
    """
    if query.shape != (manifest.dimension,):
        raise DimensionMismatch(f"query of shape {query.shape}, index of dimension {manifest.dimension}")


def rounded(scores: FloatArray | DoubleArray) -> list[float]:
    """Round similarities as results show them, to SCORE_DECIMALS, and clip them to [-1, 1].

    Copies of one photo differ in the last bits only: rounded, they tie.

    Args:
        scores: (n,) cosine similarities.
    """
    decimals: list[float] = np.clip(np.round(scores.astype(np.float64), SCORE_DECIMALS), -1, 1).tolist()
    return decimals


def ranked(hits: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """Sort pairs of score and row, best score first, ties by row."""
    return sorted(hits, key=lambda hit: (-hit[0], hit[1]))


def as_neighbours(
    hits: Iterable[tuple[float, int]],
    photos: Iterable[CataloguePhoto],
    request: SearchRequest,
    categories: Sequence[str],
    values: Callable[[list[int]], Iterable[Values]] = lambda rows: ({} for _ in rows),
) -> list[Neighbour]:
    """Build the neighbours of a search result from its hits.

    Args:
        hits: scores and rows, best first.
        photos: one per hit.
        request: its `min_score` leaves hits out, and its `include` says which attributes they carry.
        categories: of the index.
        values: returns the attributes of some rows.
    """
    similar = [
        (score, row, photo)
        for (score, row), photo in zip(hits, photos, strict=True)
        if request.min_score is None or score >= request.min_score
    ]
    attributes: Iterable[dict[str, JsonValue] | None] = repeat(None)
    if request.include:
        attributes = (included(one, request.include) for one in values([row for _, row, _ in similar]))
    return [
        Neighbour(
            rank=rank,
            image_id=photo.image_id,
            listing_id=photo.listing_id,
            category=categories[photo.category],
            score=score,
            row=row,
            attributes=carried,
        )
        for rank, ((score, row, photo), carried) in enumerate(zip(similar, attributes, strict=False), start=1)
    ]


def included(values: Values, include: Sequence[str]) -> dict[str, JsonValue]:
    """Select the attributes that an answer carries: those named, or with `*` all."""
    return {name: value for name, value in values.items() if "*" in include or name in include}
