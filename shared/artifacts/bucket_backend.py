"""A shelf in an object store: files of a version first, its manifest last, and one small object that all change by
compare and swap. What is read is brought to this machine once, checked, and kept for as long as it may be wanted.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.artifacts.backend import MANIFEST, VERSION, Choose, Decide, file_digest, new_version, unwritable
from shared.artifacts.bucket import Bucket
from shared.artifacts.promotion_log import PromotionLog
from shared.errors import ArtifactError, StoreUnavailable

_PROMOTION_LOG = "PROMOTIONS.json"
_KEPT_HERE_S = 3_600
_TRIES = 100


class _Sealed(NamedTuple):
    """What the manifest says of a file."""

    n_bytes: int
    sha256: str


class _Notes(BaseModel):
    """The object that is swapped.

    Attributes:
        removed: versions that are gone, though files of theirs may be there yet.
        writer: tells whose swap it was, when the answer to it was lost.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    # Named `ledger` in the object, as before it was renamed here.
    promotion_log: PromotionLog = Field(PromotionLog(), alias="ledger")
    removed: tuple[str, ...] = ()
    writer: str = ""


class BucketBackend:
    """The versions of one kind under a prefix of their own.

    Args:
        kind: names that prefix.
        missing, damaged: as of the `ArtifactStore`.
    """

    def __init__(
        self, bucket: Bucket, kind: str, *, missing: type[ArtifactError], damaged: type[ArtifactError]
    ) -> None:
        self.root = bucket.cache / kind
        self.name = self.place = f"{bucket.url}/{kind}/"
        self._bucket = bucket
        self._kind = kind
        self._missing = missing
        self._damaged = damaged

    def versions(self) -> list[str]:
        sealed = {key.split("/")[1] for key in self._keys() if key.endswith(f"/{MANIFEST}")}
        return sorted(version for version in sealed - {*self._notes()[0].removed} if VERSION.fullmatch(version))

    def has(self, version: str) -> bool:
        if not VERSION.fullmatch(version):
            return False
        # Nothing that was sealed ever changes; what was removed since can still be read here.
        return (self.root / version / MANIFEST).is_file() or self._is_there(version, self._notes()[0])

    def pointer(self) -> str | None:
        return self._bucket.lately(self.name, lambda: self.promotion_log().live)

    def promotion_log(self) -> PromotionLog:
        return self._notes()[0].promotion_log

    def change(self, decide: Decide) -> PromotionLog:
        def change(notes: _Notes) -> _Notes:
            after = decide(notes.promotion_log)
            if after.live not in (None, notes.promotion_log.live) and not self._is_there(str(after.live), notes):
                raise self._missing(f"{self.name}{after.live} has just been removed")
            return notes.model_copy(update={"promotion_log": after})

        return self._swap(change).promotion_log

    def seal(self, draft: Path, digest: str) -> str:
        version = new_version(self.versions(), digest)
        for path in sorted(draft.iterdir()):
            if path.name != MANIFEST:
                self._bucket.upload(self._key(version, path.name), path)
        # Only now there is such a version; what a kill leaves before is swept by a later writer.
        self._bucket.write(self._key(version, MANIFEST), (draft / MANIFEST).read_bytes())
        draft.rename(self.root / version)
        return version

    def remove(self, choose: Choose) -> list[str]:
        there = self.versions()
        chosen: list[str] = []

        def change(notes: _Notes) -> _Notes:
            chosen[:] = choose(notes.promotion_log, there)
            return notes.model_copy(update={"removed": (*notes.removed, *chosen)})

        for version in self._swap(change).removed:  # those too that somebody who was killed left
            self._bucket.remove([stored.key for stored in self._bucket.below(f"{self._kind}/{version}")])
            shutil.rmtree(self.root / version, ignore_errors=True)
        left = {key.split("/")[1] for key in self._keys()}
        self._swap(lambda notes: notes.model_copy(update={"removed": tuple(v for v in notes.removed if v in left)}))
        return chosen

    def file(self, version: str, name: str) -> Path:
        path = self.root / version / name
        if not path.is_file():
            if name == MANIFEST:
                self._fetch_manifest(version)
            elif sealed := self._sealed(version).get(name):
                self._fetch(version, name, sealed)
        return path

    def directory(self, version: str) -> Path:
        directory = self.root / version
        for name, sealed in self._sealed(version).items():
            if not (directory / name).is_file():
                self._let_go(version)
                self._fetch(version, name, sealed)
        os.utime(directory)  # it is wanted here
        return directory

    def is_here(self, version: str) -> bool:
        directory = self.root / version
        return (directory / MANIFEST).is_file() and all((directory / name).is_file() for name in self._sealed(version))

    def n_bytes(self, version: str) -> int:
        return sum(stored.n_bytes for stored in self._bucket.below(f"{self._kind}/{version}"))

    def mend(self, version: str) -> bool:
        self._fetch_manifest(version)
        for name, sealed in self._sealed(version).items():
            path = self.root / version / name
            if path.is_file() and file_digest(path) != sealed.sha256:
                path.unlink()
        self.directory(version)
        return True

    def sweep(self, older_than_s: float) -> None:
        stored = [one for one in self._bucket.below(self._kind) if one.key.count("/") == 2]
        sealed = {one.key.split("/")[1] for one in stored if one.key.endswith(f"/{MANIFEST}")}
        fresh = {one.key.split("/")[1] for one in stored if one.modified_at > time.time() - older_than_s}
        self._bucket.remove([one.key for one in stored if one.key.split("/")[1] not in sealed | fresh])

    def _key(self, version: str, name: str) -> str:
        return f"{self._kind}/{version}/{name}"

    def _keys(self) -> list[str]:
        return [stored.key for stored in self._bucket.below(self._kind) if stored.key.count("/") == 2]

    def _is_there(self, version: str, notes: _Notes) -> bool:
        return version not in notes.removed and self._bucket.has(self._key(version, MANIFEST))

    # --- the notes ---

    def _notes(self) -> tuple[_Notes, str | None]:
        """As they are now, with the tag to swap them by; None while there are none."""
        try:
            content, tag = self._bucket.read_tagged(f"{self._kind}/{_PROMOTION_LOG}")
            return _Notes.model_validate_json(content), tag
        except FileNotFoundError:
            return _Notes(), None
        except ValidationError as exc:
            raise self._damaged(f"{self.name}{_PROMOTION_LOG} cannot be read; it tells which version is live") from exc

    def _swap(self, change: Callable[[_Notes], _Notes]) -> _Notes:
        for tries in range(_TRIES):
            before, tag = self._notes()
            after = change(before)
            if after == before:
                return before
            after = after.model_copy(update={"writer": secrets.token_hex(8)})
            content = after.model_dump_json().encode()
            # Refused, and yet ours: the answer was lost on its way, and the call repeated underneath.
            if (
                self._bucket.swap(f"{self._kind}/{_PROMOTION_LOG}", content, tag=tag)
                or self._notes()[0].writer == after.writer
            ):
                self._bucket.forget(self.name)
                return after
            time.sleep(secrets.randbelow(10 * min(tries + 1, 20)) / 1000)  # so that two do not go on in step
        raise StoreUnavailable(f"{self.name}{_PROMOTION_LOG} is changed by others all the time; try again")

    # --- this machine ---

    def _sealed(self, version: str) -> dict[str, _Sealed]:
        """Every file but the manifest.

        Raises:
            damaged: the manifest does not list them.
        """
        try:
            files = json.loads(self.file(version, MANIFEST).read_bytes())["files"]
            return {Path(name).name: _Sealed(int(of["bytes"]), str(of["sha256"])) for name, of in files.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as exc:
            raise self._damaged(f"{version}: {MANIFEST} lists no files") from exc

    def _fetch_manifest(self, version: str) -> None:
        try:
            content = self._bucket.read(self._key(version, MANIFEST))
        except FileNotFoundError as exc:
            raise self._missing(f"{self.name}{version} is gone") from exc
        if not hashlib.sha256(content).hexdigest().startswith(version.rpartition("-")[2]):
            raise self._damaged(f"{version}: {MANIFEST} has changed since it was written")
        path = self.root / version / MANIFEST
        aside = path.with_name(f".{MANIFEST}-{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            aside.replace(path)
        except OSError as exc:
            raise unwritable(self.root, exc) from exc

    def _fetch(self, version: str, name: str, sealed: _Sealed) -> None:
        path = self.root / version / name
        try:
            whole = self._bucket.fetch(self._key(version, name), path, sha256=sealed.sha256, n_bytes=sealed.n_bytes)
        except FileNotFoundError as exc:
            if self._is_there(version, self._notes()[0]):
                raise self._damaged(f"{version}: {name} is missing") from exc
            raise self._missing(f"{self.name}{version} was removed while it was fetched") from exc
        except OSError as exc:
            raise unwritable(self.root, exc) from exc
        if not whole:
            raise self._damaged(f"{version}: {name} has changed since it was written (sha256 differs)")

    def _let_go(self, wanted: str) -> None:
        """Make room: neither wanted nor live nor the way back, and not asked for within an hour."""
        kept = {wanted, *self.promotion_log().lineage()[-2:]}
        for directory in self.root.iterdir():
            if VERSION.fullmatch(directory.name) and directory.name not in kept:
                try:
                    if directory.stat().st_mtime < time.time() - _KEPT_HERE_S:
                        shutil.rmtree(directory, ignore_errors=True)
                except FileNotFoundError:
                    pass  # another process makes room too
