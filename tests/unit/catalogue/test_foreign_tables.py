"""Tables of other programs: headers in other spellings, encodings of other places, ids that are none."""

import json
from pathlib import Path

import pytest

from shared.catalogue.rows import MAX_ID_CHARS
from shared.catalogue.tables import Catalogue, read_catalogue
from shared.errors import CatalogueUnusable
from shared.jobs.contract import PutImageRequest
from tests.conftest import encode, noise_image, write_catalogue

PHOTO = encode(noise_image(1, (40, 30)))
PRODUCTS = "id,product_name,category\nl1,Kettle,Kitchen / Kettles\nl2,Ball,Sports\n"
IMAGES = "id,product_id\np1,l1\np2,l2\n"
BOTH = [("p1", "l1"), ("p2", "l2")]
SPELLING = "column in another spelling"
# By encoding, words that stand in tables in it, each in a language that is written with it.
FOREIGN = {
    "cp1251": ["Чайник электрический", "Бытовая техника", "Спорт"],
    "koi8-r": ["Чайник электрический", "Бытовая техника", "Спорт"],
    "cp1253": ["Βραστήρας", "Συσκευές", "Αθλητικά"],
    "cp1255": ["קומקום", "מוצרי חשמל", "ספורט"],
    "cp1256": ["غلاية كهربائية", "أجهزة منزلية", "رياضة"],
    "cp874": ["กาต้มน้ำ", "เครื่องใช้ไฟฟ้า", "กีฬา"],
    "cp932": ["やかん", "家電製品", "スポーツ"],
    "gbk": ["电水壶", "家用电器", "体育用品"],
    "big5": ["電水壺", "家用電器", "體育用品"],
    "cp949": ["전기 주전자", "가전제품", "스포츠"],
    "cp1250": ["Czajnik żółty, biały", "Sprzęt główny", "Piłka różowa i książka"],
    "mac-roman": ["Wasserkocher für Tee", "Haushaltsgeräte", "Größere Schläger"],
}


def read(
    directory: Path, products: str | bytes = PRODUCTS, images: str | bytes = IMAGES, *, ending: str = ".csv"
) -> Catalogue:
    (directory / "images").mkdir()
    for name, content in ((f"Products{ending}", products), ("Images.csv", images)):
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("p1.jpg", "p2.jpg"):
        (directory / "images" / name).write_bytes(PHOTO)
    return read_catalogue(directory)


def ids(catalogue: Catalogue) -> list[tuple[str, str]]:
    return [(photo.image_id, photo.listing_id) for photo in catalogue.photos]


@pytest.mark.parametrize("id_column", ["ID", " Id ", "\u200bid", "\uff29\uff24"])
@pytest.mark.parametrize("listing_column", ["PRODUCT_ID", "Product ID", "productId", "product-id"])
def test_case_spaces_and_signs_in_the_names_of_required_columns_do_not_matter(
    tmp_path: Path, id_column: str, listing_column: str
) -> None:
    catalogue = read(
        tmp_path,
        PRODUCTS.replace("id,", f"{id_column},").replace("category", "Category"),
        IMAGES.replace("id,product_id", f"{id_column};{listing_column}").replace(",", ";"),
    )
    assert (ids(catalogue), catalogue.unusable) == (BOTH, {})
    told = [(row.table, row.value, row.detail) for row in catalogue.odd if row.reason == SPELLING]
    assert told == [
        ("Products.csv", id_column.strip(), "read as id"),
        ("Products.csv", "Category", "read as category"),
        ("Images.csv", id_column.strip(), "read as id"),
        ("Images.csv", listing_column, "read as product_id"),
    ]


def test_a_column_of_the_exact_name_is_the_one_that_is_read(tmp_path: Path) -> None:
    products = PRODUCTS.replace("id,", "ID,id,").replace("\nl", "\nother,l")
    catalogue = read(tmp_path, products)
    assert ids(catalogue) == BOTH
    assert SPELLING not in [row.reason for row in catalogue.odd]


def test_of_two_columns_that_may_be_meant_one_is_to_be_renamed(tmp_path: Path) -> None:
    with pytest.raises(CatalogueUnusable, match=r"lacks the column id; it has ID, Id, .*; rename one of ID, Id to id"):
        read(tmp_path, PRODUCTS.replace("id,", "ID,Id,"))


def test_the_names_of_fields_in_json_lines_may_be_in_another_spelling_too(tmp_path: Path) -> None:
    rows = [{"ID": "l1", "Category": ["Kitchen", "Kettles"]}, {"ID": "l2", "Category": ["Sports"]}]
    catalogue = read(tmp_path, "\n".join(map(json.dumps, rows)), ending=".jsonl")
    assert (ids(catalogue), catalogue.paths["l1"]) == (BOTH, "Kitchen / Kettles")


def test_a_table_without_header_is_told_so_and_shown_in_part(tmp_path: Path) -> None:
    with pytest.raises(CatalogueUnusable, match="its first line must name the columns") as refused:
        read(tmp_path, ",".join(f"cell {n}" for n in range(200)) + "\n" + PRODUCTS)
    assert "cell 19 and 180 more" in str(refused.value)


@pytest.mark.parametrize("encoding", FOREIGN)
def test_a_table_in_an_encoding_of_another_place_is_refused(tmp_path: Path, encoding: str) -> None:
    name, kitchen, sports = FOREIGN[encoding]
    products = f'id,product_name,category\nl1,"{name}",{kitchen}\nl2,"{name}",{sports}\n'
    with pytest.raises(CatalogueUnusable, match=r"iconv -f ENCODING -t UTF-8 Products.csv"):
        read(tmp_path, products.encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        "“Größe XXL” für £5 · naïve façade",
        "þýðing á bókum um síðustu öld, hæð og lýsing á íslensku: dýr, kýr, ær, mús, bók",
        "crème brûlée, déjà vu, garçon, œuvre, maïs; ¿Qué tal? ¡Ola! ½ kg, 3 m³, 20 °C",
        "ÅÄÖ åäö Ærø Øre Ølen söndag Malmö Årsta blåbær rødgrød smørrebrød",
    ],
)
def test_western_texts_are_windows_1252(tmp_path: Path, text: str) -> None:
    catalogue = read(tmp_path, PRODUCTS.replace("Kettle,", f'"{text}",').encode("cp1252"))
    assert ids(catalogue) == BOTH
    assert json.loads(catalogue.photos[0].payload)["title"] == text


def test_turkish_texts_are_windows_1254(tmp_path: Path) -> None:
    text = "El dokumas\u0131 \u015e\u0131k hal\u0131, \u0130znik çini, gümü\u015f ya\u011fdanl\u0131k, kâ\u011f\u0131t"
    catalogue = read(tmp_path, PRODUCTS.replace("Kettle,", f'"{text}",').encode("cp1254"))
    assert ids(catalogue) == BOTH
    assert json.loads(catalogue.photos[0].payload)["title"] == text
    assert [one.detail for one in catalogue.odd if one.reason == "table is not UTF-8"] == [
        'read as Windows-1254; if letters are wrong, save it as "CSV UTF-8"'
    ]


def test_ids_must_not_depend_on_the_guess_that_a_text_is_turkish(tmp_path: Path) -> None:
    turkish = PRODUCTS.replace("Kettle,", '"\u0131\u015f\u0131\u011f\u0131",').replace("l1", "l\u0131")
    with pytest.raises(CatalogueUnusable, match="has the id l\u0131 if it is Windows-1254"):
        read(tmp_path, turkish.encode("cp1254"))


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("Products.csv", b"\x1f\x8b\x08\0", "is compressed and not a text"),
        ("Products.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "is a spreadsheet and not a text"),
        ("Products.csv.gz", b"\x1f\x8b\x08\0", "Products.csv.gz is not read: unpack it"),
        ("Products.json", b"[]", "one JSON object a line into a .jsonl"),
        ("Products.xlsx", b"PK\x03\x04", 'Products.xlsx is not read: save it as "CSV UTF-8"'),
    ],
)
def test_a_table_in_another_form_is_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, advice: str
) -> None:
    read(tmp_path)
    (tmp_path / "Products.csv").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CatalogueUnusable, match=advice):
        read_catalogue(tmp_path)


def test_ids_that_no_call_can_name_are_told(tmp_path: Path) -> None:
    properties = PutImageRequest.model_json_schema()["properties"]
    assert {properties[name]["maxLength"] for name in ("image_id", "listing_id")} == {MAX_ID_CHARS}
    fits, long = "a" * MAX_ID_CHARS, "b" * (MAX_ID_CHARS + 1)
    images = f"id,product_id,path\n{long},{fits},p1.jpg\np2,{long},p2.jpg\n"
    catalogue = read(tmp_path, PRODUCTS.replace("l1", fits).replace("l2", long), images)
    assert ids(catalogue) == [(long, fits), ("p2", long)]
    told = [(row.table, row.row, row.row_id, row.detail) for row in catalogue.odd]
    detail = "calls take ids of up to 200 characters"
    assert told == [("Products.csv", 3, long, detail), ("Images.csv", 2, long, detail)]


def test_listings_whose_ids_were_rounded_to_one_are_all_left_out(tmp_path: Path) -> None:
    products = "id,category\n1.23457E+11,Kitchen\n1.23457E+11,Sports\nl1,Kitchen\nl2,Sports\n"
    catalogue = read(tmp_path, products, "id,product_id\np1,1.23457E+11\np2,l2\n")
    assert ids(catalogue) == [("p2", "l2")]
    assert catalogue.unusable == {"listing id repeated": 2, "photo of an unusable listing": 1}
    assert catalogue.rejected[0].detail == "a spreadsheet has rounded it: export ids as text"


def test_a_row_with_too_many_fields_is_told_how_many_there_should_be(tmp_path: Path) -> None:
    catalogue = read(tmp_path, f"{PRODUCTS}l3,Cup,blue,Kitchen\n")
    assert [row.detail.partition(":")[0] for row in catalogue.rejected] == ["more fields than the header's 3"]


@pytest.mark.parametrize("several", ["p1|p2", '"[""p1"", ""p2""]"', "p1;p2", '"p1.jpg, p2.jpg"'])
@pytest.mark.parametrize("header", ["id,product_id", "id,product_id,path"])
def test_a_row_that_names_several_photos_is_told_to_name_one(tmp_path: Path, header: str, several: str) -> None:
    first = f"{several},l1" if header == "id,product_id" else f"x,l1,{several}"
    catalogue = read(tmp_path, PRODUCTS, f"{header}\n{first}\np2,l2{',p2.jpg' if 'path' in header else ''}\n")
    assert ids(catalogue) == [("p2", "l2")]
    assert "a row names one photo: write a row for each" in catalogue.rejected[0].detail


def test_an_id_that_is_a_file_name_with_its_ending_in_another_case_is_found(tmp_path: Path) -> None:
    assert ids(read(tmp_path, images="id,product_id\np1.JPG,l1\np2.Jpg,l2\n")) == [("p1.JPG", "l1"), ("p2.Jpg", "l2")]


def test_ids_that_are_the_same_file_name_but_for_case_are_not_guessed(tmp_path: Path) -> None:
    catalogue = read(tmp_path, images="id,product_id\np1.JPG,l1\np1.jpg,l2\np2,l2\n")
    assert ids(catalogue) == [("p1.jpg", "l2"), ("p2", "l2")]
    assert catalogue.unusable == {"photo without file": 1}


def test_a_table_of_three_hundred_columns_is_read_with_its_torn_rows_told(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(298)]
    cells = ",".join("x" for _ in names)
    rows = [f"{cells},1,Appliances", f"{cells},2,Appliances,one,more", f"{cells},3,Appliances"]
    products = "\n".join([",".join([*names, "id", "category"]), *rows, ""])
    photos = {"a.jpg": PHOTO, "b.jpg": PHOTO}
    dump = write_catalogue(tmp_path / "dump", products, "id,product_id\na,1\nb,3\n", photos)
    catalogue = read_catalogue(dump)
    assert [(one.image_id, one.listing_id) for one in catalogue.photos] == [("a", "1"), ("b", "3")]
    assert [(one.reason, one.row) for one in catalogue.rejected] == [("row of Products.csv with too many fields", 3)]
    assert len(catalogue.attributes) == 64
    assert {one.reason for one in catalogue.odd} == {"too many columns"}
    (dump / "Products.csv").write_text(",".join(["id", "category", *(f"c{n}" for n in range(5000))]))
    with pytest.raises(CatalogueUnusable, match="has 5002 columns; 4096 are the most"):
        read_catalogue(dump)
