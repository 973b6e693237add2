"""Separators and encodings of tables: what spreadsheets write is read and told, and what must be guessed is refused."""

import json
from pathlib import Path

import pytest

from shared.catalogue.tables import Catalogue, read_catalogue
from shared.errors import CatalogueUnusable
from tests.conftest import encode, noise_image, write_catalogue

PHOTO = encode(noise_image(1, (40, 30)))
PRODUCTS = 'id,product_name,category\nl1,Café £5,Appliances / Kitchen\nl2,Ball,"Sports, Leisure & Travel"\n'
IMAGES = "id,product_id\np1,l1\np2,l2\n"
PHOTOS = {"p1.jpg": PHOTO, "p2.jpg": PHOTO}
BOTH = [("p1", "l1", 9), ("p2", "l2", 8)]
NO_COMMAS, NO_UTF8 = "table is not separated by commas", "table is not UTF-8"


def read(tmp_path: Path, products: bytes, images: bytes = IMAGES.encode()) -> Catalogue:
    dump = write_catalogue(tmp_path / "dump", "", "", PHOTOS)
    (dump / "Products.csv").write_bytes(products)
    (dump / "Images.csv").write_bytes(images)
    return read_catalogue(dump)


def labelled(catalogue: Catalogue) -> list[tuple[str, str, int]]:
    return [(photo.image_id, photo.listing_id, photo.category) for photo in catalogue.photos]


def separated(text: str, delimiter: str) -> str:
    """The same table with another delimiter; the comma in a category is not one."""
    return text.replace(", ", "\0").replace(",", delimiter).replace("\0", ", ")


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_other_separators_are_read_and_told(tmp_path: Path, delimiter: str, line_end: str) -> None:
    products, images = (separated(table, delimiter).replace("\n", line_end).encode() for table in (PRODUCTS, IMAGES))
    catalogue = read(tmp_path, products, images)
    assert (labelled(catalogue), catalogue.unusable) == (BOTH, {})
    assert [(row.reason, row.table, row.value) for row in catalogue.odd] == [
        (NO_COMMAS, "Products.csv", delimiter),
        (NO_COMMAS, "Images.csv", delimiter),
    ]


@pytest.mark.parametrize("first_line", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;"])
def test_a_first_line_that_names_the_separator_is_followed_and_is_no_row(tmp_path: Path, first_line: str) -> None:
    products = f"{first_line}\r\n{separated(PRODUCTS, ';')}l3;Cat;Pets\n"
    catalogue = read(tmp_path, products.encode(), f"sep=,\n{IMAGES}".encode())
    assert labelled(catalogue) == BOTH
    assert [(row.row, row.row_id) for row in catalogue.rejected] == [(4, "l3")]  # the header is row 1
    assert [(row.table, row.value) for row in catalogue.odd] == [("Products.csv", ";")]


def test_commas_are_separators_where_the_header_has_the_columns_so(tmp_path: Path) -> None:
    products = PRODUCTS.replace("product_name", "name;size\tand|more").replace("Ball", "Ball;5\tred|blue")
    catalogue = read(tmp_path, products.encode())
    assert (labelled(catalogue), catalogue.odd) == (BOTH, ())


def test_quotes_are_closed_in_a_table_with_semicolons_too(tmp_path: Path) -> None:
    products = separated(PRODUCTS, ";").replace("Café", '"Café')
    catalogue = read(tmp_path, products.encode())
    assert (labelled(catalogue), catalogue.unusable) == (BOTH, {})
    assert catalogue.odd[1].row == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_with_a_byte_order_mark_is_read_and_told(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    catalogue = read(tmp_path, (mark + separated(PRODUCTS, "\t")).encode(encoding), (mark + IMAGES).encode(encoding))
    assert (labelled(catalogue), catalogue.unusable) == (BOTH, {})
    told = [(row.reason, row.table) for row in catalogue.odd]
    assert told == [(NO_UTF8, "Products.csv"), (NO_COMMAS, "Products.csv"), (NO_UTF8, "Images.csv")]
    assert catalogue.odd[0].detail == "read as UTF-16"


def test_windows_1252_is_read_and_told_with_the_row(tmp_path: Path) -> None:
    catalogue = read(tmp_path, PRODUCTS.encode("cp1252"))
    assert (labelled(catalogue), catalogue.unusable) == (BOTH, {})
    [told] = catalogue.odd
    assert (told.reason, told.table, told.row) == (NO_UTF8, "Products.csv", 2)
    assert told.value == "l1,Café £5,Appliances / Kitchen"
    assert told.detail.startswith("read as Windows-1252; if letters are wrong, save it as")


@pytest.mark.parametrize(
    ("products", "facts"),
    [
        pytest.param(
            PRODUCTS.replace("l2", "l\xe4").encode("cp1252"),
            ["row 3", "the id l\xe4", "guess", "CSV UTF-8"],
            id="an id",
        ),
        pytest.param(
            PRODUCTS.encode().replace(b"Ball", b"B\xe4ll"), ["line 3", "0xe4", "mixes", "CSV UTF-8"], id="mixed"
        ),
        pytest.param(b"\xef\xbb\xbf" + PRODUCTS.encode("cp1252"), ["line 2", "0xe9", "mixes"], id="with UTF-8's mark"),
        pytest.param(
            PRODUCTS.encode("cp1252").replace(b"Ball", b"B\x81ll"), ["line 2", "not Windows-1252 either"], id="neither"
        ),
        pytest.param(PRODUCTS.encode("utf-16-le"), ["line 1", "zero bytes", "CSV UTF-8"], id="UTF-16 without a mark"),
        pytest.param(PRODUCTS.encode("utf-32"), ["line 1", "zero bytes"], id="UTF-32"),
        pytest.param(PRODUCTS.encode("utf-16")[:-1], ["UTF-16", "line 3", "truncated"], id="UTF-16, cut"),
        pytest.param(b"PK\x03\x04\x14\0", ["a spreadsheet or an archive", "CSV UTF-8"], id="xlsx"),
        pytest.param(PRODUCTS.replace("\n", "\r").encode(), ["carriage returns only"], id="old Mac"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused_with_what_was_found(
    tmp_path: Path, products: bytes, facts: list[str]
) -> None:
    with pytest.raises(CatalogueUnusable) as refused:
        read(tmp_path, products)
    assert [fact for fact in ["Products.csv", *facts] if fact not in str(refused.value)] == []


def test_an_attribute_that_is_spoken_of_without_a_column_is_told(tmp_path: Path) -> None:
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, PHOTOS)
    (dump / "catalogue.toml").write_text("[attributes.titel]\ntype = 'text'\n[attributes.title]\ntype = 'keyword'\n")
    catalogue = read_catalogue(dump)
    assert [one.type for one in catalogue.attributes] == ["keyword"]
    [told] = catalogue.odd
    assert (told.reason, told.table, told.value) == ("attribute without a column", "catalogue.toml", "titel")
    assert "it has product_name" in told.detail


def test_of_columns_with_one_name_the_first_is_read_and_the_others_are_told(tmp_path: Path) -> None:
    products = PRODUCTS.replace("product_name", "size,product_name,size,size").replace(",Café", ",L,Café")
    products = products.replace("£5", "£5,2,3").replace("Ball", "M,Ball,4,5")
    catalogue = read(tmp_path, products.encode())
    assert '"size":"L"' in catalogue.photos[0].payload
    [told] = catalogue.odd
    assert (told.value, told.detail) == ("size", "column size: left out but for the first")


TORN = "id,category,product_name,product_description\nl1,Appliances,Kettle,\nl2,Appliances,Tea set, blue,of two, old\n"


@pytest.mark.parametrize(("delimiter", "line_end"), [(",", "\n"), (";", "\r\n")])
def test_a_separator_in_a_text_without_quotes_is_one_where_no_space_follows(
    tmp_path: Path, delimiter: str, line_end: str
) -> None:
    products = f"{TORN}l3,Appliances,Pan,,x\n".replace(",", delimiter).replace("\n", line_end)
    catalogue = read(tmp_path, products.encode())
    assert labelled(catalogue) == [("p1", "l1", 9), ("p2", "l2", 9)]
    assert json.loads(catalogue.photos[1].payload) == {
        "title": f"Tea set{delimiter} blue", "description": f"of two{delimiter} old"
    }  # fmt: skip
    assert [(row.reason, row.row) for row in catalogue.rejected] == [("row of Products.csv with too many fields", 4)]
    [told] = [row for row in catalogue.odd if "separator in a text" in row.reason]
    assert (told.row, told.row_id, told.value) == (3, "l2", f"Tea set{delimiter} blue")


def test_where_spaces_stand_between_fields_a_row_with_too_many_is_left_out(tmp_path: Path) -> None:
    catalogue = read(tmp_path, TORN.replace("Kettle", " Kettle").encode())
    assert labelled(catalogue) == [("p1", "l1", 9)]
    assert catalogue.unusable == {"row of Products.csv with too many fields": 1, "photo without listing": 1}


def test_a_row_that_has_not_as_many_fields_then_is_left_out(tmp_path: Path) -> None:
    catalogue = read(tmp_path, TORN.replace("of two, old", "of,two, old").encode())
    assert catalogue.unusable == {"row of Products.csv with too many fields": 1, "photo without listing": 1}
