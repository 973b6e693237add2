"""Compares a new snapshot with the live one on the photos that both have, photo by photo.

What else changed cannot be mistaken for a worse model: new, changed and removed photos are left out as queries and as
neighbours, and both are judged by the labels of the new table. What those labels themselves change is told apart.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.jobs.reindex_contract import QualityGate, ReindexCounts
from shared.reindex.neighbours import Neighbourhood, Searchable
from shared.reindex.paired import Difference, Value, compare_pairs
from shared.reindex.quality import SAMPLE

# Labels are changed by people who mean it: more may be lost by them than by a model.
MAX_LOSS = 0.02
MAX_LABEL_LOSS = 0.05
# One model embeds one photo alike on all processors: 8-bit weights give cosines of 0.975 and more.
MIN_COSINE = 0.97
MIN_SAME_EMBEDDINGS = 0.95
COMPARED = ("precision_at_4", "sibling_recall_at_4", "same_embeddings")
_EQUAL_COSINE = 1 - 1e-5
_LOOKED_AT = 16 * SAMPLE

Label = tuple[str, int]  # listing id and category


class LiveIndex(Searchable, Protocol):
    """The part of a live `VectorIndex` that a comparison needs."""

    def photo(self, row: int) -> CataloguePhoto:
        """Return the photo of a row."""
        ...

    def row_of(self, image_id: str) -> int | None:
        """Return the row of an image; None if there is none."""
        ...


@dataclass
class _Live:
    """The live snapshot, addressed by the rows of the new one."""

    index: LiveIndex
    photos: Sequence[CataloguePhoto]
    _matches: dict[int, tuple[int, CataloguePhoto] | None] = field(default_factory=dict)

    def match(self, row: int) -> tuple[int, CataloguePhoto] | None:
        """Row and photo there of the image that a row of the new snapshot shows; None if it has none."""
        if row not in self._matches:
            live_row = self.index.row_of(self.photos[row].image_id)
            self._matches[row] = None if live_row is None else (live_row, self.index.photo(live_row))
        return self._matches[row]

    def row(self, row: int) -> int:
        """Row there of an image that both have."""
        match = self.match(row)
        assert match is not None  # callers ask for common images only
        return match[0]

    def label(self, row: int) -> Label:
        """What the live table says of an image that both have."""
        match = self.match(row)
        assert match is not None
        return match[1].listing_id, match[1].category


class Comparison:
    """A new snapshot beside the live one.

    Args:
        new: the new snapshot.
        photos: of the new snapshot, one per row.
        live: the live snapshot.
        order: rows of the new snapshot in the order in which samples are taken.
        placeholders: files to leave out: number of listings by sha256.
        same_model: whether both are of one model.
        categories: of the new snapshot.

    Attributes:
        rows: sampled rows of the new snapshot, whose photos both have.
    """

    def __init__(
        self,
        new: Neighbourhood,
        photos: Sequence[CataloguePhoto],
        live: LiveIndex,
        order: Sequence[int],
        placeholders: Mapping[str, int],
        *,
        same_model: bool,
        categories: Sequence[str] = CATEGORIES,
    ) -> None:
        self._categories = categories
        self._new = new
        self._photos = photos
        self._live = _Live(live, photos)
        self._placeholders = placeholders
        self._same_model = same_model
        same: list[int] = []
        changed: list[int] = []
        for row in order[:_LOOKED_AT]:
            if photos[row].sha256 not in placeholders and (match := self._live.match(row)) is not None:
                (same if match[1].sha256 == photos[row].sha256 else changed).append(row)
            if len(same) == SAMPLE:
                break
        # Where most files were written anew, comparing them still tells more than comparing nothing.
        self._same_files = len(same) >= len(changed)
        self.rows = same if self._same_files else sorted([*same, *changed])[:SAMPLE]

    def gates(self, counts: ReindexCounts) -> list[QualityGate]:
        """Evaluate the quality gates that compare the two.

        Args:
            counts: what changed, to be told.
        """
        cosines = self._cosines()
        equal = cosines is not None and bool((cosines >= _EQUAL_COSINE).all())
        new = self._new.others(self.rows, self._usable, self._enough)
        # Equal vectors have the same neighbours among the same photos: no need to search the live snapshot for them.
        live = new if equal else self._others_in_live()
        gates = [
            self._gate("precision_at_4", _precision, new, live, self._context(counts)),
            self._gate("sibling_recall_at_4", self._sibling_recall, new, live, ""),
        ]
        return gates if cosines is None else [*gates, self._same_embeddings(cosines)]

    # --- neighbours ---

    def _usable(self, row: int) -> int | None:
        """The row, if its photo is in both snapshots and no placeholder."""
        photo = self._photos[row]
        if photo.sha256 in self._placeholders or (match := self._live.match(row)) is None:
            return None
        return row if match[1].sha256 == photo.sha256 or not self._same_files else None

    def _enough(self, row: int, others: list[int]) -> bool:
        """Whether four are of other listings, by the new labels and by the old ones."""
        return len(others) >= 4 and all(len(_foreign(row, others, label)) == 4 for label in (self._label, self._old))

    def _others_in_live(self) -> dict[int, list[int]]:
        row_of = {photo.image_id: row for row, photo in enumerate(self._photos)}
        asked = {self._live.row(row): row for row in self.rows}

        def translate(live_row: int) -> int | None:
            row = row_of.get(self._live.index.photo(live_row).image_id)
            return None if row is None else self._usable(row)

        found = Neighbourhood(self._live.index).others(
            asked, translate, lambda live_row, others: self._enough(asked[live_row], others)
        )
        return {row: found[live_row] for live_row, row in asked.items()}

    def _label(self, row: int) -> Label:
        return self._photos[row].listing_id, self._photos[row].category

    def _old(self, row: int) -> Label:
        return self._live.label(row)

    # --- figures ---

    def _sibling_recall(self, row: int, others: Sequence[int], label: Callable[[int], Label]) -> Value:
        if row not in self._with_siblings:
            return None
        return float(any(label(other)[0] == label(row)[0] for other in others[:4]))

    @property
    def _with_siblings(self) -> set[int]:
        """The sampled rows whose listing has another photo to find, by the new labels."""
        if not hasattr(self, "_siblings"):
            sampled = {self._photos[row].listing_id for row in self.rows}
            found: defaultdict[str, set[int]] = defaultdict(set)
            for row, photo in enumerate(self._photos):
                if photo.listing_id in sampled and self._usable(row) is not None:
                    found[photo.listing_id].add(row)
            self._siblings = {row for row in self.rows if found[self._photos[row].listing_id] - {row}}
        return self._siblings

    def _gate(
        self,
        name: str,
        figure: Callable[[int, Sequence[int], Callable[[int], Label]], Value],
        new: Mapping[int, list[int]],
        live: Mapping[int, list[int]],
        context: str,
    ) -> QualityGate:
        """Compare a figure of both snapshots by the new labels, and of the live one by the new and the old labels."""
        now, then, by_old_labels = (
            [figure(row, others[row], label) for row in self.rows]
            for others, label in ((new, self._label), (live, self._label), (live, self._old))
        )
        listings = [self._photos[row].listing_id for row in self.rows]
        by_model = compare_pairs(now, then, listings)
        if by_model is None:
            detail = f"cannot be compared: {len(self.rows)} photos of the sample are in both versions"
            return QualityGate(name=name, passed=True, detail=detail + context)
        by_labels = compare_pairs(then, by_old_labels, listings)
        detail = f"{by_model.describe('live')}; {MAX_LOSS} may be lost{context}"
        passed = True
        if by_labels is not None and by_labels.mean:
            detail += f"; the new labels alone: {by_labels.describe('before')}; {MAX_LABEL_LOSS} may be lost"
            if by_labels.is_loss(MAX_LABEL_LOSS):
                passed = False
                detail += self._refusal("labels: listings or categories of the tables changed", by_labels) + (
                    "; to do: check the tables; if the labels are meant, `lookalike reindex --promote if_valid`"
                )
        if by_model.is_loss(MAX_LOSS):
            passed = False
            detail += self._refusal(self._model_cause(), by_model) + (
                "; to do: check weights and preprocessing of the model (`lookalike bundle show`), or go back to "
                "the one before (`lookalike bundle promote`); if it is meant, `lookalike reindex --promote if_valid`"
            )
        return QualityGate(name=name, passed=passed, detail=detail)

    def _model_cause(self) -> str:
        files = "" if self._same_files else "photos or model: most files were written anew, and "
        if self._same_model:
            return f"{files or 'model: '}one model gave embeddings that find less than the live ones"
        return f"{files or 'model: '}the embeddings of the new model find less than those of the live one"

    def _refusal(self, cause: str, difference: Difference) -> str:
        """Cause, worst categories and some photos of a loss."""
        by_category: defaultdict[int, list[int]] = defaultdict(list)
        for i in difference.positions:
            by_category[self._photos[self.rows[i]].category].append(i)
        worst = sorted(by_category, key=lambda category: sum(difference.of[i] for i in by_category[category]))[:3]
        names = self._categories
        categories = ", ".join(
            f"{names[category]} {difference.mean_of(by_category[category]):+.3f} ({len(by_category[category])})"
            for category in worst
        )
        photos = ", ".join(self._photos[self.rows[i]].image_id for i in difference.worst(5))
        return f"; cause: {cause}; most is lost in {categories}; for example by photos {photos}"

    # --- embeddings ---

    def _cosines(self) -> FloatArray | None:
        """Cosines of the embeddings of the sampled photos with the live ones; None if they should not be the same."""
        if not self._same_model or not self._same_files or not self.rows:
            return None
        new = self._new.index.vectors(np.array(self.rows, dtype=np.int64))
        live_rows: IntArray = np.array([self._live.row(row) for row in self.rows], dtype=np.int64)
        cosines: FloatArray = np.einsum("nd,nd->n", new, self._live.index.vectors(live_rows))
        return cosines

    def _same_embeddings(self, cosines: FloatArray) -> QualityGate:
        same = cosines >= MIN_COSINE
        passed = bool(same.mean() >= MIN_SAME_EMBEDDINGS)
        detail = (
            f"{int(same.sum())} of {len(same)} unchanged photos have the live version's embedding (cosine of at least "
            f"{MIN_COSINE}); {MIN_SAME_EMBEDDINGS:.0%} are needed, as both are of one model"
        )
        if not passed:
            worst = [self._photos[self.rows[i]].image_id for i in np.argsort(cosines, kind="stable")[:5]]
            detail += (
                f"; cause: model: other weights or preprocessing than its manifest says, or embeddings of other photos"
                f"; for example photos {', '.join(worst)}; to do: see that all workers run the same release, then "
                "`lookalike reindex --mode all`; if the new embeddings are right, with `--promote if_valid`"
            )
        return QualityGate(name="same_embeddings", passed=passed, detail=detail)

    def _context(self, counts: ReindexCounts) -> str:
        """What changed, and what is left out."""
        changes = ", ".join(
            f"{n} {name}"
            for name, n in (
                ("new", counts.new),
                ("changed", counts.changed),
                ("removed", counts.removed),
                ("relabelled", counts.relabelled),
            )
        )
        text = f"; photos: {changes}; model: {'the same' if self._same_model else 'another'}"
        for sha256, n_listings in sorted(self._placeholders.items(), key=lambda item: -item[1])[:3]:
            example = next(photo.image_id for photo in self._photos if photo.sha256 == sha256)
            text += f"; left out: one photo of {n_listings} listings, such as {example}"
        n_more = len(self._placeholders) - 3
        return f"{text} and {n_more} more such" if n_more > 0 else text


def _foreign(row: int, others: Sequence[int], label: Callable[[int], Label]) -> list[int]:
    """The four nearest of other listings."""
    listing = label(row)[0]
    return [other for other in others if label(other)[0] != listing][:4]


def _precision(row: int, others: Sequence[int], label: Callable[[int], Label]) -> Value:
    nearest = _foreign(row, others, label)
    return sum(label(other)[1] == label(row)[1] for other in nearest) / len(nearest) if nearest else None
