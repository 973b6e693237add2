"""Ids that spreadsheets spoiled: read, and told, where one thing only can be meant; refused by name where two can."""

from pathlib import Path

import pytest

from shared.catalogue.spoiled_ids import is_rounded, number_key, similar_ids, similar_keys
from shared.catalogue.tables import Catalogue, read_catalogue
from tests.conftest import encode, noise_image, write_catalogue

PHOTO = encode(noise_image(1, (40, 30)))
PHOTO_ODD, LISTING_ODD = "photo id spoiled by a spreadsheet", "listing id spoiled by a spreadsheet"


def read(tmp_path: Path, listings: list[str], rows: list[tuple[str, str]], files: list[str]) -> Catalogue:
    """A catalogue of these listings, rows of photo id and listing id, and files, beside a photo that is sound."""
    products = "id,category\nsound,Appliances\n" + "".join(f"{listing},Appliances\n" for listing in listings)
    images = "id,product_id\nsound,sound\n" + "".join(f"{image_id},{listing}\n" for image_id, listing in rows)
    photos = {f"{name}.jpg": PHOTO for name in ("sound", *files)}
    return read_catalogue(write_catalogue(tmp_path / "dump", products, images, photos))


def ids(catalogue: Catalogue) -> list[tuple[str, str]]:
    return [(photo.image_id, photo.listing_id) for photo in catalogue.photos[1:]]


@pytest.mark.parametrize(
    ("spoiled", "meant"),
    [("123.0", "123"), ("123,0", "123"), ("7", "007"), ("7.00", "007"), ("007", "7"), ("0.0", "000")],
)
def test_an_id_is_read_as_the_one_that_is_meant_and_told(tmp_path: Path, spoiled: str, meant: str) -> None:
    spoiled_cell = f'"{spoiled}"'
    catalogue = read(tmp_path, [meant], [(spoiled_cell, spoiled_cell)], [meant])
    assert (ids(catalogue), catalogue.rejected) == ([(meant, meant)], ())
    assert [(row.reason, row.table, row.row, row.value, row.detail) for row in catalogue.odd] == [
        (PHOTO_ODD, "Images.csv", 3, spoiled, f"read as {meant}"),
        (LISTING_ODD, "Images.csv", 3, spoiled, f"read as {meant}"),
    ]


def test_an_id_that_is_there_is_read_as_it_stands(tmp_path: Path) -> None:
    catalogue = read(tmp_path, ["1.0", "007"], [("1.0", "1.0"), ("007", "007")], ["1.0", "007"])
    assert (ids(catalogue), catalogue.odd) == ([("1.0", "1.0"), ("007", "007")], ())


def test_a_listing_is_found_by_its_id_in_another_unicode_form_where_one_alone_can_be_meant(tmp_path: Path) -> None:
    catalogue = read(
        tmp_path, ["Stu\u0308hle", "\u00e9", "e\u0301"], [("a", "St\u00fchle"), ("b", "e\u0301")], ["a", "b"]
    )
    assert (ids(catalogue), catalogue.rejected) == ([("a", "Stu\u0308hle"), ("b", "e\u0301")], ())
    assert [(row.reason, row.row, row.detail) for row in catalogue.odd] == [
        ("listing id in another Unicode form", 3, "read as Stu\u0308hle")
    ]


def test_photos_of_one_listing_may_have_it_in_two_spellings_of_a_float(tmp_path: Path) -> None:
    catalogue = read(tmp_path, ["6"], [("a", "6"), ("b", "6.0"), ("c", "6.00")], ["a", "b", "c"])
    assert ids(catalogue) == [("a", "6"), ("b", "6"), ("c", "6")]
    assert [row.row for row in catalogue.odd] == [4, 5]


def test_a_photo_that_may_be_that_of_two_ids_or_files_is_refused_by_name(tmp_path: Path) -> None:
    rows = [("1.0", "a"), ("2", "a"), ("2.0", "a"), ("3", "a")]
    catalogue = read(tmp_path, ["a"], rows, ["01", "001", "2", "03"])
    assert ids(catalogue) == [("2", "a"), ("03", "a")]
    assert [(row.row_id, row.reason, row.detail) for row in catalogue.rejected] == [
        ("1.0", "photo file is ambiguous", "looked for images/1.0.jpg; there is 001.jpg, 01.jpg"),
        ("2.0", "photo file is ambiguous", "looked for images/2.0.jpg; there is 2.jpg, which may be that of 2"),
    ]


def test_a_spoiled_id_that_is_repeated_is_told_as_such(tmp_path: Path) -> None:
    catalogue = read(tmp_path, ["a"], [("1.0", "a"), ("1.0", "a")], ["1"])
    assert ids(catalogue) == [("1", "a")]
    assert [(row.row, row.reason) for row in catalogue.rejected] == [(4, "photo id repeated")]


def test_a_listing_that_may_be_one_of_two_is_refused_by_name(tmp_path: Path) -> None:
    rows = [("a", "1.0"), ("b", "2"), ("c", "002")]
    catalogue = read(tmp_path, ["1", "01", "02"], rows, ["a", "b", "c"])
    assert ids(catalogue) == []
    assert [(row.row_id, row.reason, row.value, row.detail) for row in catalogue.rejected] == [
        ("a", "photo listing is ambiguous", "1.0", "looked for the id 1.0 in Products.csv; it may mean 01, 1"),
        ("b", "photo listing is ambiguous", "2", "looked for the id 2 in Products.csv; it may mean 002, 02, 2"),
        ("c", "photo listing is ambiguous", "002", "looked for the id 002 in Products.csv; it may mean 002, 02, 2"),
    ]


def test_rounded_ids_are_refused_with_what_to_do(tmp_path: Path) -> None:
    rows = [("1.23457E+11", "6"), ("a", "1.23457E+11"), ("b", "12345678901234568.0"), ("c", "")]
    catalogue = read(tmp_path, ["6", "12345678901234568"], rows, ["123456789012", "a", "b", "c"])
    advice = "a spreadsheet has rounded it: export ids as text"
    assert ids(catalogue) == []
    assert [(row.row_id, row.detail) for row in catalogue.rejected] == [
        ("1.23457E+11", f"looked for images/1.23457E+11.jpg; {advice}"),
        ("a", f"looked for the id 1.23457E+11 in Products.csv; {advice}"),
        (
            "b",
            f"looked for the id 12345678901234568.0 in Products.csv; there is 12345678901234568; {advice}",
        ),
        ("c", "the row has no product_id"),
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("123.0", "123"), ("0123", "123"), ("000", "0"), ("9007199254740992.0", "9007199254740992"),
        ("9007199254740993.0", None), ("9007199254740993", "9007199254740993"), ("1.5", None), ("a1", None), ("", None),
        ("\u0661", None), ("9" * 5000 + ".0", None),
    ],
)  # fmt: skip
def test_keys_of_numbers(text: str, key: str | None) -> None:
    assert number_key(text) == key


def test_what_was_rounded() -> None:
    texts = ["1.2E+9", "1,2e+9", "9" * 17 + ".0", "9" * 17, "123.0", "1E5"]
    assert [is_rounded(text) for text in texts] == [True, True, True, False, False, False]


@pytest.mark.parametrize(("spoiled", "meant"), [("123.0", "123"), ("007", "7"), ("7", "007"), ("L1", "l1")])
def test_similar_ids_are_found_by_what_is_left_of_them(spoiled: str, meant: str) -> None:
    index = similar_ids({meant: meant, "x": "x"})
    assert next(index[key] for key in similar_keys(spoiled) if key in index) == meant
