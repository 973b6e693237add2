"""Versioned directories with a CURRENT pointer, on a local disk.

A version is written aside, sealed with a manifest of every file's size and SHA-256, renamed into place, and only
then promoted by replacing CURRENT. Nothing is ever changed in place. Knows nothing of models or indexes.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from shared.errors import ArtifactError, ArtifactUnwritable

MANIFEST = "manifest.json"
_CURRENT = "CURRENT"
_STAGING_PREFIX = ".staging-"
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_LEFTOVER_S = 86_400
_STAMP = "%Y%m%dT%H%M%S%fZ"
_VERSION = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")


class ArtifactStore:
    """One kind of artifact under one directory.

    Args:
        root: created when the first version is written.
        missing: error for "there is no such version".
        damaged: error for "its files are not what its manifest says".
    """

    _CHUNK_BYTES: ClassVar[int] = 1 << 20

    def __init__(self, root: Path, *, missing: type[ArtifactError], damaged: type[ArtifactError]) -> None:
        self.root = root
        self._missing = missing
        self._damaged = damaged

    @contextmanager
    def write(self) -> Iterator[Path]:
        """A directory to write a new version into; sealed on success, removed on error.

        The body must leave `manifest.json` there, a JSON object; its key `files` is added here. The new version's
        name is that of `newest()` afterwards; it is not promoted.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written; versions that were there stay as they are.
        """
        staging = self.root / f"{_STAGING_PREFIX}{secrets.token_hex(8)}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            staging.mkdir()
            yield staging
            self._seal(staging)
        except OSError as exc:
            if exc.errno not in _UNWRITABLE:
                raise
            raise self._unwritable(exc) from exc
        except RuntimeError as exc:  # what native libraries say when a write fails, among much else
            if (failed := _failed_probe(staging)) is None:
                raise
            raise self._unwritable(failed) from exc
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _unwritable(self, error: OSError) -> ArtifactUnwritable:
        return ArtifactUnwritable(
            f"{self.root} cannot be written ({error.strerror}); make room or mend its permissions and try again. "
            "What was there before is untouched"
        )

    def _sweep(self) -> None:
        """Remove what writers killed more than a day ago left behind."""
        for leftover in self.root.glob(f"{_STAGING_PREFIX}*"):
            if leftover.stat().st_mtime < time.time() - _LEFTOVER_S:
                shutil.rmtree(leftover, ignore_errors=True)

    def _seal(self, staging: Path) -> None:
        manifest = json.loads((staging / MANIFEST).read_text())
        files = sorted(path for path in staging.iterdir() if path.name != MANIFEST)
        manifest["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": self.sha256(path)} for path in files}
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (staging / MANIFEST).write_text(text)
        for path in [*files, staging / MANIFEST, staging]:
            _fsync(path)
        staging.rename(self.root / f"{self._next_stamp()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")
        _fsync(self.root)

    def _next_stamp(self) -> str:
        """The time, or just after the newest version's: a clock set back must not make a new version an old one."""
        now = datetime.now(UTC)
        if versions := self.versions():
            sealed = datetime.strptime(versions[-1].partition("-")[0], _STAMP).replace(tzinfo=UTC)
            now = max(now, sealed + timedelta(microseconds=1))
        return now.strftime(_STAMP)

    def versions(self) -> list[str]:
        """Names of the sealed versions, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if _VERSION.fullmatch(p.name) and p.is_dir())

    def newest(self) -> str:
        """The version sealed last."""
        if not (versions := self.versions()):
            raise self._missing(f"there is none under {self.root.name}/ yet; build one first")
        return versions[-1]

    def current(self) -> str | None:
        """The promoted version, or None when none ever was.

        Raises:
            missing: CURRENT names a version that is not there.
        """
        try:
            version = (self.root / _CURRENT).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None
        self.path(version)
        return version

    def path(self, version: str) -> Path:
        """The directory of a version.

        Raises:
            missing: no such version.
        """
        if version not in self.versions():
            raise self._missing(f"{self.root.name}/{version!r} does not exist; promote or build another")
        return self.root / version

    def promote(self, version: str) -> None:
        """Make `version` the current one: readers see the old pointer or the new one, nothing between.

        Raises:
            missing: no such version.
            ArtifactUnwritable: the pointer cannot be written; it stays what it was.
        """
        self.path(version)
        aside = self.root / f".{_CURRENT}-{secrets.token_hex(8)}"
        try:
            aside.write_text(version + "\n")
            _fsync(aside)
            os.replace(aside, self.root / _CURRENT)
            _fsync(self.root)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        finally:
            aside.unlink(missing_ok=True)

    def manifest(self, version: str) -> dict[str, object]:
        """The manifest as it was written, with `files`.

        Raises:
            missing, damaged: no such version, or its manifest is not whole.
        """
        try:
            manifest = json.loads((self.path(version) / MANIFEST).read_text())
        except (OSError, ValueError) as exc:
            raise self._damaged(f"{version}: {MANIFEST} is missing or not JSON") from exc
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            raise self._damaged(f"{version}: {MANIFEST} lists no files")
        return manifest

    def verify(self, version: str) -> None:
        """Compare every file with the manifest.

        Raises:
            missing, damaged: names the first file that is absent, of another size or of another content.
        """
        files = self.manifest(version)["files"]
        assert isinstance(files, dict)  # manifest() made sure
        # The name ends in the digest of the manifest, which holds the digests of everything else.
        if not self.sha256(self.path(version) / MANIFEST).startswith(version.rpartition("-")[2]):
            raise self._damaged(f"{version}: {MANIFEST} has changed since it was written")
        for name, sealed in files.items():
            path = self.path(version) / Path(name).name
            if not path.is_file():
                raise self._damaged(f"{version}: {name} is missing")
            if path.stat().st_size != sealed["bytes"]:
                raise self._damaged(f"{version}: {name} has {path.stat().st_size} bytes, not {sealed['bytes']}")
            if self.sha256(path) != sealed["sha256"]:
                raise self._damaged(f"{version}: {name} has changed since it was written (sha256 differs)")

    @classmethod
    def sha256(cls, path: Path) -> str:
        """Hex digest of a file's content."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(cls._CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


def _failed_probe(directory: Path) -> OSError | None:
    """Why a file of one MiB cannot be written there; None when it can."""
    try:
        (directory / ".probe").write_bytes(bytes(1 << 20))
    except OSError as exc:
        return exc
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
