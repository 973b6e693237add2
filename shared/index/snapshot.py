"""Index snapshot: every catalogue photo's embedding, searchable by cosine similarity, in one directory.

Or, where a Milvus server is named, the vectors in a collection there and the rest in the directory. A snapshot belongs
to the one model whose fingerprint it carries; knows nothing of how photos become embeddings.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from shared.artifacts import Location
from shared.artifacts.snapshots import IndexFacts, IndexKind, IndexManifest, read_index_manifest
from shared.artifacts.store import MANIFEST, ArtifactStore, Draft
from shared.catalogue.categories import CATEGORIES, CATEGORY_INDEX, CataloguePhoto
from shared.errors import (
    ArtifactError,
    FingerprintMismatch,
    ImageNotFound,
    IndexDamaged,
    IndexMissing,
    IndexUnavailable,
)
from shared.index.ann import CompressedIndex, ExactIndex, Mask, RowIndex, exact_nearest
from shared.index.arrays import map_array, write_array
from shared.index.compression import EXACT_UP_TO, compress
from shared.index.milvus import fill_collection, open_collection
from shared.index.milvus_server import CollectionName, MilvusServer, alias_of
from shared.index.rows import PhotoRows, write_filters, write_photos
from shared.index.vector_index import IntArray, VectorIndex, as_neighbours, ranked, require_dimension, rounded
from shared.jobs.contract import Distinct, Neighbour, SearchRequest
from shared.jobs.reindex_contract import ReindexReport
from shared.model.embedder import Embeddings, FloatArray

VECTORS = "vectors.npy"
SCORES = "scores.npy"
CODES = "codes.faiss"


@dataclass
class IndexDraft:
    """A snapshot while it is written.

    Attributes:
        artifact: its directory, and its version once it is sealed.
        collection: that its vectors go into; empty: into the directory.
    """

    artifact: Draft
    server: MilvusServer | None = None
    collection: str = ""
    vectors: FloatArray | None = None

    def write(
        self,
        photos: Iterable[CataloguePhoto],
        embeddings: Embeddings,
        *,
        root: Location | None = None,
        threads: int = 0,
        exact_up_to: int = EXACT_UP_TO,
        tick: Callable[[], None] = lambda: None,
    ) -> IndexFacts:
        """Write everything of a snapshot but its manifest.

        Args:
            photos: one per row, in row order; read once.
            embeddings: (n, dim) float32 with L2 norm 1 and (n, 13) float32, in memory or mapped from disk.
            root: photos inside it are named relative to it.
            threads: that a compressed index is built with; 0: one per core.
            exact_up_to: more vectors than this are not all compared.
            tick: called now and then while a server works; what it raises ends it.

        Raises:
            IndexDamaged: an embedding is not finite, or photos and embeddings are not as many.
            IndexUnavailable: the server does not answer.
        """
        directory, (vectors, scores) = self.artifact.directory, embeddings
        n_photos = write_photos(directory, photos, root=root)
        if not n_photos == len(vectors) == len(scores):
            raise IndexDamaged(f"{n_photos} photos, {len(vectors)} vectors and {len(scores)} rows of scores")
        self.vectors = vectors
        if self.server:
            return fill_collection(
                self.server, self.collection, directory, embeddings, exact_up_to=exact_up_to, tick=tick
            )
        write_filters(directory)
        try:
            write_array(directory / SCORES, np.asarray(scores, dtype=np.float32))
            write_array(directory / VECTORS, np.asarray(vectors, dtype=np.float32))
        except ValueError as exc:
            raise IndexDamaged(f"{exc}; the model's weights are unusable") from exc
        if n_photos <= exact_up_to:
            return IndexFacts(kind=IndexKind.EXACT, recall_at_10=1)
        return compress(directory / CODES, map_array(directory / VECTORS), threads=threads)

    def open(self, manifest: IndexManifest) -> VectorIndex:
        """What was written, to be measured before it is sealed."""
        if self.server:
            return open_collection(self.server, self.artifact.directory, "staged", manifest, made_from=self.vectors)
        return open_files(self.artifact.directory, "staged", manifest)

    def seal(self, manifest: IndexManifest) -> None:
        """Write the manifest, which is the last of it."""
        (self.artifact.directory / MANIFEST).write_text(manifest.model_dump_json())


@contextmanager
def draft_index(
    store: ArtifactStore, server: MilvusServer | None = None, *, fingerprint: str, made_by: str = ""
) -> Iterator[IndexDraft]:
    """Something to write a new version into; sealed on success, and on error nothing is left of it.

    Args:
        fingerprint: of the model that made the embeddings.
        server: that gets the vectors; None: they are kept in files.
        made_by: id of the job.

    Raises:
        ArtifactUnwritable, IndexUnavailable: there is no room for it now.
    """
    with ExitStack() as stack:
        collection = ""
        if server:
            name = CollectionName.new(alias_of(store.place), fingerprint, made_by)
            stack.enter_context(server.draft(name, collections(store).values()))
            collection = str(name)
        yield IndexDraft(stack.enter_context(store.write()), server, collection)


def lies_in(manifest: IndexManifest, server: MilvusServer | None) -> bool:
    """Whether a version keeps its vectors where they are wanted: in a server if there is one, else in files."""
    in_a_server = manifest.index is not None and manifest.index.kind is IndexKind.MILVUS
    return in_a_server == (server is not None)


def collections(store: ArtifactStore) -> dict[str, str]:
    """What the vectors of each version are in, of those that have them in a server; oldest first."""
    found: dict[str, str] = {}
    for version in store.versions():
        with suppress(ArtifactError):
            facts = read_index_manifest(store, version).index
            if facts and facts.collection:
                found[version] = facts.collection
    return found


def prune_index(store: ArtifactStore, keep: int, server: MilvusServer | None = None) -> list[str]:
    """Remove old versions as `ArtifactStore.prune` does, with what a server has of them.

    Raises:
        ArtifactUnwritable, IndexUnavailable: they cannot be removed now.
    """
    there = collections(store) if server else {}
    # Who has files open keeps them, but a collection is gone for all: what was live until just now outlives the next.
    removed = store.prune(max(keep, 2) if there else keep)
    for version in removed:
        if server and there.get(version, "").startswith(alias_of(store.place)):  # or it is of whom this is a copy
            server.drop(there[version])
    return removed


def write_snapshot(
    store: ArtifactStore,
    photos: Iterable[CataloguePhoto],
    embeddings: Embeddings,
    *,
    fingerprint: str,
    catalogue: str,
    catalogue_digest: str,
    compacted_through: str = "0-0",
    report: ReindexReport | None = None,
    root: Location | None = None,
    exact_up_to: int = EXACT_UP_TO,
    server: MilvusServer | None = None,
) -> str:
    """Write a new version and return its name; it is not promoted.

    Raises:
        IndexDamaged, IndexUnavailable: as `IndexDraft.write`.
    """
    with draft_index(store, server, fingerprint=fingerprint) as draft:
        facts = draft.write(photos, embeddings, root=root, exact_up_to=exact_up_to)
        draft.seal(
            IndexManifest(
                count=len(embeddings.vectors),
                dimension=embeddings.vectors.shape[1],
                fingerprint=fingerprint,
                catalogue=catalogue,
                catalogue_digest=catalogue_digest,
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                index=facts,
                compacted_through=compacted_through,
                report=report,
            )
        )
    return draft.artifact.version


@dataclass(frozen=True)
class IndexSnapshot:
    """A `VectorIndex` in files; what its methods promise is said there."""

    version: str
    manifest: IndexManifest
    _rows: PhotoRows
    _vectors: FloatArray  # (n, dim), mapped from disk as the scores are
    _scores: FloatArray
    _index: RowIndex

    def search(self, query: FloatArray, request: SearchRequest, *, hidden: IntArray | None = None) -> list[Neighbour]:
        require_dimension(query, self.manifest)
        allowed = self._allowed(request, hidden)
        if request.distinct is Distinct.LISTING:
            hits = self._one_a_listing(query, request.k, allowed)
        else:
            hits = self._hits(query, request.k, allowed)
        return as_neighbours(hits, self._rows.at([row for _, row in hits]), request)

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
                return ranked(best.values())[:k]
            # One listing's photos may crowd out all others: look again where only those are.
            others: Mask = np.isin(self._rows.listings, list(best), invert=True)
            allowed = others if allowed is None else allowed & others

    def _hits(self, query: FloatArray, n: int, allowed: Mask | None) -> list[tuple[float, int]]:
        """Scores and rows, best first."""
        scores, rows = self._index.search(query, n, allowed)
        return ranked(zip(rounded(scores), rows.tolist(), strict=True))

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        k = min(k, len(self))
        if self.manifest.index and self.manifest.index.kind is IndexKind.EXACT:
            return self.exact_nearest(queries, k)  # the same, and all at once
        hits = [self._hits(query, k, None) for query in queries]
        scores, rows = zip(*(zip(*found, strict=True) for found in hits), strict=True)
        return np.array(scores, dtype=np.float32), np.array(rows, dtype=np.int64)

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        return exact_nearest(self._vectors, queries, k)

    def photo(self, row: int) -> CataloguePhoto:
        return self._rows.at([row])[0]

    def photos(self) -> Iterator[CataloguePhoto]:
        return iter(self._rows)

    def row_of(self, image_id: str) -> int | None:
        return self._rows.of_image(image_id)

    def vectors(self, rows: IntArray | slice) -> FloatArray:
        return self._vectors[rows]

    def scores(self, rows: IntArray | slice) -> FloatArray:
        return self._scores[rows]

    def stored(self, image_id: str) -> Embeddings:
        row = self.row_of(image_id)
        if row is None:
            raise ImageNotFound("the live index has no photo of that id")
        return Embeddings(self._vectors[row : row + 1], self._scores[row : row + 1])

    def check(self, *, live: bool) -> None:
        """Files that are open stay what they are."""

    def __len__(self) -> int:
        return self.manifest.count


def open_snapshot(
    store: ArtifactStore, *, fingerprint: str, version: str | None = None, server: MilvusServer | None = None
) -> VectorIndex:
    """Verify and open a version, by default the current one; it stays where it is, mapped or asked.

    Args:
        fingerprint: of the model whose embeddings will be searched with.
        server: to ask, for a version whose vectors lie in one.

    Raises:
        IndexMissing, IndexDamaged: not there, or not what was written.
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
    store.verify(version)
    if manifest.index and manifest.index.kind is IndexKind.MILVUS:
        if server is None:
            raise IndexUnavailable(f"{version}: its vectors are in Milvus; say where with LOOKALIKE_INDEX")
        return open_collection(server, store.path(version), version, manifest, alias=alias_of(store.place))
    return open_files(store.path(version), version, manifest)


def open_files(directory: Path, version: str, manifest: IndexManifest) -> IndexSnapshot:
    """Open a snapshot that is all files, sealed or not, without reading them through.

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
        index: RowIndex = ExactIndex(vectors)
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
