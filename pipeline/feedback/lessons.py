"""What training learns from feedback: categories that were corrected, and listings that show one thing.

Each API key has one vote on a listing, its last, and a say in so many listings at most. Sides of the split stay as they
are without feedback: labels are for training listings alone, and a pair across sides is left out. So what a model is
chosen by and measured on is the table's word.
"""

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from shared.atomic_files import write_atomically
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.model.bundle import Split
from shared.progress import ReportProgress

CORRECTIONS = "corrections.csv"
MOST_OF_ONE_KEY = 0.1  # of the training listings: labels that one key changes, and pairs that it makes

Pair = tuple[str, str]  # listing ids, sorted
_T = TypeVar("_T", bound=Hashable)


class Correction(NamedTuple):
    """What became of the feedback on one listing's category, for people.

    Attributes:
        said: the category that most keys say.
        keys: how many say so.
        others: how many say otherwise.
        table: the catalogue's own.
        outcome: what was done with it.
    """

    listing_id: str
    said: str
    keys: int
    others: int
    table: str
    outcome: str


@dataclass(frozen=True)
class Lessons:
    """What one training takes from feedback.

    Attributes:
        labels: category by listing, in place of the table's; training listings only.
        keys: that say so, by listing with a label.
        pairs: training listings that are to be near one another: one was said to be the right result of a search for
            the other, or bought after one.
        same: validation listings that were said to show the same thing.
        corrections: one a listing that somebody corrected.
        counts: how much was used, and left out for what reason.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    same: tuple[Pair, ...] = ()
    corrections: tuple[Correction, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def taught(self, photos: Sequence[CataloguePhoto]) -> list[CataloguePhoto]:
        """The photos with the categories to be trained on."""
        return [replace(photo, category=self.labels.get(photo.listing_id, photo.category)) for photo in photos]

    def without_labels(self, why: str, listings: Iterable[str] | None = None) -> "Lessons":
        """The same with the table's categories of some listings that have labels; of None: of all."""
        gone = set(self.labels if listings is None else listings)
        told = tuple(one._replace(outcome=why) if one.listing_id in gone else one for one in self.corrections)
        labels = {listing: category for listing, category in self.labels.items() if listing not in gone}
        counts = {**self.counts, f"labels {_USED}": len(labels)} | ({f"labels {why}": len(gone)} if gone else {})
        return replace(self, labels=labels, corrections=told, counts=counts)

    def digest(self) -> str:
        """Of all that decides what is trained."""
        decisive = [sorted(self.labels.items()), self.pairs, self.same]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


NO_LESSONS = Lessons()
_USED = "used"


def learn(table: pd.DataFrame, photos: Sequence[CataloguePhoto], categories: Categories, split: Split) -> Lessons:
    """Take from feedback what can be trained on.

    Args:
        table: of feedback, see `pipeline.feedback.table`.
        photos: of the catalogue.
        categories: of the catalogue.
        split: of the catalogue.
    """
    counts = Counter[str]()
    listing_of = {photo.image_id: photo.listing_id for photo in photos}
    category_of = {photo.listing_id: photo.category for photo in photos}
    most = max(1, round(MOST_OF_ONE_KEY * len(split.train)))
    votes: dict[tuple[str, str], int] = {}  # of each key on each listing, that of the last one last
    said: list[tuple[str, Pair, bool]] = []  # key, pair, whether it was said to be the same thing
    for search in _searches(table):
        asked = search.listing_id or listing_of.get(search.image_id, "")
        if search.category:
            if search.category not in categories:
                counts["labels of no category of this catalogue"] += 1
            elif shown := {one for one in (asked, *search.right) if one in category_of}:
                for listing in shown:
                    votes.pop((search.owner, listing), None)
                    votes[search.owner, listing] = categories.position(search.category)
            else:
                counts["labels of a photo that is not kept"] += 1
        anchors = [asked] if asked in category_of else search.right[:1]
        for anchor in anchors:
            said += [(search.owner, _pair(anchor, one), True) for one in search.right if one != anchor]
            if asked:
                said += [(search.owner, _pair(anchor, one), False) for one in search.bought if one != anchor]
    labels, keys, corrections = _decided(votes, category_of, categories, split, most, counts)
    there = [one for one in said if category_of.keys() >= set(one[1])]
    counts["pairs with a listing that is not there"] = len(said) - len(there)
    bounded = list(_bounded(there, lambda one: (one[0], one[1]), most, counts, "pairs"))
    pairs = _on(split.train, bounded)
    same = _on(split.validation, [one for one in bounded if one[2]])
    counts["pairs across sides of the split, or to be measured on"] = len({pair for _, pair, _ in bounded}) - len(
        {*pairs, *_on(split.validation, bounded)}
    )
    counts |= {f"labels {_USED}": len(labels), "pairs to train on": len(pairs), "pairs to calibrate on": len(same)}
    return Lessons(labels, keys, pairs, same, tuple(corrections), {name: n for name, n in sorted(counts.items()) if n})


def write_report(lessons: Lessons, directory: Path, report_progress: ReportProgress) -> None:
    """Tell how much was used and what was left out, and write what became of each corrected listing as CORRECTIONS."""
    for name, n in lessons.counts.items():
        report_progress(f"feedback: {n} {name}")
    file = directory / CORRECTIONS
    with write_atomically(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        rows.writerow(Correction._fields)
        rows.writerows(lessons.corrections)
    report_progress(f"feedback: what became of each correction is in {file}")


class _Search(NamedTuple):
    owner: str
    image_id: str
    listing_id: str
    category: str
    right: list[str]
    bought: list[str]


def _searches(table: pd.DataFrame) -> Iterator[_Search]:
    """Searches in the order of their time."""
    for _, rows in table.sort_values(["searched_at", "job_id", "position"]).groupby("job_id", sort=False):
        first = rows.iloc[0]
        named = (first[name] for name in ("owner", "query_image_id", "query_listing_id", "corrected_category"))
        owner, image_id, listing_id, category = ("" if pd.isna(value) else str(value) for value in named)
        right, bought = (
            list(dict.fromkeys(rows.loc[rows[name].notna(), "listing_id"].astype(str)))
            for name in ("right_at", "purchased_at")
        )
        yield _Search(owner, image_id, listing_id, category, right, bought)


def _decided(
    votes: Mapping[tuple[str, str], int],
    category_of: Mapping[str, int],
    categories: Categories,
    split: Split,
    most: int,
    counts: Counter[str],
) -> tuple[dict[str, int], dict[str, frozenset[str]], list[Correction]]:
    """The category of each listing by the majority of the keys, whose they are, and what became of corrections."""
    changes = [(key, listing) for (key, listing), said in votes.items() if said != category_of[listing]]
    allowed = set(_bounded(changes, lambda one: one, most, counts, "labels"))
    of_listing: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for (key, listing), said in votes.items():
        of_listing[listing].append((key, said))
    labels: dict[str, int] = {}
    keys: dict[str, frozenset[str]] = {}
    corrections = []
    for listing, of_key in sorted(of_listing.items()):
        table = category_of[listing]
        ballots = Counter(said for key, said in of_key if said == table or (key, listing) in allowed)
        outcome, best, n = "refused: its key says too much", of_key[-1][1], 0
        if ballots:
            best, n = ballots.most_common(1)[0]
            if 2 * n <= ballots.total():
                outcome = "left out: keys disagree"
            elif best == table:
                outcome = "as in the table"
            elif listing not in split.train:
                outcome = "left out: the listing is to choose by or to measure on"
            else:
                outcome, labels[listing] = _USED, best
                keys[listing] = frozenset(key for key, said in of_key if said == best)
        counts[f"labels {outcome}"] += 1
        corrections.append(Correction(listing, categories[best], n, ballots.total() - n, categories[table], outcome))
    return labels, keys, corrections


def _bounded(
    said: Sequence[_T], key_and_what: Callable[[_T], tuple[str, Hashable]], most: int, counts: Counter[str], what: str
) -> Iterator[_T]:
    """The last that each key said, of `most` different things at most, in their order."""
    of_key: dict[str, set[Hashable]] = defaultdict(set)
    kept = []
    for one in reversed(said):
        key, about = key_and_what(one)
        if about in of_key[key] or len(of_key[key]) < most:
            of_key[key].add(about)
            kept.append(one)
        else:
            counts[f"{what} of a key that says too much"] += 1
    return reversed(kept)


def _on(side: frozenset[str], said: Iterable[tuple[str, Pair, bool]]) -> tuple[Pair, ...]:
    return tuple(sorted({pair for _, pair, _ in said if side >= set(pair)}))


def _pair(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)
