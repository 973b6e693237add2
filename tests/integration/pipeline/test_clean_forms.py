"""`clean` on a catalogue as people have them: tables with types, photos in subfolders and by path, spoiled ids."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipeline.cleaning.clean import clean
from shared.catalogue.rows import RowProblem
from tests.support.catalogues import draw_catalogue

BOATS = ("Boats", "Cars", "Watches")


def test_the_same_catalogue_in_other_forms_is_cleaned_to_the_same(tmp_path: Path) -> None:
    plain = draw_catalogue(tmp_path / "plain", BOATS, listings_each=2)
    other = draw_catalogue(tmp_path / "other", BOATS, listings_each=2)
    listings, photos = (pd.read_csv(other / name, dtype=str) for name in ("Products.csv", "Images.csv"))
    listings.to_parquet(other / "products.parquet")
    lines = [dict(row) for _, row in photos.iterrows()]
    (other / "photos").mkdir()
    for line in lines[:3]:
        line["path"] = f"photos/{line['id']}.x.jpg"
        (other / "images" / f"{line['id']}.jpg").rename(other / line["path"])
    for line in lines[3:6]:
        (other / "images" / "more" / "still").mkdir(parents=True, exist_ok=True)
        (other / "images" / f"{line['id']}.jpg").rename(other / "images" / "more" / "still" / f"{line['id']}.jpg")
    lines.append({"id": "none", "product_id": lines[0]["product_id"]})
    (other / "Images.ndjson").write_text("not this\n" + "".join(json.dumps(line) + "\n" for line in lines))
    for name in ("Products.csv", "Images.csv"):
        (other / name).unlink()
    expected = clean(plain, tmp_path / "one", report_progress=lambda line: None)
    cleaned = clean(other, tmp_path / "two", report_progress=lambda line: None)
    assert cleaned.catalogue.digest == expected.catalogue.digest
    assert (cleaned.topics, cleaned.texts) == (expected.topics, expected.texts)
    tables = [pd.read_parquet(tmp_path / one / "photos.parquet").drop(columns="file") for one in ("one", "two")]
    assert tables[0].equals(tables[1])
    assert [(row.table, row.row, row.row_id) for row in cleaned.catalogue.rejected] == [
        ("Images.ndjson", 1, ""),
        ("Images.ndjson", len(lines) + 1, "none"),
    ]


def test_a_photo_that_cannot_be_decoded_is_told_with_the_row_and_table_that_it_has(tmp_path: Path) -> None:
    dump = draw_catalogue(tmp_path / "dump", BOATS, listings_each=2)
    photos = pd.read_csv(dump / "Images.csv", dtype=str)
    photos.to_parquet(dump / "Images.parquet")
    (dump / "Images.csv").unlink()
    (dump / "images" / f"{photos['id'][2]}.jpg").write_bytes(b"no photo")
    cleaned = clean(dump, tmp_path / "out", report_progress=lambda line: None)
    reason = "photo cannot be used: unsupported_format"
    (told,) = cleaned.catalogue.rejected
    assert replace(told, detail="") == RowProblem(reason, "Images.parquet", 3, photos["id"][2])
    assert "JPEG" in told.detail  # what is read


def test_ids_that_a_spreadsheet_spoiled_are_cleaned_as_those_that_are_meant(tmp_path: Path) -> None:
    plain = draw_catalogue(tmp_path / "plain", BOATS, listings_each=2)
    listings, photos = (pd.read_csv(plain / name, dtype=str) for name in ("Products.csv", "Images.csv"))
    numbers = {listing: str(n) for n, listing in enumerate(listings["id"], 100)}
    names = {photo: f"0{n}" for n, photo in enumerate(photos["id"], 500)}
    for old, new in names.items():
        (plain / "images" / f"{old}.jpg").rename(plain / "images" / f"{new}.jpg")
    listings["id"] = listings["id"].map(numbers)
    listings.to_csv(plain / "Products.csv", index=False)
    spoiled = pd.DataFrame({
        "id": [f"{int(names[photo])}.0" for photo in photos["id"]],
        "product_id": [f"{numbers[listing]}.0" for listing in photos["product_id"]],
    })  # fmt: skip
    spoiled.to_csv(plain / "Images.csv", index=False)
    cleaned = clean(plain, tmp_path / "out", report_progress=lambda line: None)
    assert [photo.image_id for photo in cleaned.catalogue.photos] == list(names.values())
    assert cleaned.topics.keys() == set(numbers.values())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["odd"]["photo id spoiled by a spreadsheet"]["count"] == len(names)
    assert report["odd"]["listing id spoiled by a spreadsheet"]["count"] == len(names)
