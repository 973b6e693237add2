"""Quotes that a table opens and never closes: their rows are read as they are meant or named, and swallow no others."""

from pathlib import Path

import pytest

from shared.catalogue.forms.quotes import close_quotes, cut_records
from shared.catalogue.tables import Catalogue, read_catalogue
from tests.conftest import encode, noise_image, write_catalogue

PHOTO = encode(noise_image(1, (40, 30)))
HEADER = "id,product_name,category,product_description"
UNCLOSED = "row of {} with a quote that is never closed"


def read(tmp_path: Path, rows: list[str], images: str | None = None) -> Catalogue:
    """A catalogue whose rows have the ids 1, 2, ..., each with a photo."""
    n_rows = len(rows)
    images = images or "id,product_id\n" + "".join(f"p{n},{n}\n" for n in range(1, n_rows + 1))
    photos = {f"p{n}.jpg": PHOTO for n in range(1, n_rows + 1)}
    return read_catalogue(write_catalogue(tmp_path / "dump", "\n".join([HEADER, *rows, ""]), images, photos))


def read_listings(catalogue: Catalogue) -> dict[str, int]:
    return {photo.listing_id: photo.category for photo in catalogue.photos}


def test_names_that_begin_with_an_inch_mark_cost_no_listing_and_no_category(tmp_path: Path) -> None:
    rows = [f"{n},Item {n},{'Appliances' if n < 9 else 'Other Goods'},fine" for n in range(1, 13)]
    rows[3] = '4,"4 to 5 inches,Appliances,fine'
    rows[10] = '11,"11 or so,Other Goods,fine'
    catalogue = read(tmp_path, rows)
    assert read_listings(catalogue) == {str(n): 9 if n < 9 else 6 for n in range(1, 13)}
    assert catalogue.unusable == {}
    assert [(row.reason, row.row, row.row_id, row.value) for row in catalogue.odd] == [
        (UNCLOSED.format("Products.csv"), 5, "4", '"4 to 5 inches'),
        (UNCLOSED.format("Products.csv"), 12, "11", '"11 or so'),
    ]


@pytest.mark.parametrize(
    ("row", "following"),
    [
        pytest.param('1,"12 inch,Appliances,fine', "2,Item,Other Goods,x", id="no other quote in the table"),
        pytest.param('1,"12 inch,Appliances,fine', '2,Pipe 5",Other Goods,x', id="closed by an inch mark at an end"),
        pytest.param('1,"12 inch,Appliances,fine', '2,Pipe 5" x,Other Goods,x', id="closed by one in the middle"),
        pytest.param('1,"12 inch,Appliances,fine', '2,"Pots, pans",Other Goods,"x, y"', id="before quoted fields"),
        pytest.param('1,"12 inch,"Appliances / A, B","fine, old"', "2,Item,Other Goods,x", id="beside quoted fields"),
        pytest.param('1,"12 inch,Appliances,"fine"', "2,Item,Other Goods,x", id="beside a quoted field without need"),
        pytest.param('1,Twelve,Appliances,"fine', '2,Item,Other Goods,"y', id="in the last column"),
        pytest.param('1,"12 inch,Appliances,fine\r', '2,"13 inch,Other Goods,fine\r', id="CRLF"),
    ],
)
def test_a_row_with_an_unclosed_quote_is_read_by_its_line_alone(tmp_path: Path, row: str, following: str) -> None:
    catalogue = read(tmp_path, [row, following, "3,Last,Appliances,x"])
    assert read_listings(catalogue) == {"1": 9, "2": 6, "3": 9}
    assert catalogue.unusable == {}
    assert [problem.row for problem in catalogue.odd][:1] == [2]


def test_a_row_that_can_be_read_in_two_ways_or_none_is_named_and_those_below_are_read(tmp_path: Path) -> None:
    catalogue = read(tmp_path, ['1,"12, 13,Appliances,fine', "2,Item,Other Goods,x", '3,"Last,Appliances,x'])
    assert read_listings(catalogue) == {"2": 6, "3": 9}
    rejected = next(row for row in catalogue.rejected if row.table == "Products.csv")
    assert rejected.reason == UNCLOSED.format("Products.csv")
    assert (rejected.row, rejected.value) == (2, '1,"12, 13,Appliances,fine')
    assert catalogue.unusable == {UNCLOSED.format("Products.csv"): 1, "photo without listing": 1}


def test_an_unclosed_quote_in_images_csv_swallows_no_photos(tmp_path: Path) -> None:
    rows = [f"{n},Item,Appliances,fine" for n in range(1, 5)]
    images = 'id,product_id,caption\np1,1,"12 inch\np2,2,fine\np3,3,14"\np4,4,"two\nlines, one, two"\n'
    catalogue = read(tmp_path, rows, images)
    assert [photo.image_id for photo in catalogue.photos] == ["p1", "p2", "p3", "p4"]
    assert [(row.reason, row.table, row.row) for row in catalogue.odd] == [
        (UNCLOSED.format("Images.csv"), "Images.csv", 2)
    ]


@pytest.mark.parametrize(
    "description",
    [
        '"two\nlines"',
        '"two\nlines, with, three, commas"',
        '"bare\rcarriage\rreturns, and\na line feed"',
        '"""quoted"" at the start,\nand ""at the end"""',
        '"a ""table"":\n1,2,3\n4,5,6\n"',
        '5" x 7" x 9"',
        '"5"" x 7"""',
        '""',
    ],
)
def test_descriptions_over_several_lines_and_with_quotes_stay_whole(tmp_path: Path, description: str) -> None:
    catalogue = read(tmp_path, [f"1,Item,Appliances,{description}", f"2,Item,Other Goods,{description}"])
    assert read_listings(catalogue) == {"1": 9, "2": 6}
    assert (catalogue.unusable, catalogue.odd) == ({}, ())


def test_a_text_without_unclosed_quotes_is_not_rewritten() -> None:
    text = 'a,b\n1,"x\ny"\n\n2,z"z\n3,"""q"""'
    assert close_quotes(text, ",", lambda fields: True) is text


def test_rows_with_hundreds_of_fields_are_cut() -> None:
    wide = ",".join("abcdef")
    assert cut_records(f"a,b\n{wide}\n1,2\n{wide}", ",", 3) == 'a,b\n"a","b","cut"\n1,2\n"a","b","cut"\n'
