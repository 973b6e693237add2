"""Cleaning a dump from end to end: complete, the same bytes every time, resumable, and the dump stays as it was."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cleaning.clean import CleanedCatalogue, clean, cleaned_directory
from pipeline.cli.main import main
from shared.artifacts.snapshots import index_store
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType
from shared.catalogue.tables import read_catalogue
from shared.errors import CannotStart, CatalogueUnusable
from shared.model.embedder import Embeddings
from tests.conftest import encode, noise_image, write_catalogue
from tests.support.catalogues import GERMAN, draw_catalogue
from tests.support.snapshots import write_snapshot

HOSTILE = "<script>alert(1)</script>"
PRODUCTS = f"""id,product_name,category,product_description,price,location
l1,Kettle,Appliances / Kitchen,Call 07700 900123,"£1,250.00",Leeds
l2,Ball,"Sports, Leisure & Travel",round,{HOSTILE},Leeds
l3,Cat,{HOSTILE},x,£1,Leeds
"""
IMAGES = f"id,product_id\np1,l1\np2,l2\np3,l2\np4,l3\np5,l1\n{HOSTILE},l9\n"
OUTPUTS = ["near_duplicates.csv", "overview.html", "photos.parquet", "report.json", "training_data.csv"]


def silent(line: str) -> None:
    pass


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    kettle = noise_image(1, (500, 300))
    photos = {
        "p1.jpg": encode(kettle), "p2.jpg": encode(noise_image(2)), "p3.jpg": encode(kettle, quality=60),
        "p4.jpg": encode(noise_image(4)), "p5.jpg": b"\xff\xd8\xff broken",
    }  # fmt: skip
    return write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, photos)


@pytest.fixture
def cleaned(dump: Path, tmp_path: Path) -> CleanedCatalogue:
    return clean(dump, tmp_path / "out", report_progress=silent)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def outputs(directory: Path) -> dict[str, bytes]:
    """Everything but what only saves time."""
    return {name: content for name, content in contents(directory).items() if not name.startswith("cache/")}


def test_the_usable_photos_come_with_all_that_is_known_of_them(cleaned: CleanedCatalogue, dump: Path) -> None:
    assert [photo.image_id for photo in cleaned.catalogue.photos] == ["p1", "p2", "p3"]
    assert cleaned.near_duplicates == [("p1", "p3")]
    assert cleaned.topics == {"l1": "Appliances / Kitchen", "l2": "Sports, Leisure & Travel"}
    assert cleaned.texts == {"l1": "kettle call", "l2": "ball round"}
    assert all(cleaned.working_copy(photo).is_file() for photo in cleaned.catalogue.photos)
    assert cleaned.catalogue.digest != read_catalogue(dump).digest  # which counts p5


def test_training_data_is_what_the_older_service_reads(cleaned: CleanedCatalogue) -> None:
    assert (cleaned.directory / "training_data.csv").read_text() == "id_x,product_id,label\np1,l1,9\np2,l2,8\np3,l2,8\n"


def test_the_parquet_holds_everything_of_a_photo(cleaned: CleanedCatalogue) -> None:
    table = pd.read_parquet(cleaned.directory / "photos.parquet")
    first = cleaned.catalogue.photos[0]
    row = table.iloc[0].drop(["dhash"]).to_dict()
    assert row == {
        "id_x": "p1", "product_id": "l1", "label": 9, "category": "Appliances", "topic": "Appliances / Kitchen",
        "name": "kettle", "description": "call", "price_gbp": 1250.0, "location": "Leeds", "file": "images/p1.jpg",
        "sha256": first.sha256, "width": 500, "height": 300,
    }  # fmt: skip
    assert table["price_gbp"].isna().tolist() == [False, True, True]  # without a price a photo still trains


def test_every_row_that_is_left_out_or_odd_is_in_the_report(cleaned: CleanedCatalogue) -> None:
    report = json.loads((cleaned.directory / "report.json").read_text())
    problems = {
        reason: [(row["table"], row["row"], row["row_id"]) for row in problem["examples"]]
        for reason, problem in {**report["left_out"], **report["odd"]}.items()
    }
    assert problems == {
        "listing of unknown category": [("Products.csv", 4, "l3")],
        "photo cannot be used: photo_undecodable": [("Images.csv", 6, "p5")],
        "photo of an unusable listing": [("Images.csv", 5, "p4")],
        "photo without listing": [("Images.csv", 7, HOSTILE)],
        "price is not one amount in pounds": [("Products.csv", 3, "l2")],
        "value of another type": [("Products.csv", 3, "l2")],
    }
    assert {reason: problem["count"] for reason, problem in report["left_out"].items()} == cleaned.catalogue.unusable
    assert (report["photos"], report["near_duplicate_pairs"]) == (3, 1)


def test_many_rows_with_one_problem_are_counted_and_some_are_shown(tmp_path: Path) -> None:
    images = "id,product_id\np1,l1\n" + "".join(f"x{n},l1\n" for n in range(50))
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, images, {"p1.jpg": encode(noise_image(1))})
    clean(dump, tmp_path / "out", report_progress=silent)
    found = json.loads((tmp_path / "out" / "report.json").read_text())["left_out"]["photo without file"]
    assert (found["count"], len(found["examples"])) == (50, 20)


def test_the_overview_needs_no_other_file_and_runs_nothing_of_a_listing(cleaned: CleanedCatalogue) -> None:
    page = (cleaned.directory / "overview.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert page.count('src="data:image/jpeg;base64,') == page.count("<img") == 2


def test_cleaning_twice_gives_the_same_bytes_and_leaves_the_dump_alone(dump: Path, tmp_path: Path) -> None:
    before = contents(dump)
    clean(dump, tmp_path / "one", report_progress=silent)
    first = outputs(tmp_path / "one")
    clean(dump, tmp_path / "one", report_progress=silent)
    clean(dump, tmp_path / "two", report_progress=silent)
    assert first == outputs(tmp_path / "one") == outputs(tmp_path / "two")
    assert set(OUTPUTS) < set(first)
    assert not [name for name in first if name.endswith(".tmp")]
    assert contents(dump) == before


def test_a_change_of_the_dump_is_followed(dump: Path, cleaned: CleanedCatalogue) -> None:
    (dump / "images" / "p5.jpg").write_bytes(encode(noise_image(5)))
    again = clean(dump, cleaned.directory, report_progress=silent)
    assert [photo.image_id for photo in again.catalogue.photos] == ["p1", "p2", "p3", "p5"]


def test_a_picture_that_many_listings_show_is_told(tmp_path: Path) -> None:
    products = "id,category\n" + "".join(f"l{n},Appliances\n" for n in range(12))
    images = "id,product_id\n" + "".join(f"p{n:02},l{n}\n" for n in range(12))
    photos = {f"p{n:02}.jpg": encode(noise_image(max(n, 6), (320, 240)), quality=70 + n) for n in range(12)}
    said: list[str] = []
    clean(write_catalogue(tmp_path / "dump", products, images, photos), tmp_path / "out", report_progress=said.append)
    warning = "warning: 7 of 12 photos count as near duplicates of one another, such as p00, p01, p02: "
    assert any(line.startswith(warning) for line in said)


def test_one_photo_is_enough(tmp_path: Path) -> None:
    dump = write_catalogue(tmp_path / "dump", "id,category\nl1,Appliances\n", "id,product_id\np1,l1\n",
                           {"p1.jpg": encode(noise_image(1))})  # fmt: skip
    assert clean(dump, tmp_path / "out", report_progress=silent).near_duplicates == []


@pytest.mark.parametrize(
    ("products", "images", "message"),
    [
        (PRODUCTS, "id,product_id\np5,l1\n", "photo cannot be used: photo_undecodable: 1"),
        (PRODUCTS, "id,product_id\np4,l3\n", "listing of unknown category: 1"),
        (PRODUCTS, "", "Images.csv is empty"),
        (PRODUCTS.splitlines()[0] + "\n", IMAGES, "photo without listing: 6"),
    ],
)
def test_a_dump_without_a_usable_photo_is_refused_with_the_reasons(
    dump: Path, tmp_path: Path, products: str, images: str, message: str
) -> None:
    (dump / "Products.csv").write_text(products)
    (dump / "Images.csv").write_text(images)
    with pytest.raises(CatalogueUnusable, match=message):
        clean(dump, tmp_path / "out", report_progress=silent)


@pytest.mark.parametrize("inside", [".", "images", "cleaned"])
def test_nothing_is_written_into_the_dump_even_when_asked_to(dump: Path, inside: str) -> None:
    before = contents(dump)
    with pytest.raises(CatalogueUnusable, match="never written to"):
        clean(dump, dump / inside, report_progress=silent)
    assert contents(dump) == before


def test_two_cannot_clean_into_one_place_at_once(dump: Path, tmp_path: Path) -> None:
    def another(line: str) -> None:
        with pytest.raises(CannotStart, match="another process"):
            clean(dump, tmp_path / "out", report_progress=silent)

    clean(dump, tmp_path / "out", report_progress=another)


def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    photos = {f"p{n}.jpg": encode(noise_image(n, (600, 450))) for n in range(40)}
    rows = "".join(f"p{n},l{1 + n % 2}\n" for n in range(40))
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, "id,product_id\n" + rows, photos)
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "clean",
        "--catalogue",
        str(dump),
        "--out",
        str(tmp_path / "out"),
    ]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/photos/*/*.jpg")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob("out/photos/*/*.jpg"))) < 40
    clean(dump, tmp_path / "out", report_progress=silent)
    clean(dump, tmp_path / "undisturbed", report_progress=silent)
    assert outputs(tmp_path / "out") == outputs(tmp_path / "undisturbed")


def test_the_verb_writes_into_the_home_and_prints_one_object(
    dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(dump), "--json"])
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert (facts["catalogue"], facts["photos"]) == ("dump", 3)
    assert facts["directory"] == str(cleaned_directory(tmp_path / "home", dump))
    assert (Path(facts["directory"]) / "overview.html").is_file()


def test_the_verb_ends_with_the_reason_when_the_dump_cannot_be_used(dump: Path, tmp_path: Path) -> None:
    (dump / "Images.csv").write_text("id,product_id\np4,l3\n")
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(dump), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "photo of an unusable listing: 1" in result.stderr


@pytest.mark.parametrize(("column", "is_told"), [("Ware", True), ("Titel", False)])
def test_the_verb_says_so_where_no_column_has_words(tmp_path: Path, column: str, is_told: bool) -> None:
    directory = draw_catalogue(tmp_path / "raw", GERMAN[:2], listings_each=2, columns=("id", "category", column))
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(directory), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert ("searches by words find nothing" in result.stdout) is is_told


@pytest.mark.parametrize(
    ("live", "told"), [("raw", {"attribute of another type than before", "attribute is gone"}), ("other", set())]
)
def test_what_a_reindex_would_change_of_the_live_attributes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: str, told: set[str]
) -> None:
    directory = draw_catalogue(
        tmp_path / "raw", GERMAN[:2], columns=("id", "category", "titel", "Preis"),
        further=lambda position, n: {"Preis": "auf Anfrage"},
    )  # fmt: skip
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    photos = read_catalogue(directory).photos
    price, colour = AttributeType.PRICE, AttributeType.KEYWORD
    known = AttributeSchema((Attribute(name="preis", type=price), Attribute(name="farbe", type=colour)))
    rows = np.eye(len(photos), 40, dtype=np.float32)
    store = index_store(tmp_path / "home")
    store.promote(
        write_snapshot(
            store,
            [replace(photo, payload="") for photo in photos],
            Embeddings(rows, rows[:, :2]),
            fingerprint="f" * 64,
            catalogue=live,
            catalogue_digest="d",
            attributes=known,
        )
    )
    result = CliRunner().invoke(main, ["clean", "--catalogue", str(directory), "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["odd"]) == told


def test_prices_without_a_currency_are_not_said_to_be_no_pounds(tmp_path: Path) -> None:
    directory = draw_catalogue(
        tmp_path / "raw", GERMAN[:2], columns=("id", "category", "price"),
        further=lambda position, n: {"price": ("-5", "12.5", "1e12")[n % 3]},
    )  # fmt: skip
    cleaned = clean(directory, tmp_path / "out", report_progress=silent)
    assert json.loads((cleaned.directory / "report.json").read_text())["odd"] == {}
    assert {photo.payload for photo in cleaned.catalogue.photos} == {
        f'{{"price":{{"amount":{amount},"currency":""}}}}' for amount in ("-5.0", "12.5", "1000000000000.0")
    }


def test_what_columns_were_read_as_and_what_was_left_out_is_in_report_and_page(tmp_path: Path) -> None:
    def further(position: int, n: int) -> dict[str, str]:
        weight = "viel" if (position, n) == (0, 0) else "1.250"
        return {"Preis": f"{n},50 €", "Gewicht": weight, "Datum": "3/4/2026", "gewicht ": "2"}

    columns = ("id", "category", "Preis", "Gewicht", "Datum", "gewicht ", "price")
    directory = draw_catalogue(
        tmp_path / "raw", GERMAN, listings_each=5, photos_each=1, columns=columns,
        further=lambda position, n: {**further(position, n), "price": f"{n},50 €"},
    )  # fmt: skip
    cleaned = clean(directory, tmp_path / "out", report_progress=silent)
    report = json.loads((cleaned.directory / "report.json").read_text())
    told = {
        reason: (p["count"], p["examples"][0]["value"], p["examples"][0]["row"]) for reason, p in report["odd"].items()
    }
    assert told == {
        "column without a name of its own": (1, "gewicht", 1),
        "date that can be read both ways": (1, "3/4/2026", 1),
        "number that can be read both ways": (1, "1.250", 1),
        "value of another type": (1, "viel", 2),
    }
    assert [(one["name"], one["type"], one["listings"]) for one in report["attributes"]] == [
        ("preis", "price", 25), ("gewicht", "number", 24), ("datum", "time", 25), ("price", "price", 25),
    ]  # fmt: skip
    assert report["listings_per_price_gbp"]["unknown"] == 25
    assert "<td>gewicht<td>Gewicht<td>number" in (cleaned.directory / "overview.html").read_text()
