"""Plans a reindex: compares the catalogue and the live changes with the live snapshot, without writing anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.tables import Catalogue
from shared.changes.overrides import Compacted
from shared.index.vector_index import VectorIndex
from shared.jobs.reindex_contract import ReindexCounts, ReindexMode


@dataclass(frozen=True)
class Plan:
    """The photos of a new snapshot, and where their embeddings come from.

    Attributes:
        catalogue: as it was read.
        compacted: the catalogue with the live changes in it.
        compacted_through: last entry of the change log that is in it.
        photos: one per row, in row order.
        counts: photos by how they differ from the live snapshot.
        live_rows: rows of the live snapshot by sha256, whose embeddings are reused.
        missing: photos to embed, one per sha256 without a known embedding, in row order.
        is_live: the live snapshot holds exactly this already, so nothing needs to be built.
    """

    catalogue: Catalogue
    compacted: Compacted
    compacted_through: str  # the last entry of the change log in it
    photos: Sequence[CataloguePhoto]
    counts: ReindexCounts
    live_rows: Mapping[str, int] = field(default_factory=dict)
    missing: Sequence[CataloguePhoto] = ()
    is_live: bool = False


def make_plan(
    catalogue: Catalogue,
    compacted: Compacted,
    live: VectorIndex | None,
    *,
    fingerprint: str,
    mode: ReindexMode,
    compacted_through: str,
) -> Plan:
    """Compare the wanted photos with the live snapshot, by content, listing, category and attributes.

    Args:
        catalogue: as it was read.
        compacted: the catalogue's photos with the live changes in force.
        live: the snapshot to compare with, of any model; None: there is none.
        fingerprint: of the model that the new snapshot is for; embeddings by another are not reused.
        mode: `changed` reuses the live snapshot's embeddings, `all` does not.
        compacted_through: last entry of the change log that is in `compacted`.
    """
    rows = {photo.image_id: (row, photo) for row, photo in enumerate(live.photos())} if live else {}
    same_model = live is not None and live.manifest.fingerprint == fingerprint
    reused = same_model and mode is ReindexMode.CHANGED
    live_rows = {photo.sha256: row for row, photo in rows.values()} if reused else {}
    new = changed = relabelled = unchanged = 0
    in_order = same_model and len(rows) == len(compacted.photos)
    missing: dict[str, CataloguePhoto] = {}
    for row, photo in enumerate(compacted.photos):
        before_row, before = rows.get(photo.image_id, (None, None))
        if before is None:
            new += 1
        elif before.sha256 != photo.sha256:
            changed += 1
        elif _label(before) != _label(photo):
            relabelled += 1
        else:
            unchanged += 1
            in_order = in_order and before_row == row
        if photo.sha256 not in live_rows and photo.sha256 not in compacted.known:
            missing.setdefault(photo.sha256, photo)
    wanted = {photo.image_id for photo in compacted.photos}
    counts = ReindexCounts(
        seen=len(compacted.photos),
        unchanged=unchanged,
        new=new,
        changed=changed,
        relabelled=relabelled,
        removed=sum(image_id not in wanted for image_id in rows),
    )
    same_attributes = live is not None and catalogue.attributes.is_that_of(live.manifest.attributes)
    in_order = in_order and same_attributes and unchanged == len(compacted.photos)
    is_live = in_order and not missing and not compacted.news
    return Plan(
        catalogue, compacted, compacted_through, compacted.photos, counts, live_rows, list(missing.values()), is_live
    )


def _label(photo: CataloguePhoto) -> tuple[str, int, str]:
    """What a snapshot holds of a photo besides its embedding."""
    return photo.listing_id, photo.category, photo.payload
