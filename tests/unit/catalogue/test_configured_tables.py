"""Catalogues whose tables have other names, columns and shapes: `catalogue.toml` says where listings and photos are."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.cleaning.clean import clean
from shared.attributes.configuration import parse_configuration
from shared.catalogue.categories import Categories, CategorySource
from shared.catalogue.choice import CategoryChoice
from shared.catalogue.photo_rows import split_photos
from shared.catalogue.tables import Catalogue, CatalogueReader, read_catalogue, scan_catalogue
from shared.errors import CatalogueUnusable
from tests.conftest import encode, noise_image

PHOTO = encode(noise_image(1, (40, 30)))
KITCHEN, SPORTS = "Kitchen > Kettles", "Sports"


def dump_of(directory: Path, configuration: str, tables: dict[str, str], photos: list[str]) -> Path:
    """A dump with these tables and, by their paths in `images/`, photos."""
    (directory / "images").mkdir(parents=True)
    for name, text in {"catalogue.toml": configuration, **tables}.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(text.encode())
    for seed, name in enumerate(photos):
        file = directory / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(noise_image(seed, (40, 30))))
    return directory


def photos_of(catalogue: Catalogue) -> dict[str, tuple[str, str]]:
    """Listing and file of each photo, by id."""
    images = f"{catalogue.directory}/images/"
    return {one.image_id: (one.listing_id, str(one.path).removeprefix(images)) for one in catalogue.photos}


def test_several_rows_of_a_listing_each_name_a_photo(tmp_path: Path) -> None:
    export = (
        "Handle,Title,Product Category,Image Src\n"
        f"kettle,A kettle,{KITCHEN},https://cdn.example.org/files/kettle-1.jpg?v=17\n"
        "kettle,,,https://cdn.example.org/files/kettle-2.jpg?v=18\n"
        "kettle,,,\n"  # a variant
        f"ball,A ball,{SPORTS},https://cdn.example.org/files/round.jpg?v=19\n"
    )
    configuration = """
        listings = {table = "export.csv", id = "Handle", category = "Product Category"}
        photos = {columns = ["Image Src"]}
    """
    names = ["kettle-1.jpg", "kettle-2.jpg", "round.jpg"]
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"export.csv": export}, names))
    assert photos_of(catalogue) == {
        "kettle-1": ("kettle", "kettle-1.jpg"),
        "kettle-2": ("kettle", "kettle-2.jpg"),
        "ball-round": ("ball", "round.jpg"),
    }
    assert (catalogue.n_listings, catalogue.unusable, catalogue.odd) == (2, {}, ())
    assert [one.name for one in catalogue.attributes] == ["title"]  # the photos' column is none


def test_a_row_that_gives_its_listing_another_category_is_told(tmp_path: Path) -> None:
    table = f"id,category,photo\n1,{KITCHEN},a.jpg\n1,{SPORTS},b.jpg\n2,{SPORTS},c.jpg\n"
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo']"
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"all.csv": table}, ["a.jpg", "b.jpg", "c.jpg"]))
    assert [(row.reason, row.table, row.row) for row in catalogue.rejected] == [("listing id repeated", "all.csv", 3)]
    assert catalogue.n_listings == 2


def test_of_a_listing_that_cannot_be_used_only_the_first_row_is_told(tmp_path: Path) -> None:
    table = f"id,category,photo\n1,{KITCHEN},a.jpg\n2,{SPORTS},c.jpg\n3,Hats,b.jpg\n3,,c.jpg\n4,,b.jpg\n4,,c.jpg\n"
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo']"
    dump = dump_of(tmp_path, configuration, {"all.csv": table}, ["a.jpg", "b.jpg", "c.jpg"])
    catalogue = read_catalogue(dump, CategoryChoice(Categories(("Kitchen", SPORTS)), grow=False))
    told = [(one.reason, one.row) for one in catalogue.rejected if one.reason.startswith("listing")]
    assert told == [("listing of unknown category", 4), ("listing without category", 6)]


@pytest.mark.parametrize("of_photos", ["", "photos.table = 'Images.csv'"])
def test_rows_that_repeat_a_listing_are_told_where_photos_have_a_table(tmp_path: Path, of_photos: str) -> None:
    listings = f"id,category\n1,{KITCHEN}\n1,\n2,{SPORTS}\n"
    tables = {"all.csv": listings, "Images.csv": "id,product_id\na,1\n"}
    catalogue = read_catalogue(dump_of(tmp_path, f"listings.table = 'all.csv'\n{of_photos}", tables, ["a.jpg"]))
    assert catalogue.unusable == {"listing id repeated": 1}


def test_several_columns_and_cells_with_several_names_are_several_photos(tmp_path: Path) -> None:
    table = (
        "Nr;Titel;Kategorie;Bild 1;Bild 2\n"
        f"7;A;{KITCHEN};7.jpg|7b.jpg;\n"
        f"8;B;{SPORTS};red, round.jpg;8/1.jpg\n"
        f"9;C;{SPORTS};size.jpg;9/1.jpg,9/back/1.jpg,9/1.jpg\n"
        f"10;D;{SPORTS};size.jpg;\n"
    )
    configuration = """
        [listings]
        table = "listings.csv"
        id = "Nr"
        category = "Kategorie"
        [photos]
        columns = ["Bild 1", "Bild 2"]
    """
    files = ["7.jpg", "7b.jpg", "red, round.jpg", "8/1.jpg", "9/1.jpg", "9/back/1.jpg", "size.jpg"]
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"listings.csv": table}, files))
    assert catalogue.rejected == ()
    assert photos_of(catalogue) == {
        "7": ("7", "7.jpg"),
        "7b": ("7", "7b.jpg"),
        "8-red, round": ("8", "red, round.jpg"),
        "8-1": ("8", "8/1.jpg"),
        "9-size": ("9", "size.jpg"),
        "9-1": ("9", "9/1.jpg"),
        "9-1-2": ("9", "9/back/1.jpg"),
        "10-size": ("10", "size.jpg"),
    }


def test_a_photo_that_a_cell_names_and_that_is_not_there_is_told_with_its_row(tmp_path: Path) -> None:
    table = f"id,category,photo,more\n1,{KITCHEN},a.jpg,gone/b.jpg\n2,{SPORTS},gone.jpg,https://img.example.org/c.jpg\n"
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo', 'more']"
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"all.csv": table}, ["a.jpg"]))
    assert [(row.table, row.row, row.row_id, row.detail) for row in catalogue.rejected] == [
        ("all.csv", 2, "1-b", "looked for gone/b.jpg below images/ and the catalogue's directory"),
        ("all.csv", 3, "2-gone", "looked for images/gone.jpg"),
        ("all.csv", 3, "2-c", "looked for images/c.jpg; its url is not fetched by this command"),
    ]


def test_a_listing_that_names_no_photo_is_told(tmp_path: Path) -> None:
    table = f"id,category,photo\n1,{KITCHEN},a.jpg\n2,{SPORTS},\n3,{SPORTS},\n3,,c.jpg\n"
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo']"
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"all.csv": table}, ["a.jpg", "c.jpg"]))
    assert photos_of(catalogue) == {"1-a": ("1", "a.jpg"), "3-c": ("3", "c.jpg")}
    told = [(row.reason, row.table, row.row, row.row_id) for row in catalogue.odd]
    assert told == [("listing that names no photo", "all.csv", 3, "2")]


def test_of_a_file_name_that_several_urls_have_no_file_is_taken(tmp_path: Path) -> None:
    table = (
        f"id,category,photo\n1,{KITCHEN},https://i.example.org/x/57.jpg\n2,{SPORTS},https://i.example.org/y/57.jpg\n"
    )
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo']"
    dump = dump_of(tmp_path, configuration, {"all.csv": table}, ["57.jpg", "2-57.jpg"])
    catalogue = read_catalogue(dump)
    assert photos_of(catalogue) == {"2-57": ("2", "2-57.jpg")}
    assert catalogue.unusable == {"photo without file": 1}


def test_a_url_that_has_no_host_is_told_and_keeps_its_file_name(tmp_path: Path) -> None:
    table = f"id,category,photo\n1,{KITCHEN},https://[domain]/a.jpg?v=1\n2,{SPORTS},https://[domain]/gone.jpg\n"
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo']"
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"all.csv": table}, ["a.jpg"]))
    assert photos_of(catalogue) == {"1-a": ("1", "a.jpg")}
    assert [(row.reason, row.row, row.row_id) for row in catalogue.rejected] == [("photo without file", 3, "2-gone")]


def test_a_photo_whose_id_another_has_got_by_its_number_is_not_left_out(tmp_path: Path) -> None:
    table = f"id,category,photo\n9,{KITCHEN},9/1.jpg|9/back/1.jpg|1-2.jpg\n10,{SPORTS},\n"
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo']"
    files = ["9/1.jpg", "9/back/1.jpg", "1-2.jpg"]
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"all.csv": table}, files))
    assert photos_of(catalogue) == {
        "9-1": ("9", "9/1.jpg"),
        "9-1-2": ("9", "9/back/1.jpg"),
        "9-1-2-2": ("9", "1-2.jpg"),
    }


def test_all_columns_of_a_name_name_photos(tmp_path: Path) -> None:
    table = f"id,category,photo,more,more\n1,{KITCHEN},a.jpg,b.jpg,c.jpg\n2,{SPORTS},d.jpg,,e.jpg\n"
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photo', 'more']"
    files = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"all.csv": table}, files))
    assert list(photos_of(catalogue)) == ["1-a", "1-b", "1-c", "2-d", "2-e"]


@pytest.mark.parametrize("header", ["id,category,media,product_id,product_id", "id,category,media,media,other"])
def test_of_columns_with_one_name_in_a_table_of_photos_and_listings_the_first_is_read(
    tmp_path: Path, header: str
) -> None:
    table = f"{header}\n1,{KITCHEN},a,x,y\n2,{SPORTS},b,x,y\n"
    configuration = "listings.table = 'all.csv'\nphotos = {table = 'all.csv', id = 'media'}"
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"all.csv": table}, ["a.jpg", "b.jpg"]))
    assert photos_of(catalogue) == {"a": ("1", "a.jpg"), "b": ("2", "b.jpg")}


def test_photos_that_are_called_as_their_listing_keep_its_zeros(tmp_path: Path) -> None:
    table = "article_id,group\n0108775015,Kitchen\n0108775044,Sports\n"
    configuration = """
        listings = {table = "articles.csv", id = "article_id", category = "group"}
        photos = {columns = ["article_id"]}
    """
    files = ["010/0108775015.jpg", "010/0108775044.jpg"]
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"articles.csv": table}, files))
    assert photos_of(catalogue) == {
        "0108775015": ("0108775015", "010/0108775015.jpg"),
        "0108775044": ("0108775044", "010/0108775044.jpg"),
    }


def test_a_table_of_photos_with_spaces_between_its_fields_holds_their_listings_too(tmp_path: Path) -> None:
    table = "image_id class_id super_class_id path\n1 10 1 cup/a.JPG\n2 10 1 cup/b.JPG\n3 20 2 fan/a.JPG\n"
    configuration = """
        listings = {table = "train.txt", id = "class_id", category = "super_class_id"}
        photos = {table = "train.txt", id = "image_id"}
    """
    files = ["cup/a.JPG", "cup/b.JPG", "fan/a.JPG"]
    catalogue = read_catalogue(dump_of(tmp_path, configuration, {"train.txt": table}, files))
    assert photos_of(catalogue) == {"1": ("10", "cup/a.JPG"), "2": ("10", "cup/b.JPG"), "3": ("20", "fan/a.JPG")}
    assert (list(catalogue.categories), list(catalogue.attributes), catalogue.unusable) == (["1", "2"], [], {})


def test_tables_in_folders_with_columns_of_other_names(tmp_path: Path) -> None:
    listings = ["key id name category kind", "l1 5 Kettle x Kitchen", "l2 6 Ball y Sports", "l3 \\N \\N z \\N"]
    photos = ['{"media": "p1", "item": "l1", "stored": "a/1.jpg"}', '{"media": "p2", "item": "l2", "at": "x"}']
    tables = {"db/items.tsv": "\n".join(listings).replace(" ", "\t"), "db/media.jsonl": "\n".join(photos)}
    configuration = """
        listings = {table = "db/items.tsv", id = "key", category = "kind"}
        photos = {table = "db/media.jsonl", id = "media", listing = "item", path = "stored", url = "at"}
    """
    catalogue = read_catalogue(dump_of(tmp_path, configuration, tables, ["a/1.jpg", "p2.jpg"]))
    assert photos_of(catalogue) == {"p1": ("l1", "a/1.jpg"), "p2": ("l2", "p2.jpg")}
    assert [(row.reason, row.table, row.row) for row in catalogue.rejected] == [
        ("listing without category", "db/items.tsv", 4)
    ]
    left_out = [(row.value, row.detail) for row in catalogue.odd if row.reason == "column without a name of its own"]
    assert left_out == [
        ("id", "left out: the id is in the column key"),
        ("category", "left out: the category is in the column kind"),
    ]


def test_one_column_may_be_two_things(tmp_path: Path) -> None:
    tables = {"classes.csv": "class,id\nKitchen,x\nSports,y\n", "Images.csv": "file name\nKitchen\nSports\n"}
    configuration = """
        listings = {table = "classes.csv", id = "class", category = "class"}
        photos = {id = "File name", listing = "File name"}
    """
    catalogue = read_catalogue(dump_of(tmp_path, configuration, tables, ["Kitchen.jpg", "Sports.jpg"]))
    assert photos_of(catalogue) == {"Kitchen": ("Kitchen", "Kitchen.jpg"), "Sports": ("Sports", "Sports.jpg")}
    assert list(catalogue.categories) == ["Kitchen", "Sports"]


def test_the_column_of_the_setting_goes_before_that_of_the_configuration(tmp_path: Path) -> None:
    tables = {"Products.csv": "id,kind,colour\nl1,Kitchen,red\nl2,Sports,blue\n", "Images.csv": "id,product_id\np,l1\n"}
    dump = dump_of(tmp_path, "listings.category = 'kind'", tables, ["p.jpg"])
    assert list(read_catalogue(dump).categories) == ["Kitchen", "Sports"]
    by_colour = CategoryChoice(source=CategorySource("colour"))
    assert list(read_catalogue(dump, by_colour).categories) == ["blue", "red"]


def test_another_configuration_is_another_catalogue(tmp_path: Path) -> None:
    table = f"id,category,photo,more\n1,{KITCHEN},a.jpg,b.jpg\n2,{SPORTS},c.jpg,\n"
    dump = dump_of(
        tmp_path,
        "listings.table = 'all.csv'\nphotos.columns = ['photo']",
        {"all.csv": table},
        ["a.jpg", "b.jpg", "c.jpg"],
    )
    reader = CatalogueReader()
    assert len(reader.read(dump).photos) == 2
    (dump / "catalogue.toml").write_text("listings.table = 'all.csv'\nphotos.columns = ['photo', 'more']")
    assert reader.digest(scan_catalogue(dump)) is None
    assert len(reader.read(dump).photos) == 3


SEVERAL = (
    f'id,category\n1,"{KITCHEN}, Sale"\n2,{SPORTS}\n3,"Sale, {SPORTS}"\n4,Sale\n5,{KITCHEN}\n6,"Music, Books > Jazz"\n'
    '7,"[""Music"", ""Sale""]"\n'
)


def test_a_category_that_may_be_several_is_told(tmp_path: Path) -> None:
    tables = {"Products.csv": SEVERAL, "Images.csv": "id,product_id\np,1\n"}
    catalogue = read_catalogue(dump_of(tmp_path, "", tables, ["p.jpg"]))
    assert "Sale, Sports" in catalogue.categories
    told = [(row.row, row.value, row.detail) for row in catalogue.odd if "several" in row.reason]
    assert told == [
        (2, f"{KITCHEN}, Sale", 'read as Kitchen; catalogue.toml: listings.several = "," takes the first'),
        (4, f"Sale, {SPORTS}", 'read as Sale, Sports; catalogue.toml: listings.several = "," takes the first'),
    ]


def test_of_several_categories_the_first_is_used_and_told_where_the_configuration_says_so(tmp_path: Path) -> None:
    tables = {"Products.csv": SEVERAL, "Images.csv": "id,product_id\np,1\n"}
    catalogue = read_catalogue(dump_of(tmp_path, 'listings.several = ","', tables, ["p.jpg"]))
    assert list(catalogue.categories) == ["Kitchen", "Music", "Sale", "Sports"]
    assert catalogue.paths["1"] == KITCHEN
    told = [(row.row, row.detail) for row in catalogue.odd if row.reason == "listing in several categories"]
    assert told == [(2, f"read as {KITCHEN}"), (4, "read as Sale"), (7, "read as Music"), (8, "read as Music")]


def test_a_damaged_photo_does_not_take_the_others_of_its_row_along(tmp_path: Path) -> None:
    table = f'id,category,photos\n1,{KITCHEN},"a.jpg, b.jpg"\n2,{SPORTS},c.jpg\n'
    configuration = "listings.table = 'all.csv'\nphotos.columns = ['photos']"
    dump = dump_of(tmp_path / "dump", configuration, {"all.csv": table}, ["a.jpg", "b.jpg", "c.jpg"])
    (dump / "images" / "a.jpg").write_bytes(b"no photo")
    cleaned = clean(dump, tmp_path / "out", report_progress=lambda line: None).catalogue
    assert [one.image_id for one in cleaned.photos] == ["1-b", "2-c"]
    assert [(row.table, row.row, row.row_id) for row in cleaned.rejected] == [("all.csv", 2, "1-a")]


@pytest.mark.parametrize(
    ("cell", "photos"),
    [
        ("", []),
        ("[]", []),
        ("NULL", []),
        ("a.jpg", ["a.jpg"]),
        ("a.jpg, b.png;c.webp | d.JPG", ["a.jpg", "b.png", "c.webp", "d.JPG"]),
        ("p1|p2", ["p1", "p2"]),
        ("red, round.jpg", ["red, round.jpg"]),
        ('["a.jpg", "b, c.jpg"]', ["a.jpg", "b, c.jpg"]),
        ("['a.jpg', 'b.jpg']", ["a.jpg", "b.jpg"]),
        ("https://x.org/w_2,h_2/a.jpg", ["https://x.org/w_2,h_2/a.jpg"]),
        ("https://x.org/w_2,h_2/a, https://x.org/b;HTTP://x.org/c", ["https://x.org/w_2,h_2/a", "https://x.org/b", "HTTP://x.org/c"]),
        ("https://x.org/a.jpg https://x.org/b.jpg,", ["https://x.org/a.jpg", "https://x.org/b.jpg"]),
    ],
)  # fmt: skip
def test_what_a_cell_says_of_photos_is_split(cell: str, photos: list[str]) -> None:
    assert split_photos(cell) == photos


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ("listings.table = 'gone.csv'", "listings.table: gone.csv is not there"),
        ("listings.table = '../all.csv'", "listings.table: ../all.csv is not inside the catalogue"),
        ("listings.table = '/all.csv'", "listings.table: /all.csv is not inside the catalogue"),
        ("listings.table = 'all.csv.gz'", "listings.table: all.csv.gz is not read: unpack it"),
        ("listings.table = 'all.xlsx'", 'listings.table: all.xlsx is not read: save it as "CSV UTF-8"'),
        ("listings.tabel = 'all.csv'", "listings.tabel: is not known; possible are table, id, category, several"),
        ("listings = 'all.csv'", "listings: must be a table: [listings]"),
        ("photos.columns = 'photo'", 'photos.columns: must be a list of names: ["IMAGE1", "IMAGE2"]'),
        ("photos = {table = 'all.csv', columns = ['photo']}", "photos.table and photos.columns exclude each other"),
        (
            "attributes.size.column = 'Size'\nphotos.columns = ['photo']",
            "attributes.size: all.csv has no column Size for attributes; it has none",
        ),
        ("photos.columns = ['foto']", "photos.columns: all.csv has no column foto; it has id, category, photo"),
        ("photos = {table = 'all.csv', path = 'foto'}", "photos.path: there is no column foto; there is id, category"),
        ("photos = {table = 'all.csv', id = 'foto'}", "photos.id: all.csv has no column foto; it has id, category"),
    ],
)
def test_what_is_wrong_with_the_configuration_of_tables_is_named(tmp_path: Path, configuration: str, told: str) -> None:
    tables = {"all.csv": f"id,category,photo\n1,{KITCHEN},a.jpg\n2,{SPORTS},b.jpg\n"}
    begin = "" if configuration.startswith("listings") else "listings.table = 'all.csv'\n"
    dump = dump_of(tmp_path, begin + configuration, tables, ["a.jpg", "b.jpg"])
    with pytest.raises(CatalogueUnusable) as refused:
        read_catalogue(dump)
    assert str(refused.value).startswith(f"catalogue.toml: {told}")


def refusal(dump: Path) -> str:
    with pytest.raises(CatalogueUnusable) as refused:
        read_catalogue(dump)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "table", "photos"),
    [
        ("feed.tsv", "id\tg:title\tcategory no\tCategory\timage link\tadditional image link\tImage Position\n", {}),
        ("db/items.csv", "sku;name;Kategorie;Foto 1;Foto 2\n", {}),
        ("styles.csv", "gender,id,masterCategory,displayName\n", {"images.csv": "filename,link\n"}),
        ("train.txt", "image_id class_id path\n1 10 cup/a.jpg\n", {}),
        ("items.jsonl", '{"item_id": "1", "category": "Sports", "photo": "a.jpg", "title": "A ball"}\n', {}),
        ("api.jsonl", '{"id": 1, "category": "Sports", "seller": {"id": 7}, "photos": [{"src": "a.jpg"}]}\n', {}),
        ("cars.csv", "id;category;Titel\n", {"bilder.csv": "Inserat;Nr;Datei\n"}),
    ],
)
def test_what_is_proposed_for_a_table_of_another_name_can_be_read(
    tmp_path: Path, name: str, table: str, photos: dict[str, str]
) -> None:
    dump = dump_of(tmp_path, "", {name: table, **photos}, [])
    (dump / "catalogue.toml").unlink()
    told = refusal(dump)
    assert f"write into {dump}/catalogue.toml" in told
    proposed = parse_configuration(told.partition("wrong:\n")[2])
    assert {
        "feed.tsv": ("id", "Category", ("image link", "additional image link"), "g:title"),
        "db/items.csv": ("sku", "Kategorie", ("Foto 1", "Foto 2"), "name"),
        "styles.csv": ("id", "masterCategory", ("id",), "displayName"),
        "train.txt": ("image_id", "class_id", ("path",), ""),
        "items.jsonl": ("item_id", "category", ("photo",), ""),
        "api.jsonl": ("id", "category", ("photos.src",), ""),
        "cars.csv": ("id", "category", ("id",), "Titel"),
    }[proposed.listings.table] == (
        proposed.listings.id,
        proposed.listings.category,
        proposed.photos.columns,
        proposed.attributes["title"].column if proposed.attributes else "",
    )
    assert proposed.listings.table == name


def test_a_second_table_is_proposed_as_that_of_the_photos(tmp_path: Path) -> None:
    tables = {"cars.csv": "id;category\n", "bilder.csv": "Inserat;Nr;Datei\n"}
    dump = dump_of(tmp_path, "", tables, [])
    (dump / "catalogue.toml").unlink()
    assert refusal(dump).splitlines()[-1] == (
        '# if bilder.csv names the photos: [photos] with table = "bilder.csv", and listing and id or path = one each '
        "of its columns Inserat, Nr, Datei"
    )


def test_where_parquet_has_photos_in_structures_their_column_is_proposed(tmp_path: Path) -> None:
    dump = dump_of(tmp_path, "", {}, ["a.jpg", "b.jpg"])
    (dump / "catalogue.toml").unlink()
    rows = {"sku": ["1", "2"], "category": [KITCHEN, SPORTS], "photos": [[{"src": "a.jpg"}], [{"src": "b.jpg"}]]}
    parquet.write_table(pa.table(rows), dump / "shop.parquet")
    (dump / "catalogue.toml").write_text(refusal(dump).partition("wrong:\n")[2])
    assert photos_of(read_catalogue(dump)) == {"1-a": ("1", "a.jpg"), "2-b": ("2", "b.jpg")}


PATHS = "Inserat;Nr;Datei\n0017;1;0017/01.jpg\n0017;2;0017\\02.JPG\n18;1;18/01.jpg\n18;2;\n"


@pytest.mark.parametrize(
    "of_photos",
    ["path = 'Datei'", "path = 'Datei'\nid = 'Datei'", "url = 'Datei'"],
)
def test_photos_without_ids_are_called_as_their_listing_and_file(tmp_path: Path, of_photos: str) -> None:
    tables = {"Products.csv": f"id;category\n0017;{KITCHEN}\n18;{SPORTS}\n", "bilder.csv": PATHS}
    configuration = f"[photos]\ntable = 'bilder.csv'\nlisting = 'Inserat'\n{of_photos}"
    catalogue = read_catalogue(dump_of(tmp_path, configuration, tables, ["0017/01.jpg", "0017/02.jpg", "18/01.jpg"]))
    assert photos_of(catalogue) == {
        "0017-01": ("0017", "0017/01.jpg"),
        "0017-02": ("0017", "0017/02.jpg"),
        "18-01": ("18", "18/01.jpg"),
    }
    assert [(one.reason, one.table, one.row) for one in catalogue.rejected] == [("photo without id", "bilder.csv", 5)]


def test_photos_with_ids_keep_them_beside_a_column_with_paths(tmp_path: Path) -> None:
    tables = {
        "Products.csv": f"id,category\n1,{KITCHEN}\n2,{SPORTS}\n",
        "Images.csv": "ID,product_id,stored_as\np1,1,x/a.jpg\np2,2,x/b.jpg\n",
    }
    dump = dump_of(tmp_path, "photos.path = 'stored_as'", tables, ["x/a.jpg", "x/b.jpg"])
    assert photos_of(read_catalogue(dump)) == {"p1": ("1", "x/a.jpg"), "p2": ("2", "x/b.jpg")}


def test_a_photos_table_without_ids_is_told_what_to_do(tmp_path: Path) -> None:
    tables = {"Products.csv": f"id,category\n1,{KITCHEN}\n2,{SPORTS}\n", "Images.csv": "Inserat;Nr;Datei\n1;1;a.jpg\n"}
    told = refusal(dump_of(tmp_path, "photos.listing = 'Inserat'", tables, ["a.jpg"]))
    assert told.startswith("Images.csv lacks the column id; it has Inserat, Nr, Datei; ")
    assert 'where photos have no ids, path = "COLUMN" in place of id' in told


def test_where_the_table_of_listings_names_the_photos_its_columns_are_proposed(tmp_path: Path) -> None:
    tables = {"Products.csv": f"id,category,image_url,image_count\n1,{KITCHEN},a.jpg,1\n2,{SPORTS},b.jpg,1\n"}
    dump = dump_of(tmp_path, "", tables, ["a.jpg", "b.jpg"])
    told = refusal(dump)
    assert "has no Images.csv" in told
    (dump / "catalogue.toml").write_text(told.partition("catalogue.toml:\n")[2])
    assert photos_of(read_catalogue(dump)) == {"1-a": ("1", "a.jpg"), "2-b": ("2", "b.jpg")}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("shop.db", "shop.db is not read: write each table out: sqlite3 -header -csv"),
        ("dump.sql", "dump.sql is not read: load it, and write each table out: psql --csv"),
        ("listings/listings_0.json.gz", "listings/listings_0.json.gz is not read: unpack it"),
        ("export.xlsx", 'export.xlsx is not read: save it as "CSV UTF-8"'),
        ("export.xml", "export.xml is not read: write it as a table"),
    ],
)
def test_of_a_file_that_may_hold_tables_it_is_told_how_to_turn_it_over(tmp_path: Path, name: str, advice: str) -> None:
    assert advice in refusal(dump_of(tmp_path, "", {name: "x"}, []))


def test_the_first_line_of_a_text_that_is_no_table_is_not_shown(tmp_path: Path) -> None:
    notes = {
        "notes.txt": "the secret word\n",
        "more.txt": "as I said: the secret code\n",
        "two.txt": "did he\nsay so again?\n",
    }
    texts = {**notes, "readme.csv": "a,b\n", "nested.jsonl": 30_000 * "["}
    dump = dump_of(tmp_path, "", texts, [])
    assert refusal(dump).endswith("(the same as .parquet, .jsonl, .ndjson)")


def test_photos_within_a_table_are_to_be_written_out(tmp_path: Path) -> None:
    dump = dump_of(tmp_path, "", {}, [])
    (dump / "data").mkdir()
    photos = pa.array([{"bytes": PHOTO, "path": "a.jpg"}])
    parquet.write_table(pa.table({"image": photos, "label": [1]}), dump / "data" / "train.parquet")
    assert "data/train.parquet holds photos in its column image: write them into images/ as files" in refusal(dump)


def test_bytes_of_one_length_are_no_photos(tmp_path: Path) -> None:
    dump = dump_of(tmp_path, "", {}, [])
    uuids = pa.array([bytes(16)], pa.binary(16))
    parquet.write_table(pa.table({"id": ["1"], "category": ["x"], "uuid": uuids}), dump / "items.parquet")
    assert "if items.parquet holds the listings" in refusal(dump)


def test_a_table_of_listings_separated_by_tabs_needs_no_other_name(tmp_path: Path) -> None:
    tables = {"Products.tsv": "id\tcategory\nl1\tKitchen\nl2\tSports\n", "Images.csv": "id,product_id\np1,l1\n"}
    dump = dump_of(tmp_path, "", tables, ["p1.jpg"])
    assert photos_of(read_catalogue(dump)) == {"p1": ("l1", "p1.jpg")}
    (dump / "Products.csv").write_text("id,category\nl1,Boats\nl2,Cars\n")  # which was read before, and still is
    assert list(read_catalogue(dump).categories) == ["Boats", "Cars"]
