"""Words in the engine, on the demo's real model and index: alone, with a photo, and beside the neighbours' votes."""

from collections.abc import Iterator

import numpy as np
import pytest

from shared.errors import InvalidRequest
from shared.jobs.answers_contract import EmbedResult, SearchResult
from shared.jobs.contract import (
    EmbedRequest,
    SearchPreference,
    SearchRequest,
)
from tests.support.installation import Installation
from worker.serving.engine import Engine

PHOTO_BYTES = 224 * 224 * 3


@pytest.fixture(scope="module")
def engine(built: Installation) -> Iterator[Engine]:
    made = Engine(built.home)
    made.refresh()
    yield made
    made.close()


def search(engine: Engine, pixels: bytes | None = None, **options: object) -> SearchResult:
    request = SearchRequest.model_validate({"without_photo": pixels is None and "image_id" not in options, **options})
    result = engine.run(request, pixels)
    assert isinstance(result, SearchResult)
    return result


def a_listing(engine: Engine) -> tuple[str, str, str, str]:
    """Image, listing, category and title of a photo of the index."""
    found = search(engine, image_id=first_image(engine), include=("title",), k=1).neighbours[0]
    assert found.attributes is not None
    return found.image_id, found.listing_id, found.category, str(found.attributes["title"])


def first_image(engine: Engine) -> str:
    live = engine.live.current
    assert live is not None
    return live.index.snapshot.photo(0).image_id


def test_the_words_of_a_listing_find_it_without_a_photo(engine: Engine) -> None:
    _, listing_id, _, title = a_listing(engine)
    found = search(engine, text=title, text_weight=1, k=12)
    assert listing_id in {hit.listing_id for hit in found.neighbours}
    assert found.category.parts == []
    scores = [hit.score for hit in found.neighbours]
    assert scores == sorted(scores, reverse=True)


def test_with_a_photo_the_answer_says_what_each_part_says(engine: Engine) -> None:
    image_id, _, category, title = a_listing(engine)
    found = search(engine, image_id=image_id, text=title)
    assert [part.part for part in found.category.parts] == ["photo", "words"]
    assert sum(part.share for part in found.category.parts) == pytest.approx(1, abs=1e-3)
    assert all(0 < part.probability <= 1 for part in found.category.parts)
    assert found.category.name == category
    assert found.neighbours[0].image_id == image_id
    embedded = engine.run(EmbedRequest(image_id=image_id, text=title), None)
    assert embedded.category == found.category


def test_words_of_no_weight_change_no_neighbour(engine: Engine) -> None:
    image_id, _, _, title = a_listing(engine)
    plain, weightless = search(engine, image_id=image_id), search(engine, image_id=image_id, text=title, text_weight=0)
    assert weightless.neighbours == plain.neighbours


def test_the_embedding_of_words_is_compared_with_those_of_photos(engine: Engine) -> None:
    _, listing_id, _, title = a_listing(engine)
    embedded = engine.run(EmbedRequest(text=title, without_photo=True), None)
    assert isinstance(embedded, EmbedResult)
    assert isinstance(embedded.embedding, list)
    vector = np.array(embedded.embedding, dtype=np.float32)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    live = engine.live.current
    assert live is not None
    similar = live.index.snapshot.vectors(slice(None)) @ vector
    assert similar[live.index.snapshot.rows_of(listing_id)].mean() > similar.mean()


def test_a_text_of_which_no_word_is_known_is_refused_alone_and_beside_a_photo_passed_over(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="text: there is no word in it that says what the thing is"):
        search(engine, text="!?")
    image_id = first_image(engine)
    assert search(engine, image_id=image_id, text="!?") == search(engine, image_id=image_id)


def test_words_of_which_nothing_is_known_say_nothing_of_the_category(engine: Engine) -> None:
    image_id = first_image(engine)
    strange, plain = search(engine, image_id=image_id, text="βιολί"), search(engine, image_id=image_id)
    assert strange.category == plain.category
    assert search(engine, text="βιολί").neighbours


def test_what_is_preferred_changes_how_much_the_category_counts(engine: Engine) -> None:
    image_id, _, category, _ = a_listing(engine)
    same = {
        prefer: sum(
            hit.category == category for hit in search(engine, image_id=image_id, prefer=prefer, k=60).neighbours
        )
        for prefer in SearchPreference
    }
    assert same[SearchPreference.SAME_KIND] >= same[SearchPreference.SAME_THING]


def test_the_listing_that_a_photo_is_of_does_not_vote_for_it(engine: Engine) -> None:
    image_id, listing_id, _, _ = a_listing(engine)
    live = engine.live.current
    assert live is not None
    photo = live.index.photo_of(image_id)
    assert photo is not None
    assert photo.listing_id == listing_id
    embeddings = live.index.stored(image_id)
    near = live.index.labelled(embeddings.vectors[0], 40, SearchRequest(), {listing_id})
    own = {hit.score for hit in live.index.search(embeddings.vectors[0], SearchRequest(k=1))}
    assert max(own) == pytest.approx(1, abs=1e-4)
    assert near.scores.max() < max(own)


def test_a_photo_alone_says_nothing_of_parts_and_both_jobs_answer_alike(engine: Engine) -> None:
    photo = np.random.default_rng(3).integers(0, 256, PHOTO_BYTES, dtype=np.uint8).tobytes()
    found, embedded = search(engine, photo), engine.run(EmbedRequest(), photo)
    assert found.category == embedded.category
    assert "parts" not in found.category.model_dump(mode="json")
