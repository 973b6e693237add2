"""Embedding cache: the embeddings that a reindex has computed so far, in content-addressed files, one per shard.

A shard is done when its file exists: a worker or a machine may die at any moment, and what was written is not embedded
again. Writing the same shard twice changes nothing. Files are dropped once a snapshot holds their embeddings.
"""

import hashlib
import json
import zipfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray
from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.exhaustion import raise_exhaustion
from shared.model.embedder import Embeddings

ANY_REINDEX = "known"  # scope of embeddings that every reindex may use
_KEPT_S = 30 * 86_400
_READERS = 8
# Raised by reading a truncated or altered file.
_DAMAGED = (OSError, EOFError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile)


class Shard(NamedTuple):
    """The embeddings of some photos of a reindex; the content of one file.

    Attributes:
        sha256: of the photos that were embedded, one per row.
        embeddings: vectors (n, dim) and scores (n, n_categories), float32.
        failed: reason by sha256, for photos that could not be embedded.
    """

    sha256: list[str]
    embeddings: Embeddings
    failed: dict[str, str]


class EmbeddingCache:
    """The cached shards of one model.

    Args:
        storage: of the installation.
        fingerprint: of the model.
        scope: which reindexes share them: ANY_REINDEX, or one that was asked to embed everything anew.
    """

    def __init__(self, storage: Location, fingerprint: str, scope: str = ANY_REINDEX) -> None:
        self.scope = scope
        self._files = backend_at(storage, "embeddings")
        self._directory = f"{fingerprint[:32]}/{scope}"

    def write(self, name: str, shard: Shard) -> None:
        """Write a shard atomically.

        Args:
            name: from `shard_name`.
            shard: to write.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written.
        """
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "sha256": np.array(shard.sha256, dtype="S64"),
            "vectors": shard.embeddings.vectors,
            "scores": shard.embeddings.scores,
            "failed": np.frombuffer(json.dumps(shard.failed).encode(), dtype=np.uint8),
        }
        file = BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        self._files.write(self._name(name), file.getvalue())

    def read(self, name: str) -> Shard | None:
        """Read a shard; None if there is none. A damaged file is removed, so that it is embedded again.

        Raises:
            OSError: the process may open no more files, or has no memory.
        """
        try:
            with np.load(BytesIO(self._files.at(self._name(name)).read_bytes()), allow_pickle=False) as arrays:
                shard = Shard(
                    [sha256.decode() for sha256 in arrays["sha256"].tolist()],
                    Embeddings(arrays["vectors"], arrays["scores"]),
                    json.loads(arrays["failed"].tobytes()),
                )
        except FileNotFoundError:
            return None
        except _DAMAGED as exc:
            raise_exhaustion(exc)
            self.drop([name])
            return None
        return shard if len(shard.sha256) == len(shard.embeddings.vectors) else None

    def has(self, name: str) -> bool:
        """Tell whether a shard's file exists, without reading it."""
        return self._files.at(self._name(name)).is_file()

    def known(self) -> dict[str, str]:
        """Read all shards and return the name of the shard that holds each photo, by sha256."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
            names = self.names()
            shards = pool.map(self.read, names)
            return {sha256: name for name, shard in zip(names, shards, strict=True) if shard for sha256 in shard.sha256}

    def names(self) -> list[str]:
        """List the names of all shards."""
        keys = [stored.key for stored in self._files.entries(self._directory)]
        return [PurePosixPath(key).stem for key in keys if key.endswith(".npz")]

    def drop(self, names: Collection[str]) -> None:
        """Remove shards, whose embeddings a snapshot holds by now."""
        self._files.remove([self._name(name) for name in names])

    def sweep(self) -> None:
        """Remove files of any model that were written more than 30 days ago."""
        self._files.sweep(_KEPT_S)

    def _name(self, name: str) -> str:
        return f"{self._directory}/{name}.npz"


def shard_name(sha256: Sequence[str]) -> str:
    """Derive the name of a shard from the sha256 of its photos, in their order."""
    return hashlib.blake2b("\n".join(sha256).encode(), digest_size=16).hexdigest()


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """Concatenate embeddings row by row; (0, 0) vectors and scores if there are none."""
    if not parts:
        return Embeddings(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32))
    vectors: FloatArray = np.concatenate([part.vectors for part in parts])
    return Embeddings(vectors, np.concatenate([part.scores for part in parts]))
