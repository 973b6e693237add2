"""Files and objects by their addresses: on disk, or in an object store."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from shared.artifacts.bucket import Bucket


class Stored(NamedTuple):
    """What a listing says of a file or an object.

    Attributes:
        key: its name below what was listed.
        n_bytes: its size.
        modified_at: by the store's clock, seconds since the epoch.
        etag: changes when an object is written; empty for a file.
    """

    key: str
    n_bytes: int
    modified_at: float
    etag: str


@dataclass(frozen=True)
class ObjectFile:
    """An object that is read like a `Path`.

    Every method raises StoreUnavailable when the store does not answer or refuses.
    """

    bucket: "Bucket"
    key: str

    def read_bytes(self) -> bytes:
        """Its content.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self.bucket.read(self.key)

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self.bucket.has(self.key)

    def stat(self) -> Stored:
        """Its size, time and tag.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self.bucket.stat(self.key)

    def fetch(self, path: Path, *, sha256: str, n_bytes: int) -> bool:
        """Download it to a file of this machine; see `Bucket.fetch`."""
        return self.bucket.fetch(self.key, path, sha256=sha256, n_bytes=n_bytes)

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.bucket.url}/{self.key}"

    def __truediv__(self, name: str) -> Self:
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))


def state_of(file: Path | ObjectFile) -> str:
    """A text that changes when a file does, found without reading the file.

    Raises:
        OSError, StoreUnavailable: the file is not there, or cannot be seen.
    """
    found = file.stat()
    return f"{file}\0{found.etag}" if isinstance(found, Stored) else f"{file}\0{found.st_mtime_ns}\0{found.st_size}"
