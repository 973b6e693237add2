"""`lookalike clean` on tables that spreadsheets spoiled: an example of each problem, for people and for programs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cleaning.clean import clean
from pipeline.cli.main import main
from tests.conftest import encode, noise_image, write_catalogue

PRODUCTS = """sep=;
id;product_name;category;product_description
1;"12 inch;Appliances;fine
2;Lamp;"home &amp; garden > Lamps";fine
3;Cat;Pets / Cats;\x1b[31mred
K4;Pan;Appliances;fine
"""
IMAGES = "id,product_id\np1,1\np2,2\np4,k4\np4.jpg,K4\nq,K4\n"
PHOTOS = ("p1.jpg", "P2.JPG", "p4.jpg")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    photos = {name: encode(noise_image(n, (60, 50))) for n, name in enumerate(PHOTOS)}
    return write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, photos)


def test_an_example_of_each_problem_is_printed_with_what_was_found_and_looked_for(dump: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(dump), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    told = {line: lines[n + 1].strip() for n, line in enumerate(lines) if line.startswith(("left out", "odd"))}
    assert told == {
        "left out: 1 x listing of unknown category": (
            "Products.csv row 4 (3): Pets: looked for one of the 13 categories"
        ),
        "left out: 1 x photo without listing": (
            "Images.csv row 4 (p4): k4: looked for the id k4 in Products.csv; there is K4"
        ),
        "left out: 2 x photo without file": (
            "Images.csv row 5 (p4.jpg): looked for images/p4.jpg.jpg; there is p4.jpg"
        ),
        "odd: 1 x table is not separated by commas": (
            "Products.csv row 1: ;: read as separated by semicolons: its first line says so"
        ),
        "odd: 1 x row of Products.csv with a quote that is never closed": (
            'Products.csv row 2 (1): "12 inch: read up to the end of its line, with the quote as part of the text'
        ),
        "odd: 1 x category in another spelling": (
            "Products.csv row 3 (2): home &amp; garden > Lamps: read as Home & Garden"
        ),
    }


def test_the_object_for_programs_holds_the_same(dump: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(dump), "--out", str(tmp_path / "out"), "--json"])
    facts = json.loads(result.stdout)
    assert (facts["listings"], facts["photos"]) == (3, 2)
    assert facts["left_out"]["photo without listing"]["examples"] == [
        {
            "reason": "photo without listing",
            "table": "Images.csv",
            "row": 4,
            "row_id": "p4",
            "value": "k4",
            "detail": "looked for the id k4 in Products.csv; there is K4",
        }
    ]
    assert facts["odd"]["category in another spelling"]["count"] == 1


def test_the_topic_of_a_merged_spelling_is_that_of_the_category(dump: Path, tmp_path: Path) -> None:
    cleaned = clean(dump, tmp_path / "out", report_progress=lambda line: None)
    assert cleaned.topics == {"1": "Appliances", "2": "Home & Garden / Lamps", "K4": "Appliances"}
    assert cleaned.texts["1"] == '"12 inch fine'


def test_a_row_with_hundreds_of_fields_does_not_shift_the_rows_below_it(dump: Path, tmp_path: Path) -> None:
    (dump / "Images.csv").write_text(f"id,product_id\n{'x,' * 300}\np1,1\np2,2\n")
    cleaned = clean(dump, tmp_path / "out", report_progress=lambda line: None)
    assert [photo.image_id for photo in cleaned.catalogue.photos] == ["p1", "p2"]
    rejected = [(row.reason, row.row) for row in cleaned.catalogue.rejected if row.table == "Images.csv"]
    assert rejected == [("row of Images.csv with too many fields", 2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,product_id\np1,k4\np2,k4\n", "Images.csv row 2: looked for the id k4 in Products.csv; there is K4"),
        ("id,product_id\np1é,1\n".encode("cp1252"), "row 2 has the id p1é"),
        ("id,product_id\np1,1\n".encode("utf-16-be"), "zero bytes"),
    ],
)
def test_a_catalogue_that_is_refused_says_which_row_and_what_to_do(
    dump: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    (dump / "Images.csv").write_bytes(content)
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(dump), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert message in result.stderr


def test_control_characters_of_a_table_do_not_reach_the_terminal(dump: Path, tmp_path: Path) -> None:
    (dump / "Products.csv").write_text(PRODUCTS.replace("Pets", "\x1b[31mPets"))
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(dump), "--out", str(tmp_path / "out")])
    assert "\x1b" not in result.stdout
    assert r"\x1b[31mPets" in result.stdout
