"""Embedding cache: what a reindex has embedded so far, in files named by what is in them, until a snapshot has it.

A file is the embeddings of one shard, and its being there is what says that the shard is done: a worker or a machine
may die at any moment, and what was written is not embedded again. Writing the same shard twice changes nothing.
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

from shared.artifacts import Location
from shared.artifacts.files import files_in
from shared.catalogue.categories import CATEGORIES
from shared.model.embedder import Embeddings, FloatArray

ANY_REINDEX = "known"  # scope of embeddings that every reindex may use
_KEPT_S = 30 * 86_400
_READERS = 8
_DAMAGED = (OSError, ValueError, LookupError, zipfile.BadZipFile)  # what reading a file raises that was cut or changed


class Shard(NamedTuple):
    """What one file holds.

    Attributes:
        sha256: of the photos that were embedded, one per row.
        failed: why, by sha256, for those that could not be.
    """

    sha256: list[str]
    embeddings: Embeddings
    failed: dict[str, str]


class EmbeddingCache:
    """The shards of one model.

    Args:
        fingerprint: of the model.
        scope: who may use them: any reindex, or the one that was asked to embed everything anew.
    """

    def __init__(self, storage: Location, fingerprint: str, scope: str = ANY_REINDEX) -> None:
        self.scope = scope
        self._files = files_in(storage, "embeddings")
        self._directory = f"{fingerprint[:32]}/{scope}"

    def write(self, name: str, shard: Shard) -> None:
        """Store a shard, whole or not at all.

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
        """A shard; None when it is not there. One that is damaged is removed, to be embedded again."""
        try:
            with np.load(BytesIO(self._files.at(self._name(name)).read_bytes()), allow_pickle=False) as arrays:
                shard = Shard(
                    [sha256.decode() for sha256 in arrays["sha256"].tolist()],
                    Embeddings(arrays["vectors"], arrays["scores"]),
                    json.loads(arrays["failed"].tobytes()),
                )
        except FileNotFoundError:
            return None
        except _DAMAGED:
            self.drop([name])
            return None
        return shard if len(shard.sha256) == len(shard.embeddings.vectors) else None

    def has(self, name: str) -> bool:
        """Whether a shard is there; its content is not looked at."""
        return self._files.has(self._name(name))

    def known(self) -> dict[str, str]:
        """Shard by sha256 of every photo that is embedded in one."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
            names = self.names()
            shards = pool.map(self.read, names)
            return {sha256: name for name, shard in zip(names, shards, strict=True) if shard for sha256 in shard.sha256}

    def names(self) -> list[str]:
        """Every shard that is there."""
        return [PurePosixPath(name).stem for name in self._files.names(self._directory) if name.endswith(".npz")]

    def drop(self, names: Collection[str]) -> None:
        """Remove shards: a snapshot has what they hold."""
        self._files.remove([self._name(name) for name in names])

    def sweep(self) -> None:
        """Remove what no reindex needed within a month, of every model."""
        self._files.sweep(_KEPT_S)

    def _name(self, name: str) -> str:
        return f"{self._directory}/{name}.npz"


def shard_name(sha256: Sequence[str]) -> str:
    """The name of the shard of these photos, in this order."""
    return hashlib.blake2b("\n".join(sha256).encode(), digest_size=16).hexdigest()


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """The rows of all parts, in order."""
    if not parts:
        return Embeddings(np.zeros((0, 0), np.float32), np.zeros((0, len(CATEGORIES)), np.float32))
    vectors: FloatArray = np.concatenate([part.vectors for part in parts])
    return Embeddings(vectors, np.concatenate([part.scores for part in parts]))
