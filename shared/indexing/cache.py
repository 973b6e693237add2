"""Embedding cache: what a reindex has embedded so far, in files named by what is in them, until a snapshot has it.

A file is the embeddings of one shard, and its being there is what says that the shard is done: a worker or a machine
may die at any moment, and what was written is not embedded again. Writing the same shard twice changes nothing.
"""

import hashlib
import json
import os
import secrets
import time
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.artifacts import unwritable
from shared.catalogue import CATEGORIES
from shared.vision.embedder import Embeddings, FloatArray

ANY_REINDEX = "known"  # scope of embeddings that every reindex may use
_KEPT_S = 30 * 86_400
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

    def __init__(self, home: Path, fingerprint: str, scope: str = ANY_REINDEX) -> None:
        self.scope = scope
        self._root = home / "embeddings"
        self._directory = self._root / fingerprint[:32] / scope

    def write(self, name: str, shard: Shard) -> None:
        """Store a shard, whole or not at all.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written.
        """
        aside = self._directory / f".{secrets.token_hex(8)}.tmp"
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "sha256": np.array(shard.sha256, dtype="S64"),
            "vectors": shard.embeddings.vectors,
            "scores": shard.embeddings.scores,
            "failed": np.frombuffer(json.dumps(shard.failed).encode(), dtype=np.uint8),
        }
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path(name))
        except OSError as exc:
            raise unwritable(self._directory, exc) from exc
        finally:
            aside.unlink(missing_ok=True)

    def read(self, name: str) -> Shard | None:
        """A shard; None when it is not there. One that is damaged is removed, to be embedded again."""
        path = self._path(name)
        try:
            with np.load(path, allow_pickle=False) as arrays:
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
        return self._path(name).is_file()

    def known(self) -> dict[str, str]:
        """Shard by sha256 of every photo that is embedded in one."""
        found: dict[str, str] = {}
        for name in self.names():
            try:
                with np.load(self._path(name), allow_pickle=False) as arrays:
                    found |= {sha256.decode(): name for sha256 in arrays["sha256"].tolist()}
            except _DAMAGED:
                self.drop([name])
        return found

    def names(self) -> Iterator[str]:
        """Every shard that is there."""
        if self._directory.is_dir():
            yield from sorted(path.stem for path in self._directory.glob("*.npz"))

    def drop(self, names: Collection[str]) -> None:
        """Remove shards: a snapshot has what they hold."""
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what no reindex needed within a month, of every model."""
        for path in [*self._root.glob("*/*/*"), *self._root.glob("*/*")]:
            with suppress(OSError):  # somebody sweeps too or is writing just now, or a directory is not empty
                if path.stat().st_mtime < time.time() - _KEPT_S:
                    path.rmdir() if path.is_dir() else path.unlink()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.npz"


def shard_name(sha256: Sequence[str]) -> str:
    """The name of the shard of these photos, in this order."""
    return hashlib.blake2b("\n".join(sha256).encode(), digest_size=16).hexdigest()


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """The rows of all parts, in order."""
    if not parts:
        return Embeddings(np.zeros((0, 0), np.float32), np.zeros((0, len(CATEGORIES)), np.float32))
    vectors: FloatArray = np.concatenate([part.vectors for part in parts])
    return Embeddings(vectors, np.concatenate([part.scores for part in parts]))
