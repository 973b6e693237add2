"""Joins pairs of duplicates to groups. Pairs of photos of one listing are none, whatever they show."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple, TypeVar

from shared.duplicates.verdicts import Pair
from shared.jobs.duplicates_contract import (
    MOST_LISTED,
    DuplicateGroup,
    DuplicateImage,
    DuplicateLabel,
    DuplicatePair,
    Verdict,
)

_ALL_PAIRS = 10_000  # of two pictures; of those in more photos, enough pairs are made to hold all together
_SURENESS = {label: place for place, label in enumerate(DuplicateLabel)}

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")


class Evidence(NamedTuple):
    """What shows that two pictures, which may each be in several photos, are duplicates; see `DuplicatePair`."""

    label: DuplicateLabel
    score: float
    correlation: float | None = None
    hash_distance: int | None = None
    mirrored: bool = False


SAME_BYTES = Evidence(DuplicateLabel.SAME_BYTES, 1.0, 1.0, 0)


class Grouping(NamedTuple):
    """Groups of duplicates.

    Attributes:
        groups: the surest first, and of those the largest.
        n_refuted: pairs left out because of a verdict.
    """

    groups: list[DuplicateGroup]
    n_refuted: int


def group_duplicates(
    photos: Mapping[str, Sequence[DuplicateImage]],
    alike: Mapping[Pair, Evidence],
    verdicts: Mapping[Pair, Verdict],
    *,
    fresh: frozenset[str] | None = None,
) -> Grouping:
    """Group the photos of an index.

    Photos that are the same picture make one group, be it through others. Those that only show the same thing make
    groups of their own, beside those.

    Args:
        photos: of each picture, by its key: the photos with the very same bytes.
        alike: what shows that two pictures are duplicates, by their keys.
        verdicts: on pairs of image ids, each sorted.
        fresh: only pairs with one of these images count; None: all.
    """
    pairs: dict[DuplicateLabel, list[DuplicatePair]] = defaultdict(list)
    n_refuted = 0
    known: set[Pair] = set()
    listings = {image.image_id: image.listing_id for images in photos.values() for image in images}
    for one, other, evidence in _joined(photos, alike):
        if one.listing_id == other.listing_id:
            continue
        ids = (min(one.image_id, other.image_id), max(one.image_id, other.image_id))
        if fresh is not None and not (ids[0] in fresh or ids[1] in fresh):
            continue
        verdict = verdicts.get(ids)
        if verdict is Verdict.NOT_DUPLICATE:
            n_refuted += 1
            continue
        known.add(ids)
        pairs[evidence.label].append(DuplicatePair(image_ids=ids, verdict=verdict, **evidence._asdict()))
    for ids, verdict in verdicts.items():
        wanted = fresh is None or ids[0] in fresh or ids[1] in fresh
        if verdict is Verdict.DUPLICATE and ids not in known and wanted and {*ids} <= listings.keys():
            confirmed = Evidence(DuplicateLabel.SAME_THING, 0.0)
            pairs[confirmed.label].append(DuplicatePair(image_ids=ids, verdict=verdict, **confirmed._asdict()))
    sure = pairs[DuplicateLabel.SAME_BYTES] + pairs[DuplicateLabel.SAME_PICTURE]
    groups = [*_groups(sure, listings), *_groups(pairs[DuplicateLabel.SAME_THING], listings)]
    groups.sort(key=lambda group: (_SURENESS[group.label], -group.n_images, group.images[0].image_id))
    return Grouping(groups, n_refuted)


def count_labels(groups: Iterable[DuplicateGroup]) -> dict[DuplicateLabel, int]:
    """Count groups by label."""
    counts = Counter(group.label for group in groups)
    return {label: counts[label] for label in DuplicateLabel}


def components(pairs: Iterable[tuple[N, N]]) -> Iterator[set[N]]:
    """Yield the sets of what pairs connect, also through others."""
    of: dict[N, set[N]] = {}
    for a, b in pairs:
        one, other = of.setdefault(a, {a}), of.setdefault(b, {b})
        if one is not other:
            one, other = sorted((one, other), key=len, reverse=True)
            one |= other
            of.update(dict.fromkeys(other, one))
    yield from {id(found): found for found in of.values()}.values()


def joining_pairs(ones: Sequence[T], others: Sequence[T]) -> Iterator[tuple[T, T]]:
    """Yield every pair of one each; where there are very many, enough to connect them all."""
    if len(ones) * len(others) <= _ALL_PAIRS:
        yield from product(ones, others)
    else:
        yield from product(ones[:1], others)
        yield from product(ones, others[:1])


def _joined(
    photos: Mapping[str, Sequence[DuplicateImage]], alike: Mapping[Pair, Evidence]
) -> Iterator[tuple[DuplicateImage, DuplicateImage, Evidence]]:
    for images in photos.values():
        if len(images) ** 2 <= _ALL_PAIRS:
            yield from ((one, other, SAME_BYTES) for one, other in combinations(images, 2))
        else:
            # The first of each listing with the first of another: what joins them must not be of one listing.
            first, second = images[0], next((i for i in images if i.listing_id != images[0].listing_id), images[0])
            for image in images[1:]:
                yield (second if image.listing_id == first.listing_id else first), image, SAME_BYTES
    for (one_key, other_key), evidence in alike.items():
        for one, other in joining_pairs(photos[one_key], photos[other_key]):
            yield one, other, evidence


def _groups(pairs: Sequence[DuplicatePair], listings: Mapping[str, str]) -> Iterator[DuplicateGroup]:
    of_image: dict[str, list[DuplicatePair]] = defaultdict(list)
    for pair in pairs:
        of_image[pair.image_ids[0]].append(pair)
    for images in components(pair.image_ids for pair in pairs):
        found = sorted(
            (pair for image_id in images for pair in of_image[image_id]),
            key=lambda pair: (_SURENESS[pair.label], -pair.score, pair.image_ids),
        )
        shown = sorted(images)[:MOST_LISTED]
        yield DuplicateGroup(
            label=found[-1].label,
            n_images=len(images),
            images=[DuplicateImage(image_id=image_id, listing_id=listings[image_id]) for image_id in shown],
            n_pairs=len(found),
            pairs=found[:MOST_LISTED],
        )
