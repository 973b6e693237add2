"""The same picture is told from others, whatever was done to the copy; cut-outs and blank pages are not one another."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageOps

from shared.duplicates.alignment import SIDE_PX, Grey, agreement, alike, reduce_greys
from shared.duplicates.looks import dhash, hash_distance, look_of, look_of_image, tints_agree
from shared.duplicates.search import compare_looks
from tests.support.copies import COPIES, cut_out, jpeg, mirrored, scene

N = 12
RNG = np.random.default_rng(17)


def grey_of(image: Image.Image) -> Grey:
    return look_of_image(image).thumbnails[0].grey


def greys(*images: Image.Image) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.stack([grey_of(image) for image in images])


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_the_same_picture_and_is_told_whether_it_is_mirrored(kind: str) -> None:
    scenes = [scene(seed) for seed in range(N)]
    ones = greys(*scenes)
    others = np.stack([look_of(jpeg(COPIES[kind](image, RNG))).thumbnails[0].grey for image in scenes])
    found = agreement(ones, others)
    assert found.same.all()
    assert (found.mirrored == (kind == "mirrored")).all()
    assert (found.correlation > 0.8).all()
    assert alike(reduce_greys(ones), reduce_greys(others))[:, int(kind == "mirrored")].all()


@pytest.mark.parametrize(
    "images",
    [
        [scene(seed) for seed in range(N)],
        [cut_out(seed) for seed in range(N)],
        [Image.new("RGB", (256, 192), level) for level in ("white", "#fefefe", "black", "red")],
    ],
    ids=["scenes", "cut-outs", "blank pages"],
)
def test_different_pictures_are_not_the_same(images: list[Image.Image]) -> None:
    pairs = list(combinations(images, 2))
    found = agreement(greys(*(one for one, _ in pairs)), greys(*(other for _, other in pairs)))
    assert not found.same.any()


def test_a_cut_out_is_still_found_when_it_is_copied() -> None:
    things = [cut_out(seed) for seed in range(N)]
    copies = [COPIES["recompressed"](thing, RNG).resize((180, 140)) for thing in things]
    assert agreement(greys(*things), greys(*copies)).same.mean() > 0.9


def test_no_pairs_are_compared_without_complaint() -> None:
    assert agreement(
        np.zeros((0, SIDE_PX, SIDE_PX), np.uint8), np.zeros((0, SIDE_PX, SIDE_PX), np.uint8)
    ).same.shape == (0,)


def test_a_frame_is_left_out_of_the_look_and_the_ground_of_a_cut_out_is_not() -> None:
    framed = COPIES["bordered"](scene(1), RNG)
    difference = np.abs(grey_of(framed).astype(int) - grey_of(scene(1)))
    assert difference.mean() < 6  # levels; the frame's blurred edge takes a pixel of each side along
    assert grey_of(cut_out(1))[:4].min() > 250


def test_a_framed_photo_is_found_when_a_copy_of_it_is_turned_framed_again_or_cropped() -> None:
    framed = [ImageOps.expand(scene(seed), (0, 30), fill="black") for seed in range(N)]
    for kind in ("rotated", "bordered", "cropped"):
        copies = [look_of(jpeg(COPIES[kind](image, RNG))) for image in framed]
        found = [compare_looks(look_of_image(image), [copy])[0] for image, copy in zip(framed, copies, strict=True)]
        assert all(found), kind
    assert compare_looks(look_of_image(framed[0]), [look_of_image(other) for other in framed[1:]]) == [None] * (N - 1)


def test_one_thing_in_two_colours_is_no_copy() -> None:
    red, blue = (look_of_image(cut_out(5, colour=colour)) for colour in ((190, 40, 40), (40, 40, 190)))
    assert agreement(*(look.thumbnails[0].grey[None] for look in (red, blue))).same[0]
    assert compare_looks(red, [blue, look_of(jpeg(cut_out(5, colour=(190, 40, 40)), 40))])[0] is None
    assert all(
        tints_agree(look_of_image(scene(seed)).thumbnails[0], look_of(jpeg(copy(scene(seed), RNG))).thumbnails[0])
        for seed in range(N)
        for copy in COPIES.values()
    )


def test_hashes_of_a_mirrored_copy_agree_once_one_is_mirrored() -> None:
    one, other = dhash(scene(3)), dhash(mirrored(scene(3), RNG))
    assert hash_distance(one, one) == 0
    assert hash_distance(one, other, mirrored=True) <= 2  # where brightness stays the same, neither way rises
    assert hash_distance(one, other) > 30
