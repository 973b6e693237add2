"""Versioned artifacts with one that is live, on whatever shelf they lie.

A version is written aside, sealed with a manifest of every file's size and SHA-256, and only then promoted. Nothing is
ever changed in place. Readers take no lock; those who promote or prune take turns. Knows nothing of models or indexes.
"""

import hashlib
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from shared.artifacts.backend import MANIFEST as MANIFEST  # noqa: PLC0414 - whoever reads one asks here
from shared.artifacts.backend import STAGING_PREFIX, UNWRITABLE, ArtifactBackend, DirectoryBackend, file_digest
from shared.artifacts.backend import unwritable as unwritable  # noqa: PLC0414
from shared.artifacts.promotion_log import Promotion, PromotionLog
from shared.errors import ArtifactError, PromotionRefused

_NOTHING_BEFORE = "nothing that was live before is still there; promote a version by its name"
_LEFTOVER_S = 86_400


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
    """One kind of artifact.

    Args:
        shelf: where its versions lie; a directory is created when the first is written.
        missing: error for "there is no such version".
        damaged: error for "its files are not what its manifest says".
    """

    def __init__(
        self, backend: ArtifactBackend | Path, *, missing: type[ArtifactError], damaged: type[ArtifactError]
    ) -> None:
        self._backend: ArtifactBackend = (
            DirectoryBackend(backend, damaged=damaged) if isinstance(backend, Path) else backend
        )
        self._missing = missing
        self._damaged = damaged

    @property
    def root(self) -> Path:
        """The directory of this machine that versions are written in."""
        return self._backend.root

    @property
    def place(self) -> str:
        """Where it is: the same for all who share it, another for a copy of it."""
        return self._backend.place

    @contextmanager
    def write(self) -> Iterator[Draft]:
        """A directory to write a new version into; sealed on success, removed on error.

        The body must leave `manifest.json` there, a JSON object; its key `files` is added here. Afterwards the draft
        has the new version's name; it is not promoted.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written; versions that were there stay as they are.
        """
        staging = self.root / f"{STAGING_PREFIX}{secrets.token_hex(8)}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            staging.mkdir()
            draft = Draft(staging)
            yield draft
            draft.version = self._seal(staging)
        except (OSError, RuntimeError, sqlite3.OperationalError) as exc:
            # Numpy and native libraries say that a write failed, and much else, without saying why.
            failed = exc if isinstance(exc, OSError) and exc.errno in UNWRITABLE else _failed_probe(staging)
            if failed is None:
                raise
            raise unwritable(self.root, failed) from exc
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what writers killed more than a day ago left behind."""
        for leftover in self.root.glob(f"{STAGING_PREFIX}*"):
            with suppress(FileNotFoundError):  # another process sweeps too
                if leftover.stat().st_mtime < time.time() - _LEFTOVER_S:
                    shutil.rmtree(leftover, ignore_errors=True)
        self._backend.sweep(_LEFTOVER_S)

    def _seal(self, staging: Path) -> str:
        manifest = json.loads((staging / MANIFEST).read_text())
        files = sorted(path for path in staging.iterdir() if path.name != MANIFEST)
        manifest["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": self.sha256(path)} for path in files}
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (staging / MANIFEST).write_text(text)
        return self._backend.seal(staging, hashlib.sha256(text.encode()).hexdigest())

    def versions(self) -> list[str]:
        """Names of the sealed versions, oldest first."""
        return self._backend.versions()

    def newest(self) -> str:
        """The version sealed last."""
        if not (versions := self.versions()):
            raise self._missing(f"there is none under {self._backend.name} yet; build one first")
        return versions[-1]

    def current(self) -> str | None:
        """The promoted version, or None when none ever was.

        Raises:
            missing: it is not there.
        """
        version = self._backend.pointer()
        if version is not None:
            self._require(version)
        return version

    def _require(self, version: str) -> None:
        if not self._backend.has(version):
            raise self._missing(f"{self._backend.name}{version!r} does not exist; promote or build another")

    def path(self, version: str) -> Path:
        """A directory of this machine with all files of a version; brought here if need be.

        Raises:
            missing: no such version.
            damaged: it cannot be brought here as it was sealed.
        """
        self._require(version)
        return self._backend.directory(version)

    def file(self, version: str, name: str) -> Path:
        """As `path`, of one file; it may not be there if the version was made without it."""
        self._require(version)
        return self._backend.file(version, name)

    def is_here(self, version: str) -> bool:
        """Whether `path` would give a version at once, without bringing it here."""
        return self._backend.is_here(version)

    def n_bytes(self, version: str) -> int:
        """How large a version is."""
        self._require(version)
        return self._backend.n_bytes(version)

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
        self._require(version)

        def decide(promotion_log: PromotionLog) -> PromotionLog:
            self._require(version)  # nobody has pruned it meanwhile
            _expect(promotion_log, expected)
            if fence is not None and fence != promotion_log.fence:
                raise PromotionRefused("another has taken over, which will promote its own")
            return promotion_log.promoted(version, time.time())

        self._backend.change(decide)

    def take_fence(self) -> int:
        """A number above all before: from now on, in every process, who took an earlier one may not promote with it.

        Raises:
            ArtifactUnwritable: the disk is full or may not be written.
        """
        return self._backend.change(PromotionLog.fenced).fence

    def rollback(self, *, expected: str | _Expected | None = ANY) -> str:
        """Promote what was live before the current version, and return its name; a second time goes back two.

        Raises:
            PromotionRefused: nothing that is still there was live before, or another version is current than expected.
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
        """The version a rollback goes to, if there is one."""
        return self._before(self._backend.promotion_log())

    def _before(self, promotion_log: PromotionLog) -> str | None:
        there = self.versions()
        return next((version for version in reversed(promotion_log.lineage()[:-1]) if version in there), None)

    def history(self) -> list[Promotion]:
        """The last promotions and rollbacks, oldest first."""
        return list(self._backend.promotion_log().promotions)

    def prune(self, keep: int, *, protect: Collection[str] = ()) -> list[str]:
        """Remove old versions, and return their names, oldest first.

        The last `keep` that were sealed stay, and the last `keep` a rollback comes by, the current one among them.
        Readers that have files of a removed version open keep them.

        Args:
            protect: versions that stay as well.

        Raises:
            ArtifactUnwritable: they may not be removed.
        """

        def choose(promotion_log: PromotionLog, there: Sequence[str]) -> list[str]:
            kept = {*there[-keep:], *promotion_log.lineage()[-keep:], *protect}
            return [version for version in there if version not in kept]

        return self._backend.remove(choose)

    def manifest(self, version: str) -> dict[str, object]:
        """The manifest as it was written, with `files`.

        Raises:
            missing, damaged: no such version, or its manifest is not whole.
        """
        return self.manifest_in(self.file(version, MANIFEST).parent)

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
        try:
            self._verify(version)
        except self._damaged:
            if not self._backend.mend(version):
                raise
            self._verify(version)

    def _verify(self, version: str) -> None:
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

    sha256 = staticmethod(file_digest)


def _expect(promotion_log: PromotionLog, expected: str | _Expected | None) -> None:
    if expected is not ANY and promotion_log.live != expected:
        raise PromotionRefused(f"{promotion_log.live or 'nothing'} is live, not {expected or 'nothing'}; look again")


def _failed_probe(directory: Path) -> OSError | None:
    """Why a file of one MiB cannot be written there; None when it can."""
    try:
        (directory / ".probe").write_bytes(bytes(1 << 20))
    except OSError as exc:
        return exc
    return None
