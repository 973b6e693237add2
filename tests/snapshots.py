"""Index snapshots to promote: another good version of the live one, and every kind that must be refused."""

from collections.abc import Callable
from pathlib import Path

from shared.artifacts import MANIFEST, ArtifactStore
from shared.snapshots import PHOTOS, index_store
from shared.vision.bundle import bundle_store, open_bundle
from shared.vision.embedder import Embeddings
from shared.vision.index import open_snapshot, write_snapshot
from tests.milvus import server_for_all


def write_reversed(home: Path, *, dimension: int | None = None, fingerprint: str | None = None) -> str:
    """A version with the rows of the live one in reverse, not promoted; a photo's row tells which version answered.

    Args:
        dimension, fingerprint: instead of those of the live model.
    """
    expected = open_bundle(bundle_store(home)).manifest.fingerprint
    server = server_for_all()
    live = open_snapshot(index_store(home), fingerprint=expected, server=server)
    return write_snapshot(
        index_store(home),
        list(live.photos())[::-1],
        Embeddings(live.vectors(slice(None))[::-1, :dimension], live.scores(slice(None))[::-1]),
        fingerprint=fingerprint or expected,
        catalogue="demo, from the end",
        catalogue_digest="0" * 64,
        server=server,
    )


def rows_by_version(home: Path) -> dict[str, dict[str, int]]:
    """Row of each photo in each version."""
    fingerprint = open_bundle(bundle_store(home)).manifest.fingerprint
    store = index_store(home)
    opened = [
        open_snapshot(store, fingerprint=fingerprint, version=version, server=server_for_all())
        for version in store.versions()
    ]
    return {
        snapshot.version: {photo.image_id: row for row, photo in enumerate(snapshot.photos())} for snapshot in opened
    }


def _truncate(store: ArtifactStore, version: str) -> None:
    photos = store.path(version) / PHOTOS
    photos.write_bytes(photos.read_bytes()[:-4096])


def _flip_a_bit(store: ArtifactStore, version: str) -> None:
    photos = store.path(version) / PHOTOS
    content = bytearray(photos.read_bytes())
    content[len(content) // 2] ^= 1
    photos.write_bytes(content)


def _truncate_manifest(store: ArtifactStore, version: str) -> None:
    manifest = store.path(version) / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-20])


def promote_damaged(home: Path, damage: Callable[[ArtifactStore, str], None]) -> None:
    store, version = index_store(home), write_reversed(home)
    damage(store, version)
    store.promote(version)


def promote_nothing(home: Path) -> None:
    (index_store(home).root / "CURRENT").write_text("20260101T000000000000Z-00000000\n")


# What is promoted, and what the refusal says.
UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (lambda home: promote_damaged(home, _truncate), "bytes, not"),
    "flipped bit": (lambda home: promote_damaged(home, _flip_a_bit), "sha256"),
    "manifest truncated": (lambda home: promote_damaged(home, _truncate_manifest), "not JSON"),
    "wrong dimension": (lambda home: index_store(home).promote(write_reversed(home, dimension=16)), "dimension 16"),
    "foreign fingerprint": (
        lambda home: index_store(home).promote(write_reversed(home, fingerprint="f" * 64)),
        "model ffffffffffff",
    ),
    "pointer to nowhere": (promote_nothing, "does not exist"),
}
