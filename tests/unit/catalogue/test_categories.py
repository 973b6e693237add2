"""Categories come from the catalogue: found in its table, in an order that stays, whatever the marketplace."""

import csv
from pathlib import Path

import pytest

from shared.catalogue.categories import (
    CATEGORIES,
    MOST_CATEGORIES,
    OLDER_CATEGORIES,
    Categories,
    CategorySource,
    categories_in,
)
from shared.catalogue.choice import CategoryChoice
from shared.catalogue.tables import read_catalogue
from shared.errors import CatalogueUnusable, InvalidRequest
from tests.support.catalogues import GERMAN, draw_catalogue


def test_the_roots_of_the_paths_are_the_categories_by_name() -> None:
    assert categories_in(["Cars > Vans", "Boats", "Cars/Old", "Boats | Sail"]).names == ("Boats", "Cars")


@pytest.mark.parametrize(
    "spellings",
    [
        ["Toys & Games", "toys &amp; games", "Toys  & Games ", "Toys\u00a0& Games > Dolls", "Toys and Games"],
        ["Rugs", "\u200bRugs", "Rugs\ufeff", "Ru\u00adgs"],
        ["Möbel", "MÖBEL", "Mo\u0308bel > Tische"],
    ],
)
def test_spellings_of_one_category_are_one_under_the_most_frequent(spellings: list[str]) -> None:
    found = categories_in([*spellings, spellings[0], "Uhren"])
    assert found.names == tuple(sorted([spellings[0], "Uhren"]))
    assert {found.find(text) for text in spellings} == {found.position(spellings[0])}


def test_a_dump_of_the_older_service_keeps_its_thirteen_in_their_order() -> None:
    texts = [f"{name} / x" for name in CATEGORIES[3:]] + ["Pets", ""]
    assert categories_in(texts) is OLDER_CATEGORIES
    assert categories_in(texts, OLDER_CATEGORIES) is OLDER_CATEGORIES
    assert OLDER_CATEGORIES.find("Pets") is None
    assert categories_in(["", " / "]) is OLDER_CATEGORIES  # there is nothing in it; its rows are told


def test_a_catalogue_with_a_category_or_two_of_the_older_names_is_no_dump_of_the_older_service() -> None:
    shop = ["Home & Garden > Decor"] * 30 + ["Health & Beauty"] * 20 + ["Apparel & Accessories > Shoes"] * 20
    assert categories_in(shop).names == ("Apparel & Accessories", "Health & Beauty", "Home & Garden")
    assert categories_in([*shop[:50], "mistake"]) is OLDER_CATEGORIES
    assert categories_in([*shop, *(f"{name} / x" for name in CATEGORIES)]) is OLDER_CATEGORIES
    assert categories_in(shop, OLDER_CATEGORIES) is OLDER_CATEGORIES  # by which the live index was built


def test_new_categories_come_after_those_that_are_known_and_none_is_moved() -> None:
    known = Categories(("Uhren", "Boote"))
    assert categories_in(["Boote", "Uhren > x", "Autos", "Zelte", "Boote"], known).names == (
        *("Uhren", "Boote"),
        *("Autos", "Zelte"),
    )
    assert categories_in(["Boote", "Boote"], known).names == known.names  # one that nothing is in stays


def test_the_categories_of_another_catalogue_do_not_count() -> None:
    assert categories_in(["Cars", "Boats"], Categories(("Uhren", "Boote"))).names == ("Boats", "Cars")
    assert categories_in([f"{name}/x" for name in CATEGORIES], Categories(("Uhren", "Boote"))) is OLDER_CATEGORIES


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["Boats", "boats > sail"], "are Boats: at least 2"),
        ([f"thing {n}" for n in range(MOST_CATEGORIES + 1)], f"{MOST_CATEGORIES + 1} categories, such as thing 0, "),
    ],
)
def test_a_table_without_usable_categories_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(CatalogueUnusable, match=said):
        categories_in(texts)


def test_two_thousand_categories_are_taken() -> None:
    assert len(categories_in(f"thing {n}/x" for n in range(MOST_CATEGORIES))) == MOST_CATEGORIES


def test_a_category_that_is_none_is_refused_with_those_that_are_nearest() -> None:
    with pytest.raises(InvalidRequest, match="must be one of: Boote; Uhren"):
        Categories(("Boote", "Uhren")).position("Boot")
    with pytest.raises(InvalidRequest, match=r"thing 77.*; and 97 more"):
        Categories(tuple(f"thing {n}" for n in range(100))).position("thing 777")


@pytest.mark.parametrize("separator", [" > ", "/", " | "])
def test_another_catalogue_is_read_with_its_own_categories(tmp_path: Path, separator: str) -> None:
    catalogue = read_catalogue(draw_catalogue(tmp_path / "german", GERMAN, listings_each=2, separator=separator))
    assert catalogue.categories.names == GERMAN
    assert (catalogue.n_listings, len(catalogue.photos), catalogue.rejected, catalogue.odd) == (10, 20, (), ())
    assert {photo.category for photo in catalogue.photos} == set(range(5))


def test_with_the_categories_of_a_model_new_ones_are_left_out_and_told(tmp_path: Path) -> None:
    directory = draw_catalogue(tmp_path / "german", GERMAN, listings_each=2)
    wanted = CategoryChoice(Categories(GERMAN[:4]), grow=False)
    catalogue = read_catalogue(directory, wanted)
    assert (catalogue.categories, catalogue.n_listings) == (wanted.known, 8)
    told = {(row.reason, row.value) for row in catalogue.rejected if row.table == "Products.csv"}
    assert told == {("listing of unknown category", "Uhren")}
    assert read_catalogue(directory, CategoryChoice(wanted.known)).categories.names == GERMAN


def test_a_quote_that_is_never_closed_is_mended_in_any_catalogue(tmp_path: Path) -> None:
    directory = draw_catalogue(tmp_path / "german", GERMAN, listings_each=4)
    table = directory / "Products.csv"
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    lines = [",".join(row) for row in rows]
    lines[3] = lines[3].replace("titel", '"titel 7')
    lines[9] = lines[9].replace("titel", '"titel 9')
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    catalogue = read_catalogue(directory)
    assert (catalogue.categories.names, catalogue.n_listings, catalogue.rejected) == (GERMAN, 20, ())
    assert {row.reason for row in catalogue.odd} == {"row of Products.csv with a quote that is never closed"}


def test_another_column_and_two_levels_of_it_may_be_the_category(tmp_path: Path) -> None:
    columns = ("id", "category", "Rubrik")
    directory = draw_catalogue(tmp_path / "german", GERMAN, listings_each=4, columns=columns, category_column="Rubrik")
    assert set(read_catalogue(directory).categories.names) == {f"category {n}" for n in range(4)}
    source = CategorySource("Rubrik", level=2)
    catalogue = read_catalogue(directory, CategoryChoice(source=source))
    assert catalogue.categories.names == tuple(f"{name} / Teil {n}" for name in GERMAN for n in (0, 1))
    assert catalogue.n_listings == 20
    [told] = catalogue.odd  # a column that is no attribute
    assert (told.value, told.detail) == ("category", "left out: the category is in the column Rubrik")
    assert {catalogue.categories[photo.category] for photo in catalogue.photos} == set(catalogue.categories)
    again = read_catalogue(
        directory, CategoryChoice(Categories(catalogue.categories.names[:9], 2), grow=False, source=source)
    )
    assert {row.value for row in again.rejected if row.table == "Products.csv"} == {"Uhren / Teil 1"}


def test_two_levels_of_a_dump_of_the_older_service_are_not_its_thirteen() -> None:
    texts = [f"{name} / Old" for name in CATEGORIES] + [f"{CATEGORIES[0]} > New > x"]
    assert categories_in(texts, level=2).names == tuple(
        sorted([*(f"{name} / Old" for name in CATEGORIES), f"{CATEGORIES[0]} / New"])
    )


def test_whole_paths_of_unequal_length_may_be_the_categories() -> None:
    texts = ["Boats > Sail > Old", "Boats > Sail", "boats/sail/old", "Cars"]
    found = categories_in(texts, level=0)
    assert found.names == ("Boats / Sail", "Boats / Sail / Old", "Cars")
    assert [found.find(text) for text in texts] == [1, 0, 1, 2]
    assert found.find("Boats") is None  # a path that no listing has
    assert found.as_written("Boats > Sail > Old") == "Boats / Sail / Old"


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    directory = draw_catalogue(tmp_path / "german", GERMAN, listings_each=2)
    with pytest.raises(
        CatalogueUnusable, match="the column Rubrik; it has id, titel, category; LOOKALIKE_CATEGORY_COLUMN"
    ):
        read_catalogue(directory, CategoryChoice(source=CategorySource("Rubrik")))


def test_what_tables_write_for_nothing_is_no_category_unless_a_model_knows_it_as_one() -> None:
    assert categories_in(["Cars", "NULL", "N/A", "Boats", "nan", "-", r"\N"]).names == ("Boats", "Cars")
    assert Categories(("Cars", "None")).find("None") == 1
    assert Categories(("Cars", "N")).find("N/A") is None


def test_a_category_is_asked_for_with_its_letters_composed_or_not() -> None:
    assert Categories(("Boote", "Möbel")).position("Mo\u0308bel") == 1
