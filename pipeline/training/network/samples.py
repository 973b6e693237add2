"""Labels, topics and listings of a catalogue's photos as arrays, and the batches of an epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.training.network.dataset import PLAIN, View
from pipeline.training.recipes import Recipe
from pipeline.training.split import joined_listings
from shared.array_types import IntArray
from shared.catalogue.categories import CataloguePhoto
from shared.errors import CatalogueUnusable
from shared.model.bundle import Split

_EVALUATED = 64  # photos of one pass


@dataclass(frozen=True)
class Samples:
    """The targets of each photo, by row, and which rows are trained and validated on.

    Attributes:
        labels: (n,) categories.
        topics: (n,) number of the photo's whole category path; used for training rows only.
        n_topics: how many paths there are.
        listings: (n,) numbered; of training listings that show one thing, one number.
        train: rows to train on.
        validation: rows to choose the best epoch by.
    """

    labels: IntArray
    topics: IntArray
    n_topics: int
    listings: IntArray
    train: IntArray
    validation: IntArray

    @classmethod
    def of(
        cls,
        photos: Sequence[CataloguePhoto],
        topics: Mapping[str, str],
        split: Split,
        pairs: Sequence[tuple[str, str]] = (),
    ) -> "Samples":
        """Number the listings and category paths of photos.

        Args:
            photos: one a row.
            topics: whole category path by listing id.
            split: by listing id.
            pairs: training listings that show one thing.

        Raises:
            CatalogueUnusable: no photo is left to train on.
        """
        train, validation = (
            np.array([row for row, photo in enumerate(photos) if photo.listing_id in side], dtype=np.int64)
            for side in (split.train, split.validation)
        )
        if not len(train):
            raise CatalogueUnusable(f"none of {len(photos)} photos is left to train on")
        paths, numbers = np.unique([topics.get(photo.listing_id, "") for photo in photos], return_inverse=True)
        things = joined_listings((photo.listing_id for photo in photos), pairs)
        return cls(
            labels=np.array([photo.category for photo in photos], dtype=np.int64),
            topics=numbers.astype(np.int64),
            n_topics=len(paths),
            listings=np.unique([things[photo.listing_id] for photo in photos], return_inverse=True)[1].astype(np.int64),
            train=train,
            validation=validation,
        )

    def epoch(self, number: int, recipe: Recipe, seed: int) -> list[list[View]]:
        """Draw the batches of one epoch: each training photo once, in random order, as one of its views.

        For a recipe with a contrastive loss, photos of one listing follow one another. The same arguments always give
        the same batches.
        """
        rng = np.random.default_rng([seed, number])
        together = self.listings[self.train] if recipe.pairs else np.arange(len(self.train))
        _, unit = np.unique(together, return_inverse=True)
        order = np.argsort(rng.permutation(unit.max() + 1)[unit], kind="stable")
        views = rng.integers(recipe.n_views, size=len(order)) if recipe.cached else np.full(len(order), number + 1)
        batches = np.array_split(np.arange(len(order)), self.n_batches(recipe))
        return [[(int(self.train[order[i]]), int(views[i])) for i in batch] for batch in batches]

    def n_batches(self, recipe: Recipe) -> int:
        """Number of batches in an epoch; they are of about one size, and none is larger than the recipe's."""
        return -(-len(self.train) // recipe.batch)

    def cached_views(self, recipe: Recipe) -> list[View]:
        """Every view that the recipe's epochs may ask for, and the plain view of each validation photo."""
        seen = [(int(row), view) for view in range(recipe.n_views) for row in self.train]
        return seen + [(int(row), PLAIN) for row in self.validation]


def plain_batches(rows: IntArray) -> list[list[View]]:
    """Batches of the plain views of rows, in order, for evaluation."""
    return [
        [(int(row), PLAIN) for row in rows[start : start + _EVALUATED]] for start in range(0, len(rows), _EVALUATED)
    ]
