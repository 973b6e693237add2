"""Raw tables -> labelled photos: odd dumps are read as a person would, and nothing is left out silently."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from shared.catalogue.categories import OLDER_CATEGORIES
from shared.catalogue.tables import Catalogue, CatalogueReader, read_catalogue, scan_catalogue
from shared.errors import CatalogueUnusable
from tests.conftest import encode, noise_image, write_catalogue

PHOTO = encode(noise_image(1, (40, 30)))
HEADER = "id,product_name,category,product_description\n"
PRODUCTS = HEADER + 'l1,Kettle,Appliances / Kitchen,old\nl2,Ball,"Sports, Leisure & Travel",round\n'
IMAGES = "id,product_id\np1,l1\np2,l2\n"
PHOTOS = {"p1.jpg": PHOTO, "p2.jpg": PHOTO}
BOTH = [("p1", "l1", "Appliances"), ("p2", "l2", "Sports, Leisure & Travel")]


def labelled(catalogue: Catalogue) -> list[tuple[str, str, str]]:
    """Each photo with its listing and the name of its category."""
    names = list(OLDER_CATEGORIES)
    return [(photo.image_id, photo.listing_id, names[photo.category]) for photo in catalogue.photos]


def content(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's bytes and time of change."""
    return {str(f): (f.read_bytes(), f.stat().st_mtime_ns) for f in directory.rglob("*") if f.is_file()}


def test_a_plain_dump_is_read_whole(tmp_path: Path) -> None:
    catalogue = read_catalogue(write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, PHOTOS))
    assert labelled(catalogue) == BOTH
    assert (catalogue.name, catalogue.n_listings, catalogue.unusable) == ("dump", 2, {})
    assert all(photo.path.read_bytes() == PHOTO for photo in catalogue.photos)
    assert catalogue.paths == {"l1": "Appliances / Kitchen", "l2": "Sports, Leisure & Travel"}


def test_the_path_of_a_repeated_listing_is_that_of_the_row_that_is_used(tmp_path: Path) -> None:
    products = HEADER + "l1,Kettle,Pets / Cats,x\n" + PRODUCTS.removeprefix(HEADER) + "l1,Pan,Other Goods,x\n"
    catalogue = read_catalogue(write_catalogue(tmp_path / "dump", products, IMAGES, PHOTOS))
    assert labelled(catalogue) == BOTH
    assert catalogue.paths["l1"] == "Appliances / Kitchen"


@pytest.mark.parametrize(
    "description",
    [
        "two\rlines",
        "\rfirst",
        "last\r",
        '"two\rlines"',
        '"\rfirst, with comma"',
        '"last\r"',
        '"two\r\nlines"',
        '"two\nlines, ""quoted"" \r too"',
        'an unquoted "word"\rand on',
        "next line\x85and line\u2028separators\u2029and\x0bform\x0cfeeds",
    ],
)
def test_line_ends_inside_a_description_do_not_tear_its_row(tmp_path: Path, description: str) -> None:
    products = f'{HEADER}l1,Kettle,Appliances,{description}\nl2,Ball,"Sports, Leisure & Travel",{description}\n'
    catalogue = read_catalogue(write_catalogue(tmp_path / "dump", products, IMAGES, PHOTOS))
    assert labelled(catalogue) == BOTH
    assert catalogue.unusable == {}


@pytest.mark.parametrize("quoted_header", [False, True])
def test_a_crlf_dump_is_read_like_its_lf_twin(tmp_path: Path, quoted_header: bool) -> None:
    images = IMAGES.replace("id,product_id", '"id","product_id"') if quoted_header else IMAGES
    products, images = (table.replace("\n", "\r\n") for table in (PRODUCTS, images))
    catalogue = read_catalogue(write_catalogue(tmp_path / "dump", products, images, PHOTOS))
    assert labelled(catalogue) == BOTH
    assert catalogue.unusable == {}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_blank_lines_are_no_rows(tmp_path: Path, line_end: str) -> None:
    products = PRODUCTS.replace("\nl2", "\n\nl2").replace("\n", line_end) + line_end
    images = IMAGES.replace("\np2", "\n\np2").replace("\n", line_end) + line_end
    catalogue = read_catalogue(write_catalogue(tmp_path / "dump", products, images, PHOTOS))
    assert labelled(catalogue) == BOTH
    assert catalogue.unusable == {}


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    dump = write_catalogue(tmp_path / "dump", f"\ufeff{PRODUCTS}", f"\ufeff{IMAGES}", PHOTOS)
    assert labelled(read_catalogue(dump)) == BOTH


def test_an_unnamed_index_column_is_ignored(tmp_path: Path) -> None:
    def numbered(table: str) -> str:
        header, *rows = table.splitlines()
        return "\n".join([f",{header}", *(f"{n},{row}" for n, row in enumerate(rows)), ""])

    dump = write_catalogue(tmp_path / "dump", numbered(PRODUCTS), numbered(IMAGES), PHOTOS)
    catalogue = read_catalogue(dump)
    assert labelled(catalogue) == BOTH
    assert catalogue.unusable == {}


def test_upper_and_lower_case_of_file_names_does_not_matter(tmp_path: Path) -> None:
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, {"P1.JPG": PHOTO, "p2.JpEg": PHOTO})
    (dump / "Products.csv").rename(dump / "products.CSV")
    (dump / "Images.csv").rename(dump / "IMAGES.csv")
    (dump / "images").rename(dump / "IMAGES")
    assert labelled(read_catalogue(dump)) == BOTH


def test_white_space_around_columns_ids_and_categories_is_ignored(tmp_path: Path) -> None:
    products = ' id , category\n l1 ,  Appliances/Kitchen \nl2\t," Sports, Leisure & Travel / Balls"\n'
    dump = write_catalogue(tmp_path / "dump", products, "id, product_id \n p1, l1\np2,l2 \n", PHOTOS)
    assert labelled(read_catalogue(dump)) == BOTH


@pytest.mark.parametrize("listing_id", ["NA", "null", "nan", "007", "1e5", "None"])
def test_ids_that_look_like_numbers_or_missing_values_stay_text(tmp_path: Path, listing_id: str) -> None:
    dump = write_catalogue(
        tmp_path / "dump", f"id,category\n{listing_id},Appliances\n", f"id,product_id\n{listing_id},{listing_id}\n",
        {f"{listing_id}.jpg": PHOTO},
    )  # fmt: skip
    assert labelled(read_catalogue(dump)) == [(listing_id, listing_id, "Appliances")]


# Beside the two good listings and photos: what is added to each table, and what must be counted, no more and no less.
UNUSABLE = {
    "listing without id": (",Pan,Appliances,x\n", "", {"listing without id": 1}),
    "repeated listing": ("l1,Pan,Other Goods,x\n", "", {"listing id repeated": 1}),
    "no category": ("l3,Pan,,x\n", "", {"listing without category": 1}),
    "unknown category": ("l3,Pan,Pets / Cats,x\n", "", {"listing of unknown category": 1}),
    "photo without id": ("", ",l1\n", {"photo without id": 1}),
    "repeated photo": ("", "p1,l2\n", {"photo id repeated": 1}),
    "photo of no listing": ("", "p1b,l9\n", {"photo without listing": 1}),
    "photo of an unusable listing": (
        "l3,Pan,Pets,x\n", "p3,l3\n", {"listing of unknown category": 1, "photo of an unusable listing": 1},
    ),
    "photo without file": ("", "p9,l1\n", {"photo without file": 1}),
    "listing row too short": ("l3,Pan\n", "", {"listing without category": 1}),
    "photo row too short": ("", "p1b\n", {"photo without listing": 1}),
    "listing row too long": ("l3,Pan,Appliances,x,y\n", "", {"row of Products.csv with too many fields": 1}),
    "header once more": (PRODUCTS.splitlines()[0] + "\n", "", {"row of Products.csv that repeats the header": 1}),
    "photo row too long": ("", "p1b,l1,x\n", {"row of Images.csv with too many fields": 1}),
    "two of a kind": ("l3,Pan,,x\nl4,Pan,,x\n", "", {"listing without category": 2}),
}  # fmt: skip


@pytest.mark.parametrize(("listing_rows", "photo_rows", "counted"), UNUSABLE.values(), ids=UNUSABLE)
def test_each_unusable_row_is_counted_by_reason_and_the_rest_survives(
    tmp_path: Path, listing_rows: str, photo_rows: str, counted: dict[str, int]
) -> None:
    photos = {**PHOTOS, "p1b.jpg": PHOTO, "p3.jpg": PHOTO}
    dump = write_catalogue(tmp_path / "dump", PRODUCTS + listing_rows, IMAGES + photo_rows, photos)
    catalogue = read_catalogue(dump)
    assert labelled(catalogue) == BOTH
    assert catalogue.unusable == counted
    assert catalogue.n_listings == 2


def test_unusable_rows_are_named_by_the_numbers_a_spreadsheet_gives_them(tmp_path: Path) -> None:
    overlong = "x," * 300
    products = f"{PRODUCTS}l3,Pan,Pets / Cats,x\n\n{overlong}\nl4,Pots,pans,Appliances,x\n"
    found = read_catalogue(write_catalogue(tmp_path / "dump", products, IMAGES + "p3,l3\n", PHOTOS)).rejected
    assert sorted((row.table, row.row, row.row_id, row.value) for row in found) == [
        ("Images.csv", 4, "p3", ""),
        ("Products.csv", 4, "l3", "Pets"),
        ("Products.csv", 5, "", ""),
        ("Products.csv", 6, "", ""),
    ]


@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_a_row_with_too_many_fields_is_counted_wherever_it_stands(tmp_path: Path, position: str) -> None:
    # Unquoted commas in the name: whoever cut this row to length would read "Other Goods" as its category.
    torn = "l3,Pots, pans,Other Goods,Appliances,x"
    header, *rows = PRODUCTS.splitlines()
    rows.insert({"first": 0, "middle": 1, "last": 2}[position], torn)
    dump = write_catalogue(
        tmp_path / "dump", "\n".join([header, *rows, ""]), f"{IMAGES}p3,l3\n", {**PHOTOS, "p3.jpg": PHOTO}
    )
    catalogue = read_catalogue(dump)
    assert labelled(catalogue) == BOTH
    assert catalogue.unusable == {"row of Products.csv with too many fields": 1, "photo without listing": 1}


def test_too_few_categories_for_want_of_rows_are_told_with_the_rows(tmp_path: Path) -> None:
    dump = write_catalogue(tmp_path / "dump", "id,category\nl1,Cars\nl2,Boats,sailing\n", IMAGES, PHOTOS)
    with pytest.raises(CatalogueUnusable, match=r"Left out were \(row of Products.csv with too many fields: 1.*row 3"):
        read_catalogue(dump)


def test_a_name_ending_in_jpg_that_is_no_file_counts_as_missing(tmp_path: Path) -> None:
    images = IMAGES + "p3,l1\np4,l1\n"
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, images, PHOTOS)
    (dump / "images" / "p3.jpg").mkdir()
    (dump / "images" / "p4.jpg").symlink_to(tmp_path / "gone.jpg")
    catalogue = read_catalogue(dump)
    assert labelled(catalogue) == BOTH
    assert catalogue.unusable == {"photo without file": 2}


def test_photos_follow_the_order_of_images_csv(tmp_path: Path) -> None:
    images = "id,product_id\np9,l2\np1,l1\np5,l2\np2,l1\n"
    photos = {f"p{n}.jpg": PHOTO for n in (1, 2, 5, 9)}
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, images, photos)
    assert [photo.image_id for photo in read_catalogue(dump).photos] == ["p9", "p1", "p5", "p2"]


def test_of_two_files_with_one_name_the_first_in_order_counts(tmp_path: Path) -> None:
    photos = {"p1.jpg": PHOTO, "p1.jpeg": PHOTO, "p2.jpg": PHOTO}
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, photos)
    assert read_catalogue(dump).photos[0].path == dump / "images" / "p1.jpeg"


@pytest.mark.parametrize("ending", [".jfif", ".png", ".webp", ".avif", ".PNG"])
def test_a_photo_may_have_any_ending_of_those_that_photos_are_kept_in(tmp_path: Path, ending: str) -> None:
    photos = {f"p1{ending}": PHOTO, "p2.jpg": PHOTO, "p2.png": PHOTO}
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, photos)
    names = [str(photo.path).rpartition("/")[2] for photo in read_catalogue(dump).photos]
    assert names == [f"p1{ending}", "p2.jpg"]


def test_a_heic_is_found_where_no_jpeg_has_its_name(tmp_path: Path) -> None:
    photos = {"p1.heic": PHOTO, "p1.jpg": PHOTO, "P2.HEIF": PHOTO}
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, photos)
    names = [str(photo.path).rpartition("/")[2] for photo in read_catalogue(dump).photos]
    assert names == ["p1.jpg", "P2.HEIF"]


def test_reading_does_not_touch_the_dump(tmp_path: Path) -> None:
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, PHOTOS)
    before = content(tmp_path)
    read_catalogue(dump)
    assert content(tmp_path) == before


@pytest.mark.parametrize("missing", ["Products.csv", "Images.csv", "images"])
def test_a_missing_part_is_named_with_what_a_catalogue_holds(tmp_path: Path, missing: str) -> None:
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, PHOTOS)
    (dump / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(CatalogueUnusable, match=rf"has no {missing}; .*Products\.csv, Images\.csv, images/"):
        read_catalogue(dump)


@pytest.mark.parametrize("name", ["nowhere", "file.zip"])
def test_what_is_no_directory_is_refused_with_what_a_catalogue_holds(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.zip").write_bytes(b"PK")
    with pytest.raises(CatalogueUnusable, match=rf"{name} is not a directory; .*Products\.csv, Images\.csv, images/"):
        read_catalogue(tmp_path / name)


@pytest.mark.parametrize("part", ["Products.csv", "images"])
def test_a_file_where_a_directory_belongs_or_the_reverse_is_refused(tmp_path: Path, part: str) -> None:
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, PHOTOS)
    was_directory = (dump / part).is_dir()
    (dump / part).rename(tmp_path / "elsewhere")
    if was_directory:
        (dump / part).write_bytes(b"")
    else:
        (dump / part).mkdir()
    with pytest.raises(CatalogueUnusable, match=part):
        read_catalogue(dump)


@pytest.mark.parametrize(
    ("products", "images", "facts"),
    [
        (PRODUCTS.replace("category", "kind"), IMAGES, ["Products.csv", "category", "kind"]),
        (PRODUCTS, IMAGES.replace("product_id", "listing"), ["Images.csv", "product_id", "listing"]),
        (PRODUCTS.replace("id,", "number,", 1), IMAGES, ["Products.csv", "column id", "number"]),
    ],
)
def test_a_missing_column_is_named_beside_those_there_are(
    tmp_path: Path, products: str, images: str, facts: list[str]
) -> None:
    with pytest.raises(CatalogueUnusable) as refused:
        read_catalogue(write_catalogue(tmp_path / "dump", products, images, PHOTOS))
    assert [fact for fact in facts if fact not in str(refused.value)] == []


@pytest.mark.parametrize("name", ["Products.csv", "Images.csv"])
@pytest.mark.parametrize("table", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_table_is_refused_by_name(tmp_path: Path, name: str, table: bytes) -> None:
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, PHOTOS)
    (dump / name).write_bytes(table)
    with pytest.raises(CatalogueUnusable, match=f"{name} is empty"):
        read_catalogue(dump)


def test_without_a_usable_photo_the_reasons_are_told(tmp_path: Path) -> None:
    dump = write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES + "p3,l9\n", {})
    with pytest.raises(CatalogueUnusable, match=r"no usable photo in .*dump.*photo without file: 2") as refused:
        read_catalogue(dump)
    assert "photo without listing: 1" in str(refused.value)


def test_a_table_of_photos_without_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogueUnusable, match=r"Images\.csv has no rows"):
        read_catalogue(write_catalogue(tmp_path / "dump", PRODUCTS, "id,product_id\n", PHOTOS))


def recompressed(photo: bytes) -> bytes:
    """The same number of bytes and another picture: one bit of the last scan differs."""
    changed = bytearray(photo)
    changed[-20] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("products", "images", "photos"),
    [
        pytest.param(PRODUCTS, IMAGES, {**PHOTOS, "p1.jpg": encode(noise_image(2, (60, 50)))}, id="photo"),
        pytest.param(PRODUCTS, IMAGES, {**PHOTOS, "p1.jpg": recompressed(PHOTO)}, id="photo of the same size"),
        pytest.param(PRODUCTS.replace("Appliances", "Other Goods"), IMAGES, PHOTOS, id="category"),
        pytest.param(PRODUCTS.replace("old", "older"), IMAGES, PHOTOS, id="attribute"),
        pytest.param(PRODUCTS, IMAGES.replace("p1,l1", "p1,l2"), PHOTOS, id="listing"),
        pytest.param(PRODUCTS, IMAGES + "p3,l1\n", {**PHOTOS, "p3.jpg": PHOTO}, id="photo added"),
        pytest.param(PRODUCTS, IMAGES.replace("p2,l2\n", ""), PHOTOS, id="photo removed"),
    ],
)
def test_digest_changes_with_what_is_indexed(
    tmp_path: Path, products: str, images: str, photos: dict[str, bytes]
) -> None:
    one = read_catalogue(write_catalogue(tmp_path / "one", PRODUCTS, IMAGES, PHOTOS))
    other = read_catalogue(write_catalogue(tmp_path / "other", products, images, photos))
    assert one.digest != other.digest


def test_digest_does_not_change_with_anything_else(tmp_path: Path) -> None:
    one = write_catalogue(tmp_path / "one", PRODUCTS, IMAGES, PHOTOS)
    digest = read_catalogue(one).digest
    os.utime(one / "images" / "p1.jpg", (1, 1))
    assert read_catalogue(one).digest == digest
    assert read_catalogue(one.rename(tmp_path / "moved")).digest == digest
    retold = PRODUCTS.replace("Kitchen", "Small") + "l7,Lamp,Other Goods,no photo\n"
    photos = {**PHOTOS, "unlisted.jpg": PHOTO}
    assert read_catalogue(write_catalogue(tmp_path / "retold", retold, IMAGES + "p9,l1\n", photos)).digest == digest


def test_after_a_photo_could_not_be_read_the_catalogue_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_catalogue(tmp_path / "catalogue", PRODUCTS, IMAGES, PHOTOS)
    for path in directory.rglob("*"):
        os.utime(path, (time.time() - 60,) * 2)
    reader = CatalogueReader()
    with monkeypatch.context() as patch:
        patch.setattr("shared.catalogue.scan._digest", lambda path: "" if Path(path).stem == "p1" else "0")
        assert len(reader.read(directory).photos) == 1
    assert reader.digest(scan_catalogue(directory)) is None
    whole = reader.read(directory)
    assert len(whole.photos) == 2
    assert reader.digest(scan_catalogue(directory)) == whole.digest


def test_after_an_upgrade_that_reads_tables_otherwise_the_catalogue_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_catalogue(tmp_path / "catalogue", PRODUCTS, IMAGES, PHOTOS)
    for path in directory.rglob("*"):
        os.utime(path, (time.time() - 60,) * 2)
    cache = tmp_path / "digests.json"
    digest = CatalogueReader(cache).read(directory).digest
    assert CatalogueReader(cache).digest(scan_catalogue(directory)) == digest
    monkeypatch.setattr("shared.catalogue.scan._RULES", "of another version")
    assert CatalogueReader(cache).digest(scan_catalogue(directory)) is None


@pytest.mark.parametrize("locked", ["", "images", "Products.csv", "Images.csv"])
def test_what_may_not_be_read_is_named_with_who_may_not(locked: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        dump = write_catalogue(Path(directory) / "dump", PRODUCTS, IMAGES, PHOTOS)
        (dump / locked).chmod(0)
        me = os.geteuid()
        os.seteuid(me or 65534)  # root may read everything
        try:
            with pytest.raises(
                CatalogueUnusable, match=f"{dump / locked} may not be read by user {me or 65534}; .*chmod"
            ):
                read_catalogue(dump)
        finally:
            os.seteuid(me)
            (dump / locked).chmod(0o755)
