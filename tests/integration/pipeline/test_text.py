"""A text encoder that is fitted on drawn listings: what words mean there, beside photos that go with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from pipeline.training.calibration.classifier import TARGET_ACCURACY
from pipeline.training.calibration.fusion import Labelled, Worded, fit_fusion
from pipeline.training.words.encoder import FittedText, Texts, fit_text
from shared.array_types import FloatArray
from shared.attributes.schema import NO_ATTRIBUTES, Attribute, AttributeSchema, AttributeType, as_payload
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.model.bundle import POOLED, Split
from shared.model.embedder import Embeddings
from shared.text.encoder import APART, SIGNS, TextEncoder, Words, texts_of

SCHEMA = AttributeSchema(
    (Attribute(name="title", type=AttributeType.TEXT), Attribute(name="description", type=AttributeType.TEXT))
)
# What things are called in two languages, by category; each has a direction of its own among photos.
THINGS = (
    ("oak table", "pine shelf", "kitchen cupboard", "leather sofa"),
    ("τρομπέτα", "παλιό βιολί", "πιάνο με ουρά", "κλαρινέτο"),
    ("running shoes", "football boots", "ladies sandals", "winter jacket"),
)
CATEGORIES = Categories(("Furniture", "Music", "Clothes"))
ADJECTIVES = ("nice", "used", "old", "great", "clean")
DIM = 24
N = 240


def listings() -> tuple[list[CataloguePhoto], FloatArray]:
    """One photo a listing: its vector is that of the thing, with noise; every tenth listing has no words."""
    random = np.random.default_rng(5)
    directions = random.standard_normal((12, DIM))
    photos, vectors = [], []
    for number in range(N):
        category, thing = number % 3, number // 3 % 4
        name = THINGS[category][thing]
        values = {
            "title": f"{random.choice(ADJECTIVES)} {name}",
            "description": f"a {name}, {random.choice(ADJECTIVES)}",
        }
        payload = as_payload(values) if number % 10 else ""
        photos.append(CataloguePhoto(f"p{number}", f"l{number}", category, Path("x.jpg"), payload=payload))
        vectors.append(directions[4 * category + thing] + random.standard_normal(DIM) * 0.7)
    rows = np.array(vectors, dtype=np.float32)
    return photos, rows / np.linalg.norm(rows, axis=1, keepdims=True)


PHOTOS, VECTORS = listings()
IDS = [photo.listing_id for photo in PHOTOS]
SPLIT = Split(train=frozenset(IDS[:140]), validation=frozenset(IDS[140:220]), test=frozenset(IDS[220:]))


@pytest.fixture(scope="module")
def fitted() -> FittedText:
    found = fit_text(PHOTOS, VECTORS, SPLIT, SCHEMA, len(CATEGORIES), {}, lambda line: None)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("words", "category"),
    [("a table of oak", 0), ("cupbord for the kitchn", 0), ("ΒΙΟΛΙ", 1), ("παλιες τρομπετες", 1), ("running shoe", 2)],
)
def test_words_misspelt_and_inflected_tell_the_category_in_any_language(
    fitted: FittedText, words: str, category: int
) -> None:
    encoded = fitted.encoder.encode(words)
    assert encoded is not None
    assert int(encoded.scores.argmax()) == category


def test_the_vectors_of_words_are_near_where_the_words_are(fitted: FittedText) -> None:
    table, shelf, violin = (fitted.encoder.encode(text) for text in ("old oak table", "great oak table", "παλιό βιολί"))
    assert table
    assert shelf
    assert violin
    assert table.vector @ shelf.vector > 0.8 > 0.5 > table.vector @ violin.vector
    for encoded in (table, shelf, violin):
        assert np.linalg.norm(encoded.vector) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(encoded.photo) == pytest.approx(1, abs=1e-5)


def test_words_find_photos_that_were_never_seen(fitted: FittedText) -> None:
    unseen = [row for row, listing_id in enumerate(IDS) if listing_id in SPLIT.test]
    right = 0
    for row in unseen:
        encoded = fitted.encoder.encode(THINGS[row % 3][row // 3 % 4])
        assert encoded is not None
        nearest = unseen[int((VECTORS[unseen] @ encoded.photo).argmax())]
        right += nearest % 12 == row % 12
    assert right / len(unseen) > 0.8


def test_what_is_in_the_file_is_what_was_fitted(fitted: FittedText) -> None:
    again = TextEncoder(fitted.encoder.facts, load(fitted.content))
    for text in ("old oak table", "πιάνο", "unknown words of a sandal"):
        one, other = fitted.encoder.encode(text), again.encode(text)
        assert one
        assert other
        for expected, found in zip((*one, *one.words), (*other, *other.words), strict=True):
            if not isinstance(expected, Words):
                np.testing.assert_array_equal(found, expected)


def test_the_same_catalogue_gives_the_same_bytes(fitted: FittedText) -> None:
    again = fit_text(PHOTOS, VECTORS, SPLIT, SCHEMA, len(CATEGORIES), {}, lambda line: None)
    assert again is not None
    assert again.content == fitted.content
    assert again.encoder.facts == fitted.encoder.facts


@pytest.mark.parametrize("text", ["", "£5", "..."])
def test_a_text_without_a_word_is_none(fitted: FittedText, text: str) -> None:
    assert fitted.encoder.encode(text) is None


def test_words_that_no_listing_had_are_told_from_those_that_are_known(fitted: FittedText) -> None:
    asked, alone = (fitted.encoder.encode(text) for text in ("zqxnine oak table oak", "zqxnine"))
    assert asked
    assert alone
    assert sorted(asked.words.known.tolist()) == [False, True, True]
    assert asked.words.hashes[~asked.words.known] == alone.words.hashes
    later = fitted.encoder.of_listing(as_payload({"title": "used oak table zqxnine"}), 0)
    assert later is not None
    assert set(asked.words.hashes.tolist()) < set(later.words.tolist())


def test_a_misspelt_word_alone_goes_by_its_letters(fitted: FittedText) -> None:
    right, misspelt, other = (fitted.encoder.encode(text) for text in ("kitchen", "kitchn", "boots"))
    assert right
    assert misspelt
    assert other
    assert not misspelt.words.known.any()
    assert misspelt.vector @ right.vector > misspelt.vector @ other.vector + 0.2


def test_a_listing_is_encoded_by_its_texts_and_its_own_category(fitted: FittedText) -> None:
    payload = PHOTOS[1].payload
    assert list(texts_of(payload, ("title", "description", "colour"))) == ["title", "description"]
    right, wrong = (fitted.encoder.of_listing(payload, category) for category in (1, 2))
    assert right is not None
    assert wrong is not None
    dimension = fitted.encoder.facts.dimension
    np.testing.assert_array_equal(right.vector[:dimension], wrong.vector[:dimension])
    assert right.vector[dimension:].argmax() == 1
    assert wrong.vector[dimension:].argmax() == 2
    assert fitted.encoder.of_listing("", 1) is None


def test_a_catalogue_with_few_words_or_none_has_no_encoder() -> None:
    said: list[str] = []
    few = [replace(photo, payload=photo.payload if row < 20 else "") for row, photo in enumerate(PHOTOS)]
    for photos, schema in ((few, SCHEMA), (PHOTOS, NO_ATTRIBUTES)):
        assert fit_text(photos, VECTORS, SPLIT, schema, len(CATEGORIES), {}, said.append) is None
    assert said == ["words: none, 18 training listings have some and 20 are needed"]


# Fusion


def guessing(seed: int, right: float) -> FloatArray:
    """Scores of a head that is right so often, and never quite sure."""
    random = np.random.default_rng(seed)
    labels = np.array([photo.category for photo in PHOTOS])
    told = np.where(random.random(N) < right, labels, (labels + random.integers(1, 3, N)) % 3)
    scores: FloatArray = (2 * np.eye(3)[told] + random.standard_normal((N, 3)) * 0.3).astype(np.float32)
    return scores


def test_neighbours_vote_where_they_know_better_than_the_head_and_not_where_they_do_not() -> None:
    photos = Embeddings(VECTORS, guessing(1, 0.6))
    _, fusion = fit_fusion(Labelled.of(PHOTOS, photos, POOLED), SPLIT, None, CATEGORIES, lambda line: None)
    assert fusion.vote is not None
    random = np.random.default_rng(3).standard_normal((N, DIM)).astype(np.float32)
    noise = Embeddings(random / np.linalg.norm(random, axis=1, keepdims=True), guessing(1, 0.97))
    _, fusion = fit_fusion(Labelled.of(PHOTOS, noise, POOLED), SPLIT, None, CATEGORIES, lambda line: None)
    assert fusion.vote is None


def test_the_better_witness_weighs_more(fitted: FittedText) -> None:
    random = np.random.default_rng(3).standard_normal((N, DIM)).astype(np.float32)
    blind = Embeddings(random / np.linalg.norm(random, axis=1, keepdims=True), guessing(2, 0.5))
    labelled = Labelled.of(PHOTOS, blind, POOLED)
    _, fusion = fit_fusion(labelled, SPLIT, Worded.of(fitted.encoder, PHOTOS, labelled), CATEGORIES, lambda line: None)
    weight = fusion.words_weight
    payloads = np.random.default_rng(4).permutation([photo.payload for photo in PHOTOS]).tolist()
    mixed = [replace(photo, payload=payload) for photo, payload in zip(PHOTOS, payloads, strict=True)]
    wrong = fit_text(mixed, VECTORS, SPLIT, SCHEMA, len(CATEGORIES), {}, lambda line: None)
    assert wrong is not None
    labelled = Labelled.of(mixed, blind._replace(scores=guessing(2, 0.8)), POOLED)
    _, fusion = fit_fusion(labelled, SPLIT, Worded.of(wrong.encoder, mixed, labelled), CATEGORIES, lambda line: None)
    assert weight is not None
    assert fusion.words_weight is not None
    assert weight > fusion.words_weight


def test_of_too_few_listings_only_answers_as_sure_as_the_target_are_no_guesses(fitted: FittedText) -> None:
    labelled = Labelled.of(PHOTOS, Embeddings(VECTORS, guessing(1, 0.6)), POOLED)
    few = Split(train=SPLIT.train, validation=frozenset(IDS[140:150]), test=SPLIT.test)
    _, fusion = fit_fusion(labelled, few, Worded.of(fitted.encoder, PHOTOS, labelled), CATEGORIES, lambda line: None)
    assert fusion.words_weight == 0.5
    assert [one.abstain_below for one in (fusion.photo, fusion.words, fusion.both)] == 3 * [TARGET_ACCURACY]


def test_a_listing_never_votes_for_its_own_photos() -> None:
    twins = [
        *PHOTOS,
        *(replace(photo, image_id=f"{photo.image_id}b", category=(photo.category + 1) % 3) for photo in PHOTOS),
    ]
    labelled = Labelled.of(twins, Embeddings(np.tile(VECTORS, (2, 1)), np.tile(guessing(1, 0.5), (2, 1))), POOLED)
    queries, own = labelled.of_rows(np.arange(5))
    near = labelled.neighbours(queries, own)
    assert not (labelled.listings[near.rows] == own[:, None]).any()


def test_texts_are_read_once_a_listing_in_the_order_of_the_attributes() -> None:
    texts = Texts.of(PHOTOS[:3], ("description", "title"))
    assert set(texts.titles) == {"l1", "l2"}
    assert texts.words["l1"].split("\n")[0] == texts.titles["l1"]


def test_vectors_of_an_older_bundle_keep_their_place_and_its_fingerprint(fitted: FittedText) -> None:
    older = fitted.encoder.facts.model_copy(update={"padding": 32})
    assert "padding" not in older.model_dump()  # of which the fingerprint is computed
    assert fitted.encoder.facts.model_dump()["padding"] == 0
    new, old = (TextEncoder(facts, load(fitted.content)).encode("oak table") for facts in (fitted.encoder.facts, older))
    assert new
    assert old
    np.testing.assert_array_equal(old.vector, np.concatenate([np.zeros(32), new.vector]))
    np.testing.assert_array_equal(old.photo, new.photo)


def test_an_older_bundle_reads_words_as_it_did(fitted: FittedText) -> None:
    arrays = load(fitted.content)
    older = TextEncoder(fitted.encoder.facts, {name: array for name, array in arrays.items() if name != SIGNS})
    for text, same in (("old oak table", True), ("παλιό βιολί", True), ("किताब", False), ("โต๊ะไม้", False)):
        one, other = fitted.encoder.encode(text), older.encode(text)
        assert one
        assert other
        assert np.array_equal(one.words.hashes, other.words.hashes) == same


def test_an_older_bundle_looks_up_numbers_as_parts_of_words(fitted: FittedText) -> None:
    arrays = load(fitted.content)
    older = TextEncoder(fitted.encoder.facts, {name: array for name, array in arrays.items() if name != APART})
    for text, n_words, n_before in (("oak table", 2, 2), ("oak table 120cm", 4, 3), ("全新苹果Apple手机13pro", 13, 12)):
        one, other = fitted.encoder.encode(text), older.encode(text)
        assert one
        assert other
        assert (len(one.words.hashes), len(other.words.hashes)) == (n_words, n_before)
        for vector, before in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(vector, before)


def test_category_scores_grow_with_the_words_of_a_text(fitted: FittedText) -> None:
    arrays = load(fitted.content)
    plain, grown = (
        TextEncoder(fitted.encoder.facts.model_copy(update={"surer": surer}), arrays) for surer in (0.0, 0.5)
    )
    assert "surer" not in plain.facts.model_dump()  # of which the fingerprint of older bundles is computed
    for text, n_words in (("table", 1), ("old oak table, old", 3), ("全新苹果手机", 1), ("โต๊ะไม้ table", 2)):
        one, other = plain.encode(text), grown.encode(text)
        assert one
        assert other
        assert one.n_words == n_words  # by which validation titles calibrate, too
        np.testing.assert_allclose(other.scores, one.scores * n_words**0.5, rtol=1e-6)


def test_where_titles_mislead_and_more_words_do_not_more_words_are_surer() -> None:
    def misled(photo: CataloguePhoto, number: int) -> CataloguePhoto:
        things = THINGS[(photo.category + number // 12 % 2) % 3]  # half of the titles are of another category
        own = " ".join(THINGS[photo.category])
        values = {"title": things[number // 3 % 4], "description": f"{own}, {own}"}
        return replace(photo, payload=as_payload(values))

    photos = [misled(photo, number) for number, photo in enumerate(PHOTOS)]
    found = fit_text(photos, VECTORS, SPLIT, SCHEMA, len(CATEGORIES), {}, lambda line: None)
    assert found is not None
    assert found.encoder.facts.surer > 0


def test_photos_that_are_all_the_same_say_nothing_of_words() -> None:
    same = np.repeat(VECTORS[:1], N, axis=0)
    found = fit_text(PHOTOS, same, SPLIT, SCHEMA, len(CATEGORIES), {}, lambda line: None)
    assert found is not None
    assert found.encoder.facts.slope == 0
    assert 0 < found.encoder.facts.offset < 1
