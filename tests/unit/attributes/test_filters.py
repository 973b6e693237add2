"""Filters are checked against the catalogue's types, and what is wrong is told with its place."""

from typing import Any

import pytest

from shared.attributes.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_MATCHES,
    PhotoFacts,
    attributes_in,
    bind_filter,
    holds,
)
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, Values
from shared.catalogue.categories import Categories
from shared.errors import InvalidRequest

SCHEMA = AttributeSchema(
    (
        Attribute(name="title", type=AttributeType.TEXT),
        Attribute(name="price", type=AttributeType.PRICE, currencies=("EUR", "GBP")),
        Attribute(name="size", type=AttributeType.NUMBER),
        Attribute(name="colour", type=AttributeType.KEYWORD),
        Attribute(name="place", type=AttributeType.PLACE),
        Attribute(name="added", type=AttributeType.TIME),
        Attribute(name="sold", type=AttributeType.BOOLEAN),
    )
)
CATEGORIES = Categories(("Boats", "Lamps", "Chairs"))


def nested(depth: int) -> dict[str, Any]:
    return {"must": [nested(depth - 1)] if depth > 1 else []}


def meets(given: object, values: Values, category: int = 0) -> bool:
    return holds(bind_filter(given, SCHEMA, CATEGORIES), PhotoFacts(category, "l1", "i1", values))


WRONG: list[tuple[object, str]] = [
    ([], "filter: must be a JSON object with must, should or must_not, not []"),
    ({"musts": []}, "filter: must be a JSON object with must, should or must_not"),
    ({"must": 5}, "filter.must: must be a list of conditions, not 5"),
    ({"must": [5]}, 'filter.must.0: must be {"key": ..., "match": {...}}'),
    ({"must": [{"key": "size"}]}, "filter.must.0: must be"),
    ({"must": [{"key": "size", "match": {"value": 1}, "range": {"lt": 5}}]}, "filter.must.0: must be"),
    (
        {"should": [{"key": "weight", "range": {"lt": 5}}]},
        "filter.should.0.key: the catalogue has no attribute 'weight'; it has",
    ),
    (
        {"must": [{"is_empty": {"key": "category"}}]},
        "filter.must.0.is_empty.key: of category, which every photo has, only",
    ),
    ({"must": [{"key": "image_id", "range": {"gt": 1}}]}, "filter.must.0.key: of image_id, which every photo has"),
    ({"must_not": [{"is_empty": {"key": "x"}}]}, "filter.must_not.0.is_empty.key: the catalogue has no attribute 'x'"),
    ({"must": [{"key": "colour", "range": {"lt": 5}}]}, "filter.must.0.range: colour is a keyword, which has no range"),
    ({"must": [{"key": "size", "range": {}}]}, "filter.must.0.range: gt, gte, lt, lte are possible, not {}"),
    ({"must": [{"key": "size", "range": {"below": 5}}]}, "filter.must.0.range: gt, gte, lt, lte are possible"),
    ({"must": [{"key": "size", "range": {"lt": "5"}}]}, 'filter.must.0.range.lt: size is a number; "5" is no bound'),
    ({"must": [{"key": "size", "range": {"lt": True}}]}, "filter.must.0.range.lt: size is a number; true is no bound"),
    ({"must": [{"key": "size", "range": {"lt": 10**400}}]}, "is no bound"),
    # An answer's form of a price is none of a filter, so it is not recommended either.
    (
        {"must": [{"key": "price", "range": {"lt": {"amount": 5, "currency": "EUR"}}}]},
        'price is a price: a number, and "currency": "EUR" beside it where it matters; {"amount": 5',
    ),
    ({"must": [{"key": "added", "range": {"lt": 5}}]}, "filter.must.0.range.lt: added is a time"),
    ({"must": [{"key": "added", "range": {"lt": "soon"}}]}, '"soon" is no bound'),
    (
        {"must": [{"key": "title", "match": {"value": "a"}}]},
        "filter.must.0.match.value: title is a text, of which only is_empty",
    ),
    ({"must": [{"key": "size", "match": {"value": "a"}}]}, 'filter.must.0.match.value: size is a number, not "a"'),
    ({"must": [{"key": "sold", "match": {"any": [True, 1]}}]}, "filter.must.0.match.any: sold is true or false, not 1"),
    (
        {"must": [{"key": "colour", "match": {"any": "red"}}]},
        'filter.must.0.match.any: must be a list of values, not "red"',
    ),
    ({"must": [{"key": "colour", "match": {}}]}, "filter.must.0.match: one of value, any, except is needed, not {}"),
    (
        {"must": [{"key": "colour", "match": {"value": "a", "any": []}}]},
        "filter.must.0.match: one of value, any, except",
    ),
    ({"must": [{"key": "category", "match": {"value": "Cars"}}]}, "filter.must.0.match.value: "),
    (
        {"must": [{"key": "listing_id", "match": {"value": 5}}]},
        "filter.must.0.match.value: listing_id is a text, not 5",
    ),
    (
        {"must": [{"key": "price", "range": {"lt": 5}}]},
        'filter.must.0.range: price is in EUR, GBP; say which is meant: "currency": "EUR"',
    ),
    (
        {"must": [{"key": "price", "range": {"lt": 5, "currency": "SEK"}}]},
        "filter.must.0.range.currency: price is in EUR, GBP, not in",
    ),
    (
        {"must": [{"key": "size", "range": {"lt": 5, "currency": "EUR"}}]},
        "filter.must.0.range.currency: size is a number, which has no currency",
    ),
    (nested(MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} deep"),
    (
        {"must": [{"is_empty": {"key": "size"}}] * (MAX_CONDITIONS + 1)},
        f"filter: more than {MAX_CONDITIONS} conditions",
    ),
    (
        {"must": [{"key": "size", "match": {"any": list(range(MAX_MATCHES + 1))}}]},
        f"filter: more than {MAX_MATCHES} values",
    ),
]


@pytest.mark.parametrize(("given", "told"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_told_with_its_place_and_the_attributes_type(given: object, told: str) -> None:
    with pytest.raises(InvalidRequest) as found:
        bind_filter(given, SCHEMA, CATEGORIES)
    assert told in str(found.value)
    assert str(found.value).startswith("filter")


def test_the_limits_themselves_are_allowed() -> None:
    bind_filter(nested(MAX_DEPTH), SCHEMA, CATEGORIES)
    bind_filter({"must": [{"is_empty": {"key": "size"}}] * MAX_CONDITIONS}, SCHEMA, CATEGORIES)
    bind_filter({"must": [{"key": "size", "match": {"any": list(range(MAX_MATCHES))}}]}, SCHEMA, CATEGORIES)


def test_a_filter_without_conditions_holds_everywhere() -> None:
    assert meets({}, {})
    assert meets({"must": [], "should": [], "must_not": None}, {})


def test_one_condition_needs_no_list() -> None:
    assert meets({"must": {"key": "size", "range": {"gt": 1}}}, {"size": 2.0})


def test_a_missing_value_is_in_no_range_and_no_set_and_outside_of_every_excluded_one() -> None:
    for condition in (
        {"key": "size", "range": {"gte": -1e300}},
        {"key": "size", "match": {"value": 0}},
        {"key": "sold", "match": {"any": [True, False]}},
    ):
        assert not meets({"must": [condition]}, {})
        assert meets({"must_not": [condition]}, {})
    assert meets({"must": [{"key": "colour", "match": {"except": ["red"]}}]}, {})
    assert meets({"must": [{"is_empty": {"key": "colour"}}]}, {})


@pytest.mark.parametrize("asked", ["bath", "SOMERSET", "Bath,  Somerset"])
def test_a_place_is_matched_whole_or_by_one_of_its_parts(asked: str) -> None:
    assert meets({"must": [{"key": "place", "match": {"value": asked}}]}, {"place": "Bath, Somerset"})
    assert not meets({"must": [{"key": "place", "match": {"value": asked}}]}, {"place": "Bathgate, Lothian"})


def test_a_price_is_compared_in_its_currency() -> None:
    price: Values = {"price": {"amount": 20.0, "currency": "GBP"}}
    assert meets({"must": [{"key": "price", "range": {"lte": 20, "currency": "GBP"}}]}, price)
    assert not meets({"must": [{"key": "price", "range": {"lte": 20, "currency": "EUR"}}]}, price)
    assert meets({"must": [{"key": "price", "match": {"value": 20}}]}, price)


def test_categories_and_ids_are_keys_too() -> None:
    assert meets({"must": [{"key": "category", "match": {"any": ["Lamps", "Boats"]}}]}, {}, category=1)
    assert not meets({"must_not": [{"key": "category", "match": {"value": "Lamps"}}]}, {}, category=1)
    assert meets({"must": [{"key": "listing_id", "match": {"value": "l1"}}]}, {})
    assert not meets({"must": [{"key": "image_id", "match": {"except": ["i1"]}}]}, {})


def test_the_attributes_that_a_filter_asks_of() -> None:
    given = {"must": [{"key": "size", "range": {"gt": 1}}], "must_not": [{"should": [{"is_empty": {"key": "colour"}}]}]}
    assert [one.name for one in attributes_in(bind_filter(given, SCHEMA, CATEGORIES))] == ["size", "colour"]
