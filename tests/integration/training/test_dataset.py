"""Which photos are trained on, chosen by and measured on, and what augmentation makes of one."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.training.network.dataset import PLAIN, Augmentation, PhotoViews, augment
from pipeline.training.split import require_every_side, split_listings
from shared.catalogue.categories import CataloguePhoto
from shared.errors import CatalogueUnusable
from shared.model.bundle import Split
from shared.photos.images import PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image

SPEC = PreprocessSpec(size_px=64)


def catalogue(listings_per_category: list[int], photos_per_listing: int = 2) -> list[CataloguePhoto]:
    """So many listings in each of the first categories."""
    listings = [(c, n) for c, n_listings in enumerate(listings_per_category) for n in range(n_listings)]
    return [
        CataloguePhoto(f"p{c}-{n}-{photo}", f"l{c}-{n}", c, Path("unused.jpg"))
        for c, n in listings
        for photo in range(photos_per_listing)
    ]


BALANCED = catalogue([10] * 13)


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.validation), len(split.test)


def test_eight_tenths_are_trained_on_one_is_chosen_by_and_one_measured_on() -> None:
    assert sizes(split_listings(BALANCED)) == (104, 13, 13)


def test_a_split_with_an_empty_side_is_refused_and_one_without_sides_is_not() -> None:
    require_every_side(split_listings(BALANCED))
    require_every_side(Split(train=frozenset({"l0"})))
    with pytest.raises(CatalogueUnusable, match="nothing is left for validation, because"):
        require_every_side(Split(train=frozenset({"l0"}), test=frozenset({"l1"})))


def test_every_category_is_on_every_side_in_equal_parts() -> None:
    categories = {photo.listing_id: photo.category for photo in BALANCED}
    split = split_listings(BALANCED)
    for side in (split.validation, split.test):
        assert Counter(categories[listing] for listing in side) == dict.fromkeys(range(13), 1)


@given(
    n_photos=st.lists(st.integers(1, 6), min_size=1, max_size=60),
    pairs=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=40),
    same_file=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=10),
    seed=st.integers(0, 3),
)
def test_no_listing_no_chain_of_near_duplicates_and_no_file_is_on_two_sides(
    n_photos: list[int], pairs: list[tuple[int, int]], same_file: list[tuple[int, int]], seed: int
) -> None:
    photos = [
        CataloguePhoto(f"p{listing}-{n}", f"l{listing}", listing % 4, Path("unused.jpg"), f"{listing}-{n}")
        for listing, count in enumerate(n_photos)
        for n in range(count)
    ]
    for one, other in same_file:
        photos[one % len(photos)] = replace(photos[one % len(photos)], sha256=photos[other % len(photos)].sha256)
    near = [(photos[one % len(photos)].image_id, photos[other % len(photos)].image_id) for one, other in pairs]
    split = split_listings(photos, near, seed=seed)
    assert split.listings == {photo.listing_id for photo in photos}
    assert sum(sizes(split)) == len(split.listings)
    side_of = {listing: side for side, listings in split.model_dump().items() for listing in listings}
    listing_of = {photo.image_id: photo.listing_id for photo in photos}
    assert all(side_of[listing_of[one]] == side_of[listing_of[other]] for one, other in near)
    assert all(
        side_of[one.listing_id] == side_of[other.listing_id]
        for one in photos
        for other in photos
        if one.sha256 == other.sha256
    )


def test_near_duplicates_of_photos_that_were_left_out_do_not_matter() -> None:
    assert split_listings(BALANCED, [("p0-0-0", "gone"), ("gone", "gone too")]) == split_listings(BALANCED)


def test_uneven_listings_still_give_about_a_tenth() -> None:
    rng = random.Random(3)
    photos = [
        CataloguePhoto(f"p{listing}-{n}", f"l{listing}", listing % 13, Path("unused.jpg"))
        for listing in range(130)
        for n in range(rng.randint(1, 9))
    ]
    _, n_validation, n_test = sizes(split_listings(photos))
    assert 6 <= n_validation <= 20
    assert 6 <= n_test <= 20


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    assert split_listings(BALANCED, seed=5) == split_listings(BALANCED, seed=5)
    assert split_listings(BALANCED, seed=5) != split_listings(BALANCED, seed=6)


@pytest.mark.parametrize("n_listings", [1, 5, 9])
def test_below_ten_listings_nothing_is_held_out(n_listings: int) -> None:
    split = split_listings(catalogue([n_listings], photos_per_listing=20))
    assert sizes(split) == (n_listings, 0, 0)


def test_ten_listings_that_are_one_by_their_photos_are_not_torn_apart() -> None:
    photos = catalogue([10])
    chain = [(f"p0-{n}-0", f"p0-{n + 1}-1") for n in range(9)]
    assert sizes(split_listings(photos, chain)) == (10, 0, 0)


@pytest.mark.parametrize(
    "listings_per_category",
    [
        pytest.param([10], id="one category"),
        pytest.param([1] * 13, id="one listing in each"),
        pytest.param([2] * 13, id="two listings in each"),
        pytest.param([30, 1, 2], id="one large and two tiny"),
    ],
)
@pytest.mark.parametrize("photos_per_listing", [1, 2])
def test_categories_too_small_to_stratify_still_give_a_split_without_a_warning(
    listings_per_category: list[int], photos_per_listing: int
) -> None:
    photos = catalogue(listings_per_category, photos_per_listing)
    _, n_validation, n_test = sizes(split_listings(photos))  # warnings are errors in these tests
    n_listings = sum(listings_per_category)
    # A tenth, rounded either way.
    assert n_listings // 10 <= n_validation <= n_listings // 10 + 1
    assert n_listings // 10 <= n_test <= n_listings // 10 + 1


# Views


def views_of(directory: Path, *, seed: int = 17, n_photos: int = 1) -> PhotoViews:
    """Photos that are their own working copies."""
    photos = []
    for n in range(n_photos):
        path = directory / f"{n}.jpg"
        path.write_bytes(encode(noise_image(n)))
        photos.append(CataloguePhoto(f"p{n}", f"l{n}", 0, path, ""))
    photos = [replace(photo, sha256=f"{n:064x}") for n, photo in enumerate(photos)]
    return PhotoViews(photos, lambda photo: Path(str(photo.path)), SPEC, Augmentation(), seed=seed)


def test_the_plain_view_is_what_serving_sees(tmp_path: Path) -> None:
    views = views_of(tmp_path)
    views.photos = [replace(views.photos[0], sha256="")]
    expected = decode_photo(views.photos[0].path.read_bytes(), SPEC)
    np.testing.assert_array_equal(views[0, PLAIN].numpy(), expected)


def test_a_view_is_decided_by_seed_content_and_number_alone(tmp_path: Path) -> None:
    first, again, other = views_of(tmp_path), views_of(tmp_path, n_photos=2), views_of(tmp_path, seed=18)
    together = again.__getitems__([(1, 3), (0, 3), (0, 4)])
    np.testing.assert_array_equal(first[0, 3].numpy(), together[1].numpy())
    assert (first[0, 3] != together[2]).any()
    assert (first[0, 3] != other[0, 3]).any()


def test_a_photo_that_changed_since_it_was_cleaned_is_named(tmp_path: Path) -> None:
    views = views_of(tmp_path)
    with pytest.raises(CatalogueUnusable, match="p0"):
        views[0, PLAIN]
    (tmp_path / "0.jpg").unlink()
    with pytest.raises(CatalogueUnusable, match="p0: its working copy is gone"):
        views[0, 1]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (160, 120)])
def test_photos_of_every_shape_can_be_augmented(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    for seed in range(20):
        varied = augment(image, Augmentation(), np.random.default_rng(seed), fill=0)
        assert varied.width <= size[0]
        assert varied.height <= size[1]


def test_an_augmentation_of_nothing_leaves_the_photo_as_it_is() -> None:
    none = Augmentation(min_area=1, stretch=1, p_mirror=0, p_upside_down=0, rotation_deg=0, colour=0, hue=0)
    image = noise_image()
    varied = augment(image, none, np.random.default_rng(0), fill=0)
    # To hue and back costs rounding.
    assert np.abs(np.asarray(varied).astype(int) - np.asarray(image)).max() <= 8
