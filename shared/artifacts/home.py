"""Paths of an installation beside bundles and snapshots: the catalogue, and the photos that came by PUT."""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, overload

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.artifacts.files import ObjectFile
from shared.errors import CatalogueUnusable
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.artifacts.bucket import Bucket

DEMO = "demo-catalogue"
_NAMED_CATALOGUE = "catalogue"  # file that holds the address of the catalogue used last
_LIVE_PHOTOS = "photos"


def catalogue_location(settings: Settings) -> Location:
    """The catalogue that the settings name, else the one used last, else that of the demo, whether or not it is drawn.

    Raises:
        CatalogueUnusable: the one used last is gone.
        StoreUnavailable: which one that was cannot be read.
    """
    named = settings.catalogue or _catalogue_used_last(settings)
    if named is None:
        return settings.home / DEMO
    location = settings.buckets.location(named)
    if settings.catalogue is None and isinstance(location, Path) and not location.is_dir():
        raise CatalogueUnusable(
            f"the catalogue used last, {location}, is gone, or not on this machine; name one with CATALOGUE=DIR"
        )
    return location


def remember_catalogue(settings: Settings, location: Location) -> None:
    """Make a catalogue the one that is served until another is named.

    Raises:
        ArtifactUnwritable, StoreUnavailable: it cannot be noted.
    """
    files = backend_at(settings.storage)
    if location == settings.home / DEMO:
        files.remove([_NAMED_CATALOGUE])
    else:
        files.write(_NAMED_CATALOGUE, f"{location}\n".encode())
    if not isinstance(settings.storage, Path):
        settings.storage.forget(_NAMED_CATALOGUE)


def _catalogue_used_last(settings: Settings) -> str | None:
    def read() -> str | None:
        try:
            return (settings.storage / _NAMED_CATALOGUE).read_bytes().decode().strip()
        except FileNotFoundError:
            return None

    if isinstance(settings.storage, Path):
        return read()
    return settings.storage.lately(_NAMED_CATALOGUE, read)


def keep_live_photo(storage: Location, file: bytes) -> str:
    """Write the working copy of a photo that came by PUT to the storage, and return its SHA-256.

    Raises:
        ArtifactUnwritable, StoreUnavailable: it cannot be written.
    """
    sha256 = hashlib.sha256(file).hexdigest()
    # Also where it lies already: a new file is not swept before the log speaks of it.
    backend_at(storage, _LIVE_PHOTOS).write(_name(sha256), file)
    return sha256


@overload
def live_photo(storage: Path, sha256: str) -> Path: ...
@overload
def live_photo(storage: "Bucket", sha256: str) -> ObjectFile: ...
def live_photo(storage: Location, sha256: str) -> Path | ObjectFile:
    """The working copy of a photo that came by PUT: a PNG, named by the SHA-256 of the file."""
    return storage / _LIVE_PHOTOS / _name(sha256)


def indexed_photo(settings: Settings, path: str, sha256: str) -> "Path | ObjectFile":
    """Find the file of a photo of an index snapshot: in the catalogue, or that of a photo that came by PUT.

    Args:
        path: as the snapshot has it.
        sha256: of the file.

    Returns:
        a file that may be gone.
    """
    with suppress(CatalogueUnusable):
        inside = "://" not in path
        file = catalogue_location(settings) / path if inside else settings.buckets.file(path)
        if file.is_file():
            return file
    return live_photo(settings.storage, sha256)


def sweep_live_photos(storage: Location, wanted: Collection[str], *, older_than_s: float = 86_400) -> int:
    """Remove the photos that came by PUT and that nobody needs any more; returns how many.

    Args:
        wanted: the SHA-256 of all that somebody needs.
        older_than_s: younger ones stay, because their change may be yet to be written.
    """
    return backend_at(storage, _LIVE_PHOTOS).sweep(older_than_s, keep=lambda name: PurePosixPath(name).stem in wanted)


def _name(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}.png"
