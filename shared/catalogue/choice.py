"""Which categories and attributes a catalogue is to be read with: its own, or those that are served already."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.attributes.schema import Attribute
from shared.catalogue.categories import ROOTS, Categories, CategorySource
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


OWN_CATEGORIES = CategoryChoice()
