"""DeltaFilters: which photos that were put since a snapshot was built meet the filters of a search."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from shared.artifacts.snapshots import IndexManifest
from shared.attributes.filters import PhotoFacts, bind_filter, holds
from shared.attributes.schema import AttributeSchema
from shared.catalogue.categories import categories_named
from shared.index.vectors.ann import Mask
from shared.jobs.contract import SearchRequest

_INITIAL_CAPACITY = 64
_REMEMBERED = 64  # filters; a marketplace's come again and again


class DeltaFilters:
    """Append-only: a search that began before reads the first entries. One thread at a time may `keep`.

    Args:
        manifest: of the snapshot.
    """

    def __init__(self, manifest: IndexManifest) -> None:
        self._schema = AttributeSchema(manifest.attributes)
        self._categories = categories_named(manifest.categories)
        self._facts: list[PhotoFacts] = []
        self._in_category: npt.NDArray[np.int32] = np.zeros(_INITIAL_CAPACITY, dtype=np.int32)
        self._places: dict[str, list[int]] = {}  # positions by listing
        self._matching: OrderedDict[str, Mask] = OrderedDict()  # for the first photos, as many as there were
        self._using = threading.Lock()

    def keep(self, facts: PhotoFacts) -> None:
        """Add the photo at the next position."""
        position = len(self._facts)
        if position == len(self._in_category):
            self._in_category = np.concatenate([self._in_category, np.zeros_like(self._in_category)])
        self._in_category[position] = facts.category
        self._facts.append(facts)
        self._places.setdefault(facts.listing_id, []).append(position)

    def forget_from(self, position: int) -> None:
        """Forget the photos at a position and behind it, which no search has seen."""
        for facts in self._facts[position:]:
            self._places[facts.listing_id].pop()
        del self._facts[position:]

    def places_of(self, listing_id: str, n: int) -> list[int]:
        """Positions of a listing's photos among the first `n`."""
        return [position for position in self._places.get(listing_id, ()) if position < n]

    def allowed(self, request: SearchRequest, n: int) -> Mask | None:
        """Evaluate the filters of a search.

        Args:
            request: its `category`, `excluded_listings` and `filter`.
            n: how many photos there are for this search.

        Returns:
            (n,) true where a photo meets them; None: all do.

        Raises:
            InvalidRequest: as of `RowFilters.allowed`.
        """
        masks: list[Mask] = []
        if request.filter is not None:
            masks.append(self._meeting(request.filter, n))
        if request.category is not None:
            masks.append(self._in_category[:n] == self._categories.position(request.category))
        for listing_id in request.excluded_listings:
            others = np.ones(n, dtype=np.bool_)
            others[self.places_of(listing_id, n)] = False
            masks.append(others)
        return np.logical_and.reduce(masks) if masks else None

    def _meeting(self, given: Mapping[str, object], n: int) -> Mask:
        """Where a filter is met, (n,); each photo is asked once as long as the filter is remembered."""
        key = json.dumps(given, sort_keys=True)
        with self._using:
            known = self._matching.get(key, np.empty(0, dtype=np.bool_))
        if len(known) < n:
            condition = bind_filter(given, self._schema, self._categories)
            more = [holds(condition, facts) for facts in self._facts[len(known) : n]]
            known = np.concatenate([known, np.array(more, dtype=np.bool_)])
        with self._using:
            if len(known) >= len(self._matching.get(key, ())):
                self._matching[key] = known
            self._matching.move_to_end(key)
            while len(self._matching) > _REMEMBERED:
                self._matching.popitem(last=False)
        return known[:n]
