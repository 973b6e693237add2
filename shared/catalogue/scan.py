"""Lists a catalogue's files and computes the SHA-256 of its photos, reading only files that changed since last time.

As in Git's index, a file whose size, modification time and inode are unchanged is taken to be unchanged; for an object
in an object store, the ETag takes the inode's place. A file that was modified within two seconds before it was read is
read again the next time, because a second change within the clock's resolution would not show.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from shared.artifacts.bucket import Bucket
from shared.artifacts.files import ObjectFile, Stored
from shared.atomic_files import write_atomically
from shared.catalogue.categories import PhotoFile
from shared.exhaustion import raise_exhaustion

_JPEG_ENDINGS = (".jpg", ".jpeg")
# Of the files that are read; GIF, BMP and TIFF are not what photos are kept in.
ENDINGS = (*_JPEG_ENDINGS, ".jfif", ".png", ".webp", ".avif", ".heic", ".heif")
_NO_FOLDERS = (".", "@eaDir", "__MACOSX")  # begin the names of those that systems keep for themselves
_READERS = 4
_STORE_READERS = 32  # reading from an object store is waiting, not work
_RACY_NS = 2_000_000_000
_FORMAT = 1
_RULES = 9  # raised when unchanged files are read as other photos or categories than before


class Stat(NamedTuple):
    """The metadata by which a file counts as unchanged.

    Attributes:
        size: in bytes.
        mtime_ns: modification time, nanoseconds since the epoch.
        identity: the inode of a file, the ETag of an object.
    """

    size: int
    mtime_ns: int
    identity: int | str


class Scan(NamedTuple):
    """A listing of the files of a catalogue.

    Attributes:
        tables: metadata of the tables, by address.
        photos: address and metadata of the photos, by name without folder and ending; of files with the same name in
            one folder, the first in alphabetical order counts, .jpg and .jpeg before the others.
        others: names of the files with other endings, by name without ending.
        signature: digest of the metadata; changes when a file is added, removed or written, or the way to read them.
        newest_ns: latest modification time, nanoseconds since the epoch.
        folder: address of the folder with the photos.
        repeated: addresses of the files whose name is there in several folders, by that name.
        beside: addresses of those that the first of their name in their folder goes before, by that name.
        closed: addresses of the folders in it that may not be read.
        root: address of the catalogue.
        files: metadata of all photos, in that folder or elsewhere in the catalogue, by address.
        links: addresses of those that are links.
        has_folder: whether there is a folder with the photos.
    """

    tables: dict[str, Stat]
    photos: dict[str, tuple[str, Stat]]
    others: dict[str, str]
    signature: str
    newest_ns: int
    folder: str = "images"
    repeated: Mapping[str, list[str]] = MappingProxyType({})
    beside: Mapping[str, list[str]] = MappingProxyType({})
    closed: tuple[str, ...] = ()
    root: str = ""
    files: Mapping[str, Stat] = MappingProxyType({})
    links: frozenset[str] = frozenset()
    has_folder: bool = True


def scan(root: Path | Bucket, tables: Sequence[Path | ObjectFile], folder: Path | ObjectFile | None) -> Scan:
    """List a catalogue's files with their metadata, without opening any.

    Links to folders are not followed, and folders that systems keep for themselves passed over.

    Args:
        root: the catalogue; a table may name photos by path wherever they are in it.
        tables: its tables.
        folder: with its photos, in subfolders too; files of other endings are ignored. None: there is none.

    Raises:
        OSError, StoreUnavailable: the files cannot be listed.
    """
    of_tables = {str(table): _stat_of(table.stat()) for table in tables}
    listed, beside = _Listing(), _Listing()
    if isinstance(root, Path):
        beside.add_from_disk(str(root), without=str(folder))
        if folder is not None:
            listed.add_from_disk(str(folder))
    else:
        for stored in root.below(""):
            is_in_folder = isinstance(folder, ObjectFile) and stored.key.startswith(f"{folder.key}/")
            (listed if is_in_folder else beside).add_stored(root.url, stored)
    elsewhere = sorted(file for file in beside.found if file[0].lower().endswith(ENDINGS))
    files = sorted((address, stat) for address, stat in listed.found if address.lower().endswith(ENDINGS))
    photos, repeated, others = _by_name(files)
    names = (os.path.basename(path) for path, _ in listed.found if not path.lower().endswith(ENDINGS))
    everything = (_RULES, sorted((path, *stat) for path, stat in of_tables.items()), files, elsewhere)
    return Scan(
        of_tables,
        photos,
        {name.rpartition(".")[0] or name: name for name in names},
        hashlib.blake2b(repr(everything).encode(), digest_size=16).hexdigest(),
        max(stat.mtime_ns for stat in (*of_tables.values(), *(stat for _, stat in (*files, *elsewhere)))),
        f"{root}/images" if folder is None else str(folder),
        repeated,
        others,
        tuple(listed.closed),
        str(root),
        dict((*files, *elsewhere)),
        frozenset((*listed.links, *beside.links)),
        folder is not None,
    )


def _by_name(
    files: Sequence[tuple[str, Stat]],
) -> tuple[dict[str, tuple[str, Stat]], dict[str, list[str]], dict[str, list[str]]]:
    """The first file of each name, and the addresses of those that are there in several folders, or in one."""
    # Plain strings, no Path objects: creating those takes longer than the file system does.
    first_first = sorted(files, key=lambda file: (not file[0].lower().endswith(_JPEG_ENDINGS), file))
    photos: dict[str, tuple[str, Stat]] = {}
    repeated: dict[str, list[str]] = {}
    beside: dict[str, list[str]] = {}
    for path, stat in first_first:
        folder, _, file_name = path.rpartition("/")
        name = file_name.rpartition(".")[0]
        first = photos.setdefault(name, (path, stat))[0]
        if first is not path and first.rpartition("/")[0] != folder:
            repeated.setdefault(name, [first]).append(path)
        elif first is not path:
            beside.setdefault(name, []).append(path)
    return photos, repeated, beside


class _Listing:
    """Collects the files of folders.

    Attributes:
        found: address and metadata of each file.
        links: addresses of those that are links.
        closed: addresses of the subfolders that may not be read.
    """

    def __init__(self) -> None:
        self.found: list[tuple[str, Stat]] = []
        self.links: list[str] = []
        self.closed: list[str] = []

    def add_stored(self, url: str, stored: Stored) -> None:
        """Add an object of the bucket with this URL."""
        if not any(name.startswith(_NO_FOLDERS) for name in stored.key.split("/")[:-1]):
            self.found.append((f"{url}/{stored.key}", _stat_of(stored)))

    def add_from_disk(self, top: str, without: str = "") -> None:
        """List a folder of this machine, but for the one that is named."""
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(folder)
            except (FileNotFoundError, PermissionError) as exc:
                if folder == top:
                    raise
                if isinstance(exc, PermissionError):
                    self.closed.append(folder)
                continue
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith(_NO_FOLDERS) and entry.path != without:
                            folders.append(entry.path)
                    elif (found := _stat_of_entry(entry)) is not None:
                        self.found.append((entry.path, found))
                        if entry.is_symlink():
                            self.links.append(entry.path)


def _stat_of_entry(entry: "os.DirEntry[str]") -> Stat | None:
    """The metadata of a file; None: it is none, was removed meanwhile, or is a link that leads round in a circle."""
    try:
        return _stat_of(entry.stat()) if entry.is_file() else None
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            return None
        raise


class PhotoDigests:
    """A cache of photo digests, so that unchanged files are not read again.

    Args:
        file: JSON file that keeps the cache for the next process; None: in memory only. A damaged file is ignored.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, tuple[Stat, str]] = {}
        self._signature, self._catalogue_digest = "", ""
        if file is not None:
            self._load(file)

    def catalogue_digest(self, found: Scan) -> str | None:
        """Return the remembered digest of the whole catalogue; None if a file in `found` has changed since."""
        return self._catalogue_digest if found.signature == self._signature else None

    def read(self, photos: list[tuple[str, Stat]], open_file: Callable[[str], PhotoFile] = Path) -> list[str]:
        """Return the SHA-256 of each photo, reading only files that are not in the cache.

        Args:
            photos: address and metadata of each file.
            open_file: returns the file of an address.

        Returns:
            hexadecimal digests in the order of `photos`; empty text for a file that cannot be read.

        Raises:
            StoreUnavailable: the object store does not answer.
            OSError: this process may open no more files.
        """
        now_ns = time.time_ns()
        found = {path: known[1] for path, stat in photos if (known := self._known.get(path)) and known[0] == stat}
        unknown = [path for path, _ in photos if path not in found]
        n_threads = _STORE_READERS if any("://" in path for path in unknown) else _READERS
        with ThreadPoolExecutor(n_threads, thread_name_prefix="digest") as pool:
            found |= zip(unknown, pool.map(lambda path: _digest(open_file(path)), unknown), strict=True)
        self._known = {
            path: (stat, found[path]) for path, stat in photos if found[path] and stat.mtime_ns < now_ns - _RACY_NS
        }
        return [found[path] for path, _ in photos]

    def remember(self, found: Scan, catalogue_digest: str) -> None:
        """Save the cache with the digest of the whole catalogue; on a full disk, files are read again next time.

        Args:
            found: the listing that the digest belongs to.
            catalogue_digest: empty if a photo could not be read, because it may be readable the next time.
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
        with suppress(OSError), write_atomically(self._file, many_writers=True) as temporary:
            temporary.write_text(json.dumps(content))

    def _load(self, file: Path) -> None:
        try:
            content = json.loads(file.read_bytes())
            if content["format"] != _FORMAT:
                return
            self._known = {path: (Stat(*entry[:3]), entry[3]) for path, entry in content["photos"].items()}
            self._signature, self._catalogue_digest = content["signature"], content["catalogue"]
        except (OSError, ValueError, LookupError, TypeError):
            self._known = {}


def _digest(file: PhotoFile) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as exc:
        raise_exhaustion(exc)
        return ""


def _stat_of(found: os.stat_result | Stored) -> Stat:
    if isinstance(found, os.stat_result):
        return Stat(found.st_size, found.st_mtime_ns, found.st_ino)
    return Stat(found.n_bytes, int(found.modified_at * 1e9), found.etag)
