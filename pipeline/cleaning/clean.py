"""Clean a raw dump: tables typed and normalised, photos upright and hashed, near duplicates found, problems reported.

The dump is read only. The same dump always gives the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cleaning.images import (
    NearDuplicate,
    Picture,
    Unusable,
    largest_group,
    near_duplicates,
    prepare_photos,
    working_copy,
)
from pipeline.cleaning.report import Report, overview, report
from pipeline.cleaning.tables import NOT_IN_POUNDS, PHOTOS, clean_listings
from pipeline.local.locks import exclusive
from shared.artifacts.store import unwritable
from shared.atomic_files import write_atomically
from shared.catalogue.categories import OLDER_CATEGORIES, CataloguePhoto
from shared.catalogue.choice import OWN_CATEGORIES, CategoryChoice
from shared.catalogue.photo_files import FetchPhotos
from shared.catalogue.rows import IMAGES, RowProblem
from shared.catalogue.tables import Catalogue, CatalogueReader
from shared.errors import CatalogueUnusable
from shared.progress import ReportProgress

_MUCH, _FEW = 0.05, 5  # groups of near duplicates that hold more of the photos, and more photos, are told


@dataclass(frozen=True)
class CleanedCatalogue:
    """A cleaned catalogue.

    Attributes:
        directory: of the cleaned files.
        catalogue: the photos that can be decoded, in the order of Images.csv.
        near_duplicates: image ids of different listings that show the same picture; each pair once, sorted.
        topics: whole category path by listing id, "Home & Garden / Rugs".
        texts: normalised name and description by listing id.
    """

    directory: Path
    catalogue: Catalogue
    near_duplicates: list[tuple[str, str]]
    topics: dict[str, str]
    texts: dict[str, str]

    def working_copy(self, photo: CataloguePhoto) -> Path:
        """Path of a photo's upright copy, which augmented views are made from."""
        return working_copy(self.directory, photo.sha256)


def cleaned_directory(home: Path, directory: Path) -> Path:
    """The directory in an installation's home for the cleaned files of the dump in `directory`."""
    return home / "clean" / directory.resolve().name


def clean(
    directory: Path,
    out: Path,
    *,
    report_progress: ReportProgress,
    wanted: CategoryChoice = OWN_CATEGORIES,
    fetch: FetchPhotos | None = None,
) -> CleanedCatalogue:
    """Clean the dump in `directory` into `out`; where `out` has files of an earlier run, only changes are processed.

    Args:
        directory: a raw dump: Products.csv, Images.csv, images/.
        out: made if it is missing; must not lie inside `directory`.
        report_progress: receives one line when it is done.
        wanted: which categories it is to be read with.
        fetch: fetches photos that are there by URL only.

    Raises:
        CatalogueUnusable: nothing of it can be used, or `out` lies inside it.
        CannotStart: another process cleans into `out`.
        ArtifactUnwritable: the disk is full or may not be written.
    """
    if out.resolve().is_relative_to(directory.resolve()):
        raise CatalogueUnusable(f"{out} lies in the catalogue, which is never written to; name another place")
    with exclusive(out / "cache" / ".lock", f"another process cleans into {out}"):
        found = CatalogueReader(out / "cache" / "digests.json").read(directory, wanted=wanted, fetch=fetch)
        try:
            return _clean(found, out, report_progress)
        except OSError as exc:
            raise unwritable(out, exc) from exc


def _clean(read: Catalogue, out: Path, report_progress: ReportProgress) -> CleanedCatalogue:
    listings, odd = clean_listings(read.directory, read.listing_rows.values(), read.categories, read.source)
    if not _in_pounds(read):
        listings["price_gbp"] = np.nan
        odd = [problem for problem in odd if problem.reason != NOT_IN_POUNDS]
    prepared = prepare_photos(read.photos, out)
    catalogue = read.without(
        [
            RowProblem(refused.reason, IMAGES, read.photo_rows[photo.image_id], photo.image_id, detail=refused.detail)
            for photo in read.photos
            if isinstance(refused := prepared[photo.sha256], Unusable)
        ]
    )
    pictures = {sha256: picture for sha256, picture in prepared.items() if isinstance(picture, Picture)}
    pairs = near_duplicates(catalogue.photos, pictures)
    table = PHOTOS.validate(_table(catalogue, listings, pictures))
    _write(out, table, pairs, report(catalogue, table, pairs, [*catalogue.odd, *odd]))
    report_progress(f"cleaned {len(table)} photos of {catalogue.name} into {out}")
    if largest := largest_group(pairs, at_least=max(_FEW, _MUCH * len(table))):
        report_progress(
            f"warning: {len(largest)} of {len(table)} photos count as near duplicates of one another, such as "
            f"{', '.join(sorted(largest)[:3])}: they stay on one side when the catalogue is split for training"
        )
    return CleanedCatalogue(
        out,
        catalogue,
        [(pair.image_a, pair.image_b) for pair in pairs],
        topics=dict(listings["topic"]),
        texts=dict((listings["name"] + " " + listings["description"]).str.strip()),
    )


def _in_pounds(catalogue: Catalogue) -> bool:
    """Whether a catalogue's prices are in pounds: its table says so, or it is one of the older service's."""
    price = catalogue.attributes.get("price")
    if price is None or price.decimal != ".":
        return price is None
    return "GBP" in price.currencies or (not price.currencies and catalogue.categories == OLDER_CATEGORIES)


def _table(catalogue: Catalogue, listings: pd.DataFrame, pictures: dict[str, Picture]) -> pd.DataFrame:
    photos = catalogue.photos
    facts = [pictures[photo.sha256] for photo in photos]
    table = pd.DataFrame(
        {
            "id_x": [photo.image_id for photo in photos],
            "product_id": [photo.listing_id for photo in photos],
            "label": np.array([photo.category for photo in photos], dtype=np.int64),
            "category": [catalogue.categories[photo.category] for photo in photos],
            "file": [str(photo.path).removeprefix(f"{catalogue.directory}/") for photo in photos],
            "sha256": [photo.sha256 for photo in photos],
            "dhash": [picture.dhash for picture in facts],
            "width": [picture.width for picture in facts],
            "height": [picture.height for picture in facts],
        }
    )
    return table.join(listings, on="product_id")[list(PHOTOS.columns)]


def _write(out: Path, table: pd.DataFrame, pairs: list[NearDuplicate], found: Report) -> None:
    """Write every file atomically, the report last: a new report means that all files are new."""
    copies = [working_copy(out, sha256) for sha256 in table["sha256"]]
    contents = {
        "training_data.csv": table[["id_x", "product_id", "label"]].to_csv(index=False).encode(),
        "photos.parquet": table.to_parquet(index=False),
        "near_duplicates.csv": pd.DataFrame(pairs, columns=NearDuplicate._fields).to_csv(index=False).encode(),
        "overview.html": overview(found, pairs, dict(zip(table["id_x"], copies, strict=True))).encode(),
        "report.json": found.to_json().encode(),
    }
    for name, content in contents.items():
        with write_atomically(out / name) as temporary:
            temporary.write_bytes(content)
