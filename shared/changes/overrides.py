"""Standing decisions: which live changes a snapshot holds against its catalogue, and for how long.

The later word wins. A photo put or deleted live stays so, reindex after reindex, for as long as the catalogue says of
it what it said when the change was first folded in; once it says something else, the catalogue is obeyed again and the
decision forgotten. Pure but for the file that lies beside each snapshot; knows no Redis.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from shared.artifacts import Location
from shared.artifacts.home import live_photo
from shared.artifacts.snapshots import IndexManifest, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CataloguePhoto
from shared.changes.log import BEGINNING, Change, entry_order
from shared.errors import ArtifactError, IndexDamaged

OVERRIDES = "standing.json"
ABSENT = "absent"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class OverridePhoto(_Value):
    listing_id: str
    category: int  # position in CATEGORIES
    sha256: str  # of its file, see `shared.artifacts.home.live_photo`


class CatalogueOverride(_Value):
    """What was decided live of one image."""

    sequence: int  # of the change
    catalogue_said: str  # when the change was first folded
    photo: OverridePhoto | None  # None: it was deleted


class Known(NamedTuple):
    """What the model gave for a photo when it was put."""

    vector: npt.NDArray[np.float32]  # (dim,)
    scores: npt.NDArray[np.float32]  # (13,)


@dataclass(frozen=True)
class Compacted:
    """A catalogue with the live changes in it.

    Attributes:
        photos: those of the catalogue in its order, then those put live in the order of their acceptance.
        standing: decisions in force, by image id.
        known: by sha256, for photos the log has embeddings of.
        news: the snapshot has to be written anew even if its photos are the same, or the log would never be rid of
            changes that came to nothing, and a decision that is over would come back.
    """

    photos: list[CataloguePhoto]
    overrides: dict[str, CatalogueOverride]
    known: dict[str, Known]
    news: bool


def compact(
    catalogue: Sequence[CataloguePhoto],
    overrides: Mapping[str, CatalogueOverride],
    entries: Sequence[Change],
    *,
    storage: Location,
    fingerprint: str,
) -> Compacted:
    """Put the live changes into a catalogue.

    Args:
        catalogue: with the sha256 of each photo.
        standing: the decisions of the snapshot that the entries came after.
        entries: of the change log, in its order.
        storage: where photos put live lie.
        fingerprint: of the model whose embeddings are of use.
    """
    says = {photo.image_id: _said(photo) for photo in catalogue}
    decided: dict[str, CatalogueOverride] = dict(overrides)
    known: dict[str, Known] = {}
    for entry in entries:
        image_id, photo = entry.image_id, entry.photo
        if image_id in decided and entry.sequence < decided[image_id].sequence:
            continue
        kept = None
        if photo:
            kept = OverridePhoto(listing_id=photo.listing_id, category=photo.category, sha256=photo.sha256)
            if photo.fingerprint == fingerprint:
                known[photo.sha256] = Known(photo.vector, photo.scores)
        decided[image_id] = CatalogueOverride(
            sequence=entry.sequence, catalogue_said=says.get(image_id, ABSENT), photo=kept
        )
    in_force = {image_id: one for image_id, one in decided.items() if one.catalogue_said == says.get(image_id, ABSENT)}
    put = sorted((one.sequence, image_id, one.photo) for image_id, one in in_force.items() if one.photo)
    photos = [photo for photo in catalogue if photo.image_id not in in_force]
    photos += [
        CataloguePhoto(image_id, photo.listing_id, photo.category, live_photo(storage, photo.sha256), photo.sha256)
        for _, image_id, photo in put
    ]
    # That what the catalogue does not have is deleted need not be remembered.
    kept_standing = {i: one for i, one in in_force.items() if one.photo or one.catalogue_said != ABSENT}
    return Compacted(photos, kept_standing, known, news=bool(entries) or kept_standing != dict(overrides))


def compacted_by_all(snapshots: Iterable[IndexManifest]) -> str:
    """The last entry of the log that none of these snapshots needs any more."""
    return min((snapshot.compacted_through for snapshot in snapshots), key=entry_order, default=BEGINNING)


_FILE = TypeAdapter(dict[str, CatalogueOverride])


def write_overrides(directory: Path, overrides: Mapping[str, CatalogueOverride]) -> None:
    """Write the decisions of a snapshot into its directory."""
    (directory / OVERRIDES).write_bytes(_FILE.dump_json(dict(overrides)))


def read_overrides(directory: Path) -> dict[str, CatalogueOverride]:
    """The decisions of a snapshot; none where it was made before there were any.

    Raises:
        IndexDamaged: the file is not what was written.
    """
    try:
        return _FILE.validate_json((directory / OVERRIDES).read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as exc:
        raise IndexDamaged(f"{directory.name}: {OVERRIDES} cannot be read") from exc


def last_overrides(store: ArtifactStore, live: str | None) -> tuple[dict[str, CatalogueOverride], str]:
    """The decisions that a new snapshot begins with, and the last entry of the change log that is in them.

    Args:
        live: the live version. None: it cannot be used; what was decided must not be lost with its vectors, and
            any version will do, because the log is kept for all of them.

    Raises:
        IndexMissing, IndexDamaged: the live version's cannot be read.
    """
    if live is not None:
        return read_overrides(store.file(live, OVERRIDES).parent), read_index_manifest(store, live).compacted_through
    for version in reversed(store.versions()):
        with suppress(ArtifactError):
            return last_overrides(store, version)
    return {}, BEGINNING


def _said(photo: CataloguePhoto) -> str:
    fields = (photo.sha256, photo.listing_id, str(photo.category))
    return hashlib.sha256("\x1f".join(fields).encode()).hexdigest()
