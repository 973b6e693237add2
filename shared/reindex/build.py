"""Builds a snapshot from a plan and its embeddings, measures it against the live one and seals it with a report.

Callers embed the photos that the plan misses before, and promote the snapshot after.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexManifest, VectorKind
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.decode import CHANGED
from shared.changes.overrides import write_overrides
from shared.errors import CatalogueUnusable, IndexDamaged
from shared.index.drafts import draft_index
from shared.index.milvus.server import MilvusServer
from shared.index.vector_index import VectorIndex
from shared.index.vectors.compression import EXACT_UP_TO
from shared.index.vectors.stored_vectors import Codebook
from shared.jobs.reindex_contract import Promotion, ReindexReport, ReindexRequest, SnapshotQuality
from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings
from shared.reindex.comparison import COMPARED
from shared.reindex.embedding_cache import EmbeddingCache
from shared.reindex.neighbours import sampling_order
from shared.reindex.plan import Plan
from shared.reindex.quality import SAMPLE, losses, measure_words, stored_vectors
from shared.reindex.traffic import measure_traffic
from shared.reindex.verification import quality_of, verify
from shared.settings import Settings, VectorChoice

_IN_MEMORY_BYTES = 1 << 29
_CHUNK_ROWS = 8192
_SHARDS_READ = 256  # are kept while others of their photos may come
_THREADS = 1  # leaves the other cores to searches, which go on meanwhile
_FORMAT = b"1"  # of drafts: one that another build began is not gone on with


class Stage(Protocol):
    """Called with the name of the current stage, and how many rows of how many are done where that is known."""

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None: ...


def _silent(stage: str, done: int = 0, total: int = 0) -> None:
    pass


@dataclass(frozen=True)
class Build:
    """The input of `build_snapshot`.

    Attributes:
        plan: which photos, and where their embeddings come from.
        bundle: the model that made the embeddings.
        live: the snapshot that is live, to take embeddings from and compare with; None: there is none.
        cache: the embedding cache.
        shards: names in the cache of the shards that were embedded for it.
        failed: reason by sha256, for photos that could not be embedded; they are left out.
        request: promotion options, for the report.
        n_embedded: photos embedded for it, for the report.
        made_by: id of the job.
        timings_s: seconds by stage, for the report.
        vectors: how embeddings are stored where there are many; None: by their size.
    """

    plan: Plan
    bundle: ModelBundle
    live: VectorIndex | None
    cache: EmbeddingCache
    shards: tuple[str, ...]
    failed: Mapping[str, str]
    request: ReindexRequest
    n_embedded: int = 0
    made_by: str = ""
    timings_s: Mapping[str, float] | None = None
    vectors: VectorKind | None = None

    @property
    def codebook(self) -> Codebook | None:
        """Of the live snapshot, where embeddings are taken from it: they lose nothing by being stored again."""
        return self.live.codebook if self.live and self.plan.live_rows else None


def build_snapshot(
    store: ArtifactStore, build: Build, on_stage: Stage = _silent, *, server: MilvusServer | None = None
) -> str:
    """Write, measure and seal a new snapshot; it is not promoted.

    A large one that a killed process, or one that ended with WorkInterrupted, was building of the same photos is gone
    on with.

    Args:
        store: of the index versions.
        build: photos and embeddings.
        on_stage: called repeatedly with the name of the current stage; an exception it raises ends the build.
        server: Milvus, for the vectors; None: they are written to files.

    Returns:
        the new version's name.

    Raises:
        CatalogueUnusable: every photo was deleted, or none can be decoded.
        IndexDamaged: an embedding is not finite.
        IndexUnavailable: the server does not answer.
        ArtifactUnwritable: the disk is full or may not be written.
    """
    photos = _usable_photos(build)
    manifest = _manifest(build, len(photos))
    encoder = build.bundle.text_encoder()
    source = PlannedEmbeddings(photos, build)
    resume = "" if server or len(photos) <= EXACT_UP_TO else _digest(photos, build)
    with draft_index(store, server, fingerprint=manifest.fingerprint, made_by=build.made_by, resume=resume) as draft:
        on_stage("building")
        directory = draft.artifact.directory
        with _embeddings(source, directory.parent, together=server is not None) as embeddings:
            facts = draft.write(
                photos,
                embeddings,
                root=build.plan.catalogue.directory,
                attributes=build.plan.catalogue.attributes,
                encoder=encoder,
                threads=_THREADS,
                vectors=build.vectors,
                codebook=build.codebook,
                tick=partial(on_stage, "building"),
                progress=partial(on_stage, "building"),
            )
            write_overrides(directory, build.plan.compacted.overrides)
            on_stage("verifying")
            manifest = manifest.model_copy(
                update={"index": facts, "texts": draft.texts, "attributes": draft.attributes.attributes}
            )
            staged = draft.open(manifest)
            _write_reference(directory, staged, photos, build, partial(on_stage, "verifying"))
            report = _report(staged, photos, build)
            if encoder and manifest.texts:
                found = measure_words(staged, photos, sampling_order(photos)[:SAMPLE], encoder)
                manifest = manifest.model_copy(update={"texts": manifest.texts.model_copy(update=found)})
        draft.seal(manifest.model_copy(update={"report": report}))
    return draft.artifact.version


def _usable_photos(build: Build) -> list[CataloguePhoto]:
    """Those of the plan that have an embedding.

    Raises:
        CatalogueUnusable: there are none.
    """
    if not build.plan.photos:
        reason = f"every photo of {build.plan.catalogue.name} has been deleted"
        raise CatalogueUnusable(f"{reason}; put some (PUT /v1/images/{{image_id}}), then reindex")
    photos = [photo for photo in build.plan.photos if photo.sha256 not in build.failed]
    if not photos:
        reasons = dict(left_out(build.plan.photos, build.failed))
        raise CatalogueUnusable(f"none of {len(build.plan.photos)} photos can be decoded: {reasons}")
    return photos


def _manifest(build: Build, n_photos: int) -> IndexManifest:
    """What is known of the version before it is written."""
    model, plan = build.bundle.manifest, build.plan
    return IndexManifest(
        count=n_photos,
        dimension=model.embedding_dim,
        fingerprint=model.fingerprint,
        catalogue=plan.catalogue.name,
        # No digest if a photo could not be read: it may be readable next time, though nothing else has changed.
        catalogue_digest="" if CHANGED in build.failed.values() else plan.catalogue.digest,
        categories=model.categories,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        compacted_through=plan.compacted_through,
        made_by=build.made_by,
    )


def _write_reference(
    directory: Path, staged: VectorIndex, photos: list[CataloguePhoto], build: Build, tick: Callable[[], None]
) -> None:
    """Write what ordinary queries are like, where there are photos enough."""
    model, split = build.bundle.manifest, build.bundle.split
    known = build.live.reference if build.live and build.live.manifest.fingerprint == model.fingerprint else None
    if reference := measure_traffic(staged, photos, model.preprocess, split.train, known, tick):
        reference.write(directory)


def left_out(photos: Iterable[CataloguePhoto], failed: Mapping[str, str]) -> Counter[str]:
    """Count the photos that could not be embedded, by reason.

    Args:
        photos: of the plan.
        failed: reason by sha256.
    """
    return Counter(failed[photo.sha256] for photo in photos if photo.sha256 in failed)


def decide(report: ReindexReport, request: ReindexRequest) -> tuple[bool, str]:
    """Decide from its quality gates whether a snapshot is promoted.

    Args:
        report: of the new snapshot.
        request: its `promote` says which gates count.

    Returns:
        the decision, and its reason for people.
    """
    if request.promote is Promotion.NEVER:
        return False, "promotion was not asked for"
    decisive = [gate for gate in report.gates if request.promote is Promotion.IF_BETTER or gate.name not in COMPARED]
    failed = [gate for gate in decisive if not gate.passed]
    if failed:
        return False, "; ".join(f"{gate.name}: {gate.detail}" for gate in failed)
    return True, "; ".join(["every gate was passed", *losses(report.gates)])


def _report(staged: VectorIndex, photos: list[CataloguePhoto], build: Build) -> ReindexReport:
    texts, live_texts = staged.manifest.texts, build.live.manifest.texts if build.live else None
    counts = build.plan.counts.model_copy(
        update={"embedded": build.n_embedded, "failed": len(build.plan.photos) - len(photos)}
    )
    live = _quality_of(build.live)
    new, conditions = verify(
        staged,
        photos,
        build.live,
        live_quality=live,
        same_model=build.live is not None and build.live.manifest.fingerprint == build.bundle.manifest.fingerprint,
        counts=counts,
        listings=(n_listings(photos), n_listings(build.live.photos()) if build.live else 0),
        force=build.request.force,
        categories=staged.manifest.categories,
        words=(texts.n_with_words, live_texts.n_with_words) if texts and live_texts else (0, 0),
    )
    return ReindexReport(
        mode=build.request.mode,
        counts=counts,
        reasons=left_out(build.plan.photos, build.failed) + Counter(build.plan.catalogue.unusable),
        new=new,
        live=live,
        live_version=build.live.version if build.live else None,
        gates=(*conditions, *stored_vectors(staged.manifest.index)),
        timings_s=dict(build.timings_s or {}),
    )


def n_listings(photos: Iterable[CataloguePhoto]) -> int:
    """Count the listings that photos are of."""
    return len({photo.listing_id for photo in photos})


def _quality_of(live: VectorIndex | None) -> SnapshotQuality | None:
    """Quality of the live snapshot: from its report, or else measured now."""
    if live is None:
        return None
    if live.manifest.report is not None:
        return live.manifest.report.new
    return quality_of(live, list(live.photos()))


@contextmanager
def _matrix(directory: Path, n_rows: int, dimension: int, n_categories: int) -> Iterator[Embeddings]:
    """Allocate zeroed embeddings for `n_rows` photos: in memory, or in a temporary file above _IN_MEMORY_BYTES."""
    scores = np.zeros((n_rows, n_categories), np.float32)
    if 4 * n_rows * dimension <= _IN_MEMORY_BYTES:
        yield Embeddings(np.zeros((n_rows, dimension), np.float32), scores)
        return
    with tempfile.TemporaryFile(dir=directory) as file:  # unlinked, so that a process that dies leaves nothing behind
        # Allocated now, because writing to a memory map on a full disk ends the process.
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, 4 * n_rows * dimension)
        rows: FloatArray = np.memmap(file, dtype=np.float32, mode="w+", shape=(n_rows, dimension))
        yield Embeddings(rows, scores)


@contextmanager
def _embeddings(
    source: "PlannedEmbeddings", directory: Path, *, together: bool
) -> Iterator["Embeddings | PlannedEmbeddings"]:
    """The embeddings of a plan as they come, or all of them together."""
    if not together:
        yield source
        return
    n, dimension = source.shape
    with _matrix(directory, n, dimension, source.n_categories) as all_of_them:
        for start in range(0, n, _CHUNK_ROWS):
            stop = min(start + _CHUNK_ROWS, n)
            all_of_them.vectors[start:stop], all_of_them.scores[start:stop] = source.read(start, stop)
        yield all_of_them


def _digest(photos: Sequence[CataloguePhoto], build: Build) -> str:
    """Digest of all that a snapshot is made of."""
    digest = blake2b(_FORMAT, digest_size=16)
    for part in (build.bundle.manifest.fingerprint, build.vectors, build.plan.catalogue.attributes.attributes):
        digest.update(f"{part!r}\0".encode())
    if build.codebook:
        digest.update(build.codebook.mean.tobytes())
    for photo in photos:
        told = (photo.image_id, photo.listing_id, str(photo.category), str(photo.path), photo.sha256, photo.payload)
        digest.update("\0".join((*told, "")).encode())
    return digest.hexdigest()


class PlannedEmbeddings:
    """The embeddings of a plan's photos, read from where they are: an `EmbeddingSource`.

    Args:
        photos: one per row.
        build: where their embeddings come from.

    Raises:
        IndexDamaged: one is missing, because its shard has just been removed from the cache.
    """

    def __init__(self, photos: Sequence[CataloguePhoto], build: Build) -> None:
        manifest = build.bundle.manifest
        self.shape = (len(photos), manifest.embedding_dim)
        self.n_categories = len(manifest.categories)
        self._photos = photos
        self._build = build
        self._shard = lru_cache(_SHARDS_READ)(self._read_shard)
        plan = build.plan
        wanted = {photo.sha256 for photo in photos} - plan.live_rows.keys() - plan.compacted.known.keys()
        self._place_of: dict[str, tuple[str, int]] = {}
        for name in build.shards:
            shard = build.cache.read(name)
            for row, sha256 in enumerate(shard.sha256 if shard else ()):
                if sha256 in wanted:
                    self._place_of.setdefault(sha256, (name, row))
        if gone := len(wanted - self._place_of.keys()):
            raise IndexDamaged(f"{gone} embeddings have gone from the cache; reindex again")

    def _read_shard(self, name: str) -> Embeddings:
        shard = self._build.cache.read(name)
        if shard is None:
            raise IndexDamaged("embeddings have gone from the cache; reindex again")
        return shard.embeddings

    def read(self, start: int, stop: int) -> Embeddings:
        """Return the embeddings and scores of some rows.

        Raises:
            IndexDamaged: one is not finite, or has gone from the cache.
        """
        into = Embeddings(
            np.empty((stop - start, self.shape[1]), np.float32), np.empty((stop - start, self.n_categories), np.float32)
        )
        plan, live = self._build.plan, self._build.live
        photos = self._photos[start:stop]
        known = [(at, plan.live_rows[one.sha256]) for at, one in enumerate(photos) if one.sha256 in plan.live_rows]
        if known:
            assert live is not None  # live_rows come from it
            places, rows = np.array(known, dtype=np.int64).T
            into.vectors[places], into.scores[places] = live.vectors(rows), live.scores(rows)
        for at, photo in enumerate(photos):
            if photo.sha256 in plan.live_rows:
                continue
            if (put := plan.compacted.known.get(photo.sha256)) is not None:
                into.vectors[at], into.scores[at] = put
            else:
                name, row = self._place_of[photo.sha256]
                shard = self._shard(name)
                into.vectors[at], into.scores[at] = shard.vectors[row], shard.scores[row]
        if not np.isfinite(into.vectors).all():
            raise IndexDamaged("an embedding is not finite; the model's weights are unusable")
        return into


def stored_as(settings: Settings) -> VectorKind | None:
    """How the settings want embeddings stored; None: by their size."""
    choice = settings.index_vectors
    return None if choice is VectorChoice.AUTO else VectorKind(choice)
