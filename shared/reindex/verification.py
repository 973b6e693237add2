"""Verifies a snapshot before it is sealed: measures its quality and evaluates every quality gate."""

from collections.abc import Sequence

from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.jobs.reindex_contract import QualityGate, ReindexCounts, SnapshotQuality
from shared.reindex.comparison import Comparison, LiveIndex
from shared.reindex.neighbours import Neighbourhood, Searchable, same_in_many_listings, sampling_order
from shared.reindex.quality import SAMPLE, distinctness, gates, measure


def quality_of(snapshot: Searchable, photos: Sequence[CataloguePhoto]) -> SnapshotQuality:
    """Measure a snapshot's search quality on a sample of its own photos.

    Args:
        snapshot: to measure.
        photos: one per row.
    """
    return measure(Neighbourhood(snapshot), photos, sampling_order(photos)[:SAMPLE], same_in_many_listings(photos))


def verify(
    staged: Searchable,
    photos: Sequence[CataloguePhoto],
    live: LiveIndex | None,
    *,
    live_quality: SnapshotQuality | None,
    same_model: bool,
    counts: ReindexCounts,
    listings: tuple[int, int],
    force: bool,
    categories: Sequence[str] = CATEGORIES,
    words: tuple[int, int] = (0, 0),
) -> tuple[SnapshotQuality, list[QualityGate]]:
    """Measure a snapshot and evaluate its quality gates.

    Args:
        staged: the snapshot.
        photos: one per row.
        live: the live snapshot; None: there is none.
        live_quality: of the live snapshot, for the number of photos.
        same_model: whether the live snapshot is of the same model.
        counts: what changed, to be told.
        listings: number of listings in the new and in the live snapshot.
        force: pass the gates on numbers in any case.
        categories: of the snapshot.
        words: number of listings with words in the new and in the live snapshot.

    Returns:
        its quality on its own sample, and the gates.
    """
    placeholders, order = same_in_many_listings(photos), sampling_order(photos)
    searched, sample = Neighbourhood(staged), order[:SAMPLE]
    comparison = None
    if live is not None:
        comparison = Comparison(
            searched, photos, live, order, placeholders, same_model=same_model, categories=categories
        )
    searched.search([*sample, *(comparison.rows if comparison else ())])
    quality = measure(searched, photos, sample, placeholders)
    return quality, [
        *gates(quality, live_quality, listings=listings, words=words, force=force),
        *distinctness(searched, photos, sample),
        *(comparison.gates(counts) if comparison else ()),
    ]
