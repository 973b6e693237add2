"""A filter means one thing: columns, single photos and a naive reading of the JSON find the same photos."""

from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.attributes.filters import PhotoFacts, bind_filter, holds
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, Values, as_payload, of_payload
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.index.metadata.attribute_columns import AttributeColumns, write_columns
from shared.index.metadata.rows import PhotoRows, write_filters, write_photos

NAMES = ("Boats", "Lamps", "Chairs")
CATEGORIES = Categories(NAMES)
NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([0.1, 2.5, 1e15, -1e-9]))
DAYS = st.integers(1, 6).map(lambda day: f"2026-11-{day:02}")
WORDS = st.sampled_from(["red", "Red", "blue", "Bath", "Bath, Somerset", "somerset, uk", "Köln", "\u65e5\u672c", "a b"])
CODES = ("EUR", "GBP")
PRICES = st.builds(lambda amount, code: {"amount": amount, "currency": code}, NUMBERS, st.sampled_from([*CODES, ""]))
VALUES: dict[AttributeType, st.SearchStrategy[Any]] = {
    AttributeType.NUMBER: NUMBERS,
    AttributeType.PRICE: PRICES,
    AttributeType.TEXT: WORDS,
    AttributeType.KEYWORD: WORDS,
    AttributeType.PLACE: WORDS,
    AttributeType.TIME: DAYS,
    AttributeType.BOOLEAN: st.booleans(),
}
TYPES = list(VALUES)
IDS = st.lists(st.sampled_from([f"{kind}{n}" for kind in "il" for n in range(4)]), max_size=3)


@st.composite
def cases(draw: st.DrawFn) -> tuple[AttributeSchema, list[CataloguePhoto], dict[str, Any]]:
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=5))
    schema = AttributeSchema(
        tuple(
            Attribute(name=f"a{n}", type=kind, currencies=CODES if kind is AttributeType.PRICE else ())
            for n, kind in enumerate(types)
        )
    )
    photos = []
    for n in range(draw(st.integers(1, 12))):
        values = {
            one.name: value for one in schema if (value := draw(st.none() | VALUES[one.type])) is not None
        }  # a listing's photos may differ: those put live have values of their own
        category = draw(st.integers(0, len(NAMES) - 1))
        photos.append(
            CataloguePhoto(f"i{n}", f"l{n // 2}", category, Path(f"/c/{n}.jpg"), "0" * 64, as_payload(values))
        )
    return schema, photos, draw(filters(schema, 3))


def filters(schema: AttributeSchema, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    condition = st.sampled_from(list(schema)).flatmap(_condition) | st.one_of(
        st.builds(lambda ids: {"key": "image_id", "match": {"any": ids}}, IDS),
        st.builds(lambda ids: {"key": "listing_id", "match": {"except": ids}}, IDS),
        st.builds(lambda name: {"key": "category", "match": {"value": name}}, st.sampled_from(NAMES)),
    )
    if depth > 1:
        condition |= filters(schema, depth - 1)
    clause = st.lists(condition, max_size=3)
    return st.fixed_dictionaries({}, optional={"must": clause, "should": clause, "must_not": clause}).filter(bool)


def _condition(attribute: Attribute) -> st.SearchStrategy[dict[str, Any]]:
    key = attribute.name
    possible: list[st.SearchStrategy[dict[str, Any]]] = [st.just({"is_empty": {"key": key}})]
    asked = {AttributeType.PRICE: NUMBERS}.get(attribute.type, VALUES[attribute.type])
    code = st.sampled_from(CODES) if attribute.type is AttributeType.PRICE else st.nothing()
    if attribute.type is not AttributeType.TEXT:
        match = st.builds(
            lambda kind, values: {kind: values}, st.sampled_from(["any", "except"]), st.lists(asked, max_size=3)
        )
        match |= st.builds(lambda value: {"value": value}, asked)
        if attribute.type is AttributeType.PRICE:
            match |= st.builds(lambda value, code: {"value": value, "currency": code}, asked, code)
        possible.append(match.map(lambda match: {"key": key, "match": match}))
    if attribute.type in (AttributeType.NUMBER, AttributeType.TIME, AttributeType.PRICE):
        bounds = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), asked, min_size=1, max_size=3)
        if attribute.type is AttributeType.PRICE:
            bounds = st.builds(lambda bounds, code: {**bounds, "currency": code}, bounds, code)
        possible.append(bounds.map(lambda bounds: {"key": key, "range": bounds}))
    return st.one_of(possible)


def naive(asked: dict[str, Any], schema: AttributeSchema, photo: CataloguePhoto) -> bool:
    """What the documentation says of the filter, read for one photo."""
    if not asked.keys() & {"key", "is_empty"}:
        should = asked.get("should", [])
        return (
            all(naive(one, schema, photo) for one in asked.get("must", []))
            and (not should or any(naive(one, schema, photo) for one in should))
            and not any(naive(one, schema, photo) for one in asked.get("must_not", []))
        )
    values = of_payload(photo.payload)
    if "is_empty" in asked:
        return asked["is_empty"]["key"] not in values
    key, inner = asked["key"], asked.get("match") or asked.get("range") or {}
    built_in = {"image_id": photo.image_id, "listing_id": photo.listing_id, "category": NAMES[photo.category]}
    value: Any = built_in.get(key, values.get(key))
    attribute = schema.get(key)
    place = attribute is not None and attribute.type is AttributeType.PLACE
    is_price = attribute is not None and attribute.type is AttributeType.PRICE
    right_currency = value is None or "currency" not in inner or value["currency"] == inner["currency"]
    if is_price and value is not None:
        value = value["amount"]
    if "range" in asked:
        compare = {
            "gt": lambda b: value > b,
            "gte": lambda b: value >= b,
            "lt": lambda b: value < b,
            "lte": lambda b: value <= b,
        }
        return (
            value is not None
            and right_currency
            and all(compare[name](b) for name, b in inner.items() if name in compare)
        )
    wanted = [inner["value"]] if "value" in inner else inner.get("any", inner.get("except", []))
    found = {value} if not place or value is None else {part.strip().lower() for part in [value, *value.split(",")]}
    met = value is not None and right_currency and bool(found & {one.lower() if place else one for one in wanted})
    return not met if "except" in inner else met


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("columns")
    return (base / str(n) for n in count())


def columns_of(
    directory: Path, schema: AttributeSchema, photos: list[CataloguePhoto]
) -> tuple[AttributeColumns, AttributeSchema]:
    directory.mkdir()
    write_photos(directory, photos)
    write_filters(directory)
    described = write_columns(directory, schema)
    return AttributeColumns(directory, described, PhotoRows(directory, len(NAMES))), described


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(case=cases())
def test_columns_single_photos_and_a_naive_reading_agree(folders: Any, case: Any) -> None:
    schema, photos, asked = case
    columns, described = columns_of(next(folders), schema, photos)
    condition = bind_filter(asked, described, CATEGORIES)
    singly = [holds(condition, PhotoFacts(p.category, p.listing_id, p.image_id, of_payload(p.payload))) for p in photos]
    assert columns.mask(condition).tolist() == singly
    assert [naive(asked, schema, photo) for photo in photos] == singly


def test_a_range_of_whole_numbers_finds_what_the_set_of_them_finds(folders: Any) -> None:
    schema = AttributeSchema((Attribute(name="n", type=AttributeType.NUMBER),))
    rng = np.random.default_rng(17)
    photos = [
        CataloguePhoto(
            f"i{row}", f"l{row}", 0, Path("/c"), "0" * 64, as_payload({"n": float(value)}) if value < 6 else ""
        )
        for row, value in enumerate(rng.integers(-1, 8, 500))
    ]
    columns, described = columns_of(next(folders), schema, photos)
    ids = []
    for condition in ({"range": {"gte": 1, "lte": 3}}, {"match": {"any": [1, 2, 3]}}, {"range": {"gt": 0, "lt": 4}}):
        bound = bind_filter({"must": [{"key": "n", **condition}]}, described, CATEGORIES)
        ids.append([photos[row].image_id for row in np.flatnonzero(columns.mask(bound))])
    assert ids[0] == ids[1] == ids[2]
    assert 100 < len(ids[0]) < 250


def test_what_is_found_of_the_columns_is_described(folders: Any) -> None:
    schema = AttributeSchema(
        (Attribute(name="day", type=AttributeType.TIME), Attribute(name="c", type=AttributeType.KEYWORD),
         Attribute(name="p", type=AttributeType.PRICE), Attribute(name="none", type=AttributeType.BOOLEAN))
    )  # fmt: skip
    values: list[Values] = [
        {"day": "2026-11-01", "c": "red"},
        {"day": "2026-11-03", "c": "red", "p": {"amount": 5.0, "currency": "SEK"}},
        {"c": "blue"},
    ]
    photos = [
        CataloguePhoto(f"i{row}", f"l{row // 2}", 0, Path("/c"), "0" * 64, as_payload(values[row // 2]))
        for row in range(6)
    ]
    day, colour, price, none = columns_of(next(folders), schema, photos)[1]
    seconds = [datetime(2026, 11, day, tzinfo=UTC).timestamp() for day in (1, 2, 3)]
    assert (day.n_listings, day.quantiles[0], day.quantiles[10], day.quantiles[20]) == (2, *seconds)
    assert [(one.value, one.count) for one in colour.values] == [("red", 2), ("blue", 1)]
    assert (colour.n_listings, colour.n_values, price.currencies, none.n_listings) == (3, 2, ("SEK",), 0)
