"""Index snapshot: every catalogue photo's embedding, searchable by cosine similarity, in one directory.

Exact search: FAISS inner product over L2-normalised rows. A snapshot belongs to the one model whose fingerprint it
carries; knows nothing of how photos become embeddings.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.artifacts import MANIFEST, ArtifactStore
from shared.catalogue import CATEGORIES, CATEGORY_INDEX, CataloguePhoto
from shared.errors import DimensionMismatch, FingerprintMismatch, ImageNotFound, IndexDamaged, IndexMissing
from shared.jobs import Distinct, Neighbour, SearchRequest
from shared.vision.embedder import Embeddings, FloatArray

VECTORS = "vectors.faiss"
SCORES = "scores.npy"
ROWS = "rows.json"
_SCORE_DECIMALS = 6


class IndexManifest(BaseModel):
    """What a snapshot says of itself."""

    model_config = ConfigDict(frozen=True)

    count: int
    dimension: int
    fingerprint: str  # of the model that made the embeddings
    catalogue: str  # what was indexed, for people
    catalogue_digest: str  # changes when the catalogue's rows or photos do
    built_at: str


class Rows(NamedTuple):
    """Column-wise, one entry per row of the index."""

    image_ids: list[str]
    listing_ids: list[str]
    categories: npt.NDArray[np.int16]  # (n,) positions in CATEGORIES


def index_store(home: Path) -> ArtifactStore:
    """Where the snapshots of an installation lie."""
    return ArtifactStore(home / "indexes", missing=IndexMissing, damaged=IndexDamaged)


def write_snapshot(
    store: ArtifactStore,
    photos: Sequence[CataloguePhoto],
    embeddings: Embeddings,
    *,
    fingerprint: str,
    catalogue: str,
    catalogue_digest: str,
) -> str:
    """Write a new version and return its name; it is not promoted.

    Args:
        photos: one per row, in row order.
        embeddings: vectors (n, dim) with L2 norm 1 and scores (n, 13).

    Raises:
        IndexDamaged: an embedding is not finite.
    """
    vectors = np.ascontiguousarray(embeddings.vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise IndexDamaged("an embedding is not finite; the model's weights are unusable")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    manifest = IndexManifest(
        count=len(photos),
        dimension=vectors.shape[1],
        fingerprint=fingerprint,
        catalogue=catalogue,
        catalogue_digest=catalogue_digest,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    columns = {
        "image_id": [photo.image_id for photo in photos],
        "listing_id": [photo.listing_id for photo in photos],
        "category": [photo.category for photo in photos],
    }
    with store.write() as directory:
        faiss.write_index(index, str(directory / VECTORS))
        np.save(directory / SCORES, embeddings.scores.astype(np.float32))
        (directory / ROWS).write_text(json.dumps(columns))
        (directory / MANIFEST).write_text(manifest.model_dump_json())
    return store.newest()


def read_index_manifest(store: ArtifactStore, version: str) -> IndexManifest:
    """The manifest of a version, without looking at the vectors.

    Raises:
        IndexMissing, IndexDamaged: not there, or not whole.
    """
    try:
        return IndexManifest.model_validate(store.manifest(version))
    except ValidationError as exc:
        raise IndexDamaged(f"{version}: {MANIFEST} is not that of an index snapshot") from exc


@dataclass(frozen=True)
class IndexSnapshot:
    """One complete version, opened for searching; safe to share between threads."""

    version: str
    manifest: IndexManifest
    rows: Rows
    _index: faiss.Index
    _scores: FloatArray
    _row_of: dict[str, int]

    def search(self, query: FloatArray, request: SearchRequest) -> list[Neighbour]:
        """Find the catalogue photos most similar to one query.

        Args:
            query: (dim,) float32, L2 norm 1.
            request: `k`, filters and `distinct`.

        Returns:
            up to `k` neighbours, most similar first; fewer only when fewer fit the filters.

        Raises:
            DimensionMismatch: the query is of another length than the snapshot's vectors.
        """
        if query.shape != (self.manifest.dimension,):
            raise DimensionMismatch(f"query of shape {query.shape}, index of dimension {self.manifest.dimension}")
        allowed = self._allowed(request)
        n_allowed = len(self) if allowed is None else len(allowed)
        params = None
        if allowed is not None:
            params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))  # type: ignore[call-arg]
        # With one photo per listing wanted, hits fall out: ask for more until k remain or none are left.
        n_asked = min(request.k if request.distinct is Distinct.NONE else 4 * request.k, n_allowed)
        while True:
            neighbours = self._neighbours(query, n_asked, params, request)
            if len(neighbours) >= request.k or n_asked >= n_allowed:
                break
            n_asked = min(4 * n_asked, n_allowed)
        wanted = neighbours[: request.k]
        return [n for n in wanted if request.min_score is None or n.score >= request.min_score]

    def _neighbours(
        self, query: FloatArray, n_asked: int, params: faiss.SearchParameters | None, request: SearchRequest
    ) -> list[Neighbour]:
        if n_asked == 0:
            return []
        scores, rows = self._index.search(query[None], n_asked, params=params)
        # Copies of one photo differ in the last bits only: they tie, and the older row comes first.
        rounded = np.clip(np.round(scores[0].astype(np.float64), _SCORE_DECIMALS), -1, 1)
        hits = sorted(zip(rounded.tolist(), rows[0].tolist(), strict=True), key=lambda hit: (-hit[0], hit[1]))
        kept: list[Neighbour] = []
        listings: set[str] = set()
        for score, row in hits:
            if row < 0:  # FAISS pads with -1 when it finds fewer
                continue
            listing_id = self.rows.listing_ids[row]
            if request.distinct is Distinct.LISTING and listing_id in listings:
                continue
            listings.add(listing_id)
            kept.append(
                Neighbour(
                    rank=len(kept) + 1,
                    image_id=self.rows.image_ids[row],
                    listing_id=listing_id,
                    category=CATEGORIES[self.rows.categories[row]],
                    score=score,
                    row=row,
                )
            )
        return kept

    def _allowed(self, request: SearchRequest) -> npt.NDArray[np.int64] | None:
        """Rows that pass the filters, or None when all do."""
        if request.category is None and request.exclude_listing is None:
            return None
        keep = np.ones(len(self), dtype=bool)
        if request.category is not None:
            keep &= self.rows.categories == CATEGORY_INDEX[request.category]
        if request.exclude_listing is not None:
            keep &= np.array([listing != request.exclude_listing for listing in self.rows.listing_ids], dtype=bool)
        return np.flatnonzero(keep)

    def stored(self, image_id: str) -> Embeddings:
        """The embedding a photo was indexed with: vectors (1, dim), scores (1, 13).

        Raises:
            ImageNotFound: the snapshot has no such photo.
        """
        row = self._row_of.get(image_id)
        if row is None:
            raise ImageNotFound("the live index has no photo of that id")
        vector: FloatArray = np.asarray(self._index.reconstruct(row))
        return Embeddings(vector[None], self._scores[row : row + 1])

    def all(self) -> Embeddings:
        """Every row: vectors (n, dim), scores (n, 13)."""
        return Embeddings(np.asarray(self._index.reconstruct_n(0, len(self))), self._scores)

    def __len__(self) -> int:
        return self.manifest.count


def open_snapshot(store: ArtifactStore, *, fingerprint: str, version: str | None = None) -> IndexSnapshot:
    """Verify and open a version, by default the current one; vectors stay on disk, mapped into memory.

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
    directory = store.path(version)
    try:
        # Plain IO_FLAG_MMAP is ignored for flat indexes; this one maps them, shared through the page cache.
        index = faiss.read_index(str(directory / VECTORS), faiss.IO_FLAG_MMAP_IFC)
        scores = np.load(directory / SCORES, mmap_mode="r", allow_pickle=False)
        columns = json.loads((directory / ROWS).read_text())
        rows = Rows(columns["image_id"], columns["listing_id"], np.array(columns["category"], dtype=np.int16))
    except (RuntimeError, OSError, ValueError, LookupError, TypeError) as exc:
        raise IndexDamaged(f"{version}: cannot be read") from exc
    if scores.shape[1:] != (len(CATEGORIES),) or not np.isin(rows.categories, range(len(CATEGORIES))).all():
        raise IndexDamaged(f"{version}: its categories are not the {len(CATEGORIES)} known ones")
    lengths = {manifest.count, index.ntotal, len(scores), *(len(column) for column in rows)}
    if lengths != {manifest.count} or index.d != manifest.dimension:
        raise IndexDamaged(f"{version}: files disagree on the number of rows or the dimension")
    row_of = {image_id: row for row, image_id in enumerate(rows.image_ids)}
    return IndexSnapshot(version, manifest, rows, index, scores, row_of)
