"""Artifact store backend: files and versions of one kind, in a directory or below a prefix of a bucket.

Plain files (photos, embeddings), each written whole or not at all; and sealed versions (bundles, index snapshots) with
a log of which of them were promoted. One caller at a time changes the log, in whatever process it is. Which version may
be promoted or removed is decided in `store.py`.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from shared.artifacts.files import ObjectFile, Stored
from shared.artifacts.promotion_log import PromotionLog
from shared.errors import ArtifactError, ArtifactUnwritable
from shared.exhaustion import raise_exhaustion

MANIFEST: Final = "manifest.json"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
STAGING_PREFIX = ".staging-"
VERSION = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")
_CURRENT = "CURRENT"
_PROMOTION_LOG = "PROMOTIONS"
_LOCK = ".lock"
_TEMPORARY = ".tmp"
_STAMP = "%Y%m%dT%H%M%S%fZ"

Decide = Callable[[PromotionLog], PromotionLog]
Choose = Callable[[PromotionLog, Sequence[str]], list[str]]


class Backend(Protocol):
    """Files by name, whose names may have `/` in them, and versions, each a directory of files with a manifest.

    What cannot be written raises ArtifactUnwritable; an object store that does not answer raises StoreUnavailable.

    Attributes:
        root: directory of this machine for drafts, and for what is fetched from a bucket.
        name: for messages.
        place: the same for all processes and machines that share it, another for a copy of it.
        is_local: whether files are read in place; else versions are fetched to `root` first.
    """

    root: Path
    name: str
    is_local: bool

    @property
    def place(self) -> str: ...

    def at(self, name: str) -> Path | ObjectFile:
        """A file to be read, whether or not it is there."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, over what was there."""

    def top(self) -> list[str]:
        """Names of the files and directories at the top, sorted."""

    def entries(self, directory: str = "") -> list[Stored]:
        """Every file below a directory, in order of its name, which is told from the top."""

    def remove(self, names: Collection[str]) -> None:
        """Remove files; those that are not there are passed over."""

    def sweep(self, older_than_s: float, *, keep: Callable[[str], bool] = lambda name: False) -> int:
        """Remove files written longer ago, and what writes that were killed left; returns how many files.

        Args:
            keep: says of a name whether the file stays however old it is.
        """

    def versions(self) -> list[str]:
        """Names of the sealed versions, oldest first."""

    def has(self, version: str) -> bool:
        """Whether there is such a version now."""

    def pointer(self) -> str | None:
        """The live version, whether or not it exists; up to a second old where asking costs a request."""

    def promotion_log(self) -> PromotionLog:
        """The promotions that are remembered, and the fence.

        Raises:
            damaged: it cannot be read.
        """

    def change(self, decide: Decide) -> PromotionLog:
        """Replace the promotion log by what `decide` returns for it, and return that.

        Args:
            decide: called again with the newer log where another process was quicker.

        Raises:
            damaged: as `promotion_log`.
        """

    def seal(self, draft: Path, digest: str) -> str:
        """Make a version of a finished directory of this machine, and return its name.

        Args:
            digest: of its manifest, hexadecimal; the name ends in its first eight digits.
        """

    def prune(self, choose: Choose) -> list[str]:
        """Remove the versions that are chosen, in one step for whoever promotes; returns their names.

        Args:
            choose: given the promotion log and the versions; called again as `decide` of `change` is.

        Raises:
            damaged: as `promotion_log`.
        """


class DirectoryBackend(Backend):
    """A directory. A version is a directory in it; CURRENT names the live one and is replaced last.

    Sealing, promoting and pruning hold a file lock; a version appears and goes away by one rename.
    """

    is_local = True

    def __init__(self, root: Path, *, damaged: type[ArtifactError] = ArtifactError) -> None:
        self.root = root
        self.name = f"{root.name}/"
        self._damaged = damaged

    @property
    def place(self) -> str:
        return str(self.root.resolve())

    # --- files ---

    def at(self, name: str) -> Path:
        return self.root / name

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        aside = path.with_name(f".{secrets.token_hex(8)}{_TEMPORARY}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as exc:
            raise unwritable(path.parent, exc) from exc
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def top(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else []

    def entries(self, directory: str = "") -> list[Stored]:
        found = []
        for path in (self.root / directory).rglob("*"):
            with suppress(FileNotFoundError):  # removed meanwhile
                of = path.stat()
                if stat.S_ISREG(of.st_mode) and path.suffix != _TEMPORARY:
                    found.append(Stored(path.relative_to(self.root).as_posix(), of.st_size, of.st_mtime, ""))
        return sorted(found)

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def sweep(self, older_than_s: float, *, keep: Callable[[str], bool] = lambda name: False) -> int:
        swept = 0
        for path in sorted(self.root.rglob("*"), reverse=True):  # what is in a directory before the directory
            with suppress(OSError):  # somebody sweeps too or is writing just now, or a directory is not empty
                if path.stat().st_mtime > time.time() - older_than_s:
                    continue
                if path.is_dir():
                    path.rmdir()
                elif not keep(path.relative_to(self.root).as_posix()):
                    path.unlink()
                    swept += 1
        return swept

    # --- versions ---

    def versions(self) -> list[str]:
        return [name for name in self.top() if VERSION.fullmatch(name) and (self.root / name).is_dir()]

    def has(self, version: str) -> bool:
        return version in self.versions()

    def pointer(self) -> str | None:
        try:
            return (self.root / _CURRENT).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None

    def promotion_log(self) -> PromotionLog:
        pointer, current, file = self.pointer(), self.root / _CURRENT, self.root / _PROMOTION_LOG
        try:
            written = PromotionLog.model_validate_json(file.read_bytes()) if file.is_file() else PromotionLog()
        except (OSError, ValidationError) as exc:
            raise_exhaustion(exc)
            raise self._damaged(f"{file} cannot be read; without it, only what a rollback goes to is lost") from exc
        return written.agreeing_with(pointer, current.stat().st_mtime if pointer is not None else 0)

    def change(self, decide: Decide) -> PromotionLog:
        with self._locked():
            before = self.promotion_log()
            after = decide(before)
            # CURRENT is replaced last: a log ahead of it tells of a promotion that never was, and is corrected.
            self._replace(_PROMOTION_LOG, after.model_dump_json())
            if after.live is not None and after.live != before.live:
                self._replace(_CURRENT, after.live)
        return after

    def seal(self, draft: Path, digest: str) -> str:
        for path in [*draft.iterdir(), draft]:
            _fsync(path)
        with self._locked():
            version = new_version(self.versions(), digest)
            draft.rename(self.root / version)
            _fsync(self.root)
        return version

    def prune(self, choose: Choose) -> list[str]:
        gone: list[Path] = []
        with self._locked():
            removed = choose(self.promotion_log(), self.versions())
            for version in removed:
                # Gone in one step; what a kill leaves of the files is swept by a later writer.
                gone.append(self.root / f"{STAGING_PREFIX}{secrets.token_hex(8)}")
                (self.root / version).rename(gone[-1])
        for directory in gone:
            shutil.rmtree(directory, ignore_errors=True)
        return removed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else promotes, seals or prunes meanwhile; the kernel frees the lock of a process that dies."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as exc:
            raise unwritable(self.root, exc) from exc

    def _replace(self, name: str, text: str) -> None:
        self.write(name, f"{text}\n".encode())
        _fsync(self.root)


def new_version(there: Sequence[str], digest: str) -> str:
    """A name by the time, or just after the newest: a clock set back must not make a new version an old one."""
    now = datetime.now(UTC)
    if there:
        sealed = datetime.strptime(there[-1].partition("-")[0], _STAMP).replace(tzinfo=UTC)
        now = max(now, sealed + timedelta(microseconds=1))
    return f"{now.strftime(_STAMP)}-{digest[:8]}"


def unwritable(directory: Path, error: OSError) -> ArtifactUnwritable:
    """What to raise when a directory of the installation cannot be written."""
    return ArtifactUnwritable(
        f"{directory} cannot be written ({error.strerror}); make room or mend its permissions and try again. "
        "What was there before is untouched"
    )


def read_manifest(directory: Path, damaged: type[ArtifactError]) -> dict[str, object]:
    """The manifest of a version, with `files`: `bytes` and `sha256` by name.

    Raises:
        damaged: it is missing, not JSON, or lists no files.
    """
    try:
        manifest: dict[str, object] = json.loads((directory / MANIFEST).read_bytes())
    except (OSError, ValueError) as exc:
        raise_exhaustion(exc)
        raise damaged(f"{directory.name}: {MANIFEST} is missing or not JSON") from exc
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(file, dict) and {"bytes", "sha256"} <= file.keys() for file in files.values()
    ):
        raise damaged(f"{directory.name}: {MANIFEST} lists no files")
    return manifest


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
