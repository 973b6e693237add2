"""The demo catalogue keeps its promises: the same seed, the same catalogue, whole or not at all."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.demo.catalogue import generate

CATEGORIES = {
    "Home & Garden",
    "Baby & Kids Stuff",
    "DIY Tools & Materials",
    "Music, Films, Books & Games",
    "Phones, Mobile Phones & Telecoms",
    "Clothes, Footwear & Accessories",
    "Other Goods",
    "Health & Beauty",
    "Sports, Leisure & Travel",
    "Appliances",
    "Computers & Software",
    "Office Furniture & Equipment",
    "Video Games & Consoles",
}


def _read_table(path: Path) -> list[dict[str, str]]:
    text = path.read_bytes().decode().replace("\r", " ")  # csv would end a row at a bare carriage return
    return list(csv.DictReader(io.StringIO(text)))


def _read_files(directory: Path) -> dict[str, bytes]:
    return {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "catalogue"
    generate(directory, n_listings=13, seed=5)
    return directory


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    generate(tmp_path / "once", n_listings=2, seed=3)
    generate(tmp_path / "again", n_listings=2, seed=3)
    assert _read_files(tmp_path / "once") == _read_files(tmp_path / "again")


def test_a_listing_does_not_depend_on_how_many_follow_it(catalogue: Path, tmp_path: Path) -> None:
    generate(tmp_path / "short", n_listings=2, seed=5)
    photos = {name: photo for name, photo in _read_files(tmp_path / "short").items() if name.endswith(".jpg")}
    assert len(photos) == 4
    assert photos.items() <= _read_files(catalogue).items()


def test_worker_processes_draw_the_same_bytes_as_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(tmp_path / "one", n_listings=3, seed=3)
    monkeypatch.setattr("pipeline.demo.catalogue.POOL_FROM_LISTINGS", 1)
    generate(tmp_path / "many", n_listings=3, seed=3)
    assert _read_files(tmp_path / "one") == _read_files(tmp_path / "many")


def test_another_seed_gives_another_catalogue(tmp_path: Path) -> None:
    generate(tmp_path / "three", n_listings=2, seed=3)
    generate(tmp_path / "four", n_listings=2, seed=4)
    assert not set(_read_files(tmp_path / "three").values()) & set(_read_files(tmp_path / "four").values())


def test_every_category_has_equally_many_listings(catalogue: Path) -> None:
    roots = Counter(row["category"].split(" / ")[0] for row in _read_table(catalogue / "Products.csv"))
    assert roots == dict.fromkeys(CATEGORIES, 1)


def test_tables_have_the_columns_of_a_raw_dump(catalogue: Path) -> None:
    products = (catalogue / "Products.csv").read_bytes()
    assert products.startswith(b"id,product_name,category,product_description,price,location\n")
    assert (catalogue / "Images.csv").read_bytes().startswith(b"id,product_id\n")
    assert b"\r" in products, "some descriptions hold a bare carriage return"
    assert b"\r\n" not in products
    assert all(row["price"].startswith("£") for row in _read_table(catalogue / "Products.csv"))


def test_tables_name_every_photo_once_and_every_photo_decodes(catalogue: Path) -> None:
    rows = _read_table(catalogue / "Images.csv")
    photos = {file.stem: file for file in (catalogue / "images").iterdir()}
    assert sorted(row["id"] for row in rows) == sorted(photos)
    assert len({row["id"] for row in _read_table(catalogue / "Products.csv")}) == 13
    for file in photos.values():
        with Image.open(file) as photo:
            photo.load()
            assert (photo.format, photo.mode) == ("JPEG", "RGB")
            assert min(photo.size) >= 400


def test_a_listing_has_two_photos_that_clearly_differ(catalogue: Path) -> None:
    views: dict[str, list[np.ndarray]] = {}
    for row in _read_table(catalogue / "Images.csv"):
        with Image.open(catalogue / "images" / f"{row['id']}.jpg") as photo:
            pixels = np.asarray(photo.resize((64, 64)), dtype=np.float32)  # (64, 64, 3)
        views.setdefault(row["product_id"], []).append(pixels)
    assert views.keys() == {row["id"] for row in _read_table(catalogue / "Products.csv")}
    for first, second in views.values():
        # 8 of 255 levels is far above what re-encoding one picture does (about 1 at this size).
        assert np.abs(first - second).mean() > 8


def test_an_existing_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        generate(tmp_path, n_listings=1)
    assert _read_files(tmp_path) == {"note.txt": b"mine"}


def test_an_interrupted_generation_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt_at_third(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            if step == 2:
                raise KeyboardInterrupt
            yield step

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "catalogue", n_listings=13, progress=interrupt_at_third)
    assert not list(tmp_path.iterdir())


def test_progress_advances_once_a_listing(tmp_path: Path) -> None:
    seen: list[int] = []

    def record(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            seen.append(step)
            yield step

    generate(tmp_path / "catalogue", n_listings=3, progress=record)
    assert seen == [0, 1, 2]
