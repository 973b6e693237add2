"""Versioned artifacts of which one is live, in a directory or in a bucket.

A version is written to a staging directory, sealed with a manifest of every file's size and SHA-256, and then promoted.
Nothing is ever changed in place. Readers take no lock; those who promote or prune go one after the other.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from shared.artifacts.backend import MANIFEST as MANIFEST  # noqa: PLC0414 - whoever reads one asks here
from shared.artifacts.backend import STAGING_PREFIX, UNWRITABLE, Backend, file_digest, read_manifest
from shared.artifacts.backend import unwritable as unwritable  # noqa: PLC0414
from shared.artifacts.backends import backend_at
from shared.artifacts.copies import Copies
from shared.artifacts.promotion_log import Promotion, PromotionLog
from shared.errors import ArtifactError, LookalikeError, PromotionRefused

_NOTHING_BEFORE = "nothing that was live before is still there; promote a version by its name"
_LEFTOVER_S = 86_400
_LARGE = 1 << 30  # bytes
_READ = ".read.json"


class WorkInterrupted(Exception):
    """Raised while a draft is written that is to be gone on with by another process."""


class _Expected(Enum):
    ANY = "any"


ANY: Final = _Expected.ANY


@dataclass
class Draft:
    """A version while it is written.

    Attributes:
        directory: staging directory for its files.
        version: its name, once it is sealed.
    """

    directory: Path
    version: str = ""


class ArtifactStore:
    """The versions of one kind of artifact.

        store = index_store(settings.storage)
        with store.write() as draft:
            (draft.directory / "vectors.npy").write_bytes(vectors)
            (draft.directory / MANIFEST).write_text("{}")
        store.promote(draft.version)

    Every method raises StoreUnavailable when the versions lie in an object store that does not answer.

    Args:
        backend: where the versions lie; a directory is created when the first is written.
        missing: error for "there is no such version".
        damaged: error for "its files are not what its manifest says".
    """

    def __init__(self, backend: Backend | Path, *, missing: type[ArtifactError], damaged: type[ArtifactError]) -> None:
        self._backend = backend_at(backend, damaged=damaged) if isinstance(backend, Path) else backend
        self._copies = None if self._backend.is_local else Copies(self._backend, missing=missing, damaged=damaged)
        self._missing = missing
        self._damaged = damaged

    @property
    def root(self) -> Path:
        """The directory of this machine that versions are written in, and fetched to from a bucket."""
        return self._backend.root

    @property
    def place(self) -> str:
        """Identifies the store: the same for all processes and machines that share it, another for a copy of it."""
        return self._backend.place

    @contextmanager
    def write(self, resume: str = "") -> Iterator[Draft]:
        """A staging directory to write a new version into; sealed on success, removed on error.

        The body must leave `manifest.json` there, a JSON object; its key `files` is added here. Afterwards the draft
        has the new version's name; the version is not promoted.

        Args:
            resume: digest of all that the version is made of, hexadecimal: a draft of the same that a killed process
                left, or one that ended with WorkInterrupted, is gone on with. Empty: a new one is made.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written; versions that were there stay as they are.
        """
        staging = self.root / f"{STAGING_PREFIX}{secrets.token_hex(8)}"
        kept, held = False, None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if resume and (held := _hold(left := self.root / f"{STAGING_PREFIX}{resume}")) is not None:
                staging = left
            else:
                staging.mkdir()
            draft = Draft(staging)
            yield draft
            draft.version = self._seal(staging)
        except WorkInterrupted:
            kept = held is not None
            raise
        except (LookalikeError, CancelledError):
            raise
        except Exception as exc:  # native libraries have errors of their own for a write that failed
            failed = _failed_write(exc) or _failed_probe(staging)
            if failed is None:
                raise
            raise unwritable(self.root, failed) from exc
        finally:
            if not kept:
                shutil.rmtree(staging, ignore_errors=True)
            if held is not None:
                os.close(held)

    def _sweep(self, older_than_s: float = _LEFTOVER_S) -> None:
        """Remove what writers killed more than a day ago left: drafts, and files of versions without a manifest."""
        for leftover in self.root.glob(f"{STAGING_PREFIX}*"):
            with suppress(FileNotFoundError):  # another process sweeps too
                if leftover.stat().st_mtime < time.time() - older_than_s:
                    shutil.rmtree(leftover, ignore_errors=True)
        if self._backend.is_local:
            return  # where a draft becomes a version in one step
        stored = [one for one in self._backend.entries() if one.key.count("/") == 1]
        sealed = {one.key.partition("/")[0] for one in stored if one.key.endswith(f"/{MANIFEST}")}
        fresh = {one.key.partition("/")[0] for one in stored if one.modified_at > time.time() - older_than_s}
        self._backend.remove([one.key for one in stored if one.key.partition("/")[0] not in sealed | fresh])

    def _seal(self, staging: Path) -> str:
        manifest = json.loads((staging / MANIFEST).read_bytes())
        files = sorted(path for path in staging.iterdir() if path.name != MANIFEST)
        manifest["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": self.sha256(path)} for path in files}
        if self._backend.is_local and (large := [path for path in files if path.stat().st_size >= _LARGE]):
            read = {path.name: [manifest["files"][path.name]["sha256"], *_state(path)] for path in large}
            (staging / _READ).write_text(json.dumps(read))
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (staging / MANIFEST).write_text(text, encoding="utf-8")
        return self._backend.seal(staging, hashlib.sha256(text.encode()).hexdigest())

    def versions(self) -> list[str]:
        """Names of the sealed versions, oldest first."""
        return self._backend.versions()

    def newest(self) -> str:
        """The version sealed last.

        Raises:
            missing: there is none.
        """
        if not (versions := self.versions()):
            raise self._missing(f"there is none under {self._backend.name} yet; build one first")
        return versions[-1]

    def current(self) -> str | None:
        """The live version, or None when none was ever promoted.

        Raises:
            missing: it does not exist.
        """
        version = self._backend.pointer()
        if version is not None:
            self._require(version)
        return version

    def _require(self, version: str) -> None:
        # Nothing that was sealed ever changes; of what was removed since, a copy can still be read.
        if not (self._copies and self._copies.knows(version)):
            self._require_now(version)

    def _require_now(self, version: str) -> None:
        if not self._backend.has(version):
            raise self._missing(f"{self._backend.name}{version!r} does not exist; promote or build another")

    def path(self, version: str) -> Path:
        """A directory of this machine with all files of a version; from a bucket they are fetched if need be.

        Raises:
            missing: no such version.
            damaged: the bucket does not have it as it was sealed.
            ArtifactUnwritable: the disk of this machine is full.
        """
        self._require(version)
        return self._copies.directory(version) if self._copies else self.root / version

    def file(self, version: str, name: str) -> Path:
        """As `path`, of one file; it is not there if the version was made without it."""
        self._require(version)
        return self._copies.file(version, name) if self._copies else self.root / version / name

    def is_here(self, version: str) -> bool:
        """Whether `path` would return at once, without fetching anything."""
        return self._copies is None or self._copies.is_whole(version)

    def n_bytes(self, version: str) -> int:
        """The size of all files of a version together.

        Raises:
            missing: no such version.
        """
        self._require(version)
        return sum(stored.n_bytes for stored in self._backend.entries(version))

    def promote(self, version: str, *, expected: str | _Expected | None = ANY, fence: int | None = None) -> None:
        """Make `version` the current one: readers see the old pointer or the new one, nothing between.

        Args:
            expected: refuse unless this version is live now; None: unless none is.
            fence: refuse if `take_fence` was called again since it returned this.

        Raises:
            missing: no such version.
            PromotionRefused: another version is live than expected, or somebody took the fence since.
            ArtifactUnwritable: the pointer cannot be written; it stays what it was.
        """
        self._require(version)

        def decide(promotion_log: PromotionLog) -> PromotionLog:
            self._require_now(version)  # nobody has pruned it meanwhile
            _expect(promotion_log, expected)
            if fence is not None and fence != promotion_log.fence:
                raise PromotionRefused("another has taken over, which will promote its own")
            return promotion_log.promoted(version, time.time())

        self._backend.change(decide)

    def take_fence(self) -> int:
        """A number above all before: from now on nobody, in any process, may promote with an earlier one.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written.
        """
        return self._backend.change(PromotionLog.fenced).fence

    def rollback(self, *, expected: str | _Expected | None = ANY) -> str:
        """Promote what was live before the current version, and return its name; a second time goes back two.

        Raises:
            PromotionRefused: nothing that was live before still exists, or another version is live than expected.
            ArtifactUnwritable: as `promote`.
        """

        def decide(promotion_log: PromotionLog) -> PromotionLog:
            _expect(promotion_log, expected)
            if (previous := self._before(promotion_log)) is None:
                raise PromotionRefused(_NOTHING_BEFORE)
            return promotion_log.promoted(previous, time.time(), back=True)

        if not self.history():
            raise PromotionRefused(_NOTHING_BEFORE)
        live = self._backend.change(decide).live
        assert live is not None  # `decide` made sure
        return live

    def previous(self) -> str | None:
        """The version a rollback goes to, None when there is none."""
        return self._before(self._backend.promotion_log())

    def _before(self, promotion_log: PromotionLog) -> str | None:
        there = self.versions()
        return next((version for version in reversed(promotion_log.lineage()[:-1]) if version in there), None)

    def history(self) -> list[Promotion]:
        """The last promotions and rollbacks, oldest first."""
        return list(self._backend.promotion_log().promotions)

    def prune(self, keep: int, *, protect: Collection[str] = ()) -> list[str]:
        """Remove old versions, and return their names, oldest first.

        The last `keep` that were sealed stay, and the last `keep` that rollbacks go back through, the live one among
        them. Readers that have files of a removed version open keep them.

        Args:
            protect: versions that stay as well.

        Raises:
            ArtifactUnwritable: they may not be removed.
        """

        def choose(promotion_log: PromotionLog, there: Sequence[str]) -> list[str]:
            kept = {*there[-keep:], *promotion_log.lineage()[-keep:], *protect}
            return [version for version in there if version not in kept]

        return self._backend.prune(choose)

    def manifest(self, version: str) -> dict[str, object]:
        """The manifest as it was written, with `files`.

        Raises:
            missing, damaged: no such version, or its manifest is not whole.
        """
        return self.manifest_in(self.file(version, MANIFEST).parent)

    def manifest_in(self, directory: Path) -> dict[str, object]:
        """As `manifest`, of a copy of a version in any directory."""
        return read_manifest(directory, self._damaged)

    def verify(self, version: str, *, anew: bool = True) -> None:
        """Compare every file with the manifest.

        Args:
            anew: read every file; else a file of a GiB and more, which takes seconds to read, is not read again as long
                as the system says that it was not written to since it was read by a call before.

        Raises:
            missing, damaged: names the first file that is absent, of another size or of another content.
        """
        try:
            self._verify(version, anew=anew)
        except self._damaged:
            if self._copies is None:
                raise
            self._copies.mend(version)
            self._verify(version, anew=anew)

    def _verify(self, version: str, *, anew: bool) -> None:
        directory = self.path(version)
        self.manifest(version)
        # The name ends in the digest of the manifest, which holds the digests of everything else.
        if not self.sha256(directory / MANIFEST).startswith(version.rpartition("-")[2]):
            raise self._damaged(f"{version}: {MANIFEST} has changed since it was written")
        self.verify_files(directory, anew=anew)

    def verify_files(self, directory: Path, *, anew: bool = True) -> None:
        """As `verify`, of a copy of a version in any directory, as far as it can be told without its name."""
        files = self.manifest_in(directory)["files"]
        assert isinstance(files, dict)  # read_manifest() made sure
        known = {} if anew else _read_before(directory)
        read: dict[str, list[object]] = {}
        for name, sealed in files.items():
            path = directory / Path(name).name
            if not path.is_file():
                raise self._damaged(f"{directory.name}: {name} is missing")
            if path.stat().st_size != sealed["bytes"]:
                raise self._damaged(f"{directory.name}: {name} has {path.stat().st_size} bytes, not {sealed['bytes']}")
            if sealed["bytes"] >= _LARGE:
                read[name] = [sealed["sha256"], *_state(path)]
                if known.get(name) == read[name]:
                    continue
            if self.sha256(path) != sealed["sha256"]:
                raise self._damaged(f"{directory.name}: {name} has changed since it was written (sha256 differs)")
        if read and read != known:
            with suppress(OSError):  # where nothing may be written they are read each time
                (directory / _READ).write_text(json.dumps(read))

    sha256 = staticmethod(file_digest)


def _state(path: Path) -> list[int]:
    """What changes when a file is written to, and nobody can set."""
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _read_before(directory: Path) -> dict[str, list[object]]:
    """The large files of a version that were as they should be when they were read, each with its digest and state."""
    try:
        found = json.loads((directory / _READ).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _hold(directory: Path) -> int | None:
    """Make a directory unless it is there, and hold it until the descriptor is closed; None: another process does."""
    directory.mkdir(exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    with suppress(OSError):  # held by another, which may have made a version of it just now; or cannot be held here
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), directory.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _expect(promotion_log: PromotionLog, expected: str | _Expected | None) -> None:
    if expected is not ANY and promotion_log.live != expected:
        raise PromotionRefused(f"{promotion_log.live or 'nothing'} is live, not {expected or 'nothing'}; look again")


def _failed_write(error: Exception) -> OSError | None:
    """What an error says of a write that failed, by its number or, where a native library raised it, in its text."""
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return error
    named = (number for number in UNWRITABLE if os.strerror(number) in str(error))
    return next((OSError(number, os.strerror(number)) for number in named), None)


def _failed_probe(directory: Path) -> OSError | None:
    """Why a file of one MiB cannot be written there; None when it can."""
    try:
        (directory / ".probe").write_bytes(bytes(1 << 20))
    except OSError as exc:
        return exc
    return None
