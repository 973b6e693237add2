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
from shared.attributes.filters import Condition, bind_filter
from shared.attributes.schema import AttributeSchema
from shared.catalogue.categories import categories_named
from shared.index.ann import Mask
from shared.index.attribute_columns import AttributeColumns, first_of_each
from shared.index.facets import Facets
from shared.index.rows import PhotoRows
from shared.jobs.contract import SearchRequest

_CACHED_BYTES = 32 << 20  # of masks: a marketplace's filters come again and again


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
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._using = threading.Lock()

    @cached_property
    def schema(self) -> AttributeSchema:
        """The snapshot's attributes."""
        return AttributeSchema(self._manifest.attributes)

    def allowed(self, request: SearchRequest, hidden: IntArray | None = None) -> Mask | None:
        """Evaluate the filters of a search.

        Args:
            request: its `category`, `exclude_listing` and `filter`.
            hidden: rows to leave out.

        Returns:
            (rows,) true where a row may be found, to be read only; None: everywhere.

        Raises:
            InvalidRequest: the filter does not fit the catalogue, or there is no such category.
        """
        if request.category is None and request.exclude_listing is None and request.filter is None and hidden is None:
            return None
        allowed: Mask = np.ones(len(self.rows), dtype=bool) if request.filter is None else self.matching(request.filter)
        if request.category is not None:
            position = categories_named(self._manifest.categories).position(request.category)
            in_category = self.rows.categories == position
            allowed = in_category if request.filter is None else allowed & in_category
        if request.exclude_listing is not None or hidden is not None:
            allowed = allowed.copy() if request.filter is not None and request.category is None else allowed
            if request.exclude_listing is not None:
                allowed[self.rows.of_listing(request.exclude_listing)] = False
            if hidden is not None:
                allowed[hidden] = False
        return allowed

    def matching(self, given: Mapping[str, object]) -> Mask:
        """Evaluate a filter: (rows,) true where it holds, to be read only; remembered. Raises as `allowed`."""
        key = json.dumps(given, sort_keys=True)
        with self._using:
            if (known := self._masks.get(key)) is not None:
                self._masks.move_to_end(key)
                return known
        found = self._columns.mask(self.bound(given))
        with self._using:
            self._masks[key] = found
            while len(self._masks) > max(1, _CACHED_BYTES // max(1, len(found))):
                self._masks.popitem(last=False)
        return found

    def bound(self, given: Mapping[str, object]) -> Condition:
        """Check a filter against the snapshot's attributes and categories; raises InvalidRequest."""
        return bind_filter(given, self.schema, categories_named(self._manifest.categories))

    def count(self, request: SearchRequest, hidden: IntArray | None = None) -> Facets:
        """Count the values that the listings which the filters allow have of the attributes in `request.facets`.

        Args:
            request: its filters and `facets`.
            hidden: rows to leave out.

        Raises:
            InvalidRequest: the catalogue has no such attribute, or it is a text.
        """
        allowed = self.allowed(request, hidden)
        rows = np.arange(len(self.rows)) if allowed is None else np.flatnonzero(allowed)
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
