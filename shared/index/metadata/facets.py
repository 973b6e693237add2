"""Facets: how many listings have each value of an attribute, counted over columns and over single photos alike."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from shared.attributes.schema import NUMERIC, AttributeSchema, AttributeType, Values
from shared.attributes.values import number_of
from shared.jobs.answers_contract import Facet, FacetValue

N_QUANTILES = 21
_DECIMALS = 6
N_VALUES = 50  # that an answer names of one attribute, the most frequent


class Facets:
    """Counts for the facets of one answer.

    Args:
        schema: of the catalogue.
        names: of the facets: `category` and attributes.
        categories: of the catalogue.

    Raises:
        InvalidRequest: there is no such attribute, or it is a text.
    """

    def __init__(self, schema: AttributeSchema, names: Sequence[str], categories: Sequence[str]) -> None:
        schema.require_countable(names)
        self.names = tuple(dict.fromkeys(names))
        self._schema = schema
        self._categories = categories
        self._counts: dict[str, Counter[str | bool]] = {name: Counter() for name in self.names}
        self._n_listings: Counter[str] = Counter()
        self._numbers: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in self.names}

    @property
    def numeric(self) -> frozenset[str]:
        """Names of the facets that are ranges."""
        return frozenset(name for name in self.names if (a := self._schema.get(name)) and a.type in NUMERIC)

    def add_counts(self, name: str, counts: Mapping[str | bool, int] | Mapping[str, int], n_listings: int) -> None:
        """Add listings by their value of an attribute.

        Args:
            name: of the facet.
            counts: the most frequent values.
            n_listings: that have any.
        """
        self._counts[name].update(dict(counts))
        self._n_listings[name] += n_listings

    def add_numbers(self, name: str, numbers: npt.NDArray[np.float64]) -> None:
        """Add listings' numbers of an attribute."""
        self._numbers[name].append(numbers)

    def add(self, listings: Sequence[tuple[int, Values]]) -> None:
        """Add some listings.

        Args:
            listings: of each the position of its category, and the values of its attributes.
        """
        for name in self.names:
            attribute = self._schema.get(name)
            if attribute is None:
                counts = Counter(self._categories[category] for category, _ in listings)
                self.add_counts(name, counts, len(listings))
            elif attribute.type in NUMERIC:
                numbers = [number_of(attribute, values) for _, values in listings]
                self.add_numbers(name, np.array([number for number in numbers if number is not None], dtype=np.float64))
            else:
                told = Counter(v for _, values in listings if isinstance(v := values.get(name), str | bool))
                self.add_counts(name, told, told.total())

    def answer(self) -> dict[str, Facet]:
        """Write the facets as answers have them."""
        return {name: self._range(name) if name in self.numeric else self._values(name) for name in self.names}

    def _values(self, name: str) -> Facet:
        # The most frequent first, of equal ones by name: the same counts always give the same answer.
        ordered = sorted(self._counts[name].items(), key=lambda one: (-one[1], str(one[0])))
        attribute = self._schema.get(name)
        return Facet(
            type=attribute.type if attribute else AttributeType.KEYWORD,
            count=self._n_listings[name],
            values=[FacetValue(value=value, count=n) for value, n in ordered[:N_VALUES]],
        )

    def _range(self, name: str) -> Facet:
        numbers = np.concatenate([np.empty(0), *self._numbers[name]])
        attribute = self._schema.get(name)
        return Facet(
            type=attribute.type if attribute else AttributeType.NUMBER,
            count=len(numbers),
            minimum=float(numbers.min()) if len(numbers) else None,
            maximum=float(numbers.max()) if len(numbers) else None,
            quantiles=quantiles(numbers),
        )


def quantiles(numbers: npt.NDArray[np.float64]) -> list[float]:
    """Compute N_QUANTILES numbers from the lowest to the highest, evenly frequent; none of no numbers."""
    if not len(numbers):
        return []
    found: list[float] = np.quantile(numbers, np.linspace(0, 1, N_QUANTILES)).round(_DECIMALS).tolist()
    return found
