"""Reads which listings a catalogue has, with their categories, from its table of listings."""

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from shared.attributes.configuration import CONFIGURATION
from shared.catalogue.categories import Categories, is_missing
from shared.catalogue.rows import PRODUCTS, ROUNDED_DETAIL, RowProblem, long_id
from shared.catalogue.spoiled_ids import is_rounded

if TYPE_CHECKING:  # heavy: only what reads tables needs it
    import pandas as pd

_TAKE_FIRST = f'{CONFIGURATION}: listings.several = "," takes the first'


def label_listings(
    products: "pd.DataFrame",
    categories: Categories,
    rejected: list[RowProblem],
    odd: list[RowProblem],
    *,
    has_photos: bool,
) -> tuple[dict[str, int], dict[str, int]]:
    """Find class index and row, by listing id, of the listings that have an id and a known category.

    Args:
        products: the table of listings, as `read_table` gives it.
        categories: of the catalogue.
        rejected: rows that are left out are appended to it.
        odd: what was assumed is appended to it.
        has_photos: the table has the photos, too. Rows that repeat a listing and say nothing else of its category are
            there for theirs, and of a listing that cannot be used only the first is told.
    """
    index_of = {text: categories.find(text) for text in products["category"].unique()}
    several = {text: _may_be_several(text, categories) for text in index_of}
    nearest = cache(categories.nearest)
    # Those of several listings that were rounded to one: which of them a photo is of nobody can tell.
    rounded = {listing_id for listing_id in products["id"][products["id"].duplicated()] if is_rounded(listing_id)}
    category_of: dict[str, int] = {}
    rows: dict[str, int] = {}
    refused: set[str] = set()
    for row, listing_id, text in zip(map(int, products.index), products["id"], products["category"], strict=True):
        root, index = categories.as_written(text), index_of[text]
        if not listing_id:
            rejected.append(RowProblem("listing without id", PRODUCTS, row))
        elif listing_id in rounded:
            rejected.append(RowProblem("listing id repeated", PRODUCTS, row, listing_id, detail=ROUNDED_DETAIL))
        elif listing_id in category_of:
            if not (has_photos and (is_missing(text) or index == category_of[listing_id])):
                rejected.append(RowProblem("listing id repeated", PRODUCTS, row, listing_id))
        elif index is None and is_missing(text):
            if not (has_photos and listing_id in refused):
                rejected.append(RowProblem("listing without category", PRODUCTS, row, listing_id))
            refused.add(listing_id)
        elif index is None:
            refused.add(listing_id)
            problem = RowProblem("listing of unknown category", PRODUCTS, row, listing_id, root or text)
            near = nearest(problem.value)
            detail = f"looked for one of the {len(categories)} categories" + (
                f"; the nearest is {near}" if near else ""
            )
            rejected.append(replace(problem, detail=detail))
        else:
            category_of[listing_id], rows[listing_id] = index, row
            odd += long_id(PRODUCTS, row, listing_id)
            if root != categories[index]:
                reason, detail = "category in another spelling", f"read as {categories[index]}"
                odd.append(RowProblem(reason, PRODUCTS, row, listing_id, root or text, detail))
            if several[text]:
                reason, detail = "listing may be in several categories", f"read as {categories[index]}; {_TAKE_FIRST}"
                odd.append(RowProblem(reason, PRODUCTS, row, listing_id, text, detail))
    return category_of, rows


def _may_be_several(text: str, categories: Categories) -> bool:
    """Whether a category is a list of categories between commas, each of which is one by itself."""
    parts = text.split(",")
    return len(parts) > 1 and all(categories.find(part) is not None for part in parts)
