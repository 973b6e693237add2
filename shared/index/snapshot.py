"""Index snapshot: every catalogue photo's embedding, searchable by cosine similarity, in one directory.

Where a Milvus server is configured, the vectors are in a collection there and the rest in the directory. A snapshot
belongs to one model, named by the fingerprint in its manifest.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import IndexKind, IndexManifest, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CataloguePhoto
from shared.errors import FingerprintMismatch, ImageNotFound, IndexDamaged, IndexMissing, IndexUnavailable
from shared.exhaustion import raise_exhaustion
from shared.index.arrays import map_array
from shared.index.metadata.facets import Facets
from shared.index.metadata.row_filters import RowFilters
from shared.index.metadata.rows import PhotoRows
from shared.index.milvus.index import open_collection
from shared.index.milvus.server import MilvusServer, alias_of
from shared.index.query import Query, WordsQuery
from shared.index.traffic import Audit, TrafficReference, changed, read_digests, read_reference
from shared.index.vector_index import LabelledRows, VectorIndex, as_neighbours, ranked, require_dimension, rounded
from shared.index.vectors.ann import Allowed, CompressedIndex, ExactIndex, Mask, RowIndex, exact_nearest
from shared.index.vectors.building import CODES, SCORES
from shared.index.vectors.stored_vectors import Codebook, StoredVectors, Vectors, open_vectors, raw_rows
from shared.index.words.hybrid import HybridIndex
from shared.index.words.listing_texts import ListingTexts
from shared.index.words.postings import WordWeights
from shared.jobs.answers_contract import Neighbour
from shared.jobs.contract import Distinct, SearchRequest
from shared.model.embedder import Embeddings
from shared.text.encoder import Words


@dataclass(frozen=True)
class IndexSnapshot:
    """A `VectorIndex` over memory-mapped files; its methods behave as documented there. Opened by `open_snapshot`.

    Attributes:
        version: name in the artifact store; "staged" for one that is being built.
        manifest: as it was sealed.
    """

    version: str
    manifest: IndexManifest
    _filters: RowFilters
    _vectors: Vectors  # (n, dim), memory-mapped
    _scores: FloatArray  # (n, n_categories), memory-mapped
    _index: HybridIndex
    reference: TrafficReference | None = None
    _digests: npt.NDArray[np.uint32] | None = None

    def search(
        self,
        query: FloatArray,
        request: SearchRequest,
        *,
        hidden: IntArray | None = None,
        words: WordsQuery | None = None,
    ) -> list[Neighbour]:
        """Find the photos most similar to a query; see `VectorIndex.search`."""
        require_dimension(query, self.manifest)
        allowed = self._filters.allowed(request, hidden)
        if request.distinct is Distinct.LISTING:
            hits = self._one_a_listing(Query(query, words), request.k, allowed)
        else:
            hits = self._hits(Query(query, words), request.k, allowed)
        photos = self._rows.at([row for _, row in hits])
        return as_neighbours(hits, photos, request, self.manifest.categories, self._rows.values)

    @property
    def _rows(self) -> PhotoRows:
        return self._filters.rows

    def word_weights(self, words: Words) -> WordWeights | None:
        """How much the words of a query count; see `VectorIndex.word_weights`."""
        return self._index.texts.word_weights(words) if self._index.texts else None

    def verbatim(self, rows: IntArray, words: Words) -> FloatArray:
        """How much of a query's words some rows say word for word; see `VectorIndex.verbatim`."""
        return self._index.texts.said_by(rows, words) if self._index.texts else np.zeros(len(rows), dtype=np.float32)

    def count(self, request: SearchRequest, hidden: IntArray | None = None) -> Facets:
        """Count the values of facets; see `VectorIndex.count`."""
        return self._filters.count(request, hidden)

    def _one_a_listing(self, query: Query, k: int, allowed: Allowed | None) -> list[tuple[float, int]]:
        """The best row of each of the `k` best listings, as scores and rows, best first."""
        best: dict[int, tuple[float, int]] = {}
        n_asked = 4 * k
        while True:
            hits = self._hits(query, n_asked, allowed)
            for hit in hits:
                best.setdefault(int(self._rows.listings[hit[1]]), hit)
            if len(best) >= k or len(hits) < n_asked:
                return ranked(best.values())[:k]
            # One listing's photos may crowd out all others: search again without the listings found so far.
            others: Mask = np.isin(self._rows.listings, list(best), invert=True)
            allowed = Allowed(others) if allowed is None else allowed.both(others)

    def _hits(self, query: Query, n: int, allowed: Allowed | None) -> list[tuple[float, int]]:
        """Scores and rows, best first."""
        scores, rows = self._index.search(query, n, allowed)
        return ranked(zip(rounded(scores), rows.tolist(), strict=True))

    def labelled(
        self, query: FloatArray, n: int, request: SearchRequest, *, hidden: IntArray | None = None
    ) -> LabelledRows:
        """Find the categories of the photos most similar to a query; see `VectorIndex.labelled`."""
        scores, rows = self._index.near(query, n, self._filters.allowed(request, hidden))
        return LabelledRows(scores, self._rows.categories[rows].astype(np.int64), rows)

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search for many queries without filters; see `VectorIndex.nearest`."""
        k = min(k, len(self))
        if self.manifest.index and self.manifest.index.kind is IndexKind.EXACT:
            return self.exact_nearest(queries, k)  # the same result, for all queries at once
        hits = [self._hits(Query(query), k, None) for query in queries]
        scores, rows = zip(*(zip(*found, strict=True) for found in hits), strict=True)
        return np.array(scores, dtype=np.float32), np.array(rows, dtype=np.int64)

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search by brute force over all vectors; see `VectorIndex.exact_nearest`."""
        return exact_nearest(self._vectors, queries, k)

    def photo(self, row: int) -> CataloguePhoto:
        """Return the photo of a row."""
        return self._rows.at([row])[0]

    def photos(self) -> Iterator[CataloguePhoto]:
        """Iterate over the photos in row order."""
        return iter(self._rows)

    def row_of(self, image_id: str) -> int | None:
        """Return the row of an image; None if there is none."""
        return self._rows.of_image(image_id)

    def payload_of(self, listing_id: str) -> str:
        """Return the attributes of a listing as JSON; empty text if it has none."""
        return self._rows.payload_of(listing_id)

    def rows_of(self, listing_id: str) -> list[int]:
        """Return the rows of a listing; empty if it has none."""
        return self._rows.of_listing(listing_id)

    def vectors(self, rows: IntArray | slice) -> FloatArray:
        """Return the embeddings of some rows, (n, dim) float32."""
        return self._vectors[rows]

    def scores(self, rows: IntArray | slice) -> FloatArray:
        """Return the category scores of some rows, (n, n_categories) float32."""
        return self._scores[rows]

    def stored(self, image_id: str) -> Embeddings:
        """Return the embedding a photo was indexed with; see `VectorIndex.stored`."""
        row = self.row_of(image_id)
        if row is None:
            raise ImageNotFound("the live index has no photo of that id")
        return Embeddings(self._vectors[row : row + 1], self._scores[row : row + 1])

    def lists_of(self, vectors: FloatArray) -> npt.NDArray[np.uint16] | None:
        """The inverted list that each of some embeddings belongs in; see `VectorIndex.lists_of`."""
        return self._index.compressed.lists_of(vectors) if self._index.compressed else None

    def lists_near(self, query: FloatArray, n: int) -> IntArray | None:
        """The inverted lists that a search looks into; see `VectorIndex.lists_near`."""
        return self._index.compressed.lists_near(query, n) if self._index.compressed else None

    @property
    def codebook(self) -> Codebook | None:
        """What its embeddings are stored by; see `VectorIndex.codebook`."""
        return self._vectors.codec.codebook if isinstance(self._vectors, StoredVectors) else None

    def audit(self, n: int, rng: np.random.Generator) -> Audit:
        """Compare rows drawn at random with what was written; see `VectorIndex.audit`."""
        damaged_codes = self._index.damaged_codes(n, rng)
        n_rows, n_damaged = (0, 0) if damaged_codes is None else (n, damaged_codes)
        if self._digests is not None:
            rows = rng.integers(0, len(self), n)
            n_rows += n
            n_damaged += int(np.count_nonzero(changed(self._digests, rows, raw_rows(self._vectors, rows))))
        return Audit(n_rows, n_damaged)

    def check(self, *, live: bool) -> None:
        """Do nothing: the files were verified when they were opened, and open files cannot be taken away."""

    def __len__(self) -> int:
        return self.manifest.count


def open_snapshot(
    store: ArtifactStore, *, fingerprint: str, version: str | None = None, server: MilvusServer | None = None
) -> VectorIndex:
    """Verify and open a version of the index for searching: its files are memory-mapped, its collection is queried.

        index = open_snapshot(index_store(storage), fingerprint=bundle.manifest.fingerprint)
        neighbours = index.search(vector, SearchRequest(k=4))

    Args:
        store: of the index versions.
        fingerprint: of the model whose embeddings will be the queries.
        version: its name; None: the promoted one.
        server: Milvus, for a version whose vectors are there.

    Raises:
        IndexMissing: there is no such version, or none has been promoted.
        IndexDamaged: a file differs from what was written, or Milvus has lost the collection.
        IndexUnavailable: the server does not answer, or none is given.
        FingerprintMismatch: built by another model.
    """
    version = version or store.current()
    if version is None:
        raise IndexMissing("no index snapshot has been promoted yet; `lookalike index build` makes one")
    manifest = read_index_manifest(store, version)
    if manifest.fingerprint != fingerprint:
        raise FingerprintMismatch(
            f"index {version} was built by model {manifest.fingerprint[:12]}, the live model is {fingerprint[:12]}; "
            "run `lookalike index build`"
        )
    store.verify(version, anew=False)
    if manifest.index and manifest.index.kind is IndexKind.MILVUS:
        if server is None:
            raise IndexUnavailable(f"{version}: its vectors are in Milvus; say where with LOOKALIKE_INDEX")
        return open_collection(server, store.path(version), version, manifest, alias=alias_of(store.place))
    return open_files(store.path(version), version, manifest)


def open_files(directory: Path, version: str, manifest: IndexManifest) -> IndexSnapshot:
    """Open a snapshot whose vectors are in files, sealed or not; checks shapes, not checksums.

    Raises:
        IndexDamaged: the files do not fit together or with the manifest.
        OSError: the process may open no more files, or has no memory.
    """
    facts = manifest.index
    if facts is None:
        raise IndexDamaged(f"{version}: was written by an earlier Lookalike; `lookalike index build` makes it anew")
    try:
        filters = RowFilters(directory, manifest)
        rows = filters.rows
        scattered = facts.kind is IndexKind.COMPRESSED
        shape = (manifest.count, manifest.dimension)
        vectors, searched = (open_vectors(directory, facts.vectors, shape, scattered=how) for how in (False, scattered))
        scores = map_array(directory / SCORES)
        if scores.shape != (manifest.count, len(manifest.categories)) or scores.dtype != np.float32:
            raise IndexDamaged(f"{version}: files disagree on the number of rows or categories")
        if len(rows) != manifest.count:
            raise IndexDamaged(f"{version}: files disagree on the number of rows")
        texts = ListingTexts(directory, manifest.texts, rows.listings) if manifest.texts else None
        reference, digests = read_reference(directory), read_digests(directory)
        index: RowIndex
        if facts.kind is IndexKind.COMPRESSED:
            how = {"n_probes": facts.n_probes, "n_candidates": facts.n_candidates}
            index = CompressedIndex(directory / CODES, searched, **how)
        elif isinstance(vectors, StoredVectors):
            raise IndexDamaged(f"{version}: an index of kind {facts.kind} has no embeddings in {facts.vectors}")
        else:
            index = ExactIndex(vectors)
    except (OSError, ValueError, EOFError, RuntimeError, sqlite3.Error) as exc:
        raise_exhaustion(exc)
        raise IndexDamaged(f"{version}: cannot be read") from exc
    hybrid = HybridIndex(index, vectors, texts)
    return IndexSnapshot(version, manifest, filters, vectors, scores, hybrid, reference, digests)


def lies_in(manifest: IndexManifest, server: MilvusServer | None) -> bool:
    """Tell whether a version's vectors are where they should be: in Milvus if there is a server, else in files."""
    in_a_server = manifest.index is not None and manifest.index.kind is IndexKind.MILVUS
    return in_a_server == (server is not None)
