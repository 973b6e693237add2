"""Plan of a reindex: the catalogue and the live changes, beside what is live. Embeds nothing, writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.tables import Catalogue
from shared.changes.overrides import Compacted
from shared.index.vector_index import VectorIndex
from shared.jobs.reindex_contract import ReindexCounts, ReindexMode


@dataclass(frozen=True)
class Plan:
    """What a new snapshot shall hold, and where its embeddings come from.

    Attributes:
        photos: one per row, in row order.
        live_rows: rows of the live snapshot by sha256, for the embeddings that are taken from there.
        missing: photos to embed, one for each content that is not known, in row order.
        is_live: the live snapshot is exactly that already.
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
    """Compare by content, listing and category.

    Args:
        folded: the catalogue's photos with the live changes in force.
        live: the snapshot that is compared with, of whatever model.
        fingerprint: of the model that the new snapshot is for; embeddings of another are of no use.
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
        elif (before.listing_id, before.category) != (photo.listing_id, photo.category):
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
    is_live = in_order and unchanged == len(compacted.photos) and not missing and not compacted.news
    return Plan(
        catalogue, compacted, compacted_through, compacted.photos, counts, live_rows, list(missing.values()), is_live
    )
