"""Photos by path: files that the table names, below `images/` or the catalogue, and nothing outside of it."""

import os
import time
from pathlib import Path

import pytest

from shared.catalogue.tables import Catalogue, CatalogueReader, read_catalogue, scan_catalogue
from shared.errors import CatalogueUnusable

SOUND = {"images/sound.jpg": b"sound"}
OUTSIDE, AMBIGUOUS, MISSING = "photo path leads out of the catalogue", "photo file is ambiguous", "photo without file"


def dump_of(directory: Path, files: dict[str, bytes], images: str) -> Path:
    """A catalogue with files by path and a table of photos."""
    for name, content in {
        **files,
        "Products.csv": b"id,category\nl1,Appliances\n",
        "Images.csv": images.encode(),
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def contents(catalogue: Catalogue) -> dict[str, bytes]:
    return {photo.image_id: photo.path.read_bytes() for photo in catalogue.photos}


@pytest.mark.parametrize("column", ["path", "Path", "file", "filename"])
@pytest.mark.parametrize(
    "path",
    ["2024/Küche.PNG", "images/2024/Küche.PNG", "./2024//Küche.PNG", "2024\\Küche.PNG", "Images/2024/ku\u0308che.png"],
)
def test_a_file_is_found_by_its_path(tmp_path: Path, column: str, path: str) -> None:
    images = f"id,product_id,{column}\nsound,l1,\np1,l1,{path}\n"
    catalogue = read_catalogue(dump_of(tmp_path / "dump", {**SOUND, "images/2024/Küche.PNG": b"1"}, images))
    assert (catalogue.rejected, catalogue.odd) == ((), ())
    assert contents(catalogue) == {"sound": b"sound", "p1": b"1"}


def test_photos_may_lie_beside_images_or_without_it(tmp_path: Path) -> None:
    images = "id,product_id,path\np1,l1,photos/1.jpg\np2,l1,2.jpg\n"
    catalogue = read_catalogue(dump_of(tmp_path / "dump", {"photos/1.jpg": b"1", "2.jpg": b"2"}, images))
    assert contents(catalogue) == {"p1": b"1", "p2": b"2"}
    without_paths = dump_of(tmp_path / "other", {"1.jpg": b"1"}, "id,product_id\n1,l1\n")
    with pytest.raises(CatalogueUnusable, match=r"has no images; a catalogue holds .*column path"):
        read_catalogue(without_paths)


def test_a_path_says_which_of_two_files_of_one_name_is_meant(tmp_path: Path) -> None:
    images = "id,product_id,path\na,l1,y/a.jpg\na2,l1,x/a.jpg\n"
    catalogue = read_catalogue(dump_of(tmp_path / "dump", {"images/x/a.jpg": b"x", "images/y/a.jpg": b"y"}, images))
    assert contents(catalogue) == {"a": b"y", "a2": b"x"}


@pytest.mark.parametrize(
    ("path", "reason", "detail"),
    [
        ("/etc/secret.jpg", OUTSIDE, "is not inside; write it as it is below images/"),
        ("../outside.jpg", OUTSIDE, "../outside.jpg is not inside"),
        ("x/../../../outside.jpg", OUTSIDE, "is not inside"),
        ("x\\..\\..\\outside.jpg", OUTSIDE, "is not inside"),
        ("C:\\photos\\p1.jpg", OUTSIDE, "is not inside"),
        ("~/p1.jpg", OUTSIDE, "is not inside"),
        ("https://example.org/p1.jpg", OUTSIDE, "is a URL; name the column url"),
        ("linked.jpg", OUTSIDE, "is a link that leads out"),
        ("none.jpg", MISSING, "looked for none.jpg below images/"),
        ("sound.gif", MISSING, "only .jpg"),
        (".hidden/p1.jpg", MISSING, "it lies in a folder that is a link, hidden"),
        ("folder/p1.jpg", MISSING, "it lies in a folder that is a link, hidden"),
        ("SOUND.jpg/", "", ""),
        ("twice/1.JPG", AMBIGUOUS, "there is images/twice/1.Jpg, images/twice/1.jpg"),
        ("images/p2.jpg", AMBIGUOUS, "there is images/images/p2.jpg, images/p2.jpg"),
        ("images", MISSING, "only .jpg"),
    ],
)
def test_a_path_that_leads_nowhere_or_out_is_refused_with_its_row(
    tmp_path: Path, path: str, reason: str, detail: str
) -> None:
    names = [".hidden/p1.jpg", "twice/1.jpg", "twice/1.Jpg", "p2.jpg", "images/p2.jpg"]
    images = f"id,product_id,path\nsound,l1,sound.jpg\np1,l1,{path}\n"
    dump = dump_of(tmp_path / "dump", {**SOUND, **{f"images/{name}": b"1" for name in names}}, images)
    (tmp_path / "outside").mkdir()
    for name in ("outside.jpg", "outside/p1.jpg"):
        (tmp_path / name).write_bytes(b"not this")
    (dump / "images" / "linked.jpg").symlink_to(tmp_path / "outside.jpg")
    (dump / "images" / "folder").symlink_to(tmp_path / "outside")
    if "twice" in path and len(list((dump / "images" / "twice").iterdir())) < 2:
        pytest.skip("this disk ignores case")
    catalogue = read_catalogue(dump)
    if not reason:
        assert contents(catalogue) == {"sound": b"sound", "p1": b"sound"}
        return
    assert contents(catalogue) == {"sound": b"sound"}
    [told] = catalogue.rejected
    assert (told.table, told.row, told.row_id, told.reason) == ("Images.csv", 3, "p1", reason)
    assert detail in told.detail
    assert path in told.detail
    assert told.detail.endswith("(column path)")


def test_links_within_the_catalogue_are_read_and_images_may_be_one(tmp_path: Path) -> None:
    images = "id,product_id,path\np1,l1,a.jpg\np2,l1,b.jpg\n"
    dump = dump_of(tmp_path / "dump", {}, images)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.jpg").write_bytes(b"a")
    (dump / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "b.jpg").symlink_to("a.jpg")
    assert contents(read_catalogue(dump)) == {"p1": b"a", "p2": b"a"}


def test_a_file_name_that_is_something_else_gives_way_to_the_id_and_is_told(tmp_path: Path) -> None:
    images = "id,product_id,filename\nsound,l1,IMG_0001.jpg\nnone,l1,IMG_0002.jpg\n"
    catalogue = read_catalogue(dump_of(tmp_path / "dump", SOUND, images))
    assert contents(catalogue) == {"sound": b"sound"}
    [odd], [rejected] = catalogue.odd, catalogue.rejected
    told = (odd.reason, odd.row, odd.detail)
    assert told == ("column filename names no photo file", 2, "IMG_0001.jpg: read by its id")
    assert "looked for IMG_0002.jpg" in rejected.detail


def test_a_photo_beside_images_that_changes_is_read_again(tmp_path: Path) -> None:
    dump = dump_of(tmp_path / "dump", {"photos/1.jpg": b"1"}, "id,product_id,path\np1,l1,photos/1.jpg\n")

    def settle() -> None:
        for path in dump.rglob("*"):
            os.utime(path, (time.time() - 60,) * 2)

    settle()
    reader = CatalogueReader(tmp_path / "digests.json")
    before = reader.read(dump).digest
    assert reader.digest(scan_catalogue(dump)) == before
    (dump / "photos" / "1.jpg").write_bytes(b"22")
    settle()
    assert reader.digest(scan_catalogue(dump)) is None
    assert reader.read(dump).digest != before
