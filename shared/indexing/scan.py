"""What lies in a catalogue's directory, and the SHA-256 of its photos, read again only where a file has changed.

Like a version control system's index: a file whose size, modification time and inode are as remembered is taken to be
as it was. One that was modified within two seconds before it was read is read again the next time, because a second
change within the clock's grain would not show.
"""

import hashlib
import json
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

_READERS = 4
_RACY_NS = 2_000_000_000
_FORMAT = 1


class Stat(NamedTuple):
    """What tells that a file is as it was."""

    size: int
    mtime_ns: int
    inode: int


class Scan(NamedTuple):
    """The files of a catalogue.

    Attributes:
        tables: as they were.
        photos: path and state by lower-cased name without ending; of twins the first in order of name counts.
        signature: changes when a file is added, removed or written.
        newest_ns: when the last of them was written.
    """

    tables: dict[Path, Stat]
    photos: dict[str, tuple[str, Stat]]
    signature: str
    newest_ns: int


def scan(tables: list[Path], folder: Path) -> Scan:
    """Look at every file without opening any."""
    of_tables = {path: _stat(path.stat()) for path in tables}
    with os.scandir(folder) as entries:
        files = sorted(
            (entry.path, _stat(entry.stat()))
            for entry in entries
            if entry.name.lower().endswith((".jpg", ".jpeg")) and entry.is_file()
        )
    # No objects of pathlib: making them takes longer than asking the file system.
    photos = {os.path.basename(path).rpartition(".")[0].lower(): (path, stat) for path, stat in reversed(files)}
    everything = (sorted((str(path), *stat) for path, stat in of_tables.items()), files)
    signature = hashlib.blake2b(repr(everything).encode(), digest_size=16).hexdigest()
    newest_ns = max(stat.mtime_ns for stat in (*of_tables.values(), *(stat for _, stat in files)))
    return Scan(of_tables, photos, signature, newest_ns)


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

    def read(self, photos: list[tuple[str, Stat]]) -> list[str]:
        """SHA-256 of each file's bytes, hexadecimal; empty for a file that cannot be read."""
        now_ns = time.time_ns()
        found = {path: known[1] for path, stat in photos if (known := self._known.get(path)) and known[0] == stat}
        unknown = [path for path, _ in photos if path not in found]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="digest") as pool:
            found |= zip(unknown, pool.map(_digest, unknown), strict=True)
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


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _stat(stat: os.stat_result) -> Stat:
    return Stat(stat.st_size, stat.st_mtime_ns, stat.st_ino)
