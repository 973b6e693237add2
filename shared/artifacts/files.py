"""Files by name under one directory or prefix, each written whole or not at all. Knows nothing of what is in them."""

import os
import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from shared.artifacts import Location
from shared.artifacts.addresses import SCHEME
from shared.artifacts.backend import unwritable

if TYPE_CHECKING:
    from shared.artifacts.bucket import Bucket

_ASIDE = ".tmp"


@dataclass(frozen=True)
class ObjectFile:
    """An object that is read like a file."""

    bucket: "Bucket"
    key: str

    def read_bytes(self) -> bytes:
        """Its content.

        Raises:
            FileNotFoundError, StoreUnavailable: as of the bucket.
        """
        return self.bucket.read(self.key)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.bucket.url}/{self.key}"

    def __truediv__(self, name: str) -> Self:
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))


class Buckets:
    """What is found by its address: on disk, or over one connection to each place in an object store.

    Args:
        cache: directory of this machine for what is fetched.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, Bucket] = {}

    def location(self, address: str) -> Location:
        """A directory, or a place in an object store."""
        if not address.startswith(SCHEME):
            return Path(address)
        if address not in self._known:
            from shared.artifacts.bucket import Bucket

            self._known[address] = Bucket(address, self._cache)
        return self._known[address]

    def file(self, address: str) -> Path | ObjectFile:
        """A file by its absolute path, or an object."""
        if not address.startswith(SCHEME):
            return Path(address)
        name, _, key = address.removeprefix(SCHEME).partition("/")
        bucket = self.location(SCHEME + name)
        assert not isinstance(bucket, Path)  # by its scheme
        return ObjectFile(bucket, key)


def file_in(location: Location, name: str) -> Path | ObjectFile:
    """A file of a location."""
    return location / name if isinstance(location, Path) else ObjectFile(location, name)


def names_at(location: Location) -> list[str]:
    """What lies at the top of a location: files and directories, or objects and prefixes."""
    if isinstance(location, Path):
        return sorted(path.name for path in location.iterdir()) if location.is_dir() else []
    return location.top()


def is_there(file: Path | ObjectFile) -> bool:
    return file.is_file() if isinstance(file, Path) else file.bucket.has(file.key)


def state_of(file: Path | ObjectFile) -> str:
    """What changes when a file does, without reading it.

    Raises:
        OSError, StoreUnavailable: it is not there, or cannot be seen.
    """
    if isinstance(file, Path):
        found = file.stat()
        return f"{file}\0{found.st_mtime_ns}\0{found.st_size}"
    return f"{file}\0{file.bucket.look(file.key).etag}"


class Files(Protocol):
    """Names have `/` in them. What cannot be written raises ArtifactUnwritable."""

    def at(self, name: str) -> Path | ObjectFile:
        """A file to be read, be it there or not."""

    def write(self, name: str, content: bytes) -> None: ...

    def has(self, name: str) -> bool: ...

    def names(self, directory: str) -> list[str]:
        """Every file below a directory, in order."""

    def remove(self, names: Collection[str]) -> None:
        """Remove files; those that are not there are passed over."""

    def sweep(self, older_than_s: float, *, keep: Callable[[str], bool] = lambda name: False) -> int:
        """Remove what was written longer ago and need not be kept; returns how many files."""


class DirectoryFiles:
    """Files below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def at(self, name: str) -> Path:
        return self._root / name

    def write(self, name: str, content: bytes) -> None:
        path = self._root / name
        aside = path.with_name(f".{secrets.token_hex(8)}{_ASIDE}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as exc:
            with suppress(OSError):
                aside.unlink()
            raise unwritable(path.parent, exc) from exc

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    def names(self, directory: str) -> list[str]:
        found = (path for path in (self._root / directory).rglob("*") if path.is_file() and path.suffix != _ASIDE)
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def sweep(self, older_than_s: float, *, keep: Callable[[str], bool] = lambda name: False) -> int:
        swept = 0
        for path in sorted(self._root.rglob("*"), reverse=True):  # what is in a directory before the directory
            with suppress(OSError):  # somebody sweeps too or is writing just now, or a directory is not empty
                if path.stat().st_mtime > time.time() - older_than_s:
                    continue
                if path.is_dir():
                    path.rmdir()
                elif not keep(path.relative_to(self._root).as_posix()):
                    path.unlink()
                    swept += 1
        return swept


class BucketFiles:
    """Objects below a prefix, which ends in `/` or is empty."""

    def __init__(self, bucket: "Bucket", prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    def at(self, name: str) -> ObjectFile:
        return ObjectFile(self._bucket, self._prefix + name)

    def write(self, name: str, content: bytes) -> None:
        self._bucket.write(self._prefix + name, content)

    def has(self, name: str) -> bool:
        return self._bucket.has(self._prefix + name)

    def names(self, directory: str) -> list[str]:
        found = self._bucket.below(self._prefix + directory)
        return [stored.key.removeprefix(self._prefix) for stored in found]

    def remove(self, names: Collection[str]) -> None:
        self._bucket.remove([self._prefix + name for name in names])

    def sweep(self, older_than_s: float, *, keep: Callable[[str], bool] = lambda name: False) -> int:
        old = [s for s in self._bucket.below(self._prefix.rstrip("/")) if s.modified_at < time.time() - older_than_s]
        swept = [stored.key for stored in old if not keep(stored.key.removeprefix(self._prefix))]
        self._bucket.remove(swept)
        return len(swept)


def files_in(storage: Location, kind: str = "") -> Files:
    """The files of one kind of an installation, or those at its top."""
    if isinstance(storage, Path):
        return DirectoryFiles(storage / kind)
    return BucketFiles(storage, f"{kind}/" if kind else "")
