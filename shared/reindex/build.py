"""Builds a snapshot from a plan and its embeddings, measures it against the live one and seals it with a report.

Callers embed the photos that the plan misses before, and promote the snapshot after.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexManifest
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.decode import CHANGED
from shared.changes.overrides import write_overrides
from shared.errors import CatalogueUnusable, IndexDamaged
from shared.index.milvus_server import MilvusServer
from shared.index.snapshot import draft_index
from shared.index.vector_index import VectorIndex
from shared.jobs.reindex_contract import Promotion, ReindexReport, ReindexRequest, SnapshotQuality
from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings
from shared.reindex.comparison import COMPARED
from shared.reindex.embedding_cache import EmbeddingCache
from shared.reindex.neighbours import sampling_order
from shared.reindex.plan import Plan
from shared.reindex.quality import SAMPLE, losses, measure_words
from shared.reindex.traffic import measure_traffic
from shared.reindex.verification import quality_of, verify

_IN_MEMORY_BYTES = 1 << 29
_CHUNK_ROWS = 8192
_THREADS = 1  # leaves the other cores to searches, which go on meanwhile

Stage = Callable[[str], None]


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


def build_snapshot(
    store: ArtifactStore, build: Build, on_stage: Stage = lambda stage: None, *, server: MilvusServer | None = None
) -> str:
    """Write, measure and seal a new snapshot; it is not promoted.

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
    if not build.plan.photos:
        reason = f"every photo of {build.plan.catalogue.name} has been deleted"
        raise CatalogueUnusable(f"{reason}; put some (PUT /v1/images/{{image_id}}), then reindex")
    photos = [photo for photo in build.plan.photos if photo.sha256 not in build.failed]
    if not photos:
        reasons = dict(left_out(build.plan.photos, build.failed))
        raise CatalogueUnusable(f"none of {len(build.plan.photos)} photos can be decoded: {reasons}")
    manifest = IndexManifest(
        count=len(photos),
        dimension=build.bundle.manifest.embedding_dim,
        fingerprint=build.bundle.manifest.fingerprint,
        catalogue=build.plan.catalogue.name,
        # No digest if a photo could not be read: it may be readable next time, though nothing else has changed.
        catalogue_digest="" if CHANGED in build.failed.values() else build.plan.catalogue.digest,
        categories=build.bundle.manifest.categories,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        compacted_through=build.plan.compacted_through,
        made_by=build.made_by,
    )
    encoder = build.bundle.text_encoder()
    with draft_index(store, server, fingerprint=manifest.fingerprint, made_by=build.made_by) as draft:
        on_stage("building")
        directory = draft.artifact.directory
        with _matrix(directory.parent, len(photos), manifest.dimension, len(manifest.categories)) as embeddings:
            _fill(embeddings, photos, build)
            facts = draft.write(
                photos,
                embeddings,
                root=build.plan.catalogue.directory,
                attributes=build.plan.catalogue.attributes,
                encoder=encoder,
                threads=_THREADS,
                tick=partial(on_stage, "building"),
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
        gates=tuple(conditions),
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


def _fill(into: Embeddings, photos: list[CataloguePhoto], build: Build) -> None:
    """Write every photo's embedding into its row.

    Raises:
        IndexDamaged: one is not finite, or missing because its shard has just been removed from the cache.
    """
    rows_of: dict[str, list[int]] = {}
    for row, photo in enumerate(photos):
        rows_of.setdefault(photo.sha256, []).append(row)
    n_filled = 0

    def put(rows: list[int], vectors: FloatArray, scores: FloatArray) -> None:
        nonlocal n_filled
        if not np.isfinite(vectors).all():
            raise IndexDamaged("an embedding is not finite; the model's weights are unusable")
        into.vectors[rows], into.scores[rows] = vectors, scores
        n_filled += len(rows)

    known = [(row, build.plan.live_rows[photo.sha256]) for row, photo in enumerate(photos)
             if photo.sha256 in build.plan.live_rows]  # fmt: skip
    for start in range(0, len(known), _CHUNK_ROWS):
        rows, sources = zip(*known[start : start + _CHUNK_ROWS], strict=True)
        assert build.live is not None  # live_rows come from it
        source = np.array(sources, dtype=np.int64)
        put(list(rows), build.live.vectors(source), build.live.scores(source))
    done = set(build.plan.live_rows)
    for sha256, (vector, scores) in build.plan.compacted.known.items():
        if sha256 in rows_of and sha256 not in done:
            put(rows_of[sha256], vector, scores)
            done.add(sha256)
    for name in build.shards:
        shard = build.cache.read(name)
        for i, sha256 in enumerate(shard.sha256 if shard else ()):
            if sha256 in rows_of and sha256 not in done:
                assert shard is not None
                put(rows_of[sha256], shard.embeddings.vectors[i], shard.embeddings.scores[i])
                done.add(sha256)
    if n_filled != len(photos):
        raise IndexDamaged(f"{len(photos) - n_filled} embeddings have gone from the cache; reindex again")
