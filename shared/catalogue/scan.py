"""What lies in a catalogue's directory, and the SHA-256 of its photos, read again only where a file has changed.

Like a version control system's index: a file whose size, modification time and inode are as remembered is taken to be
as it was; of an object in a store, its tag is what inodes are of files. One that was modified within two seconds before
it was read is read again the next time, because a second change within the clock's grain would not show.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shared.artifacts.files import ObjectFile
from shared.catalogue.categories import PhotoFile

if TYPE_CHECKING:
    from shared.artifacts.bucket import Stored

_READERS = 4
_ASKERS = 32  # of a store, which is waited for rather than worked with
_RACY_NS = 2_000_000_000
_FORMAT = 1


class Stat(NamedTuple):
    """What tells that a file is as it was.

    Attributes:
        identity: the inode of a file, the tag of an object.
    """

    size: int
    mtime_ns: int
    identity: int | str


class Scan(NamedTuple):
    """The files of a catalogue.

    Attributes:
        tables: as they were, by address.
        photos: address and state by lower-cased name without ending; of twins the first in order of name counts.
        signature: changes when a file is added, removed or written.
        newest_ns: when the last of them was written.
    """

    tables: dict[str, Stat]
    photos: dict[str, tuple[str, Stat]]
    signature: str
    newest_ns: int


def scan(tables: Sequence[Path | ObjectFile], folder: Path | ObjectFile) -> Scan:
    """Look at every file without opening any."""
    of_tables = {str(table): _stat(table) for table in tables}
    files = sorted((address, stat) for address, stat in _files(folder) if address.lower().endswith((".jpg", ".jpeg")))
    # No objects of pathlib: making them takes longer than asking the file system.
    photos = {os.path.basename(path).rpartition(".")[0].lower(): (path, stat) for path, stat in reversed(files)}
    everything = (sorted((path, *stat) for path, stat in of_tables.items()), files)
    signature = hashlib.blake2b(repr(everything).encode(), digest_size=16).hexdigest()
    newest_ns = max(stat.mtime_ns for stat in (*of_tables.values(), *(stat for _, stat in files)))
    return Scan(of_tables, photos, signature, newest_ns)


def _files(folder: Path | ObjectFile) -> Iterator[tuple[str, Stat]]:
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:
            yield from ((entry.path, _stat_of(entry.stat())) for entry in entries if entry.is_file())
        return
    for stored in folder.bucket.below(folder.key):
        if "/" not in stored.key.removeprefix(f"{folder.key}/"):
            yield f"{folder.bucket.url}/{stored.key}", _stat_of(stored)


class PhotoDigests:
    """Remembers what photos contain.

    Args:
        file: where it is kept; None: in memory only. What cannot be read there is forgotten.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, tuple[Stat, str]] = {}
        self._signature, self._catalogue_digest = "", ""
        if file is not None:
            self._load(file)

    def catalogue_digest(self, found: Scan) -> str | None:
        """The digest of the whole catalogue, if nothing in it has changed since it was remembered."""
        return self._catalogue_digest if found.signature == self._signature else None

    def read(self, photos: list[tuple[str, Stat]], open_file: Callable[[str], PhotoFile] = Path) -> list[str]:
        """SHA-256 of each file's bytes, hexadecimal; empty for a file that cannot be read.

        Args:
            open_file: gives the file of an address.

        Raises:
            StoreUnavailable: none can be read just now.
        """
        now_ns = time.time_ns()
        found = {path: known[1] for path, stat in photos if (known := self._known.get(path)) and known[0] == stat}
        unknown = [path for path, _ in photos if path not in found]
        n_threads = _ASKERS if any("://" in path for path in unknown) else _READERS
        with ThreadPoolExecutor(n_threads, thread_name_prefix="digest") as pool:
            found |= zip(unknown, pool.map(lambda path: _digest(open_file(path)), unknown), strict=True)
        self._known = {
            path: (stat, found[path]) for path, stat in photos if found[path] and stat.mtime_ns < now_ns - _RACY_NS
        }
        return [found[path] for path, _ in photos]

    def remember(self, found: Scan, catalogue_digest: str) -> None:
        """Keep what was read, and of which catalogue it was; a full disk only costs time later.

        Args:
            catalogue_digest: empty where a photo could not be read, which it may be the next time.
        """
        settled = catalogue_digest and found.newest_ns < time.time_ns() - _RACY_NS
        self._signature, self._catalogue_digest = (found.signature, catalogue_digest) if settled else ("", "")
        if self._file is None:
            return
        content = {
            "format": _FORMAT,
            "signature": self._signature,
            "catalogue": self._catalogue_digest,
            "photos": {path: [*stat, sha256] for path, (stat, sha256) in self._known.items()},
        }
        aside = self._file.with_suffix(f".{secrets.token_hex(4)}.tmp")
        try:
            aside.write_text(json.dumps(content))
            aside.replace(self._file)
        except OSError:
            pass
        finally:
            aside.unlink(missing_ok=True)

    def _load(self, file: Path) -> None:
        try:
            content = json.loads(file.read_text())
            if content["format"] != _FORMAT:
                return
            self._known = {path: (Stat(*entry[:3]), entry[3]) for path, entry in content["photos"].items()}
            self._signature, self._catalogue_digest = content["signature"], content["catalogue"]
        except (OSError, ValueError, LookupError, TypeError):
            self._known = {}


def _digest(file: PhotoFile) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _stat(file: Path | ObjectFile) -> Stat:
    return _stat_of(file.stat() if isinstance(file, Path) else file.bucket.look(file.key))


def _stat_of(found: "os.stat_result | Stored") -> Stat:
    if isinstance(found, os.stat_result):
        return Stat(found.st_size, found.st_mtime_ns, found.st_ino)
    return Stat(found.n_bytes, int(found.modified_at * 1e9), found.etag)
