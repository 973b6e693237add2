"""Makes the traffic reference of a new index version, of photos whose listings the model did not see."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import numpy as np

from shared.array_types import FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.decode import decode_file
from shared.errors import StoreUnavailable
from shared.index.traffic import NEIGHBOURS, TrafficReference, pixel_features, residual_of
from shared.photos.preprocessing import PreprocessSpec
from shared.quality.contract import PIXEL_FEATURES
from shared.reindex.neighbours import Neighbourhood, Searchable, sampling_order

_SAMPLE = 256  # each of another listing
_FEWEST = 48
_DEEPEST = 128  # neighbours: of a listing with more photos than that, those of others are not waited for
_TICK_EVERY = 16


def measure_traffic(
    index: Searchable,
    photos: Sequence[CataloguePhoto],
    spec: PreprocessSpec,
    seen: Collection[str],
    known: TrafficReference | None,
    tick: Callable[[], None],
) -> TrafficReference | None:
    """Measure what queries are like, with photos of the index as queries.

    Args:
        index: that was built.
        photos: one per row.
        spec: by which the photos were embedded.
        seen: listings that the model was trained on; with few others, they count too.
        known: reference of an index by the same model, for the pixels of photos that are in both; None: there is none.
        tick: called now and then; an exception it raises ends the work.

    Returns:
        the reference; None where the index has too few listings.
    """
    rows = _sampled(photos, seen)
    if len(rows) < _FEWEST:
        return None

    def enough(row: int, others: list[int]) -> bool:
        return len(others) >= _DEEPEST or len(_foreign(photos, row, others)) == NEIGHBOURS

    near = Neighbourhood(index).others(rows, lambda other: other, enough)
    vectors = index.vectors(np.array(rows, dtype=np.int64))
    residuals = [
        residual_of(vector, index.vectors(np.array(others, dtype=np.int64)))
        for row, vector in zip(rows, vectors, strict=True)
        if (others := _foreign(photos, row, near[row]))
    ]
    if len(residuals) < _FEWEST:
        return None
    before = dict(zip(known.sha256s, known.pixels, strict=True)) if known else {}
    pixels = {}
    for number, photo in enumerate(photos[row] for row in rows):
        if number % _TICK_EVERY == 0:
            tick()
        if (features := before.get(photo.sha256)) is None and photo.sha256:
            features = _features(photo, spec)
        if features is not None:
            pixels[photo.sha256] = features
    kept = pixels if len(pixels) >= _FEWEST else {}
    table = np.array(list(kept.values()), dtype=np.float32).reshape(-1, len(PIXEL_FEATURES))
    return TrafficReference.of(np.stack(residuals), table, tuple(kept))


def _features(photo: CataloguePhoto, spec: PreprocessSpec) -> FloatArray | None:
    """Features of a photo's pixels; None: its file cannot be read."""
    with suppress(StoreUnavailable):  # the index is good without them
        decoded = decode_file(photo.path, spec, photo.sha256)
        return None if isinstance(decoded, str) else pixel_features(decoded, spec.fill)
    return None


def _sampled(photos: Sequence[CataloguePhoto], seen: Collection[str]) -> list[int]:
    """Rows of a photo each of some listings, of those that the model did not see if there are enough."""
    first: dict[str, int] = {}
    for row in sampling_order(photos):
        first.setdefault(photos[row].listing_id, row)
    unseen = [row for listing_id, row in first.items() if listing_id not in seen]
    return (unseen if len(unseen) >= _FEWEST else list(first.values()))[:_SAMPLE]


def _foreign(photos: Sequence[CataloguePhoto], row: int, others: Sequence[int]) -> list[int]:
    """Of the rows nearest to one, the first NEIGHBOURS of other listings."""
    return [other for other in others if photos[other].listing_id != photos[row].listing_id][:NEIGHBOURS]
