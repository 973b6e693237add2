"""Index snapshot: every catalogue photo's embedding, searchable by cosine similarity, in one directory.

A snapshot belongs to the one model whose fingerprint it carries; knows nothing of how photos become embeddings.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from shared.artifacts import MANIFEST, ArtifactStore
from shared.catalogue import CATEGORIES, CATEGORY_INDEX, CataloguePhoto
from shared.errors import DimensionMismatch, FingerprintMismatch, ImageNotFound, IndexDamaged, IndexMissing
from shared.jobs import Distinct, Neighbour, SearchRequest
from shared.reindex import ReindexReport
from shared.snapshots import IndexFacts, IndexKind, IndexManifest, read_index_manifest
from shared.vision.ann import CompressedIndex, ExactIndex, IntArray, Mask, VectorIndex, exact_nearest
from shared.vision.arrays import map_array, write_array
from shared.vision.compress import EXACT_UP_TO, compress
from shared.vision.embedder import Embeddings, FloatArray
from shared.vision.rows import PhotoRows, write_rows

VECTORS = "vectors.npy"
SCORES = "scores.npy"
CODES = "codes.faiss"
SCORE_DECIMALS = 6


def write_files(
    directory: Path,
    photos: Iterable[CataloguePhoto],
    vectors: FloatArray,
    scores: FloatArray,
    *,
    root: Path | None = None,
    threads: int = 0,
    exact_up_to: int = EXACT_UP_TO,
) -> IndexFacts:
    """Write everything of a snapshot but its manifest.

    Args:
        photos: one per row, in row order; read once.
        vectors: (n, dim) float32 with L2 norm 1, in memory or mapped from disk; copied piece by piece.
        scores: (n, 13) float32, likewise.
        root: photos inside it are named relative to it.
        threads: that a compressed index is built with; 0: one per core.
        exact_up_to: more vectors than this get a compressed index.

    Raises:
        IndexDamaged: an embedding is not finite, or photos and embeddings are not as many.
    """
    n_photos = write_rows(directory, photos, root=root)
    if not n_photos == len(vectors) == len(scores):
        raise IndexDamaged(f"{n_photos} photos, {len(vectors)} vectors and {len(scores)} rows of scores")
    try:
        write_array(directory / SCORES, np.asarray(scores, dtype=np.float32))
        write_array(directory / VECTORS, np.asarray(vectors, dtype=np.float32))
    except ValueError as exc:
        raise IndexDamaged(f"{exc}; the model's weights are unusable") from exc
    if n_photos <= exact_up_to:
        return IndexFacts(kind=IndexKind.EXACT, recall_at_10=1)
    return compress(directory / CODES, map_array(directory / VECTORS), threads=threads)


def write_snapshot(
    store: ArtifactStore,
    photos: Iterable[CataloguePhoto],
    embeddings: Embeddings,
    *,
    fingerprint: str,
    catalogue: str,
    catalogue_digest: str,
    folded_to: str = "0-0",
    report: ReindexReport | None = None,
    root: Path | None = None,
    exact_up_to: int = EXACT_UP_TO,
) -> str:
    """Write a new version and return its name; it is not promoted.

    Raises:
        IndexDamaged: as `write_files`.
    """
    with store.write() as draft:
        facts = write_files(
            draft.directory, photos, embeddings.vectors, embeddings.scores, root=root, exact_up_to=exact_up_to
        )
        manifest = IndexManifest(
            count=len(embeddings.vectors),
            dimension=embeddings.vectors.shape[1],
            fingerprint=fingerprint,
            catalogue=catalogue,
            catalogue_digest=catalogue_digest,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            index=facts,
            folded_to=folded_to,
            report=report,
        )
        (draft.directory / MANIFEST).write_text(manifest.model_dump_json())
    return draft.version


@dataclass(frozen=True)
class IndexSnapshot:
    """One complete version, opened for searching; safe to share between threads."""

    version: str
    manifest: IndexManifest
    _rows: PhotoRows
    _vectors: FloatArray  # (n, dim), mapped from disk as the scores are
    _scores: FloatArray
    _index: VectorIndex

    def search(self, query: FloatArray, request: SearchRequest, *, hidden: IntArray | None = None) -> list[Neighbour]:
        """Find the catalogue photos most similar to one query.

        Args:
            query: (dim,) float32, L2 norm 1.
            request: `k`, filters and `distinct`.
            hidden: rows to search as if they were not there.

        Returns:
            up to `k` neighbours, most similar first; fewer only when fewer fit the filters.

        Raises:
            DimensionMismatch: the query is of another length than the snapshot's vectors.
        """
        if query.shape != (self.manifest.dimension,):
            raise DimensionMismatch(f"query of shape {query.shape}, index of dimension {self.manifest.dimension}")
        allowed = self._allowed(request, hidden)
        if request.distinct is Distinct.LISTING:
            hits = self._one_a_listing(query, request.k, allowed)
        else:
            hits = self._hits(query, request.k, allowed)
        hits = [(score, row) for score, row in hits if request.min_score is None or score >= request.min_score]
        photos = self._rows.at([row for _, row in hits])
        return [
            Neighbour(
                rank=rank,
                image_id=photo.image_id,
                listing_id=photo.listing_id,
                category=CATEGORIES[photo.category],
                score=score,
                row=row,
            )
            for rank, ((score, row), photo) in enumerate(zip(hits, photos, strict=True), start=1)
        ]

    def _allowed(self, request: SearchRequest, hidden: IntArray | None) -> Mask | None:
        """Where the filters leave a row to be found, or None when that is everywhere."""
        if request.category is None and request.exclude_listing is None and hidden is None:
            return None
        allowed: Mask = np.ones(len(self), dtype=bool)
        if request.category is not None:
            allowed = self._rows.categories == CATEGORY_INDEX[request.category]
        if request.exclude_listing is not None:
            allowed[self._rows.of_listing(request.exclude_listing)] = False
        if hidden is not None:
            allowed[hidden] = False
        return allowed

    def _one_a_listing(self, query: FloatArray, k: int, allowed: Mask | None) -> list[tuple[float, int]]:
        """The best row of each of the `k` best listings, as scores and rows, best first."""
        best: dict[int, tuple[float, int]] = {}
        n_asked = 4 * k
        while True:
            hits = self._hits(query, n_asked, allowed)
            for hit in hits:
                best.setdefault(int(self._rows.listings[hit[1]]), hit)
            if len(best) >= k or len(hits) < n_asked:
                return _ranked(best.values())[:k]
            # One listing's photos may crowd out all others: look again where only those are.
            others: Mask = np.isin(self._rows.listings, list(best), invert=True)
            allowed = others if allowed is None else allowed & others

    def _hits(self, query: FloatArray, n: int, allowed: Mask | None) -> list[tuple[float, int]]:
        """Scores and rows, best first."""
        scores, rows = self._index.search(query, n, allowed)
        # Copies of one photo differ in the last bits only: they tie, and the older row comes first.
        rounded = np.clip(np.round(scores.astype(np.float64), SCORE_DECIMALS), -1, 1)
        return _ranked(zip(rounded.tolist(), rows.tolist(), strict=True))

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """What searches find, for measurements: similarities and rows, (n, k) each, best first, of queries (n, dim)."""
        k = min(k, len(self))
        if self.manifest.index and self.manifest.index.kind is IndexKind.EXACT:
            return self.exact_nearest(queries, k)  # the same, and all at once
        hits = [self._hits(query, k, None) for query in queries]
        scores, rows = zip(*(zip(*found, strict=True) for found in hits), strict=True)
        return np.array(scores, dtype=np.float32), np.array(rows, dtype=np.int64)

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """What searches should find, in the same form: every vector is compared."""
        return exact_nearest(self._vectors, queries, k)

    def photo(self, row: int) -> CataloguePhoto:
        """What was indexed in a row; its path is relative to the catalogue it came from, or absolute."""
        return self._rows.at([row])[0]

    def photos(self) -> Iterator[CataloguePhoto]:
        """Every row in order, read as it goes."""
        return iter(self._rows)

    def row_of(self, image_id: str) -> int | None:
        return self._rows.of_image(image_id)

    def vectors(self, rows: IntArray | slice) -> FloatArray:
        """The embeddings of some rows, (n, dim); of a slice still on disk."""
        return self._vectors[rows]

    def scores(self, rows: IntArray | slice) -> FloatArray:
        """The category scores of some rows, (n, 13); of a slice still on disk."""
        return self._scores[rows]

    def stored(self, image_id: str) -> Embeddings:
        """The embedding a photo was indexed with: vectors (1, dim), scores (1, 13).

        Raises:
            ImageNotFound: the snapshot has no such photo.
        """
        row = self.row_of(image_id)
        if row is None:
            raise ImageNotFound("the live index has no photo of that id")
        return Embeddings(self._vectors[row : row + 1], self._scores[row : row + 1])

    def __len__(self) -> int:
        return self.manifest.count


def _ranked(hits: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    return sorted(hits, key=lambda hit: (-hit[0], hit[1]))


def open_snapshot(store: ArtifactStore, *, fingerprint: str, version: str | None = None) -> IndexSnapshot:
    """Verify and open a version, by default the current one; it stays on disk, mapped into memory.

    Args:
        fingerprint: of the model whose embeddings will be searched with.

    Raises:
        IndexMissing, IndexDamaged: not there, or not what was written.
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
    store.verify(version)
    return open_files(store.path(version), version, manifest)


def open_files(directory: Path, version: str, manifest: IndexManifest) -> IndexSnapshot:
    """Open a snapshot's files, sealed or not, without reading them through.

    Raises:
        IndexDamaged: the files do not fit together or with the manifest.
    """
    facts = manifest.index
    if facts is None:
        raise IndexDamaged(f"{version}: was written by an earlier Lookalike; `lookalike index build` makes it anew")
    try:
        rows = PhotoRows(directory)
        vectors = map_array(directory / VECTORS)
        scores = map_array(directory / SCORES)
        for array, width in ((vectors, manifest.dimension), (scores, len(CATEGORIES))):
            if array.shape != (manifest.count, width) or array.dtype != np.float32 or len(rows) != manifest.count:
                raise IndexDamaged(f"{version}: files disagree on the number of rows or the dimension")
        index: VectorIndex = ExactIndex(vectors)
        if facts.kind is IndexKind.COMPRESSED:
            index = CompressedIndex(
                directory / CODES,
                map_array(directory / VECTORS, scattered=True),
                n_probes=facts.n_probes,
                n_candidates=facts.n_candidates,
            )
    except (OSError, ValueError, EOFError, RuntimeError, sqlite3.Error) as exc:
        raise IndexDamaged(f"{version}: cannot be read") from exc
    return IndexSnapshot(version, manifest, rows, vectors, scores, index)
