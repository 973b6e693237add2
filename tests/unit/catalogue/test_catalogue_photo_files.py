"""Files of photo ids: each id gets its own, and one without says what was looked for and what is there instead."""

import os
import tempfile
import unicodedata
from pathlib import Path

import pytest

from shared.catalogue.photo_files import FileProblem, PhotoFiles
from shared.catalogue.scan import ENDINGS, Scan, Stat
from shared.catalogue.tables import read_catalogue
from tests.conftest import encode, noise_image, write_catalogue

NO_SLASH = '; an id holds no slash: of a column with paths catalogue.toml says path = "COLUMN" in [photos]'
COMPOSED = unicodedata.normalize("NFC", "Küche")
DECOMPOSED = unicodedata.normalize("NFD", "Küche")


def found(ids: list[str], files: list[str]) -> dict[str, str]:
    """For each id the file it gets, or the reason and the detail why it gets none. No disk: some ignore case."""
    photos = {name.rpartition(".")[0]: (f"images/{name}", Stat(1, 1, 1)) for name in files if name.endswith("jpg")}
    others = {name.rpartition(".")[0]: name for name in files if not name.endswith("jpg")}
    finder = PhotoFiles(Scan({}, photos, others, "", 0), ids)
    answers = {image_id: finder.find(image_id) for image_id in ids}
    return {
        image_id: ": ".join(answer) if isinstance(answer, FileProblem) else answer[0].removeprefix("images/")
        for image_id, answer in answers.items()
    }


def test_ids_that_differ_in_case_only_get_each_its_own_file() -> None:
    ids = ["aB3x", "Ab3X", "zz9", "ZZ9"]
    assert found(ids, [f"{image_id}.jpg" for image_id in ids]) == {image_id: f"{image_id}.jpg" for image_id in ids}


@pytest.mark.parametrize(
    ("ids", "files", "expected"),
    [
        pytest.param(["a1"], ["A1.jpg"], {"a1": "A1.jpg"}, id="one file in other case"),
        pytest.param([COMPOSED], [f"{DECOMPOSED}.jpg"], {COMPOSED: f"{DECOMPOSED}.jpg"}, id="unpacked by a Mac"),
        pytest.param([DECOMPOSED], [f"{COMPOSED}.jpg"], {DECOMPOSED: f"{COMPOSED}.jpg"}, id="the table from a Mac"),
        pytest.param(["KÜCHE"], [f"{DECOMPOSED}.jpg"], {"KÜCHE": f"{DECOMPOSED}.jpg"}, id="both at once"),
        pytest.param(
            [COMPOSED], [f"{DECOMPOSED}.jpg", "küche.jpg"], {COMPOSED: f"{DECOMPOSED}.jpg"}, id="form before case"
        ),
        pytest.param(["a1"], ["A1.jpg", "B.jpg"], {"a1": "A1.jpg"}, id="other files do not matter"),
        pytest.param(
            ["aB"],
            ["AB.jpg", "ab.jpg"],
            {"aB": "photo file is ambiguous: looked for images/aB.jpg; there is AB.jpg, ab.jpg"},
            id="two files",
        ),
        pytest.param(
            ["aB", "Ab"],
            ["aB.jpg"],
            {
                "aB": "aB.jpg",
                "Ab": "photo file is ambiguous: looked for images/Ab.jpg; there is aB.jpg, which may be that of aB",
            },
            id="one file and two ids, one of them exact",
        ),
        pytest.param(
            ["aB", "Ab"],
            ["ab.jpg"],
            {
                "aB": "photo file is ambiguous: looked for images/aB.jpg; there is ab.jpg, which may be that of Ab",
                "Ab": "photo file is ambiguous: looked for images/Ab.jpg; there is ab.jpg, which may be that of aB",
            },
            id="one file and two ids",
        ),
    ],
)
def test_a_name_that_is_not_exact_counts_only_where_nothing_else_can_be_meant(
    ids: list[str], files: list[str], expected: dict[str, str]
) -> None:
    assert found(ids, files) == expected


@pytest.mark.parametrize(
    ("image_id", "file", "hint"),
    [
        ("p1", "other.jpg", ""),
        ("p1.jpeg", "p1.jpg", "; there is p1.jpg"),
        ("images/P1.JPEG", "p1.jpg", f"; there is p1.jpg{NO_SLASH}"),
        ("shot", "Shot.gif", f"; there is Shot.gif, and only {', '.join(ENDINGS)} are read"),
        ("saved.tiff", "saved.bmp", f"; there is saved.bmp, and only {', '.join(ENDINGS)} are read"),
    ],
)
def test_a_missing_file_is_told_with_the_one_that_may_be_meant(image_id: str, file: str, hint: str) -> None:
    ending = "" if image_id.lower().endswith(ENDINGS) else ".jpg"
    expected = f"photo without file: looked for images/{image_id}{ending}{hint}"
    assert found([image_id], [file]) == {image_id: expected}


def test_an_id_may_be_the_whole_name_of_a_file_that_no_other_id_means() -> None:
    assert found(["p1.jpg", "p2.jpg"], ["p1.jpg", "p2.jpg"]) == {"p1.jpg": "p1.jpg", "p2.jpg": "p2.jpg"}
    missing = "photo without file: looked for images/p1.jpg.jpg; there is p1.jpg"
    assert found(["p1", "p1.jpg"], ["p1.jpg"]) == {"p1": "p1.jpg", "p1.jpg": missing}


def test_on_disk_each_of_two_ids_gets_its_own_pixels(tmp_path: Path) -> None:
    photos = {"aB3x.jpg": encode(noise_image(1, (40, 30))), "Ab3X.jpg": encode(noise_image(2, (40, 30)))}
    products, images = "id,category\n1,Appliances\n2,Appliances\n", "id,product_id\naB3x,1\nAb3X,2\n"
    dump = write_catalogue(tmp_path / "dump", products, images, photos)
    if len(list((dump / "images").iterdir())) < 2:
        pytest.skip("this disk ignores case")
    read = {photo.image_id: photo.path.read_bytes() for photo in read_catalogue(dump).photos}
    assert read == {name.removesuffix(".jpg"): content for name, content in photos.items()}


def dump_of(tmp_path: Path, files: dict[str, bytes], ids: list[str]) -> Path:
    """A catalogue with these files below `images/`, and a row for each id."""
    images = "id,product_id\n" + "".join(f"{image_id},1\n" for image_id in ids)
    dump = write_catalogue(tmp_path / "dump", "id,category\n1,Appliances\n", images, {})
    for name, content in files.items():
        (dump / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (dump / "images" / name).write_bytes(content)
    return dump


def test_photos_lie_in_subfolders_at_any_depth(tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "2024/b.png": b"2", "2024/may/C.JPG": b"3", ".trash/a.jpg": b"4", "@eaDir/b.png": b"5"}
    catalogue = read_catalogue(dump_of(tmp_path, files, ["a", "b", "c"]))
    assert catalogue.rejected == ()
    assert [photo.path.read_bytes() for photo in catalogue.photos] == [b"1", b"2", b"3"]


def test_two_files_of_one_name_in_different_folders_are_named(tmp_path: Path) -> None:
    files = {"x/a.jpg": b"1", "y/a.png": b"2", "b.jpg": b"3", "b.png": b"4"}
    catalogue = read_catalogue(dump_of(tmp_path, files, ["a", "A", "b"]))
    detail = "looked for {} in the folders of images/; there is x/a.jpg, y/a.png; name one in a column path"
    assert [(row.row, row.reason, row.detail) for row in catalogue.rejected] == [
        (2, "photo file is ambiguous", detail.format("a")),
        (3, "photo file is ambiguous", "looked for images/A.jpg; there is x/a.jpg, which may be that of a"),
    ]
    assert [photo.path.read_bytes() for photo in catalogue.photos] == [b"3"]


def test_a_link_that_leads_back_into_the_catalogue_is_not_followed(tmp_path: Path) -> None:
    dump = dump_of(tmp_path, {"x/a.jpg": b"1"}, ["a"])
    (dump / "images" / "x" / "again").symlink_to(dump / "images")
    for one, other in (("round.jpg", "about.jpg"), ("about.jpg", "round.jpg"), ("gone.jpg", "nowhere.jpg")):
        (dump / "images" / one).symlink_to(other)
    assert [photo.path.read_bytes() for photo in read_catalogue(dump).photos] == [b"1"]


def test_a_folder_that_may_not_be_read_is_told_with_the_photo_that_is_not_found() -> None:
    with tempfile.TemporaryDirectory() as directory:  # below it, others than root may look
        Path(directory).chmod(0o755)
        dump = dump_of(Path(directory), {"a.jpg": b"1", "locked/b.jpg": b"2"}, ["a", "b"])
        (dump / "images" / "locked").chmod(0)
        me = os.geteuid()
        os.seteuid(me or 65534)  # root may read everything
        try:
            rejected = read_catalogue(dump).rejected
        finally:
            os.seteuid(me)
            (dump / "images" / "locked").chmod(0o755)
    expected = f"looked for images/b.jpg; user {me or 65534} may not read locked"
    assert [(row.row_id, row.detail) for row in rejected] == [("b", expected)]


def test_ids_that_are_whole_file_names_have_each_its_own_where_they_differ_in_the_ending_only(tmp_path: Path) -> None:
    files = ["a.jpg", "a.png", "b.jpg", "b.png", "x/c.webp", "y/c.jpg", "d.jpg", "d.png"]
    images = "id,product_id\n" + "".join(f"{one},1\n" for one in ("a.jpg", "a.png", "b.PNG", "c.webp", "d"))
    dump = write_catalogue(tmp_path / "dump", "id,category\n1,Appliances\n", images, {})
    for seed, name in enumerate(files):
        (dump / "images" / name).parent.mkdir(exist_ok=True)
        (dump / "images" / name).write_bytes(encode(noise_image(seed, (40, 30))))
    catalogue = read_catalogue(dump)
    images_of = f"{dump / 'images'}/"
    assert {one.image_id: str(one.path).removeprefix(images_of) for one in catalogue.photos} == {
        "a.jpg": "a.jpg", "a.png": "a.png", "b.PNG": "b.png", "c.webp": "x/c.webp", "d": "d.jpg",
    }  # fmt: skip
    assert [(one.reason, one.row_id, one.detail) for one in catalogue.odd] == [
        ("photo with files of several endings", "d", "d.jpg is read, and not d.png")
    ]
