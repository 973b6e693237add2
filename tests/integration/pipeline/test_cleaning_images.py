"""Working copies and near duplicates: made once, whatever is killed; the same picture is found, a blank one is not."""

import json
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

from pipeline.cleaning.images import (
    NEAR_BITS,
    Picture,
    Unusable,
    largest_group,
    near_duplicates,
    prepare_photos,
    working_copy,
)
from shared.catalogue.categories import CataloguePhoto
from shared.duplicates.looks import dhash
from tests.conftest import encode, noise_image

T = TypeVar("T")


def stored(directory: Path, *contents: bytes) -> list[CataloguePhoto]:
    """A photo of a listing of its own for each content."""
    from hashlib import sha256

    photos = []
    for n, content in enumerate(contents):
        path = directory / f"p{n}.jpg"
        path.write_bytes(content)
        photos.append(CataloguePhoto(f"p{n}", f"l{n}", 0, path, sha256(content).hexdigest()))
    return photos


def written(directory: Path) -> dict[Path, int]:
    """When each working copy was written."""
    return {path: path.stat().st_mtime_ns for path in directory.glob("photos/*/*")}


def test_a_working_copy_is_upright_rgb_and_as_long_as_agreed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    lying = encode(noise_image(1, (800, 500)), exif=exif)
    small = encode(noise_image(2, (90, 60)).convert("LA"), "PNG")
    photos = stored(tmp_path, lying, small)
    found = prepare_photos(photos, tmp_path / "out")
    copies = [Image.open(working_copy(tmp_path / "out", photo.sha256)) for photo in photos]
    assert [copy.size for copy in copies] == [(240, 384), (90, 60)]
    assert {(copy.mode, copy.format) for copy in copies} == {("RGB", "JPEG")}
    assert not copies[0].getexif()
    assert [(p.width, p.height) for p in found.values() if isinstance(p, Picture)] == [(800, 500), (90, 60)]
    # Quality 95 without chroma subsampling: about one level of noise.
    difference = ImageChops.difference(copies[1], Image.open(BytesIO(small)).convert("RGB"))
    assert np.asarray(difference).mean() < 2


def test_what_cannot_be_decoded_is_told_as_serving_tells_it(tmp_path: Path) -> None:
    whole = encode(noise_image(1))
    photos = stored(tmp_path, whole, whole[: len(whole) // 2], b"no photo")
    for _ in range(2):  # the second time from its notes
        found = prepare_photos(photos, tmp_path / "out")
        whole_one, cut, none = (found[photo.sha256] for photo in photos)
        assert isinstance(whole_one, Picture)
        assert isinstance(cut, Unusable)
        assert cut.reason == "photo cannot be used: photo_undecodable"
        assert "damaged or cut short" in cut.detail
        assert isinstance(none, Unusable)
        assert none.reason == "photo cannot be used: unsupported_format"
        assert none.detail
    assert list(written(tmp_path / "out")) == [working_copy(tmp_path / "out", photos[0].sha256)]


def test_a_photo_that_changed_since_it_was_read_is_not_taken_for_what_it_was(tmp_path: Path) -> None:
    photos = stored(tmp_path, encode(noise_image(1)))
    file = Path(str(photos[0].path))
    before = file.read_bytes()
    file.write_bytes(encode(noise_image(2)))
    assert "changed" in str(prepare_photos(photos, tmp_path / "out")[photos[0].sha256])
    file.write_bytes(before)
    assert isinstance(prepare_photos(photos, tmp_path / "out")[photos[0].sha256], Picture)


def test_after_an_interruption_only_what_was_not_finished_is_done(tmp_path: Path) -> None:
    photos = stored(tmp_path, *(encode(noise_image(n)) for n in range(80)))

    def interrupted(items: Iterable[T], *, total: int, desc: str) -> Iterator[T]:
        for n, item in enumerate(items):
            if n == 9:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        prepare_photos(photos, tmp_path / "out", progress=interrupted)
    notes = tmp_path / "out" / "cache" / "pictures.jsonl"
    notes.write_text(notes.read_text() + notes.read_text().splitlines()[-1][:50])  # the next line, cut short
    copy = working_copy(tmp_path / "out", photos[-1].sha256)
    copy.parent.mkdir(exist_ok=True)
    for half in (copy.with_name(f".{copy.name}.tmp"), copy.with_suffix(".tmp")):  # as now, and as it was once named
        half.write_bytes(b"half")
    noted = {working_copy(tmp_path / "out", json.loads(line)[0]) for line in notes.read_text().split("\n")[1:10]}
    before = written(tmp_path / "out")
    found = prepare_photos(photos, tmp_path / "out")
    after = written(tmp_path / "out")
    assert len(found) == len(after) == 80
    assert {path for path in noted if before[path] == after[path]} == noted
    assert found == prepare_photos(photos, tmp_path / "fresh")
    prepare_photos(photos, tmp_path / "out")
    assert written(tmp_path / "out") == after


def test_copies_follow_the_catalogue_and_nothing_else_is_removed(tmp_path: Path) -> None:
    photos = stored(tmp_path, encode(noise_image(1)), encode(noise_image(2)))
    foreign = tmp_path / "out" / "photos" / "mine" / "holiday.jpg"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    prepare_photos(photos, tmp_path / "out")
    working_copy(tmp_path / "out", photos[1].sha256).unlink()
    prepare_photos(photos[1:], tmp_path / "out")
    assert set(written(tmp_path / "out")) == {working_copy(tmp_path / "out", photos[1].sha256), foreign}


def test_the_dhash_has_a_bit_for_each_step_along_rows_and_down_columns() -> None:
    ramp = np.tile(np.linspace(0, 255, 90, dtype=np.uint8), (80, 1))
    assert dhash(Image.fromarray(ramp)) == "f" * 16 + "0" * 16
    assert dhash(Image.fromarray(ramp.T[::-1])) == "0" * 32
    assert dhash(Image.fromarray(ramp.T)) == "0" * 16 + "f" * 16


def catalogue_of(*hashes: str) -> tuple[list[CataloguePhoto], dict[str, Picture]]:
    photos = [CataloguePhoto(f"p{n}", f"l{n}", 0, Path(), f"{n:064x}") for n in range(len(hashes))]
    return photos, {p.sha256: Picture(9, 9, picture_hash) for p, picture_hash in zip(photos, hashes, strict=True)}


def flipped(picture_hash: str, n_bits: int) -> str:
    return f"{int(picture_hash, 16) ^ ((1 << n_bits) - 1) << 60:032x}"


BUSY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def test_pairs_across_listings_are_found_up_to_the_threshold_and_not_beyond() -> None:
    photos, pictures = catalogue_of(BUSY, flipped(BUSY, NEAR_BITS), flipped(BUSY, NEAR_BITS + 1), BUSY)
    pairs = near_duplicates(photos, pictures)
    assert [(p.image_a, p.image_b, p.distance, p.same_file) for p in pairs] == [
        ("p0", "p1", 15, False), ("p0", "p3", 0, False), ("p1", "p2", 1, False), ("p1", "p3", 15, False),
    ]  # fmt: skip


def test_photos_of_one_listing_are_no_near_duplicates() -> None:
    photos, pictures = catalogue_of(BUSY, BUSY)
    mine = [CataloguePhoto(photo.image_id, "l0", 0, photo.path, photo.sha256) for photo in photos]
    assert near_duplicates(mine, pictures) == []


def test_the_largest_group_is_connected_through_others_too() -> None:
    photos, pictures = catalogue_of(BUSY, flipped(BUSY, 10), flipped(BUSY, 20), *[flipped(BUSY, 64)] * 2)
    pairs = near_duplicates(photos, pictures)
    assert largest_group(pairs, at_least=2) == {"p0", "p1", "p2"}
    assert largest_group(pairs, at_least=3) == largest_group([], at_least=0) == frozenset()


def blank_with(draw: tuple[int, int] | None) -> Image.Image:
    image = Image.new("RGB", (256, 200), "white")
    if draw:
        ImageDraw.Draw(image).ellipse((*draw, draw[0] + 30, draw[1] + 30), fill="red")
    return image


def test_pictures_without_features_are_not_all_one_but_the_same_file_is(tmp_path: Path) -> None:
    sky = Image.fromarray(np.tile(np.linspace(90, 250, 256, dtype=np.uint8), (200, 1)))
    plain = [
        blank_with(None),
        Image.new("RGB", (300, 200), (120, 40, 10)),
        blank_with((100, 80)),
        blank_with((20, 120)),
        sky,
    ]
    contents = [encode(image) for image in plain]
    photos = stored(tmp_path, *contents, contents[2])
    found = {k: v for k, v in prepare_photos(photos, tmp_path / "out").items() if isinstance(v, Picture)}
    assert [(p.image_a, p.image_b, p.same_file) for p in near_duplicates(photos, found)] == [("p2", "p5", True)]


def test_a_picture_saved_again_smaller_and_poorer_is_found(tmp_path: Path) -> None:
    image = noise_image(3, (640, 480))
    contents = [encode(image), encode(image.resize((200, 150)), quality=40), encode(noise_image(4, (640, 480)))]
    photos = stored(tmp_path, *contents)
    found = {k: v for k, v in prepare_photos(photos, tmp_path / "out").items() if isinstance(v, Picture)}
    assert [(p.image_a, p.image_b) for p in near_duplicates(photos, found)] == [("p0", "p1")]


def cut_out(seed: int) -> Image.Image:
    """A thing of one colour with some parts, in the middle of a white square."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (400, 400), "white")
    draw = ImageDraw.Draw(image)
    width, height = (int(side) for side in rng.integers(75, 170, 2))
    box = (200 - width, 200 - height, 200 + width, 200 + height)
    fill = tuple(rng.integers(0, 220, 3).tolist())
    if seed % 3 == 0:
        draw.ellipse(box, fill=fill)
    else:
        draw.rounded_rectangle(box, radius=30 * (seed % 3 - 1), fill=fill)
    for _ in range(int(rng.integers(0, 4))):
        (x, y), (w, h) = rng.integers(130, 240, 2).tolist(), rng.integers(15, 60, 2).tolist()
        draw.ellipse((x, y, x + w, y + h), fill=tuple(rng.integers(0, 220, 3).tolist()))
    return image


def test_things_cut_out_on_white_are_not_all_one_but_copies_of_each_are_found(tmp_path: Path) -> None:
    things = [cut_out(seed) for seed in range(400)]
    copies = [encode(thing, quality=40) for thing in things[:20]]
    copies += [encode(thing.resize((160, 160)), quality=80) for thing in things[:20]]
    photos = stored(tmp_path, *(encode(thing, quality=92) for thing in things), *copies)
    found = {k: v for k, v in prepare_photos(photos, tmp_path / "out").items() if isinstance(v, Picture)}
    pairs = {(p.image_a, p.image_b) for p in near_duplicates(photos, found)}
    expected = [(f"p{n}", f"p{n + first}") for n in range(20) for first in (400, 420)]
    assert pairs >= {(min(pair), max(pair)) for pair in expected}
    group = {photo.image_id: {photo.image_id} for photo in photos[:400]}
    for a, b in pairs:
        if a in group and b in group and group[a] is not group[b]:
            group[a] |= group[b]
            for image_id in group[b]:
                group[image_id] = group[a]
    assert max(map(len, group.values())) <= 5


def test_a_picture_that_thousands_show_joins_them_all_without_every_pair() -> None:
    photos, pictures = catalogue_of(*[BUSY] * 3000, *[flipped(BUSY, 1)] * 3000)
    pairs = near_duplicates(photos, pictures)
    assert len(pairs) < 4 * len(photos)
    joined = {"p0"}
    for pair in sorted(pairs, key=lambda pair: "p0" not in pair[:2]):
        if joined & {pair.image_a, pair.image_b}:
            joined |= {pair.image_a, pair.image_b}
    assert len(joined) == len(photos)
