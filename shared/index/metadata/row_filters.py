"""Which rows of a snapshot a search may find, how many listings have which values, and the attributes of its hits."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.array_types import IntArray
from shared.artifacts.snapshots import IndexManifest
from shared.attributes.filters import bind_filter
from shared.attributes.schema import AttributeSchema
from shared.catalogue.categories import Categories, categories_named
from shared.index.metadata.attribute_columns import AttributeColumns, first_of_each
from shared.index.metadata.facets import Facets
from shared.index.metadata.rows import PhotoRows
from shared.index.vectors.ann import Allowed
from shared.jobs.contract import SearchRequest

_CACHED_BYTES = 32 << 20  # of masks; a marketplace's filters come again and again


class RowFilters:
    """The filters of a snapshot; safe to share between threads.

    Args:
        directory: of the snapshot.
        manifest: of it.

    Attributes:
        rows: its photos.

    Raises:
        OSError, ValueError, sqlite3.Error: a file is missing or damaged, or they do not fit together.
    """

    def __init__(self, directory: Path, manifest: IndexManifest) -> None:
        self.rows = PhotoRows(directory, len(manifest.categories))
        self._manifest = manifest
        self._columns = AttributeColumns(directory, self.schema, self.rows)
        self._matching: OrderedDict[str, Allowed] = OrderedDict()
        self._using = threading.Lock()
        self._last_hidden: tuple[IntArray, Allowed] | None = None

    @property
    def _categories(self) -> Categories:
        return categories_named(self._manifest.categories)

    @cached_property
    def schema(self) -> AttributeSchema:
        """The snapshot's attributes."""
        return AttributeSchema(self._manifest.attributes)

    def allowed(self, request: SearchRequest, hidden: IntArray | None = None) -> Allowed | None:
        """Evaluate the filters of a search.

        Args:
            request: its `category`, `excluded_listings` and `filter`.
            hidden: rows to leave out.

        Returns:
            the rows that may be found; None: all.

        Raises:
            InvalidRequest: the filter does not fit the catalogue, or there is no such category.
        """
        is_filtered = request.filter is not None or request.category is not None
        allowed = self.matching(request.filter, request.category) if is_filtered else None
        if hidden is not None:
            allowed = allowed.without(hidden) if allowed else self._all_but(hidden)
        for listing_id in request.excluded_listings:
            allowed = (allowed or self._all()).without(self.rows.of_listing(listing_id))
        return allowed

    def matching(self, given: Mapping[str, object] | None, category: str | None = None) -> Allowed:
        """Return the rows that a filter matches, in a category if one is given; remembered.

        Raises:
            InvalidRequest: as `allowed`.
        """
        key = json.dumps([given, category], sort_keys=True)
        with self._using:
            if (known := self._matching.get(key)) is not None:
                self._matching.move_to_end(key)
                return known
        mask = self._columns.mask(bind_filter(given or {}, self.schema, self._categories))
        if category is not None:
            mask &= self.rows.categories == self._categories.position(category)
        found = Allowed(mask)
        with self._using:
            self._matching[key] = found
            while len(self._matching) > max(1, _CACHED_BYTES // max(1, len(self.rows))):
                self._matching.popitem(last=False)
        return found

    def _all_but(self, hidden: IntArray) -> Allowed:
        """All rows but some, remembered as long as it is the same array, which must not be written to."""
        last = self._last_hidden
        if last is None or last[0] is not hidden:
            last = self._last_hidden = hidden, self._all().without(hidden)
        return last[1]

    def _all(self) -> Allowed:
        return Allowed(np.ones(len(self.rows), dtype=bool))

    def count(self, request: SearchRequest, hidden: IntArray | None = None) -> Facets:
        """Count the values that the listings which the filters allow have of the attributes in `request.facets`.

        Args:
            request: its filters and `facets`.
            hidden: rows to leave out.

        Raises:
            InvalidRequest: the catalogue has no such attribute, or it is a text.
        """
        allowed = self.allowed(request, hidden)
        # Not `allowed.rows`: with a filter that is remembered, eight bytes a row would be, too.
        rows = np.arange(len(self.rows)) if allowed is None else np.flatnonzero(allowed.mask)
        rows = first_of_each(self.rows.listings, rows)
        facets = Facets(self.schema, request.facets, self._manifest.categories)
        for name in facets.names:
            if (attribute := self.schema.get(name)) is None:
                counts = np.bincount(self.rows.categories[rows], minlength=len(self._manifest.categories))
                named = {self._manifest.categories[i]: int(counts[i]) for i in np.flatnonzero(counts)}
                facets.add_counts(name, named, len(rows))
            elif name in facets.numeric:
                facets.add_numbers(name, self._columns.numbers(attribute, rows))
            else:
                facets.add_counts(name, *self._columns.counts(attribute, rows))
        return facets
