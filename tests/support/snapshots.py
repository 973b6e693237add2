"""Index versions for tests: written in one call, other good ones of what is live, and every kind to be refused."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.artifacts.snapshots import PHOTOS, IndexManifest, VectorKind, index_store
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.attributes.schema import NO_ATTRIBUTES, AttributeSchema
from shared.catalogue.categories import CataloguePhoto
from shared.index.drafts import draft_index
from shared.index.milvus.server import MilvusServer
from shared.index.snapshot import open_snapshot
from shared.index.vectors.building import EmbeddingSource, Progress
from shared.index.vectors.compression import EXACT_UP_TO
from shared.index.vectors.stored_vectors import Codebook
from shared.jobs.reindex_contract import ReindexReport
from shared.model.bundle import bundle_store, open_bundle
from shared.model.embedder import Embeddings
from shared.model.matching import Matching
from shared.text.encoder import TextEncoder
from tests.support.places import milvus_server


def write_snapshot(
    store: ArtifactStore,
    photos: Iterable[CataloguePhoto],
    embeddings: Embeddings | EmbeddingSource,
    *,
    fingerprint: str,
    catalogue: str,
    catalogue_digest: str,
    compacted_through: str = "0-0",
    report: ReindexReport | None = None,
    root: Location | None = None,
    exact_up_to: int = EXACT_UP_TO,
    server: MilvusServer | None = None,
    attributes: AttributeSchema = NO_ATTRIBUTES,
    encoder: TextEncoder | None = None,
    vectors: VectorKind | None = None,
    codebook: Codebook | None = None,
    resume: str = "",
    progress: Progress = lambda done, total: None,
) -> str:
    """Write a new version of an index, as a reindex does, and return its name; it is not promoted.

    Raises:
        IndexDamaged, IndexUnavailable: as `IndexDraft.write`.
    """
    n, dimension = embeddings.vectors.shape if isinstance(embeddings, Embeddings) else embeddings.shape
    with draft_index(store, server, fingerprint=fingerprint, resume=resume) as draft:
        facts = draft.write(
            photos,
            embeddings,
            root=root,
            attributes=attributes,
            encoder=encoder,
            exact_up_to=exact_up_to,
            vectors=vectors,
            codebook=codebook,
            progress=progress,
        )
        draft.seal(
            IndexManifest(
                count=n,
                dimension=dimension,
                fingerprint=fingerprint,
                catalogue=catalogue,
                catalogue_digest=catalogue_digest,
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                index=facts,
                compacted_through=compacted_through,
                report=report,
                attributes=draft.attributes.attributes,
                texts=draft.texts,
            )
        )
    return draft.artifact.version


def write_reversed(storage: Location, *, dimension: int | None = None, fingerprint: str | None = None) -> str:
    """A version with the rows of the live one in reverse, not promoted; a photo's row tells which version answered.

    Args:
        dimension, fingerprint: instead of those of the live model.
    """
    expected = open_bundle(bundle_store(storage)).manifest.fingerprint
    server = milvus_server()
    live = open_snapshot(index_store(storage), fingerprint=expected, server=server)
    return write_snapshot(
        index_store(storage),
        list(live.photos())[::-1],
        Embeddings(live.vectors(slice(None))[::-1, :dimension], live.scores(slice(None))[::-1]),
        fingerprint=fingerprint or expected,
        catalogue="demo, from the end",
        catalogue_digest="0" * 64,
        server=server,
    )


def write_older(storage: Path) -> str:
    """A version with the photos of the live one as Lookalike wrote it before listings had attributes, not promoted."""
    store = index_store(storage)
    fingerprint = open_bundle(bundle_store(storage)).manifest.fingerprint
    live = open_snapshot(store, fingerprint=fingerprint)
    photos = [replace(photo, payload="") for photo in live.photos()]
    with draft_index(store, fingerprint=fingerprint) as draft:
        facts = draft.write(photos, Embeddings(live.vectors(slice(None)), live.scores(slice(None))))
        with closing(sqlite3.connect(draft.artifact.directory / PHOTOS)) as database:
            for table in ("payloads", "terms", "found_by"):
                database.execute(f"DROP TABLE {table}")
            database.execute("ALTER TABLE photos DROP COLUMN payload")
            database.commit()
        told = {"index": facts, "texts": None, "catalogue_digest": "d" * 64, "report": None}
        older = live.manifest.model_copy(update=told)
        manifest = older.model_dump(mode="json")
        del manifest["attributes"]
        (draft.artifact.directory / MANIFEST).write_text(json.dumps(manifest))
    return draft.artifact.version


def write_matching(storage: Location, matching: Matching, by_doubt: Matching | None = None) -> str:
    """A version of the live model that tells whether a search found the same thing, not promoted.

    Without `by_doubt` searches answer by `matching`, as with a model of an earlier build.
    """
    store = bundle_store(storage)
    with store.write() as draft:
        shutil.copytree(open_bundle(store).directory, draft.directory, dirs_exist_ok=True)
        manifest = draft.directory / MANIFEST
        told = {**json.loads(manifest.read_text()), "matching": matching.model_dump()}
        told["matching_by_doubt"] = by_doubt and by_doubt.model_dump()
        manifest.write_text(json.dumps(told))
    return draft.version


def write_doubting(storage: Location, certain_from: float) -> str:
    """A version of the live model that takes every category of lower probability for a guess, not promoted."""
    store = bundle_store(storage)
    with store.write() as draft:
        shutil.copytree(open_bundle(store).directory, draft.directory, dirs_exist_ok=True)
        manifest = draft.directory / MANIFEST
        limits = {"abstain_below": certain_from, "abstain_below_by_level": []}  # of all levels the same
        doubting = {**json.loads(manifest.read_text()), **limits}
        for queries in ("photo", "words", "both") if doubting.get("fusion") else ():
            doubting["fusion"][queries].update(limits)
        manifest.write_text(json.dumps(doubting))
    return draft.version


def rows_by_version(storage: Location) -> dict[str, dict[str, int]]:
    """Row of each photo in each version."""
    fingerprint = open_bundle(bundle_store(storage)).manifest.fingerprint
    store = index_store(storage)
    opened = [
        open_snapshot(store, fingerprint=fingerprint, version=version, server=milvus_server())
        for version in store.versions()
    ]
    return {
        snapshot.version: {photo.image_id: row for row, photo in enumerate(snapshot.photos())} for snapshot in opened
    }


def _change(storage: Location, name: str, change: Callable[[bytes], bytes]) -> None:
    files = backend_at(storage, "indexes")
    files.write(name, change(files.at(name).read_bytes()))


def truncate(storage: Location, version: str) -> None:
    _change(storage, f"{version}/{PHOTOS}", lambda content: content[:-4096])


def flip_a_bit(storage: Location, version: str) -> None:
    def flipped(content: bytes) -> bytes:
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]

    _change(storage, f"{version}/{PHOTOS}", flipped)


def truncate_manifest(storage: Location, version: str) -> None:
    _change(storage, f"{version}/{MANIFEST}", lambda content: content[:-20])


def promote_damaged(storage: Location, damage: Callable[[Location, str], None]) -> None:
    version = write_reversed(storage)
    damage(storage, version)
    index_store(storage).promote(version)


def promote_nothing(storage: Location) -> None:
    live = str(index_store(storage).current()).encode()
    pointer = "CURRENT" if isinstance(storage, Path) else "PROMOTIONS.json"
    _change(storage, pointer, lambda content: content.replace(live, b"20260101T000000000000Z-00000000"))


# What is promoted, and what the refusal says.
UNUSABLE: dict[str, tuple[Callable[[Location], None], str]] = {
    "truncated": (lambda storage: promote_damaged(storage, truncate), "bytes, not"),
    "flipped bit": (lambda storage: promote_damaged(storage, flip_a_bit), "sha256"),
    "manifest truncated": (lambda storage: promote_damaged(storage, truncate_manifest), "not JSON"),
    "wrong dimension": (
        lambda storage: index_store(storage).promote(write_reversed(storage, dimension=16)),
        "dimension 16",
    ),
    "foreign fingerprint": (
        lambda storage: index_store(storage).promote(write_reversed(storage, fingerprint="f" * 64)),
        "model ffffffffffff",
    ),
    "pointer to nowhere": (promote_nothing, "does not exist"),
}
