"""Catalogue overrides: changes of the live index that a reindex keeps although the catalogue differs, and for how long.

The later change wins. A photo that was put or deleted live stays so, reindex after reindex, as long as its catalogue
entry is the same as when the change was first compacted. Once the entry changes, the catalogue counts again and the
override is dropped. Each snapshot has its overrides in a JSON file of its own.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from shared.attributes.schema import AttributeSchema, as_payload, of_payload
from shared.attributes.values import fitting_values
from shared.catalogue.categories import CataloguePhoto
from shared.changes.log import BEGINNING, Change, entry_order
from shared.errors import ArtifactError, IndexDamaged
from shared.exhaustion import raise_exhaustion

OVERRIDES = "standing.json"
ABSENT = "absent"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class OverridePhoto(_Value):
    """The photo of an image that was put live."""

    listing_id: str
    category: int  # position in the categories of the model
    sha256: str  # of its file, see `shared.artifacts.home.live_photo`
    payload: str = ""  # the attributes as JSON


class CatalogueOverride(_Value):
    """One image that was put or deleted live."""

    sequence: int  # of the change
    catalogue_said: str  # digest of its catalogue entry when the change was first compacted, or ABSENT
    attributes_said: str = ""  # likewise of the attributes that the catalogue had for its listing; empty: none
    photo: OverridePhoto | None  # None: the image was deleted


class Known(NamedTuple):
    """The embedding of a photo, made when it was put."""

    vector: npt.NDArray[np.float32]  # (dim,)
    scores: npt.NDArray[np.float32]  # (n_categories,)


@dataclass(frozen=True)
class Compacted:
    """A catalogue with the live changes compacted into it.

    Attributes:
        photos: those of the catalogue in its order, then those put live in the order of their acceptance.
        overrides: in force, by image id.
        known: embeddings from the log, by the photo's sha256.
        news: whether a new snapshot must be written even if its photos are the same. Otherwise the log could never be
            truncated past changes without effect, and an override that has ended would come back.
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
    schema: AttributeSchema | None = None,
) -> Compacted:
    """Compact the live changes into a catalogue.

    Args:
        catalogue: with the sha256 of each photo.
        overrides: of the snapshot that the entries come after, by image id.
        entries: of the change log, in its order.
        storage: where the files of photos put live are.
        fingerprint: of the model that the new snapshot is for; embeddings by another are not used.
        schema: of the catalogue: what photos were put with and no longer fits it is left out; None: all is taken.
    """
    entry_digests = {photo.image_id: _entry_digest(photo) for photo in catalogue}
    payloads = {photo.listing_id: photo.payload for photo in catalogue}
    merged: dict[str, CatalogueOverride] = dict(overrides)
    known: dict[str, Known] = {}
    for entry in entries:
        image_id, photo = entry.image_id, entry.photo
        if image_id in merged and entry.sequence < merged[image_id].sequence:
            continue
        kept = None
        if photo:
            kept = OverridePhoto(
                listing_id=photo.listing_id, category=photo.category, sha256=photo.sha256, payload=photo.payload
            )
            if photo.fingerprint == fingerprint:
                known[photo.sha256] = Known(photo.vector, photo.scores)
        merged[image_id] = CatalogueOverride(
            sequence=entry.sequence,
            catalogue_said=entry_digests.get(image_id, ABSENT),
            photo=kept,
            attributes_said=_digest_of(payloads.get(photo.listing_id, "")) if photo else "",
        )
    in_force = {
        image_id: one for image_id, one in merged.items() if one.catalogue_said == entry_digests.get(image_id, ABSENT)
    }
    photos = [photo for photo in catalogue if photo.image_id not in in_force]
    photos += _photos_put(in_force, payloads, storage, schema)
    # The deletion of an image that the catalogue does not have needs no override.
    kept_overrides = {i: one for i, one in in_force.items() if one.photo or one.catalogue_said != ABSENT}
    return Compacted(photos, kept_overrides, known, news=bool(entries) or kept_overrides != dict(overrides))


def _photos_put(
    in_force: Mapping[str, CatalogueOverride],
    payloads: Mapping[str, str],
    storage: Location,
    schema: AttributeSchema | None,
) -> Iterator[CataloguePhoto]:
    """Yield the photos that were put live, in the order of their acceptance.

    Args:
        in_force: overrides by image id.
        payloads: the catalogue's attributes by listing id.
        storage, schema: as of `compact`.
    """
    shared: dict[str, str] = {}  # by listings that the catalogue does not have: what the last photo was put with
    put = sorted((one.sequence, image_id, one.photo) for image_id, one in in_force.items() if one.photo)
    for _, image_id, photo in put:
        payload = _payload(in_force[image_id], photo, payloads.get(photo.listing_id, ""), schema)
        if photo.listing_id not in payloads:
            payload = shared[photo.listing_id] = payload or shared.get(photo.listing_id, "")
        file = live_photo(storage, photo.sha256)
        yield CataloguePhoto(image_id, photo.listing_id, photo.category, file, photo.sha256, payload)


def compacted_by_all(snapshots: Iterable[IndexManifest]) -> str:
    """Return the last entry of the change log that all of these snapshots have compacted."""
    return min((snapshot.compacted_through for snapshot in snapshots), key=entry_order, default=BEGINNING)


_FILE = TypeAdapter(dict[str, CatalogueOverride])


def write_overrides(directory: Path, overrides: Mapping[str, CatalogueOverride]) -> None:
    """Write the overrides of a snapshot, by image id, into its directory."""
    (directory / OVERRIDES).write_bytes(_FILE.dump_json(dict(overrides)))


def read_overrides(directory: Path) -> dict[str, CatalogueOverride]:
    """Read the overrides of a snapshot, by image id; none if it has no such file, as in older versions.

    Args:
        directory: of the snapshot.

    Raises:
        IndexDamaged: the file cannot be read.
    """
    try:
        return _FILE.validate_json((directory / OVERRIDES).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as exc:
        raise_exhaustion(exc)
        raise IndexDamaged(f"{directory.name}: {OVERRIDES} cannot be read") from exc


def last_overrides(store: ArtifactStore, live: str | None) -> tuple[dict[str, CatalogueOverride], str]:
    """Read the overrides that a new snapshot starts from.

    Args:
        store: of the index versions.
        live: the live version. None: there is none, or it cannot be used; then those of the newest readable version
            are taken, so that overrides are not lost with damaged vectors. The log is kept for all versions.

    Returns:
        the overrides by image id, and the last entry of the change log that is compacted in them.

    Raises:
        IndexMissing, IndexDamaged: those of the live version cannot be read.
    """
    if live is not None:
        return read_overrides(store.file(live, OVERRIDES).parent), read_index_manifest(store, live).compacted_through
    for version in reversed(store.versions()):
        with suppress(ArtifactError):
            return last_overrides(store, version)
    return {}, BEGINNING


def _entry_digest(photo: CataloguePhoto) -> str:
    """SHA-256 of what the catalogue has for a photo: content, listing and category."""
    fields = (photo.sha256, photo.listing_id, str(photo.category))
    return hashlib.sha256("\x1f".join(fields).encode()).hexdigest()


def _payload(
    override: CatalogueOverride, photo: OverridePhoto, in_catalogue: str, schema: AttributeSchema | None
) -> str:
    """The attributes of a photo that was put live: its own until the catalogue says other ones of its listing."""
    if not photo.payload or override.attributes_said != _digest_of(in_catalogue):
        return in_catalogue
    return photo.payload if schema is None else as_payload(fitting_values(of_payload(photo.payload), schema))


def _digest_of(payload: str) -> str:
    """Digest of a listing's attributes; empty for none."""
    return hashlib.sha256(payload.encode()).hexdigest() if payload else ""
