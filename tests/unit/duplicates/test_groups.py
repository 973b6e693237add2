"""Groups hold photos of different listings, name their surest evidence, and leave out what people refuted."""

from shared.duplicates.groups import Evidence, count_labels, group_duplicates
from shared.jobs.duplicates_contract import MOST_LISTED, DuplicateImage, DuplicateLabel, Verdict

PICTURE = Evidence(DuplicateLabel.SAME_PICTURE, 0.9, 0.95, 7, mirrored=True)
THING = Evidence(DuplicateLabel.SAME_THING, 0.87)


def images(*names: str) -> list[DuplicateImage]:
    """`a1` is photo a1 of listing a."""
    return [DuplicateImage(image_id=name, listing_id=name[0]) for name in names]


def test_a_listings_own_photos_are_no_duplicates_of_one_another() -> None:
    photos = {"x": images("a1", "a2"), "y": images("a3"), "z": images("b1")}
    found = group_duplicates(photos, {("x", "y"): PICTURE}, {})
    assert found.groups == []
    [group] = group_duplicates(photos, {("x", "y"): PICTURE, ("x", "z"): PICTURE}, {}).groups
    assert [pair.image_ids for pair in group.pairs] == [("a1", "b1"), ("a2", "b1")]


def test_the_same_picture_makes_one_group_and_the_same_thing_another_beside_it() -> None:
    photos = {"x": images("a1", "b1"), "y": images("c1"), "z": images("d1")}
    same, thing = group_duplicates(photos, {("x", "y"): PICTURE, ("y", "z"): THING}, {}).groups
    assert (same.label, same.n_images, same.n_pairs) == (DuplicateLabel.SAME_PICTURE, 3, 3)
    assert [pair.label for pair in same.pairs] == ["same_bytes", "same_picture", "same_picture"]
    assert (same.pairs[1].hash_distance, same.pairs[1].mirrored, same.pairs[1].correlation) == (7, True, 0.95)
    assert ([one.image_id for one in thing.images], thing.label) == (["c1", "d1"], DuplicateLabel.SAME_THING)
    assert count_labels([same, thing]) == {"same_bytes": 0, "same_picture": 1, "same_thing": 1}


def test_a_refuted_pair_is_left_out_and_a_confirmed_one_is_there_whatever_was_measured() -> None:
    photos = {"x": images("a1", "b1"), "y": images("c1")}
    verdicts = {("a1", "b1"): Verdict.NOT_DUPLICATE, ("a1", "c1"): Verdict.DUPLICATE, ("a1", "gone"): Verdict.DUPLICATE}
    found = group_duplicates(photos, {}, verdicts)
    assert found.n_refuted == 1
    [group] = found.groups
    assert [(pair.image_ids, pair.verdict) for pair in group.pairs] == [(("a1", "c1"), Verdict.DUPLICATE)]


def test_only_groups_with_fresh_photos_are_told_where_that_is_asked() -> None:
    photos = {"x": images("a1", "b1"), "y": images("c1", "d1")}
    [group] = group_duplicates(photos, {}, {}, fresh=frozenset(["d1"])).groups
    assert [one.image_id for one in group.images] == ["c1", "d1"]


def test_a_placeholder_in_thousands_of_listings_makes_one_group_of_bounded_size() -> None:
    names = [DuplicateImage(image_id=f"i{n:05}", listing_id=f"l{n // 2}") for n in range(5000)]
    [group] = group_duplicates({"x": names}, {}, {}).groups
    assert group.n_images == 5000
    assert len(group.images) == len(group.pairs) == MOST_LISTED
    assert group.n_pairs < 10_000
