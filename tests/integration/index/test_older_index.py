"""An index from before listings had attributes: it answers, and a reindex makes it a new one without embedding."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from shared.attributes.schema import AttributeType
from shared.errors import InvalidRequest
from shared.index.delta.index import DeltaIndex
from shared.jobs.contract import SearchRequest
from tests.integration.index.test_reindex import Works
from tests.support.installation import Installation
from tests.support.snapshots import write_older


@pytest.fixture
def works(built: Installation, client: redis.Redis, valkey_url: str, tmp_path: Path) -> Iterator[Works]:
    works = Works(built.copy(tmp_path), client, valkey_url)
    works.indexes.promote(write_older(works.installation.home))
    yield works
    works.stop()


def test_it_answers_and_filters_by_what_every_photo_has(works: Works) -> None:
    older = works.live()
    assert older.manifest.attributes == ()
    query = older.vectors(slice(0, 1))[0]
    photo = older.photo(0)
    category = older.manifest.categories[photo.category]
    delta = DeltaIndex(older, lambda photo: None)
    request = SearchRequest(k=5, include=("*",), facets=("category",))
    assert [hit.attributes for hit in delta.search(query, request)] == [{}] * 5
    for key, value in (("category", category), ("listing_id", photo.listing_id), ("image_id", photo.image_id)):
        asked = request.model_copy(update={"filter": {"must": [{"key": key, "match": {"value": value}}]}})
        hits = delta.search(query, asked)
        assert hits[0].image_id == photo.image_id
        assert {hit.category for hit in hits} == {category}
        assert delta.count(asked).answer()["category"].values[0].value == category
    with pytest.raises(InvalidRequest, match="no attribute 'price'; it has none"):
        delta.search(query, SearchRequest(filter={"must": [{"key": "price", "range": {"lt": 5}}]}))


def test_a_reindex_makes_it_a_new_one_without_embedding_anything(works: Works) -> None:
    works.start()
    result = works.reindex()
    assert (result.counts.embedded, result.counts.relabelled, works.embedded) == (0, 52, [])
    assert result.promoted, result.decision
    live = works.live()
    types = {attribute.name: attribute.type for attribute in live.manifest.attributes}
    assert types["title"] is AttributeType.TEXT
    assert types["price"] is AttributeType.PRICE
    assert types["location"] is AttributeType.PLACE
    price = live.manifest.attributes[list(types).index("price")]
    query = live.vectors(slice(0, 1))[0]
    asked = {"must": [{"key": "price", "range": {"gte": price.quantiles[10]}}]}
    hits = live.search(query, SearchRequest(k=100, filter=asked, include=("price",)))
    amounts = [(hit.attributes or {})["price"]["amount"] for hit in hits]  # type: ignore[index,call-overload]
    assert 0 < len(amounts) < 52
    assert min(amounts) >= price.quantiles[10]  # type: ignore[type-var,operator]


def test_a_type_said_in_the_configuration_makes_a_new_index_though_no_value_differs(works: Works) -> None:
    works.start()
    first = works.reindex()
    (works.installation.catalogue / "catalogue.toml").write_text("[attributes.location]\ntype = 'keyword'\n")
    second = works.reindex()
    assert (second.counts.relabelled, second.counts.embedded) == (0, 0)
    assert second.promoted
    assert second.index_version != first.index_version
    types = {attribute.name: attribute.type for attribute in works.live().manifest.attributes}
    assert types["location"] is AttributeType.KEYWORD
