"""Which categories and attributes a catalogue is to be read with: its own, or those that are served already."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.attributes.schema import Attribute
from shared.catalogue.categories import ROOTS, Categories, CategorySource, categories_in
from shared.catalogue.rows import RowProblem
from shared.errors import CatalogueUnusable
from shared.settings import Settings


@dataclass(frozen=True)
class CategoryChoice:
    """Which categories and attributes a catalogue is to be read with.

    Attributes:
        known: of the model that there is; None: there is none.
        grow: whether new ones of the table join them, because a model is about to be made; else their listings are
            left out, and told.
        source: where in the table they are.
        attributes: of the live index, whose types stay where they still fit.
    """

    known: Categories | None = None
    grow: bool = True
    source: CategorySource = ROOTS
    attributes: tuple[Attribute, ...] = ()

    @classmethod
    def by(
        cls,
        settings: Settings,
        known: Sequence[str] | None = None,
        *,
        grow: bool = True,
        attributes: tuple[Attribute, ...] = (),
    ) -> "CategoryChoice":
        """Read with the column and level that the settings name.

        Args:
            settings: of the installation.
            known: names of the categories of the model that there is.
            grow: as of the class.
            attributes: as of the class.
        """
        source = CategorySource(settings.category_column, settings.category_level)
        return cls(None if known is None else Categories(tuple(known), source.level), grow, source, attributes)

    def categories(self, texts: Iterable[str], rejected: Sequence[RowProblem]) -> Categories:
        """Return the categories to read a table with.

        Args:
            texts: its categories as they are written.
            rejected: rows that were left out before.

        Raises:
            CatalogueUnusable: the table has too few or too many; says which rows were left out before.
        """
        if self.known is not None and not self.grow:
            return self.known
        try:
            return categories_in(texts, self.known, self.source.level)
        except CatalogueUnusable as exc:
            if not rejected:
                raise
            first: dict[str, int] = {}
            for one in rejected:
                first.setdefault(one.reason, one.row)
            counts = Counter(one.reason for one in rejected)
            reasons = ", ".join(f"{reason}: {counts[reason]}, such as row {row}" for reason, row in first.items())
            raise CatalogueUnusable(f"{exc} Left out were ({reasons})") from exc


OWN_CATEGORIES = CategoryChoice()
