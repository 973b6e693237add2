"""Versions that lie in a bucket, fetched to this machine, where they are checked and memory-mapped."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from shared.artifacts.backend import (
    MANIFEST,
    VERSION,
    Backend,
    DirectoryBackend,
    file_digest,
    read_manifest,
    unwritable,
)
from shared.artifacts.files import ObjectFile
from shared.errors import ArtifactError

_KEPT_HERE_S = 3_600


class Copies:
    """The versions of one kind on this machine, each file fetched once and kept for as long as it may be wanted.

    Every method raises `missing` when the version was removed, `damaged` when a file is not what the manifest says,
    ArtifactUnwritable when the disk of this machine is full, and StoreUnavailable when the store does not answer.

    Args:
        backend: of a bucket; its `root` is where copies lie.
        missing, damaged: as of the `ArtifactStore`.
    """

    def __init__(self, backend: Backend, *, missing: type[ArtifactError], damaged: type[ArtifactError]) -> None:
        self._backend = backend
        self._root = backend.root
        self._missing = missing
        self._damaged = damaged

    def knows(self, version: str) -> bool:
        """Whether the manifest of a version was fetched; the version may have been removed since."""
        return bool(VERSION.fullmatch(version)) and (self._root / version / MANIFEST).is_file()

    def file(self, version: str, name: str) -> Path:
        """One file of a version; it is not there if the version has none of that name."""
        path = self._root / version / name
        if not path.is_file():
            if name == MANIFEST:
                self._fetch_manifest(version)
            elif sealed := self._sealed(version).get(name):
                self._fetch(version, name, sealed)
        return path

    def directory(self, version: str) -> Path:
        """All files of a version."""
        directory = self._root / version
        for name, sealed in self._sealed(version).items():
            if not (directory / name).is_file():
                self._make_room(version)
                self._fetch(version, name, sealed)
        os.utime(directory)  # it is wanted here
        return directory

    def is_whole(self, version: str) -> bool:
        """Whether all files of a version are here already."""
        directory = self._root / version
        return self.knows(version) and all((directory / name).is_file() for name in self._sealed(version))

    def mend(self, version: str) -> None:
        """Fetch again what differs here from what was sealed."""
        self._fetch_manifest(version)
        for name, sealed in self._sealed(version).items():
            path = self._root / version / name
            if path.is_file() and file_digest(path) != sealed["sha256"]:
                path.unlink()
        self.directory(version)

    def _sealed(self, version: str) -> dict[str, Any]:
        """Size and SHA-256 of every file but the manifest, by name."""
        files = read_manifest(self.file(version, MANIFEST).parent, self._damaged)["files"]
        assert isinstance(files, dict)  # read_manifest() made sure
        return {Path(name).name: sealed for name, sealed in files.items()}

    def _fetch_manifest(self, version: str) -> None:
        try:
            content = self._backend.at(f"{version}/{MANIFEST}").read_bytes()
        except FileNotFoundError as exc:
            raise self._missing(f"{self._backend.name}{version} is gone") from exc
        if not hashlib.sha256(content).hexdigest().startswith(version.rpartition("-")[2]):
            raise self._damaged(f"{version}: {MANIFEST} has changed since it was written")
        DirectoryBackend(self._root).write(f"{version}/{MANIFEST}", content)

    def _fetch(self, version: str, name: str, sealed: dict[str, Any]) -> None:
        file = self._backend.at(f"{version}/{name}")
        assert isinstance(file, ObjectFile)  # of a bucket
        try:
            whole = file.fetch(self._root / version / name, sha256=sealed["sha256"], n_bytes=sealed["bytes"])
        except FileNotFoundError as exc:
            if self._backend.has(version):
                raise self._damaged(f"{version}: {name} is missing") from exc
            raise self._missing(f"{self._backend.name}{version} was removed while it was fetched") from exc
        except OSError as exc:
            raise unwritable(self._root, exc) from exc
        if not whole:
            raise self._damaged(f"{version}: {name} has changed since it was written (sha256 differs)")

    def _make_room(self, wanted: str) -> None:
        """Remove copies that are neither wanted, live nor what a rollback goes to, and not asked for within an hour."""
        kept = {wanted, *self._backend.promotion_log().lineage()[-2:]}
        for directory in self._root.iterdir():
            if VERSION.fullmatch(directory.name) and directory.name not in kept:
                try:
                    if directory.stat().st_mtime < time.time() - _KEPT_HERE_S:
                        shutil.rmtree(directory, ignore_errors=True)
                except FileNotFoundError:
                    pass  # another process makes room too
