"""The artifact store backend of a bucket: files and versions below a prefix.

The files of a version are uploaded first and its manifest last: without it there is no such version. Promotions and
removals are in one small object that is changed by compare-and-swap.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.artifacts.backend import MANIFEST, VERSION, Backend, Choose, Decide, new_version
from shared.artifacts.bucket import Bucket
from shared.artifacts.files import ObjectFile, Stored
from shared.artifacts.promotion_log import PromotionLog
from shared.errors import ArtifactError, StoreUnavailable

_PROMOTION_LOG = "PROMOTIONS.json"
_TRIES = 100


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


class BucketBackend(Backend):
    """The objects of one kind in a bucket.

    Args:
        kind: the part of their keys that they share; empty for all of the bucket's prefix.
        damaged: error for a promotion log that cannot be read.
    """

    is_local = False

    def __init__(self, bucket: Bucket, kind: str, *, damaged: type[ArtifactError] = ArtifactError) -> None:
        self.root = bucket.cache / kind
        self._prefix = f"{kind}/" if kind else ""
        self.name = f"{bucket.url}/{self._prefix}"
        self._bucket = bucket
        self._damaged = damaged

    @property
    def place(self) -> str:
        return self.name

    # --- files ---

    def at(self, name: str) -> ObjectFile:
        return self._bucket / f"{self._prefix}{name}"

    def write(self, name: str, content: bytes) -> None:
        self._bucket.write(self._prefix + name, content)

    def top(self) -> list[str]:
        return self._bucket.top(self._prefix)

    def entries(self, directory: str = "") -> list[Stored]:
        found = self._bucket.below((self._prefix + directory).rstrip("/"))
        return [stored._replace(key=stored.key.removeprefix(self._prefix)) for stored in found]

    def remove(self, names: Collection[str]) -> None:
        self._bucket.remove([self._prefix + name for name in names])

    def sweep(self, older_than_s: float, *, keep: Callable[[str], bool] = lambda name: False) -> int:
        old = [stored.key for stored in self.entries() if stored.modified_at < time.time() - older_than_s]
        swept = [name for name in old if not keep(name)]
        self.remove(swept)
        return len(swept)

    # --- versions ---

    def versions(self) -> list[str]:
        sealed = {version for version, name in self._files_of_versions() if name == MANIFEST}
        return sorted(version for version in sealed - {*self._notes()[0].removed} if VERSION.fullmatch(version))

    def has(self, version: str) -> bool:
        if not VERSION.fullmatch(version) or version in self._notes()[0].removed:
            return False
        return self.at(f"{version}/{MANIFEST}").is_file()

    def pointer(self) -> str | None:
        return self._bucket.lately(self.name, lambda: self.promotion_log().live)

    def promotion_log(self) -> PromotionLog:
        return self._notes()[0].promotion_log

    def change(self, decide: Decide) -> PromotionLog:
        return self._swap(
            lambda notes: notes.model_copy(update={"promotion_log": decide(notes.promotion_log)})
        ).promotion_log

    def seal(self, draft: Path, digest: str) -> str:
        version = new_version(self.versions(), digest)
        for path in sorted(draft.iterdir()):
            if path.name != MANIFEST:
                self._bucket.upload(f"{self._prefix}{version}/{path.name}", path)
        # Only now there is such a version; what a kill leaves before is swept by a later writer.
        self.write(f"{version}/{MANIFEST}", (draft / MANIFEST).read_bytes())
        draft.rename(self.root / version)
        return version

    def prune(self, choose: Choose) -> list[str]:
        there = self.versions()
        chosen: list[str] = []

        def change(notes: _Notes) -> _Notes:
            chosen[:] = choose(notes.promotion_log, there)
            return notes.model_copy(update={"removed": (*notes.removed, *chosen)})

        for version in self._swap(change).removed:  # those too that somebody who was killed left
            self.remove([stored.key for stored in self.entries(version)])
            shutil.rmtree(self.root / version, ignore_errors=True)
        left = {version for version, _ in self._files_of_versions()}
        self._swap(lambda notes: notes.model_copy(update={"removed": tuple(v for v in notes.removed if v in left)}))
        return chosen

    def _files_of_versions(self) -> list[tuple[str, str]]:
        keys = [stored.key for stored in self.entries() if stored.key.count("/") == 1]
        return [(version, name) for version, _, name in (key.partition("/") for key in keys)]

    def _notes(self) -> tuple[_Notes, str | None]:
        """As they are now, with the tag to swap them by; None while there are none."""
        try:
            content, tag = self._bucket.read_tagged(self._prefix + _PROMOTION_LOG)
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
                self._bucket.swap(self._prefix + _PROMOTION_LOG, content, tag=tag)
                or self._notes()[0].writer == after.writer
            ):
                self._bucket.forget(self.name)
                return after
            time.sleep(secrets.randbelow(10 * min(tries + 1, 20)) / 1000)  # so that two do not go on in step
        raise StoreUnavailable(f"{self.name}{_PROMOTION_LOG} is changed by others all the time; try again")
