"""What training takes from feedback: whose word counts, how much of it, and on which side of the split"""

from pathlib import Path

import numpy as np
import pytest

from pipeline.feedback.gate import judge_labels
from pipeline.feedback.lessons import Lessons, learn, write_report
from pipeline.feedback.table import feedback_table, read_feedback_files
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.errors import InvalidRequest
from shared.feedback.contract import FeedbackEvent, Impression, JobFeedback, ShownResult, StoredEvent
from shared.model.bundle import Split

N_LISTINGS = 100
CATEGORIES = Categories(("Boats", "Cars", "Tools"))
PHOTOS = [
    CataloguePhoto(f"p{listing}-{n}", f"l{listing}", listing % 2, Path("unused"))
    for listing in range(N_LISTINGS)
    for n in range(2)
]
SPLIT = Split(
    train=frozenset(f"l{i}" for i in range(80)),
    validation=frozenset(f"l{i}" for i in range(80, 90)),
    test=frozenset(f"l{i}" for i in range(90, 100)),
)
MOST = 8  # a tenth of the training listings


def search(
    at: int,
    *,
    key: str = "a",
    listing: str | None = None,
    image: str | None = None,
    category: str | None = None,
    right: tuple[str, ...] = (),
    bought: tuple[str, ...] = (),
) -> JobFeedback:
    """Feedback of one search; results are named by their listings."""
    shown = tuple(
        ShownResult(image_id=f"p{one[1:]}-0", listing_id=one, category="Boats", score=0.5) for one in (*right, *bought)
    )
    events = [StoredEvent(event=FeedbackEvent.RIGHT, image_id=f"p{one[1:]}-0", at=at) for one in right]
    events += [StoredEvent(event=FeedbackEvent.PURCHASE, image_id=f"p{one[1:]}-0", at=at) for one in bought]
    events += [StoredEvent(event=FeedbackEvent.CATEGORY, category=category, at=at)] if category else []
    impression = Impression(
        job_id=f"{at:032x}", owner=key, searched_at=at, index_version="v", model_fingerprint="f",
        listing_id=listing, image_id=image, shown=shown,
    )  # fmt: skip
    return JobFeedback(impression=impression, events=tuple(events))


def learned(*said: JobFeedback) -> Lessons:
    return learn(feedback_table(said), PHOTOS, CATEGORIES, SPLIT)


def outcomes(lessons: Lessons) -> dict[str, str]:
    return {one.listing_id: one.outcome for one in lessons.corrections}


def test_a_category_is_that_of_most_keys_and_each_keys_last_word_counts() -> None:
    lessons = learned(
        search(1, key="a", listing="l0", category="Cars"),
        search(2, key="a", listing="l0", category="Tools"),  # it thinks better of it
        search(3, key="b", image="p0-1", category="Tools"),
        search(4, key="c", listing="l0", category="Boats"),  # as the table
        search(5, key="a", listing="l2", category="Tools"),
        search(6, key="b", listing="l2", category="Boats"),
        search(7, key="a", listing="l4", category="Boats"),
    )
    assert lessons.labels == {"l0": CATEGORIES.position("Tools")}
    assert outcomes(lessons) == {"l0": "used", "l2": "left out: keys disagree", "l4": "as in the table"}
    (told,) = (one for one in lessons.corrections if one.listing_id == "l0")
    assert (told.said, told.keys, told.others, told.table) == ("Tools", 2, 1, "Boats")
    assert {photo.category for photo in lessons.taught(PHOTOS) if photo.listing_id == "l0"} == {2}
    assert [one for one in lessons.taught(PHOTOS) if one.listing_id != "l0"] == PHOTOS[2:]


def test_of_a_photo_that_was_sent_the_category_is_that_of_the_result_said_to_be_right() -> None:
    lessons = learned(
        search(1, category="Tools", right=("l6",)), search(2, category="Tools"), search(3, listing="l8", category="Sea")
    )
    assert lessons.labels == {"l6": 2}
    assert lessons.counts["labels of a photo that is not kept"] == 1
    assert lessons.counts["labels of no category of this catalogue"] == 1


def test_listings_to_choose_by_and_to_measure_on_keep_the_tables_categories() -> None:
    lessons = learned(*(search(i, listing=f"l{i}", category="Tools", key=f"k{i}") for i in (79, 80, 95)))
    assert lessons.labels == {"l79": 2}
    assert (
        outcomes(lessons)["l80"] == outcomes(lessons)["l95"] == "left out: the listing is to choose by or to measure on"
    )


def test_one_key_changes_a_tenth_of_the_training_listings_at_most_by_what_it_said_last() -> None:
    flood = [search(i, key="flood", listing=f"l{i}", category="Tools") for i in range(40)]
    honest = [search(100 + i, key=f"k{i}", listing="l0", category="Cars") for i in range(2)]
    lessons = learned(*flood, *honest)
    assert lessons.labels == {**{f"l{i}": 2 for i in range(40 - MOST, 40)}, "l0": 1}
    assert lessons.counts["labels of a key that says too much"] == 40 - MOST
    pairs = learned(*(search(i, key="flood", listing=f"l{i}", right=(f"l{i + 40}",)) for i in range(40)))
    assert len(pairs.pairs) == MOST
    assert ("l39", "l79") in pairs.pairs


def test_pairs_stay_on_their_side_and_only_what_was_said_to_be_right_is_the_same_thing() -> None:
    lessons = learned(
        search(1, listing="l1", right=("l3",), bought=("l5",)),
        search(2, right=("l7", "l9"), bought=("l11",)),  # a photo that was sent: nobody knows what it shows
        search(3, listing="l80", right=("l82",), bought=("l84",)),
        search(4, listing="l2", right=("l81",)),
        search(5, listing="l90", right=("l91",)),
        search(6, listing="l12", right=("gone",)),
    )
    assert lessons.pairs == (("l1", "l3"), ("l1", "l5"), ("l7", "l9"))
    assert lessons.same == (("l80", "l82"),)
    assert lessons.counts["pairs across sides of the split, or to be measured on"] == 2
    assert lessons.counts["pairs with a listing that is not there"] == 1
    assert lessons.digest() != learned().digest()


def test_labels_pass_the_gate_only_if_photos_show_what_they_say() -> None:
    rng = np.random.default_rng(5)
    truth = np.repeat(rng.integers(3, size=400), 2)
    features = (rng.normal(size=(3, 16))[truth] + 1.5 * rng.normal(size=(800, 16))).astype(np.float32)
    listings = np.array([f"l{i // 2}" for i in range(800)])
    wrong = rng.permutation(300)[:60]  # training listings
    table = truth.copy()
    for one in wrong:
        table[2 * one : 2 * one + 2] = (truth[2 * one] + 1) % 3
    mended = {f"l{one}": int(truth[2 * one]) for one in wrong[:30]}
    spoilt = {f"l{one}": int((truth[2 * one] + 1) % 3) for one in range(300) if one not in wrong}
    spoilt = dict(list(spoilt.items())[:30])

    def passed(labels: dict[str, int], key_of: dict[str, str]) -> set[str]:
        lessons = Lessons(labels, {listing: frozenset({key_of[listing]}) for listing in labels})
        rows = np.arange(800)
        judged = judge_labels(
            lessons, features, table, listings, train=rows[:600], validation=rows[600:], n_categories=3
        )  # fmt: skip
        return set(judged.lessons.labels)

    keys = {**dict.fromkeys(mended, "good"), **dict.fromkeys(spoilt, "bad")}
    assert passed(mended, keys) == set(mended)
    assert passed(spoilt, keys) == set()
    assert passed({**mended, **spoilt}, keys) == set(mended)
    assert passed(spoilt, {listing: f"k{n // 2}" for n, listing in enumerate(spoilt)}) == set()  # too few of each


def test_what_became_of_corrections_is_told_and_exported_tables_are_read_once(tmp_path: Path) -> None:
    said: list[str] = []
    lessons = learned(search(1, listing="l0", category="Tools"))
    write_report(lessons.without_labels("refused: worse"), tmp_path, said.append)
    assert "feedback: 1 labels refused: worse" in said
    assert (tmp_path / "corrections.csv").read_text().splitlines()[1] == "l0,Tools,1,0,Boats,refused: worse"

    first, more = search(1, listing="l0"), search(1, listing="l0", category="Tools")
    feedback_table([first]).to_parquet(tmp_path / "1.parquet")
    feedback_table([more, search(2, listing="l2", right=("l4",))]).to_parquet(tmp_path / "2.parquet")
    assert learn(read_feedback_files(tmp_path), PHOTOS, CATEGORIES, SPLIT) == learned(
        more, search(2, listing="l2", right=("l4",))
    )
    feedback_table([more]).drop(columns=["owner"]).to_parquet(tmp_path / "3.parquet")
    with pytest.raises(InvalidRequest, match=r"3.parquet: no column owner"):
        read_feedback_files(tmp_path)
    with pytest.raises(InvalidRequest, match=r"cannot be read as Parquet"):
        read_feedback_files(tmp_path / "corrections.csv")


def test_of_exports_that_overlap_the_last_counts_whatever_the_files_are_called(tmp_path: Path) -> None:
    shown = search(1, right=("l1", "l2"))
    first = shown.model_copy(update={"events": shown.events[:1]})
    later = shown.model_copy(update={"events": (shown.events[0], shown.events[1].model_copy(update={"at": 9}))})
    for name, found in (("feedback-9", [first]), ("feedback-10", [later]), ("nothing", [])):
        feedback_table(found).to_parquet(tmp_path / f"{name}.parquet")
    assert read_feedback_files(tmp_path)["right_at"].notna().tolist() == [True, True]
