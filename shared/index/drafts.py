"""Writes index snapshots, and removes old ones: files in a directory, and vectors in Milvus where there is a server."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from shared.array_types import FloatArray
from shared.artifacts import Location
from shared.artifacts.snapshots import (
    PHOTOS,
    IndexFacts,
    IndexKind,
    IndexManifest,
    TextIndexFacts,
    VectorKind,
    read_index_manifest,
)
from shared.artifacts.store import MANIFEST, ArtifactStore, Draft
from shared.attributes.schema import NO_ATTRIBUTES, Attribute, AttributeSchema
from shared.catalogue.categories import CataloguePhoto
from shared.errors import ArtifactError, IndexDamaged
from shared.index.metadata.attribute_columns import write_columns
from shared.index.metadata.rows import write_filters, write_photos
from shared.index.milvus.building import fill_collection
from shared.index.milvus.index import open_collection
from shared.index.milvus.server import CollectionName, MilvusServer, alias_of
from shared.index.snapshot import open_files
from shared.index.traffic import write_digests
from shared.index.vector_index import VectorIndex
from shared.index.vectors.building import ArraySource, EmbeddingSource, Progress, Work, write_compressed, write_exact
from shared.index.vectors.compression import EXACT_UP_TO
from shared.index.vectors.stored_vectors import Codebook, kinds_for
from shared.index.words.listing_texts import write_texts
from shared.model.embedder import Embeddings
from shared.text.encoder import TextEncoder


@dataclass
class IndexDraft:
    """A snapshot while it is written; `draft_index` makes one.

    Attributes:
        artifact: its directory, and its version once it is sealed.
        server: Milvus, for the vectors; None: they are written to files.
        collection: in Milvus that the vectors are written to; empty without a server.
        vectors: (n, dim) float32 that a server was given; None before `write`, and without one.
        attributes: of the photos, with what was found of each; none before `write`.
        texts: the words of the listings; None: they have none, or nothing is written yet.
    """

    artifact: Draft
    server: MilvusServer | None = None
    collection: str = ""
    vectors: FloatArray | None = None
    attributes: AttributeSchema = NO_ATTRIBUTES
    texts: TextIndexFacts | None = None

    def write(
        self,
        photos: Iterable[CataloguePhoto],
        embeddings: Embeddings | EmbeddingSource,
        *,
        root: Location | None = None,
        attributes: AttributeSchema = NO_ATTRIBUTES,
        encoder: TextEncoder | None = None,
        threads: int = 0,
        exact_up_to: int = EXACT_UP_TO,
        vectors: VectorKind | None = None,
        codebook: Codebook | None = None,
        tick: Callable[[], None] = lambda: None,
        progress: Progress = lambda done, total: None,
    ) -> IndexFacts:
        """Write everything of a snapshot but its manifest; in a draft that was begun before, what is missing of it.

        Args:
            photos: one per row, in row order; read once.
            embeddings: vectors (n, dim) float32, L2 norm 1, and scores (n, n_categories) float32.
            root: paths of photos inside it are stored relative to it.
            attributes: that the photos' payloads are of.
            encoder: of the listings' words; None: the model knows none.
            threads: for building a compressed index; 0: one per core.
            exact_up_to: more vectors than this get a compressed index.
            vectors: how a compressed index stores the embeddings, see `kinds_for`; None: by their size.
            codebook: of the snapshot that most embeddings were taken from, where they are stored in int8.
            tick: called while a server works; an exception it raises ends the work.
            progress: called with the embeddings that are written, of how many; likewise.

        Returns:
            how the index is searched, for the manifest.

        Raises:
            IndexDamaged: an embedding is not finite, or photos and embeddings differ in number.
            IndexUnavailable: the server does not answer.
        """
        directory = self.artifact.directory
        source = ArraySource(embeddings) if isinstance(embeddings, Embeddings) else embeddings
        n, dimension = source.shape
        work = Work(directory)
        if (told := work.told("tables")) is None:
            (directory / PHOTOS).unlink(missing_ok=True)
            n_photos = write_photos(directory, photos, root=root)
            write_filters(directory)
            found = write_columns(directory, attributes).attributes
            told = {"n": n_photos, "attributes": [one.model_dump(mode="json") for one in found]}
            work.tell("tables", told)
        if told["n"] != n:
            raise IndexDamaged(f"{told['n']} photos, {n} vectors and rows of scores")
        self.attributes = AttributeSchema(tuple(Attribute.model_validate(one) for one in told["attributes"]))
        if encoder:
            if (texts := work.told("texts")) is None:
                of_texts = write_texts(
                    directory, encoder.of_listing, encoder.width, exact_up_to=exact_up_to, threads=threads, tick=tick
                )
                texts = of_texts.model_dump(mode="json")
                work.tell("texts", texts)
            self.texts = TextIndexFacts.model_validate(texts)
        if self.server:
            given = embeddings if isinstance(embeddings, Embeddings) else source.read(0, n)
            self.vectors = given.vectors
            write_digests(directory, given.vectors)
            return fill_collection(self.server, self.collection, directory, given, exact_up_to=exact_up_to, tick=tick)
        if (told := work.told("index")) is not None:  # by a build that was killed while its quality was measured
            return IndexFacts.model_validate(told)
        try:
            if n <= exact_up_to:
                write_exact(directory, source)
                facts = IndexFacts(kind=IndexKind.EXACT, recall_at_10=1)
            else:
                kinds = kinds_for(n, dimension, vectors)
                facts = write_compressed(
                    directory, source, kinds, codebook=codebook, threads=threads, progress=progress
                )
        except ValueError as exc:
            raise IndexDamaged(f"{exc}; the model's weights are unusable") from exc
        work.tell("index", facts.model_dump(mode="json"))
        return facts

    def open(self, manifest: IndexManifest) -> VectorIndex:
        """Open what was written, to measure its quality before it is sealed; raises as `open_snapshot`."""
        if self.server:
            return open_collection(self.server, self.artifact.directory, "staged", manifest, made_from=self.vectors)
        return open_files(self.artifact.directory, "staged", manifest)

    def seal(self, manifest: IndexManifest) -> None:
        """Write the manifest, last of all files; the version is complete when `draft_index` ends."""
        (self.artifact.directory / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")


@contextmanager
def draft_index(
    store: ArtifactStore, server: MilvusServer | None = None, *, fingerprint: str, made_by: str = "", resume: str = ""
) -> Iterator[IndexDraft]:
    """Open a draft of a new version; it joins the store if the body succeeds, and is removed if it fails.

    Args:
        store: of the index versions.
        server: Milvus, for the vectors; None: they are written to files.
        fingerprint: of the model that made the embeddings.
        made_by: id of the job that builds it; empty: none.
        resume: see `ArtifactStore.write`.

    Raises:
        ArtifactUnwritable: the disk is full or may not be written.
        IndexUnavailable: the server does not answer.
    """
    with ExitStack() as stack:
        collection = ""
        if server:
            name = CollectionName.new(alias_of(store.place), fingerprint, made_by)
            stack.enter_context(server.draft(name, collections(store).values()))
            collection = str(name)
        artifact = stack.enter_context(store.write(resume))
        yield IndexDraft(artifact, server, collection)
        Work(artifact.directory).remove()


def collections(store: ArtifactStore) -> dict[str, str]:
    """List the Milvus collection of each version that has one, by version, oldest first.

    Versions whose manifest cannot be read are left out.
    """
    found: dict[str, str] = {}
    for version in store.versions():
        with suppress(ArtifactError):
            facts = read_index_manifest(store, version).index
            if facts and facts.collection:
                found[version] = facts.collection
    return found


def prune_index(store: ArtifactStore, keep: int, server: MilvusServer | None = None) -> list[str]:
    """Remove old versions as `ArtifactStore.prune` does, with their Milvus collections.

    Returns:
        the versions that were removed.

    Raises:
        ArtifactUnwritable, IndexUnavailable: they cannot be removed now.
    """
    in_milvus = collections(store) if server else {}
    # A process keeps the files it has open, but a dropped collection is gone for all: keep the previous one too, which
    # may still be searched.
    removed = store.prune(max(keep, 2) if in_milvus else keep)
    for version in removed:
        # In a copy of an installation, the manifests name the original's collections: those stay.
        if server and in_milvus.get(version, "").startswith(alias_of(store.place)):
            server.drop(in_milvus[version])
    return removed
