"""Live changes folded into a catalogue: the later word wins, in whatever order, and what is over is forgotten"""

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.artifacts.home import live_photo
from shared.artifacts.snapshots import IndexManifest
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType
from shared.catalogue.categories import CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.changes.overrides import (
    OVERRIDES,
    CatalogueOverride,
    compact,
    compacted_by_all,
    read_overrides,
    write_overrides,
)
from shared.errors import IndexDamaged

HOME = Path("/home")
Facts = tuple[str, int, str]  # listing, category, sha256


def catalogue_of(says: dict[str, Facts]) -> list[CataloguePhoto]:
    return [
        CataloguePhoto(i, listing, category, Path(f"/catalogue/{i}"), sha)
        for i, (listing, category, sha) in says.items()
    ]


def put(image_id: str, sequence: int, facts: Facts, fingerprint: str = "f") -> Change:
    listing, category, sha = facts
    vector, scores = np.full(2, sequence, np.float32), np.zeros(13, np.float32)
    return Change(f"{sequence}-0", image_id, sequence, PutPhoto(listing, category, sha, fingerprint, vector, scores))


def delete(image_id: str, sequence: int) -> Change:
    return Change(f"{sequence}-0", image_id, sequence, None)


def visible(photos: list[CataloguePhoto]) -> dict[str, Facts]:
    assert len({photo.image_id for photo in photos}) == len(photos)
    return {photo.image_id: (photo.listing_id, photo.category, photo.sha256) for photo in photos}


def with_payload(change: Change, payload: str) -> Change:
    assert change.photo is not None
    return replace(change, photo=replace(change.photo, payload=payload))


def test_attributes_put_live_stay_until_the_catalogue_says_others_of_the_listing() -> None:
    def of_catalogue(payload: str) -> list[CataloguePhoto]:
        return [replace(photo, payload=payload) for photo in catalogue_of({"b": ("l", 1, "theirs")})]

    changes = [with_payload(put("a", 1, ("l", 1, "live")), '{"size":1.0}'), put("c", 2, ("l", 1, "bare"))]
    first = compact(of_catalogue('{"size":5.0}'), {}, changes, storage=HOME, fingerprint="f")
    assert [photo.payload for photo in first.photos] == ['{"size":5.0}', '{"size":1.0}', '{"size":5.0}']
    again = compact(of_catalogue('{"size":5.0}'), first.overrides, [], storage=HOME, fingerprint="f")
    assert again.photos == first.photos
    told = compact(of_catalogue('{"size":7.0}'), again.overrides, [], storage=HOME, fingerprint="f")
    assert [photo.payload for photo in told.photos] == ['{"size":7.0}'] * 3


def test_photos_of_a_listing_that_the_catalogue_lacks_share_what_one_was_put_with() -> None:
    changes = [
        put("a", 1, ("n", 1, "x")),
        with_payload(put("b", 2, ("n", 1, "y")), '{"size":1.0}'),
        put("c", 3, ("n", 1, "z")),
    ]
    first = compact([], {}, changes, storage=HOME, fingerprint="f")
    again = compact([], first.overrides, [], storage=HOME, fingerprint="f")
    for compacted in (first, again):
        assert [photo.payload for photo in compacted.photos] == ["", '{"size":1.0}', '{"size":1.0}']


def test_attributes_put_live_that_the_catalogue_has_no_more_are_left_out() -> None:
    schema = AttributeSchema(tuple(Attribute(name=name, type=AttributeType.KEYWORD) for name in ("size", "c")))
    change = with_payload(put("a", 1, ("l", 1, "live")), '{"c":"red","gone":"x","size":1.0}')
    [photo] = compact([], {}, [change], storage=HOME, fingerprint="f", schema=schema).photos
    assert photo.payload == '{"c":"red"}'


def test_a_photo_put_live_stays_though_the_catalogue_never_had_it_until_the_catalogue_speaks_of_it() -> None:
    live, of_catalogue = ("l", 1, "live"), ("l", 1, "theirs")
    first = compact([], {}, [put("a", 1, live)], storage=HOME, fingerprint="f")
    assert first.photos == [CataloguePhoto("a", "l", 1, live_photo(HOME, "live"), "live")]
    again = compact([], first.overrides, [], storage=HOME, fingerprint="f")
    assert again.photos == first.photos
    taken = compact(catalogue_of({"a": of_catalogue}), again.overrides, [], storage=HOME, fingerprint="f")
    assert (visible(taken.photos), taken.overrides) == ({"a": of_catalogue}, {})
    assert [compacted.news for compacted in (first, again, taken)] == [True, False, True]


def test_a_deleted_photo_stays_deleted_though_its_file_is_there_until_it_changes() -> None:
    says: dict[str, Facts] = {"a": ("l", 1, "old"), "b": ("l", 1, "b")}
    first = compact(catalogue_of(says), {}, [delete("a", 1)], storage=HOME, fingerprint="f")
    again = compact(catalogue_of(says), first.overrides, [], storage=HOME, fingerprint="f")
    assert visible(first.photos) == visible(again.photos) == {"b": says["b"]}
    assert set(again.overrides) == {"a"}
    changed = compact(catalogue_of(says | {"a": ("l", 2, "old")}), again.overrides, [], storage=HOME, fingerprint="f")
    assert visible(changed.photos)["a"] == ("l", 2, "old")


def test_embeddings_are_known_only_for_photos_of_the_same_model() -> None:
    entries = [put("a", 1, ("l", 1, "a"), "f"), put("b", 2, ("l", 1, "b"), "another")]
    compacted = compact([], {}, entries, storage=HOME, fingerprint="f")
    assert set(compacted.known) == {"a"}
    assert compacted.known["a"].vector.tolist() == [1, 1]


FACTS = st.tuples(st.sampled_from(["l1", "l2"]), st.integers(0, 1), st.sampled_from(["s1", "s2"]))
IDS = st.sampled_from(["a", "b", "c"])
ROUNDS = st.lists(
    st.tuples(st.dictionaries(IDS, FACTS), st.lists(st.tuples(IDS, st.none() | FACTS)), st.randoms()), max_size=6
)


@given(ROUNDS)
def test_reindex_after_reindex_each_image_shows_the_last_word_said_of_it(
    rounds: list[tuple[dict[str, Facts], list[tuple[str, Facts | None]], Random]],
) -> None:
    overrides: dict[str, CatalogueOverride] = {}
    decision: dict[str, tuple[Facts | None, Facts | None]] = {}  # what was decided, what the catalogue said then
    sequence = 0
    for says, wanted, random in rounds:
        entries = []
        for image_id, facts in wanted:
            sequence += 1
            entries.append(put(image_id, sequence, facts) if facts else delete(image_id, sequence))
        last = dict(wanted)
        for image_id in "abc":
            if image_id in last:
                decision[image_id] = (last[image_id], says.get(image_id))
            elif image_id in decision and decision[image_id][1] != says.get(image_id):
                del decision[image_id]
        expected = {i: decision[i][0] if i in decision else says.get(i) for i in "abc"}

        random.shuffle(entries)
        compacted = compact(catalogue_of(says), overrides, entries, storage=HOME, fingerprint="f")
        overrides = compacted.overrides
        assert visible(compacted.photos) == {i: facts for i, facts in expected.items() if facts}
        n_catalogue = sum(Path(str(photo.path)).is_relative_to("/catalogue") for photo in compacted.photos)
        order = [photo.image_id for photo in compacted.photos]
        assert order[:n_catalogue] == [i for i in says if i in order[:n_catalogue]]
        assert order[n_catalogue:] == sorted(order[n_catalogue:], key=lambda i: overrides[i].sequence)


def test_decisions_are_read_as_they_were_written_and_damage_is_named(tmp_path: Path) -> None:
    entries = [put("ä b", 1, ("l", 1, "s")), delete("c", 2)]
    overrides = compact(catalogue_of({"c": ("l", 0, "c")}), {}, entries, storage=HOME, fingerprint="f").overrides
    assert read_overrides(tmp_path) == {}
    write_overrides(tmp_path, overrides)
    assert read_overrides(tmp_path) == overrides
    assert set(overrides) == {"ä b", "c"}
    (tmp_path / OVERRIDES).write_text('{"a": 1}')
    with pytest.raises(IndexDamaged, match=OVERRIDES):
        read_overrides(tmp_path)


def test_the_log_is_needed_from_where_the_oldest_snapshot_ends() -> None:
    def snapshot(compacted_through: str) -> IndexManifest:
        return IndexManifest(
            count=0,
            dimension=1,
            fingerprint="f",
            catalogue="c",
            catalogue_digest="",
            built_at="",
            compacted_through=compacted_through,
        )

    assert compacted_by_all(map(snapshot, ["100-2", "20-10", "20-9"])) == "20-9"
    assert compacted_by_all([]) == "0-0"
