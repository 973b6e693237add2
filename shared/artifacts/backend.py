"""Shelves: where the versions of one kind of artifact lie, and the ledger of which of them went live.

A shelf keeps what is sealed and changes its ledger for one caller at a time, whatever process that is in. What may
change, and what is kept, its callers decide.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from shared.artifacts.promotion_log import PromotionLog
from shared.errors import ArtifactError, ArtifactUnwritable

MANIFEST: Final = "manifest.json"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
STAGING_PREFIX = ".staging-"
VERSION = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")
_CURRENT = "CURRENT"
_PROMOTION_LOG = "PROMOTIONS"
_LOCK = ".lock"
_STAMP = "%Y%m%dT%H%M%S%fZ"

Decide = Callable[[PromotionLog], PromotionLog]
Choose = Callable[[PromotionLog, Sequence[str]], list[str]]


class ArtifactBackend(Protocol):
    """Versions and their ledger.

    Attributes:
        root: directory of this machine that drafts are written in.
        name: for people.
        place: where it is: the same for all who share it, another for a copy of it.
    """

    @property
    def root(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> str: ...

    def versions(self) -> list[str]:
        """Names of the sealed versions, oldest first."""

    def has(self, version: str) -> bool:
        """Whether there is such a version."""

    def pointer(self) -> str | None:
        """The version that is live, be it there or not; perhaps as it was a second ago."""

    def promotion_log(self) -> PromotionLog:
        """Every promotion that is remembered, and the fence."""

    def change(self, decide: Decide) -> PromotionLog:
        """Replace the ledger by what is decided of it, perhaps again where another was quicker; returns what it is."""

    def seal(self, draft: Path, digest: str) -> str:
        """Take the finished files of a draft, and return the name they are known by, which ends in the digest."""

    def remove(self, choose: Choose) -> list[str]:
        """Remove what is chosen of the versions there are, in one step for whoever promotes."""

    def file(self, version: str, name: str) -> Path:
        """One file of a version, on this machine."""

    def directory(self, version: str) -> Path:
        """All files of a version, on this machine."""

    def is_here(self, version: str) -> bool:
        """Whether all files of a version are on this machine already."""

    def n_bytes(self, version: str) -> int:
        """How large its files are together."""

    def mend(self, version: str) -> bool:
        """Replace what differs here from what was sealed; False where there is nothing to replace it by."""

    def sweep(self, older_than_s: float) -> None:
        """Remove what writers that were killed left on the shelf."""


class DirectoryBackend:
    """A directory for each version, and CURRENT beside them, replaced last."""

    def __init__(self, root: Path, *, damaged: type[ArtifactError]) -> None:
        self.root = root
        self.name = f"{root.name}/"
        self._damaged = damaged

    @property
    def place(self) -> str:
        return str(self.root.resolve())

    def versions(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if VERSION.fullmatch(p.name) and p.is_dir())

    def has(self, version: str) -> bool:
        return version in self.versions()

    def pointer(self) -> str | None:
        try:
            return (self.root / _CURRENT).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None

    def promotion_log(self) -> PromotionLog:
        pointer, current, promotion_log = self.pointer(), self.root / _CURRENT, self.root / _PROMOTION_LOG
        try:
            noted = (
                PromotionLog.model_validate_json(promotion_log.read_bytes())
                if promotion_log.is_file()
                else PromotionLog()
            )
        except (OSError, ValidationError) as exc:
            raise self._damaged(
                f"{promotion_log} cannot be read; without it, only what a rollback goes to is lost"
            ) from exc
        return noted.agreeing_with(pointer, current.stat().st_mtime if pointer is not None else 0)

    def change(self, decide: Decide) -> PromotionLog:
        with self._turn():
            before = self.promotion_log()
            after = decide(before)
            # CURRENT is replaced last: a ledger ahead of it tells of a promotion that never was, and is corrected.
            self._replace(_PROMOTION_LOG, after.model_dump_json())
            if after.live is not None and after.live != before.live:
                self._replace(_CURRENT, after.live)
        return after

    def seal(self, draft: Path, digest: str) -> str:
        for path in [*draft.iterdir(), draft]:
            _fsync(path)
        with self._turn():
            version = new_version(self.versions(), digest)
            draft.rename(self.root / version)
            _fsync(self.root)
        return version

    def remove(self, choose: Choose) -> list[str]:
        gone: list[Path] = []
        with self._turn():
            removed = choose(self.promotion_log(), self.versions())
            for version in removed:
                # Gone in one step; what a kill leaves of the files is swept by a later writer.
                gone.append(self.root / f"{STAGING_PREFIX}{secrets.token_hex(8)}")
                (self.root / version).rename(gone[-1])
        for directory in gone:
            shutil.rmtree(directory, ignore_errors=True)
        return removed

    def file(self, version: str, name: str) -> Path:
        return self.root / version / name

    def directory(self, version: str) -> Path:
        return self.root / version

    def is_here(self, version: str) -> bool:
        return True

    def n_bytes(self, version: str) -> int:
        return sum(path.stat().st_size for path in self.directory(version).iterdir())

    def mend(self, version: str) -> bool:
        return False

    def sweep(self, older_than_s: float) -> None:
        pass  # a draft becomes a version in one step

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else promotes, seals or prunes meanwhile; the kernel ends the turn of a process that dies."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as exc:
            raise unwritable(self.root, exc) from exc

    def _replace(self, name: str, text: str) -> None:
        aside = self.root / f".{name}-{secrets.token_hex(8)}"
        try:
            aside.write_text(text + "\n")
            _fsync(aside)
            os.replace(aside, self.root / name)
            _fsync(self.root)
        finally:
            aside.unlink(missing_ok=True)


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
