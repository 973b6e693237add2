"""Parquet and JSON Lines are read as the CSV of the same table would be, and what is wrong in them is told by row."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.cleaning.tables import clean_listings
from shared.attributes.inference import infer
from shared.attributes.schema import AttributeType
from shared.attributes.values import parse_time
from shared.catalogue.categories import CategorySource
from shared.catalogue.choice import CategoryChoice
from shared.catalogue.forms.csv_files import read_table
from shared.catalogue.forms.typed_tables import as_text, read_json_lines, read_parquet
from shared.catalogue.layout import find_layout
from shared.catalogue.rows import IMAGES, PRODUCTS, RowProblem
from shared.catalogue.tables import Catalogue, read_catalogue
from shared.errors import CatalogueUnusable
from tests.conftest import encode, noise_image, write_catalogue

NESTED = b"""
listings = {id = "item", category = "kind.value"}
photos.columns = ["images.src"]
attributes.title.column = "name.value"
"""
PHOTO = encode(noise_image(1, (40, 30)))
LISTINGS = [{"id": "00123", "category": "Appliances / Kettles"}, {"id": "l2", "category": "Home & Garden"}]
PHOTOS = [{"id": "p1", "product_id": "00123"}, {"id": "007", "product_id": "l2"}]
READ = [("p1", "00123", 9), ("007", "l2", 0)]


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in (rows[0], *(row.values() for row in rows))).encode()


def dump_of(directory: Path, tables: dict[str, bytes]) -> Path:
    """A catalogue with these tables by file name."""
    dump = write_catalogue(directory / "dump", "", "", {"p1.jpg": PHOTO, "007.jpg": PHOTO})
    for name in (PRODUCTS, IMAGES):
        (dump / name).unlink()
    for name, content in tables.items():
        (dump / name).write_bytes(content)
    return dump


def labelled(catalogue: Catalogue) -> list[tuple[str, str, int]]:
    return [(photo.image_id, photo.listing_id, photo.category) for photo in catalogue.photos]


WRITERS = {".csv": as_csv, ".PARQUET": as_parquet, ".parquet": as_parquet, ".jsonl": as_lines, ".ndjson": as_lines}


@pytest.mark.parametrize("of_products", WRITERS)
@pytest.mark.parametrize("of_images", WRITERS)
def test_each_table_may_come_in_each_form(tmp_path: Path, of_products: str, of_images: str) -> None:
    tables = {
        f"products{of_products}": WRITERS[of_products](LISTINGS),
        f"Images{of_images}": WRITERS[of_images](PHOTOS),
    }
    catalogue = read_catalogue(dump_of(tmp_path, tables))
    assert (labelled(catalogue), catalogue.rejected, catalogue.odd) == (READ, (), ())
    plain = dump_of(tmp_path / "plain", {PRODUCTS: as_csv(LISTINGS), IMAGES: as_csv(PHOTOS)})
    assert catalogue.digest == read_catalogue(plain).digest


def test_two_forms_of_one_table_are_refused_by_name(tmp_path: Path) -> None:
    tables = {"Products.csv": as_csv(LISTINGS), "products.Parquet": as_parquet(LISTINGS), "Images.csv": as_csv(PHOTOS)}
    with pytest.raises(CatalogueUnusable, match=r"Products\.csv and products\.Parquet; leave one"):
        read_catalogue(dump_of(tmp_path, tables))


def test_a_form_that_is_not_read_is_named_with_what_to_save_it_as(tmp_path: Path) -> None:
    with pytest.raises(CatalogueUnusable, match=r"has no Products\.csv.*Products\.xlsx is not read: save it as"):
        read_catalogue(dump_of(tmp_path, {"Products.xlsx": b"PK", "Images.csv": as_csv(PHOTOS)}))


@pytest.mark.parametrize(("ending", "write", "first_row"), [(".parquet", as_parquet, 1), (".jsonl", as_lines, 1)])
def test_rows_that_cannot_be_used_are_told_with_their_table(
    tmp_path: Path, ending: str, write: Any, first_row: int
) -> None:
    listings = [*LISTINGS, {"id": "l3", "category": "Pets"}]
    photos = [*PHOTOS, {"id": "p9", "product_id": "l2"}, {"id": "p8", "product_id": "l9"}, {"id": "p7"}]
    dump = dump_of(tmp_path, {f"Products{ending}": write(listings), f"Images{ending}": write(photos)})
    catalogue = read_catalogue(dump)
    assert labelled(catalogue) == READ
    assert [(row.table, row.row, row.row_id) for row in catalogue.rejected] == [
        (f"Products{ending}", first_row + 2, "l3"),
        (f"Images{ending}", first_row + 2, "p9"),
        (f"Images{ending}", first_row + 3, "p8"),
        (f"Images{ending}", first_row + 4, "p7"),
    ]
    assert f"in Products{ending}" in catalogue.rejected[2].detail
    cleaned, odd = clean_listings(dump, catalogue.listing_rows.values())
    assert list(cleaned.index) == ["00123", "l2"]
    assert odd == []


def test_typed_cells_become_the_text_that_a_csv_would_hold(tmp_path: Path) -> None:
    row = {
        "id": "l1", "category": ["Appliances", "Kettles"], "price": 12.5, "stock": 4.0, "new": True,
        "ean": 4006381333931,
        "price2": Decimal("12.50"), "since": date(2024, 5, 1), "at": datetime(2024, 5, 1, 10, tzinfo=UTC),
        "tags": ["a", " b ", None], "size": {"width": 1.5, "unit": {"name": "cm"}}, "nothing": None,
        "text": "  Ü\n x ",
        "parts": [{"name": "lid", "n": 1}, {"name": "cord", "n": None}],
    }  # fmt: skip
    dump = dump_of(tmp_path, {"Products.parquet": as_parquet([row]), "Images.csv": as_csv(PHOTOS)})
    table = read_table(find_layout(dump), PRODUCTS, [], [])
    assert table.to_dict("index") == {
        1: {
            "id": "l1", "category": "Appliances / Kettles", "price": "12.5", "stock": "4", "ean": "4006381333931",
            "new": "true", "price2": "12.50", "since": "2024-05-01", "at": "2024-05-01T10:00:00+00:00", "tags": "a; b",
            "size.width": "1.5", "size.unit.name": "cm", "nothing": "", "text": "Ü\n x",
            "parts.name": "lid; cord", "parts.n": "1",
        }
    }  # fmt: skip


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_fields_of_objects_in_a_list_are_columns(tmp_path: Path, ending: str) -> None:
    """As in catalogues of several languages, and in exports of shops' APIs."""

    def row(listing: str, name: str, *photos: str) -> dict[str, Any]:
        return {
            "item": listing,
            "name": [{"language": "en", "value": name}, {"language": "de", "value": f"{name} (de)"}],
            "kind": [{"value": "Kitchen" if listing == "l1" else "Sports"}],
            "images": [{"src": src, "at": {"x": 1}} for src in photos],
        }

    rows = [row("l1", "Kettle", "https://i.example.org/a.jpg", "https://i.example.org/b.jpg"), row("l2", "Ball")]
    write = {".jsonl": as_lines, ".parquet": as_parquet}[ending]
    dump = dump_of(tmp_path, {f"Products{ending}": write(rows), "catalogue.toml": NESTED})
    for name in ("a.jpg", "b.jpg"):
        (dump / "images" / name).write_bytes(PHOTO)
    catalogue = read_catalogue(dump)
    assert [(one.image_id, one.listing_id) for one in catalogue.photos] == [("l1-a", "l1"), ("l1-b", "l1")]
    assert list(catalogue.categories) == ["Kitchen", "Sports"]
    assert json.loads(catalogue.photos[0].payload) == {
        "title": "Kettle; Kettle (de)", "name_language": "en; de", "images_at_x": "1; 1"
    }  # fmt: skip


PART = pa.struct({"n": pa.int64()})


@pytest.mark.parametrize(
    "kind", [pa.list_(PART), pa.large_list(PART), pa.list_(PART, 2)], ids=["list", "long list", "list of fixed length"]
)
def test_lists_of_objects_are_read_alike_however_parquet_keeps_them(kind: pa.DataType) -> None:
    file = BytesIO()
    parquet.write_table(pa.table({"parts": pa.array([[{"n": 1}, {"n": 2}], None], kind)}), file)
    table = read_parquet(file.getvalue(), "Products.parquet", [])
    assert table.to_dict("list") == {"parts.n": ["1; 2"]}


def test_numbers_of_json_keep_the_text_that_they_have() -> None:
    lines = (
        b'{"id": 007, "category": "x"}\n{"id": 12345678901234567890, "price": 12.50, "b": 1e5, "c": NaN, "d": null}\n'
    )
    rejected: list[RowProblem] = []
    table = read_json_lines(lines, "Products.jsonl", rejected, [])
    assert table.to_dict("index") == {2: {"id": "12345678901234567890", "price": "12.50", "b": "1e5", "c": "", "d": ""}}
    assert [row.row for row in rejected] == [1]  # JSON has no 007


def test_a_price_in_the_form_of_answers_is_one_price() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "price": {"amount": 12.5, "currency": "EUR"}, "size": {"amount": 2, "unit": "m"}},
        {"id": "b", "price": {"amount": 1250, "currency": "EUR"}},
    ]
    table = read_json_lines(as_lines(rows), "Products.jsonl", [], [])
    assert table["price"].tolist() == ["12.5 EUR", "1250 EUR"]
    assert table["size.unit"].tolist() == ["m", ""]
    schema, _ = infer({"price": table["price"].tolist()})
    assert [(one.type, one.currencies) for one in schema] == [(AttributeType.PRICE, ("EUR",))]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_only_the_lines_that_are_wrong_are_left_out(mark: bytes) -> None:
    wrong = [
        b'{"id": "cut', b"[1, 2]", b'"text"', b'{"id": "a", "id": "b"}', b'{"id": "\xff"}', b'{"id": "\\ud800"}',
        b'{"a": ' + b"[" * 100_000, b'{"id": "x"} {"id": "y"}',
    ]  # fmt: skip
    lines = mark + b'{"id": "first"}\r\n\n' + b"".join(line + b"\n" for line in wrong) + b'{"id": "last", "more": 1}'
    rejected: list[RowProblem] = []
    table = read_json_lines(lines, "Images.jsonl", rejected, [])
    assert table.to_dict("index") == {1: {"id": "first", "more": ""}, 11: {"id": "last", "more": "1"}}
    assert [row.row for row in rejected] == list(range(3, 11))
    assert {(row.reason, row.table) for row in rejected} == {("row of Images.jsonl that is not JSON", "Images.jsonl")}
    assert all(row.detail and len(row.value) <= 80 for row in rejected)
    assert rejected[3].detail == "id stands in it twice"


def test_json_lines_in_utf_16_are_read() -> None:
    table = read_json_lines('\ufeff{"id": "ü"}\n'.encode("utf-16-le"), "Images.jsonl", [], [])
    assert list(table["id"]) == ["ü"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'[{"id": "a"}]', "line 1 is not a JSON object: it is an array; write one object a line"),
        (b'{\n"id": "a"\n}', "line 1 is not a JSON object"),
        (b'{"id": "a"}', r"lacks the column product_id; it has id"),
        (b'{"id": "a", " id": "b", "product_id": "c"}', "line 1 is not a JSON object: id stands in it twice"),
    ],
)
def test_json_lines_that_are_no_table_are_refused_with_what_was_found(
    tmp_path: Path, content: bytes, told: str
) -> None:
    dump = dump_of(tmp_path, {"Products.csv": as_csv(LISTINGS), "Images.jsonl": content})
    with pytest.raises(CatalogueUnusable, match=rf"Images\.jsonl.*({told})"):
        read_catalogue(dump)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"id,product_id\n", as_parquet(PHOTOS)[:-20], b"\0" * 100])
def test_damaged_parquet_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    dump = dump_of(tmp_path, {"Products.csv": as_csv(LISTINGS), "Images.parquet": content})
    with pytest.raises(CatalogueUnusable, match=r"Images\.parquet cannot be read as Parquet"):
        read_catalogue(dump)


def test_ids_that_are_bytes_are_refused_by_column(tmp_path: Path) -> None:
    photos = as_parquet([{"id": b"\xff" * 16, "product_id": "a"}])
    dump = dump_of(tmp_path, {"Products.csv": as_csv(LISTINGS), "Images.parquet": photos})
    with pytest.raises(CatalogueUnusable, match=r"Images\.parquet has bytes in the column id; write them as text"):
        read_catalogue(dump)


def test_columns_of_bytes_are_text_or_told_and_left_out() -> None:
    odd: list[RowProblem] = []
    rows = [{"id": b"a", "raw": b"\xff\xd8", "image": {"bytes": b"\xff", "path": "x.jpg"}, "some": [b"\xff"]}]
    table = read_parquet(as_parquet(rows), "Images.parquet", odd)
    assert table.to_dict("index") == {1: {"id": "a", "image.path": "x.jpg"}}
    assert [(row.reason, row.value) for row in odd] == [
        ("column holds no text", "raw"),
        ("column holds no text", "image.bytes"),
        ("column holds no text", "some"),
    ]


def test_columns_of_other_kinds_in_parquet() -> None:
    columns = {
        "id": pa.array(["a", "b"]).dictionary_encode(),
        "single": pa.array([12.1, None], pa.float32()),
        "large": pa.array([1e16, float("nan")]),
        "none": pa.nulls(2),
        "words": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "at": pa.array([1_714_557_600_000_000_001, None], pa.timestamp("ns")),
    }
    out = BytesIO()
    parquet.write_table(pa.table(columns), out)
    table = read_parquet(out.getvalue(), "Products.parquet", [])
    assert table.to_dict("list") == {
        "id": ["a", "b"], "single": ["12.1", ""], "large": ["1e+16", ""], "none": ["", ""], "words": ["k; 1", ""],
        "at": ["2024-05-01T10:00:00.000000001", ""],
    }  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "us"])
def test_one_date_in_a_year_that_there_is_not_does_not_spoil_a_parquet_table(unit: str) -> None:
    per_second = {"s": 1, "us": 1_000_000}[unit]
    of_20206 = 575_495_000_000
    seconds = [of_20206, 1_714_557_600, None]
    added = pa.array([one and one * per_second for one in seconds], pa.timestamp(unit))
    out = BytesIO()
    parquet.write_table(pa.table({"id": ["a", "b", "c"], "added": added}), out)
    table = read_parquet(out.getvalue(), "Products.parquet", [])
    assert table["id"].tolist() == ["a", "b", "c"]
    odd, fine, nothing = table["added"]
    assert (parse_time(odd), parse_time(fine), nothing) == (None, datetime(2024, 5, 1, 10, tzinfo=UTC), "")


@pytest.mark.parametrize("ids", [[7, 8, 9], ["a", "c", "b"]])
def test_an_index_of_pandas_is_a_column_though_one_of_consecutive_numbers_is_kept_as_its_range(ids: list[Any]) -> None:
    out = BytesIO()
    pd.DataFrame({"id": ids, "category": ["A", "B", "A"]}).set_index("id").to_parquet(out)
    assert read_parquet(out.getvalue(), "Products.parquet", [])["id"].tolist() == [str(one) for one in ids]


def test_fields_beyond_the_first_256_are_told_but_those_that_are_required() -> None:
    fields = {f"f{n}": n for n in range(300)}
    odd: list[RowProblem] = []
    table = read_json_lines(as_lines([fields, {"id": "a", "f1": 2}]), "Products.jsonl", [], odd, required=("id",))
    assert (len(table.columns), list(table["id"]), list(table["f1"])) == (257, ["", "a"], ["1", "2"])
    assert [(row.row, row.value, row.detail) for row in odd] == [(1, "f256", "44 more than 256 fields are not read")]


def test_the_category_may_be_in_another_column_and_be_a_list(tmp_path: Path) -> None:
    listings = [{"id": "00123", "kind": ["Boats", "Small"]}, {"id": "l2", "kind": ["Cars"]}]
    dump = dump_of(tmp_path, {"Products.jsonl": as_lines(listings), "Images.jsonl": as_lines(PHOTOS)})
    catalogue = read_catalogue(dump, CategoryChoice(source=CategorySource("kind")))
    assert (list(catalogue.categories), labelled(catalogue)) == (
        ["Boats", "Cars"],
        [("p1", "00123", 0), ("007", "l2", 1)],
    )


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_a_price_that_is_a_number_with_three_decimals_is_that_number(tmp_path: Path, ending: str) -> None:
    if ending == ".jsonl":
        lines = (json.dumps(listing)[:-1] + ', "price": 12.500, "net": "1.250"}\n' for listing in LISTINGS)
        table = "".join(lines).encode()
    else:
        table = as_parquet([listing | {"price": Decimal("12.500"), "net": "1.250"} for listing in LISTINGS])
    catalogue = read_catalogue(dump_of(tmp_path, {f"Products{ending}": table, "Images.jsonl": as_lines(PHOTOS)}))
    values = json.loads(catalogue.photos[0].payload)
    assert values == {"price": {"amount": 12.5, "currency": ""}, "net": 1.25}
    # Of a text that looks like a number it is still told.
    assert [(row.reason, row.value) for row in catalogue.odd] == [("number that can be read both ways", "1.250")]


def test_text_of_values() -> None:
    values = [2.0**53, 2.0**60, -0.0, [], {}, [[1, 2], 3], "x "]
    assert [as_text(value) for value in values] == [
        "9007199254740992",
        "1.152921504606847e+18",
        "0",
        "",
        "",
        "1; 2; 3",
        "x",
    ]
