"""Finds the listing of each photo by the id in its row, and says for those without one what was looked for."""

from collections.abc import Iterable

from shared.catalogue.photo_files import FileProblem
from shared.catalogue.rows import PRODUCTS, ROUNDED_DETAIL
from shared.catalogue.spoiled_ids import SPOILED_LISTING, SpoiledListings, composed, is_rounded

_OTHER_FORM = "listing id in another Unicode form"


def odd_listing(written: str, listing_id: str) -> FileProblem:
    """What is odd about an id in the photos' table that means another one."""
    reason = _OTHER_FORM if composed(written) == composed(listing_id) else SPOILED_LISTING
    return FileProblem(reason, f"read as {listing_id}")


class Listings:
    """Finds listings: by the exact id, or else by one in another Unicode form, or that a spreadsheet spoiled.

    Args:
        listing_ids: those that there are.
        written: ids as they stand in the photos' table.
    """

    def __init__(self, listing_ids: frozenset[str], written: Iterable[str]) -> None:
        self._listing_ids = listing_ids
        self._written = written
        self._spoiled: SpoiledListings | None = None  # made when the first id is not there

    def find(self, listing_id: str) -> str | FileProblem:
        """Return the id of the listing that is meant, or why there is none."""
        if listing_id in self._listing_ids:
            return listing_id
        if not listing_id:
            return FileProblem("photo without listing", "the row has no product_id")
        if self._spoiled is None:
            self._spoiled = SpoiledListings(self._listing_ids, frozenset(self._written))
        meant = self._spoiled.find(listing_id)
        looked_for = f"looked for the id {listing_id} in {PRODUCTS}"
        if len(meant) == 1:
            return meant[0]
        if meant:
            return FileProblem("photo listing is ambiguous", f"{looked_for}; it may mean {', '.join(meant)}")
        there = self._spoiled.nearest(listing_id)
        hint = f"; there is {there}" if there else ""
        if is_rounded(listing_id):
            hint += f"; {ROUNDED_DETAIL}"
        return FileProblem("photo without listing", f"{looked_for}{hint}")
