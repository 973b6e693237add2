"""Versions of an index and of its model by their manifests alone: what lists, promotes and reports looks at no more."""

import json
from pathlib import Path

from shared.artifacts.snapshots import IndexManifest, bundle_store, index_store
from shared.artifacts.store import MANIFEST
from shared.jobs.reindex_contract import QualityGate, ReindexCounts, ReindexMode, ReindexReport, SnapshotQuality

FINGERPRINT = "a" * 64
REPORT = ReindexReport(
    mode=ReindexMode.CHANGED,
    counts=ReindexCounts(seen=12, new=3, embedded=3),
    reasons={"no <image>": 2},
    new=SnapshotQuality(count=10, sampled=10, precision_at_4=0.9, recall_at_10=1.0),
    live=SnapshotQuality(count=8, sampled=8, precision_at_4=0.8125, recall_at_10=1.0),
    live_version="20260101T000000000000Z-00000000",
    gates=(
        QualityGate(name="row counts", passed=True, detail="10 photos, 8 are live"),
        QualityGate(name="recall@10", passed=False, detail="0.9312, at least 0.95 is wanted"),
    ),
    timings_s={"plan": 0.51, "embed": 12.345},
)


def write_version(home: Path, *, fingerprint: str = FINGERPRINT, report: ReindexReport | None = None) -> str:
    """A version of the index with a file of 1,000 bytes."""
    manifest = IndexManifest(
        count=10,
        dimension=2,
        fingerprint=fingerprint,
        catalogue="<b>ours</b>",
        catalogue_digest="d",
        built_at="2026-01-01T00:00:00+00:00",
        report=report,
    )
    with index_store(home).write() as draft:
        (draft.directory / "vectors").write_bytes(bytes(1000))
        (draft.directory / MANIFEST).write_text(manifest.model_dump_json())
    return draft.version


def promote_bundle(home: Path, *, fingerprint: str = FINGERPRINT, **also: object) -> None:
    """A live model of that fingerprint, whose manifest says this, too."""
    store = bundle_store(home)
    with store.write() as draft:
        (draft.directory / MANIFEST).write_text(json.dumps({"fingerprint": fingerprint, **also}))
    store.promote(draft.version)
