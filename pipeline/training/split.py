"""Split a catalogue's listings into those to train on, to choose by and to measure on."""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from shared.catalogue.categories import CataloguePhoto
from shared.errors import CatalogueUnusable
from shared.model.bundle import Split

_N_FOLDS = 10


def split_listings(
    photos: Sequence[CataloguePhoto], near_duplicates: Iterable[tuple[str, str]] = (), *, seed: int = 17
) -> Split:
    """Split listings by category into 80 % for training, 10 % for validation and 10 % for testing.

    Listings that share a photo or a near duplicate, also through others, stay on one side. With fewer than ten such
    groups all listings are for training, and no accuracy can be stated.

    Args:
        photos: of the catalogue.
        near_duplicates: pairs of image ids.
        seed: of the shuffling.
    """
    groups = linked_listings(photos, near_duplicates)
    listings = frozenset(photo.listing_id for photo in photos)
    if len(set(groups)) < _N_FOLDS:
        return Split(train=listings)
    labels = [photo.category for photo in photos]
    # Where every category is smaller than the number of folds there is nothing to stratify.
    tiny = max(Counter(labels).values()) < _N_FOLDS
    splitter = (GroupKFold if tiny else StratifiedGroupKFold)(_N_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a small category cannot be on every side
        folds = [held_out for _, held_out in splitter.split(np.zeros(len(photos)), labels, groups)]
    test, validation = (frozenset(photos[row].listing_id for row in fold) for fold in folds[:2])
    return Split(train=listings - validation - test, validation=validation, test=test)


def require_every_side(split: Split) -> None:
    """Refuse a split in which some sides are empty and others are not; all for training is none.

    Args:
        split: of a catalogue.

    Raises:
        CatalogueUnusable: it is such a split.
    """
    if (split.validation or split.test) and not (split.train and split.validation and split.test):
        empty = " and ".join(name for name in ("train", "validation", "test") if not getattr(split, name))
        raise CatalogueUnusable(
            f"the catalogue cannot be split: nothing is left for {empty}, because too many listings show the same "
            "pictures and must stay together; see near_duplicates.csv of `lookalike clean`"
        )


def linked_listings(photos: Sequence[CataloguePhoto], near_duplicates: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Group listings that share a photo or a near duplicate: for each photo the listing that represents its group."""
    listing_of = {photo.image_id: photo.listing_id for photo in photos}
    pairs = [
        (listing_of[one], listing_of[other])
        for one, other in near_duplicates
        if one in listing_of and other in listing_of
    ]
    holder: dict[str, str] = {}
    pairs += [
        (photo.listing_id, holder.setdefault(photo.sha256 or photo.image_id, photo.listing_id)) for photo in photos
    ]
    group = joined_listings(listing_of.values(), pairs)
    return [group[photo.listing_id] for photo in photos]


def joined_listings(listings: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Group listings that a pair joins, also through others: for each listing the one that represents its group.

    Args:
        listings: ids.
        pairs: of them.
    """
    parent = {listing: listing for listing in listings}

    def find(listing: str) -> str:
        while parent[listing] != listing:
            parent[listing] = listing = parent[parent[listing]]
        return listing

    for one, other in pairs:
        parent[find(one)] = find(other)
    return {listing: find(listing) for listing in parent}
