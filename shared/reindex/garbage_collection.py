"""Garbage collection after a reindex: removes what no kept snapshot needs."""

from contextlib import suppress

import redis

from shared.artifacts.home import sweep_live_photos
from shared.artifacts.snapshots import read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.changes.log import ChangeLog
from shared.changes.overrides import OVERRIDES, compacted_by_all, read_overrides
from shared.errors import ArtifactError
from shared.index.drafts import prune_index
from shared.index.milvus.server import MilvusServer
from shared.reindex.embedding_cache import EmbeddingCache
from shared.settings import Settings


def collect_garbage(
    settings: Settings, indexes: ArtifactStore, log: ChangeLog, *, fingerprint: str, server: MilvusServer | None
) -> None:
    """Remove old snapshots, compacted entries of the change log, unused photo files and old cached embeddings.

    Errors of single steps are ignored: the next collection tries again.

    Args:
        settings: `keep_snapshots` and `storage`.
        indexes: store of the index versions.
        log: the change log.
        fingerprint: of the model whose embedding cache is swept.
        server: Milvus, if it holds vectors.

    Raises:
        StoreUnavailable, OSError: the storage does not answer, or cannot be read.
    """
    with suppress(ArtifactError):
        prune_index(indexes, settings.keep_snapshots, server)
    kept = []
    for version in indexes.versions():  # of any model: the live version may still be the previous model's
        with suppress(ArtifactError):
            kept.append(read_index_manifest(indexes, version))
    with suppress(redis.RedisError, ArtifactError):
        log.truncate(compacted_by_all(kept))
        wanted = log.photos()
        for version in indexes.versions():
            overrides = read_overrides(indexes.file(version, OVERRIDES).parent)
            wanted |= {decided.photo.sha256 for decided in overrides.values() if decided.photo}
        sweep_live_photos(settings.storage, wanted)
    EmbeddingCache(settings.storage, fingerprint).sweep()
