"""The artifact stores of snapshots and bundles, and the manifest of a snapshot. Reads no vectors, imports no FAISS."""

from contextlib import suppress
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.attributes.schema import Attribute
from shared.catalogue.categories import CATEGORIES
from shared.errors import ArtifactError, BundleDamaged, BundleMissing, IndexDamaged, IndexMissing
from shared.jobs.reindex_contract import ReindexReport

PHOTOS = "photos.sqlite"  # table `photos`: row, image_id, listing_id, category, path, sha256, payload


class IndexKind(StrEnum):
    """How a snapshot finds neighbours."""

    EXACT = "exact"  # every vector is compared
    COMPRESSED = "compressed"  # short codes choose candidates, whose vectors are compared
    MILVUS = "milvus"  # a Milvus server does, which has the vectors


class VectorKind(StrEnum):
    """How a snapshot's embeddings are stored, which candidates are compared by."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


class IndexFacts(BaseModel):
    """How a snapshot is searched, decided when it was built.

    Attributes:
        recall_at_10: share of the ten nearest that searches found then.
        n_lists: groups of like vectors.
        n_probes: groups looked into, of those nearest to the query.
        n_candidates: rows of theirs whose vectors are compared.
        vectors: how the embeddings are stored.
        vectors_recall_at_10: share of the ten nearest, of those among the candidates, that comparing with what is
            stored found.
        collection: what the vectors are in at the server.
        by_category: photos of each.
    """

    model_config = ConfigDict(frozen=True)

    kind: IndexKind
    recall_at_10: float
    n_lists: int = 0
    n_probes: int = 0
    n_candidates: int = 0
    vectors: VectorKind = VectorKind.FLOAT32
    vectors_recall_at_10: float = 1
    collection: str = ""
    by_category: tuple[int, ...] = ()


class TextIndexFacts(BaseModel):
    """The words of a snapshot's listings, and how they are searched.

    Attributes:
        kind: exact or compressed, whatever the photos' index is.
        width: of a text's vector.
        n_with_words: listings that have words.
        n_probes, n_candidates: as of IndexFacts.
        precision_at_4: of the words of sampled photos' listings, compared with photos alone: share of the four nearest
            of other listings that have the category.
        recall_at_10: share of such queries that find a photo of their own listing among ten.
    """

    model_config = ConfigDict(frozen=True)

    kind: IndexKind
    width: int
    n_with_words: int
    n_probes: int = 0
    n_candidates: int = 0
    precision_at_4: float | None = None
    recall_at_10: float | None = None


class IndexManifest(BaseModel):
    """What a snapshot says of itself."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    count: int
    dimension: int
    fingerprint: str  # of the model that made the embeddings
    catalogue: str  # what was indexed, for people
    catalogue_digest: str  # changes when the catalogue's rows or photos do
    categories: tuple[str, ...] = CATEGORIES  # that its photos' and scores' positions stand for
    attributes: tuple[Attribute, ...] = ()  # of its listings
    built_at: str
    index: IndexFacts | None = None  # None: of an earlier Lookalike, whose files are others
    texts: TextIndexFacts | None = None  # None: its photos are found by photos only
    # The last entry of the change log that is in it; files say `folded_to`, as before it was renamed.
    compacted_through: str = Field("0-0", alias="folded_to")
    made_by: str = ""  # id of the reindex that made it
    report: ReindexReport | None = None  # of the reindex that made it


def index_store(storage: Location) -> ArtifactStore:
    """The artifact store of an installation's index snapshots."""
    return _store(storage, "indexes", missing=IndexMissing, damaged=IndexDamaged)


def bundle_store(storage: Location) -> ArtifactStore:
    """The artifact store of an installation's model bundles."""
    return _store(storage, "bundles", missing=BundleMissing, damaged=BundleDamaged)


def _store(
    storage: Location, kind: str, *, missing: type[ArtifactError], damaged: type[ArtifactError]
) -> ArtifactStore:
    return ArtifactStore(backend_at(storage, kind, damaged=damaged), missing=missing, damaged=damaged)


def live_fingerprint(storage: Location) -> str | None:
    """The fingerprint of the live bundle, without opening it; None when no bundle was ever promoted.

    Raises:
        BundleMissing, BundleDamaged: not there, or not whole.
    """
    store = bundle_store(storage)
    version = store.current()
    return None if version is None else str(store.manifest(version).get("fingerprint"))


def bundle_of(storage: Location, fingerprint: str) -> str | None:
    """A bundle of that fingerprint: the promoted one if it is, else the newest; None when there is none."""
    store = bundle_store(storage)
    with suppress(BundleMissing):
        for version in [store.current(), *reversed(store.versions())]:
            with suppress(BundleDamaged):
                if version is not None and store.manifest(version).get("fingerprint") == fingerprint:
                    return version
    return None


def answering_bundle(storage: Location) -> str | None:
    """The bundle that searches are answered with: that of the live index, even while a newer one without index is live.

    Returns:
        the promoted one where there is no live index or no bundle of it; None when none is.

    Raises:
        BundleMissing: the promoted one does not exist.
    """
    indexes = index_store(storage)
    with suppress(IndexMissing, IndexDamaged):
        index = indexes.current()
        if index and (bundle := bundle_of(storage, read_index_manifest(indexes, index).fingerprint)):
            return bundle
    return bundle_store(storage).current()


def live_attributes(storage: Location, catalogue: str = "") -> tuple[Attribute, ...]:
    """The attributes of the live index; none where there is no live index, or it cannot be read.

    Args:
        storage: of the artifacts.
        catalogue: name of the one that the index must be of; empty: whichever.
    """
    store = index_store(storage)
    with suppress(IndexMissing, IndexDamaged):
        if version := store.current():
            manifest = read_index_manifest(store, version)
            return manifest.attributes if catalogue in ("", manifest.catalogue) else ()
    return ()


def read_index_manifest(store: ArtifactStore, version: str) -> IndexManifest:
    """The manifest of a version, without looking at the vectors.

    Raises:
        IndexMissing, IndexDamaged: not there, or not whole.
    """
    try:
        return IndexManifest.model_validate(store.manifest(version))
    except ValidationError as exc:
        raise IndexDamaged(f"{version}: {MANIFEST} is not that of an index snapshot") from exc
