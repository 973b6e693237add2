"""Versioned directories with a CURRENT pointer, on a local disk.

A version is written aside, sealed with a manifest of every file's size and SHA-256, renamed into place, and only
then promoted by replacing CURRENT. Nothing is ever changed in place. Readers take no lock; those who promote, seal or
prune take turns by one, whatever process they are in. Knows nothing of models or indexes.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import ClassVar, Final

from pydantic import ValidationError

from shared.errors import ArtifactError, ArtifactUnwritable, PromotionRefused
from shared.promotions import Ledger, Promotion

MANIFEST = "manifest.json"
_CURRENT = "CURRENT"
_LEDGER = "PROMOTIONS"
_LOCK = ".lock"
_STAGING_PREFIX = ".staging-"
_NOTHING_BEFORE = "nothing that was live before is still there; promote a version by its name"
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_LEFTOVER_S = 86_400
_STAMP = "%Y%m%dT%H%M%S%fZ"
_VERSION = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")


class _Expected(Enum):
    ANY = "any"


ANY: Final = _Expected.ANY


@dataclass
class Draft:
    """A version while it is written.

    Attributes:
        directory: where its files go.
        version: its name, once it is sealed.
    """

    directory: Path
    version: str = ""


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
    def write(self) -> Iterator[Draft]:
        """A directory to write a new version into; sealed on success, removed on error.

        The body must leave `manifest.json` there, a JSON object; its key `files` is added here. Afterwards the draft
        has the new version's name; it is not promoted.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written; versions that were there stay as they are.
        """
        staging = self.root / f"{_STAGING_PREFIX}{secrets.token_hex(8)}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            staging.mkdir()
            draft = Draft(staging)
            yield draft
            draft.version = self._seal(staging)
        except (OSError, RuntimeError, sqlite3.OperationalError) as exc:
            # Numpy and native libraries say that a write failed, and much else, without saying why.
            failed = exc if isinstance(exc, OSError) and exc.errno in _UNWRITABLE else _failed_probe(staging)
            if failed is None:
                raise
            raise unwritable(self.root, failed) from exc
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what writers killed more than a day ago left behind."""
        for leftover in self.root.glob(f"{_STAGING_PREFIX}*"):
            with suppress(FileNotFoundError):  # another process sweeps too
                if leftover.stat().st_mtime < time.time() - _LEFTOVER_S:
                    shutil.rmtree(leftover, ignore_errors=True)

    def _seal(self, staging: Path) -> str:
        manifest = json.loads((staging / MANIFEST).read_text())
        files = sorted(path for path in staging.iterdir() if path.name != MANIFEST)
        manifest["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": self.sha256(path)} for path in files}
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (staging / MANIFEST).write_text(text)
        for path in [*files, staging / MANIFEST, staging]:
            _fsync(path)
        with self._turn():
            version = f"{self._next_stamp()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            staging.rename(self.root / version)
            _fsync(self.root)
        return version

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
        version = self._pointer()
        if version is not None:
            self.path(version)
        return version

    def _pointer(self) -> str | None:
        try:
            return (self.root / _CURRENT).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None

    def path(self, version: str) -> Path:
        """The directory of a version.

        Raises:
            missing: no such version.
        """
        if version not in self.versions():
            raise self._missing(f"{self.root.name}/{version!r} does not exist; promote or build another")
        return self.root / version

    def promote(self, version: str, *, expected: str | _Expected | None = ANY, fence: int | None = None) -> None:
        """Make `version` the current one: readers see the old pointer or the new one, nothing between.

        Args:
            expected: the version that must be current now, None when none may be.
            fence: what `take_fence` gave to the one who promotes.

        Raises:
            missing: no such version.
            PromotionRefused: another version is current than expected, or somebody took the fence since.
            ArtifactUnwritable: the pointer cannot be written; it stays what it was.
        """
        self.path(version)
        with self._turn():
            self.path(version)  # nobody has pruned it meanwhile
            ledger = self._ledger()
            _require(ledger, expected)
            if fence is not None and fence != ledger.fence:
                raise PromotionRefused("another has taken over, which will promote its own")
            self._switch(ledger.promoted(version, time.time()), version)

    def take_fence(self) -> int:
        """A number above all before: from now on, in every process, who took an earlier one may not promote with it.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written.
        """
        with self._turn():
            ledger = self._ledger().fenced()
            self._replace(_LEDGER, ledger.model_dump_json())
        return ledger.fence

    def rollback(self, *, expected: str | _Expected | None = ANY) -> str:
        """Promote what was live before the current version, and return its name; a second time goes back two.

        Raises:
            PromotionRefused: nothing that is still there was live before, or another version is current than expected.
            ArtifactUnwritable: as `promote`.
        """
        if not self.root.is_dir():
            raise PromotionRefused(_NOTHING_BEFORE)
        with self._turn():
            ledger, previous = self._ledger(), self.previous()
            _require(ledger, expected)
            if previous is None:
                raise PromotionRefused(_NOTHING_BEFORE)
            self._switch(ledger.promoted(previous, time.time(), back=True), previous)
        return previous

    def previous(self) -> str | None:
        """The version a rollback goes to, if there is one."""
        there = self.versions()
        return next((version for version in reversed(self._ledger().lineage()[:-1]) if version in there), None)

    def history(self) -> list[Promotion]:
        """The last promotions and rollbacks, oldest first."""
        return list(self._ledger().promotions)

    def prune(self, keep: int, *, protect: Collection[str] = ()) -> list[str]:
        """Remove old versions, and return their names, oldest first.

        The last `keep` that were sealed stay, and the last `keep` a rollback comes by, the current one among them.
        Readers that have files of a removed version open keep them.

        Args:
            protect: versions that stay as well.

        Raises:
            ArtifactUnwritable: they may not be removed.
        """
        gone: list[Path] = []
        with self._turn():
            there = self.versions()
            kept = {*there[-keep:], *self._ledger().lineage()[-keep:], *protect}
            removed = [version for version in there if version not in kept]
            for version in removed:
                # Gone in one step; what a kill leaves of the files is swept by a later writer.
                gone.append(self.root / f"{_STAGING_PREFIX}{secrets.token_hex(8)}")
                (self.root / version).rename(gone[-1])
        for directory in gone:
            shutil.rmtree(directory, ignore_errors=True)
        return removed

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

    def _ledger(self) -> Ledger:
        pointer, current, ledger = self._pointer(), self.root / _CURRENT, self.root / _LEDGER
        try:
            noted = Ledger.model_validate_json(ledger.read_bytes()) if ledger.is_file() else Ledger()
        except (OSError, ValidationError) as exc:
            raise self._damaged(f"{ledger} cannot be read; without it, only what a rollback goes to is lost") from exc
        return noted.agreeing_with(pointer, current.stat().st_mtime if pointer is not None else 0)

    def _switch(self, ledger: Ledger, version: str) -> None:
        # CURRENT is replaced last: a ledger that is ahead of it tells of a promotion that never was, and is corrected.
        self._replace(_LEDGER, ledger.model_dump_json())
        self._replace(_CURRENT, version)

    def _replace(self, name: str, text: str) -> None:
        aside = self.root / f".{name}-{secrets.token_hex(8)}"
        try:
            aside.write_text(text + "\n")
            _fsync(aside)
            os.replace(aside, self.root / name)
            _fsync(self.root)
        finally:
            aside.unlink(missing_ok=True)

    def manifest(self, version: str) -> dict[str, object]:
        """The manifest as it was written, with `files`.

        Raises:
            missing, damaged: no such version, or its manifest is not whole.
        """
        return self.manifest_in(self.path(version))

    def manifest_in(self, directory: Path) -> dict[str, object]:
        """As `manifest`, of a copy of a version in any directory."""
        try:
            manifest: dict[str, object] = json.loads((directory / MANIFEST).read_text())
        except (OSError, ValueError) as exc:
            raise self._damaged(f"{directory.name}: {MANIFEST} is missing or not JSON") from exc
        files = manifest.get("files") if isinstance(manifest, dict) else None
        if not isinstance(files, dict) or not all(
            isinstance(file, dict) and {"bytes", "sha256"} <= file.keys() for file in files.values()
        ):
            raise self._damaged(f"{directory.name}: {MANIFEST} lists no files")
        return manifest

    def verify(self, version: str) -> None:
        """Compare every file with the manifest.

        Raises:
            missing, damaged: names the first file that is absent, of another size or of another content.
        """
        directory = self.path(version)
        self.manifest(version)
        # The name ends in the digest of the manifest, which holds the digests of everything else.
        if not self.sha256(directory / MANIFEST).startswith(version.rpartition("-")[2]):
            raise self._damaged(f"{version}: {MANIFEST} has changed since it was written")
        self.verify_files(directory)

    def verify_files(self, directory: Path) -> None:
        """As `verify`, of a copy of a version in any directory, as far as it can be told without its name."""
        files = self.manifest_in(directory)["files"]
        assert isinstance(files, dict)  # manifest_in() made sure
        for name, sealed in files.items():
            path = directory / Path(name).name
            if not path.is_file():
                raise self._damaged(f"{directory.name}: {name} is missing")
            if path.stat().st_size != sealed["bytes"]:
                raise self._damaged(f"{directory.name}: {name} has {path.stat().st_size} bytes, not {sealed['bytes']}")
            if self.sha256(path) != sealed["sha256"]:
                raise self._damaged(f"{directory.name}: {name} has changed since it was written (sha256 differs)")

    @classmethod
    def sha256(cls, path: Path) -> str:
        """Hex digest of a file's content."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(cls._CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


def _require(ledger: Ledger, expected: str | _Expected | None) -> None:
    if expected is not ANY and ledger.live != expected:
        raise PromotionRefused(f"{ledger.live or 'nothing'} is live, not {expected or 'nothing'}; look again")


def unwritable(directory: Path, error: OSError) -> ArtifactUnwritable:
    """What to raise when a directory of the installation cannot be written."""
    return ArtifactUnwritable(
        f"{directory} cannot be written ({error.strerror}); make room or mend its permissions and try again. "
        "What was there before is untouched"
    )


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
