"""What lies where in LOOKALIKE_HOME, beside bundles and snapshots."""

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from shared.errors import CatalogueUnusable
from shared.settings import Settings

DEMO = "demo-catalogue"
NAMED_CATALOGUE = "catalogue"  # file that holds the path of the catalogue used last
_LIVE_PHOTOS = "photos"


def catalogue_directory(settings: Settings) -> Path:
    """The catalogue that is named, else the one used last, else the demo's place, drawn or not.

    Raises:
        CatalogueUnusable: the one used last is gone.
    """
    named = settings.home / NAMED_CATALOGUE
    if settings.catalogue is not None or not named.is_file():
        return settings.catalogue or settings.home / DEMO
    directory = Path(named.read_text().strip())
    if not directory.is_dir():
        raise CatalogueUnusable(f"the catalogue used last, {directory}, is gone; name one with CATALOGUE=DIR")
    return directory


def sweep_live_photos(home: Path, wanted: Collection[str], *, older_than_s: float = 86_400) -> int:
    """Remove the photos put live that nobody needs any more; returns how many.

    Args:
        wanted: the SHA-256 of all that somebody needs.
        older_than_s: younger ones stay, because their change may be yet to be written.
    """
    swept = 0
    for path in (home / _LIVE_PHOTOS).glob("*/*"):
        with suppress(FileNotFoundError):  # somebody else sweeps too
            if path.stem not in wanted and path.stat().st_mtime < time.time() - older_than_s:
                path.unlink()
                swept += 1
    return swept


def live_photo(home: Path, sha256: str) -> Path:
    """Where the working copy of a photo that came by PUT lies, a PNG, named by the SHA-256 of the file."""
    return home / _LIVE_PHOTOS / sha256[:2] / f"{sha256}.png"
