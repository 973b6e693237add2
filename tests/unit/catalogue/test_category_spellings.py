"""Spellings of a category that spreadsheets and shops make of it mean that category, and the merge is reported."""

from pathlib import Path

import pytest

from shared.catalogue.categories import CATEGORIES, OLDER_CATEGORIES, Categories, categories_in
from shared.catalogue.tables import read_catalogue
from tests.conftest import encode, noise_image, write_catalogue


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Home & Garden / Rugs", ("Home & Garden", "Rugs")),
        ("Home & Garden/Rugs / A > B", ("Home & Garden", "Rugs", "A > B")),
        ("Home & Garden > Rugs", ("Home & Garden", "Rugs")),
        ("Home &amp; Garden / Rugs", ("Home & Garden", "Rugs")),
        ("Home &amp;amp; Garden", ("Home & Garden",)),
        ("Home &amp; Garden&gt;Rugs", ("Home & Garden", "Rugs")),
        ("HOME & garden / Rugs", ("Home & Garden", "Rugs")),
        ("Home and Garden", ("Home & Garden",)),
        ("Home\u00a0&\u00a0Garden\u00a0/\u00a0Rugs", ("Home & Garden", "Rugs")),
        ("  Home  &  Garden ", ("Home & Garden",)),
        ("Home & Garden|Rugs", ("Home & Garden", "Rugs")),
        ("Home & Garden -> Rugs => Small", ("Home & Garden", "Rugs", "Small")),
        ("N/A", ()),
        ("Home & Garden\\Rugs", ("Home & Garden", "Rugs")),
        ("Home \uff06 Garden \u00bb Rugs", ("Home & Garden", "Rugs")),
        ("/Home & Garden/Rugs/", ("Home & Garden", "Rugs")),
        ("music, films, books and games > Vinyl", ("Music, Films, Books & Games", "Vinyl")),
        ('["Home & Garden", "Rugs"]', ("Home & Garden", "Rugs")),
        ('["Home \\u0026 Garden","Rugs"]', ("Home & Garden", "Rugs")),
        ("['Home &amp; Garden', \"Men's Rugs\"]", ("Home & Garden", "Men's Rugs")),
        ('["Home & Garden > Rugs"]', ("Home & Garden", "Rugs")),
        ("[]", ()),
        ("[Rugs]", ("[Rugs]",)),
        ("['Home & Garden' 'Rugs']", ("['Home & Garden' 'Rugs']",)),
        ('["Home & Garden", 1]', ('["Home & Garden", 1]',)),
        ("Pets / Cats & Dogs", ("Pets", "Cats & Dogs")),
        ("", ()),
        (" / ", ()),
    ],
)
def test_a_path_begins_with_the_category_that_is_meant(text: str, path: tuple[str, ...]) -> None:
    assert OLDER_CATEGORIES.path(text) == path


@pytest.mark.parametrize(
    "text", ["Home & Garden, Appliances", "Root / Home & Garden", "Homes & Gardens", "Home", "Sandals", "9", ""]
)
def test_what_is_not_one_category_is_none(text: str) -> None:
    assert OLDER_CATEGORIES.find(text) is None


def test_each_category_is_found_in_any_case_and_as_html() -> None:
    for index, name in enumerate(CATEGORIES):
        assert OLDER_CATEGORIES.find(name.upper()) == OLDER_CATEGORIES.find(name.replace("&", "&amp;") + ">x") == index


def test_merged_spellings_and_unknown_categories_are_reported_by_row(tmp_path: Path) -> None:
    products = "id,category\n1,Appliances\n2,appliances &gt; Kettles\n3,Appliance\n4,&nbsp;\n5,\n"
    dump = write_catalogue(tmp_path / "dump", products, "id,product_id\np1,1\n", {"p1.jpg": encode(noise_image(1))})
    catalogue = read_catalogue(dump)
    assert catalogue.n_listings == 2
    assert [(row.reason, row.row, row.row_id, row.value, row.detail) for row in catalogue.odd] == [
        ("category in another spelling", 3, "2", "appliances &gt; Kettles", "read as Appliances")
    ]
    assert [(row.reason, row.row, row.value, row.detail) for row in catalogue.rejected] == [
        (
            "listing of unknown category",
            4,
            "Appliance",
            "looked for one of the 13 categories; the nearest is Appliances",
        ),
        ("listing of unknown category", 5, "&nbsp;", "looked for one of the 13 categories"),
        ("listing without category", 6, "", ""),
    ]


def test_lists_as_text_are_levels_and_are_reported(tmp_path: Path) -> None:
    rows = ('"[""Home"", ""Rugs""]"', "\"['Home', 'Rugs']\"", "Pets", "[]")
    products = "id,category\n" + "".join(f"{n},{row}\n" for n, row in enumerate(rows, 1))
    dump = write_catalogue(tmp_path / "dump", products, "id,product_id\np1,1\n", {"p1.jpg": encode(noise_image(1))})
    catalogue = read_catalogue(dump)
    assert tuple(catalogue.categories) == ("Home", "Pets")
    assert catalogue.paths == {"1": "Home / Rugs", "2": "Home / Rugs", "3": "Pets"}
    assert [(row.reason, row.row, row.value, row.detail) for row in catalogue.odd] == [
        ("category in another spelling", 2, '["Home", "Rugs"]', "read as Home"),
        ("category in another spelling", 3, "['Home', 'Rugs']", "read as Home"),
    ]
    assert [(row.reason, row.row) for row in catalogue.rejected] == [("listing without category", 5)]


def test_a_model_that_has_a_list_as_a_category_keeps_it() -> None:
    known = Categories(('["Home", "Rugs"]', "Pets"))
    assert categories_in(['["Home", "Rugs"]', "Pets", '["Home", "Beds"]'], known).find('["Home", "Rugs"]') == 0
