"""Values come from tables and from requests: what is read, and what is refused by name."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import JsonValue, ValidationError

from shared.attributes.filters import Between, PhotoFacts, bind_filter, holds
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, attribute_name
from shared.attributes.values import fitting_values, parse_text, parse_time, parts_of_place, read_values
from shared.catalogue.categories import OLDER_CATEGORIES
from shared.errors import InvalidRequest
from shared.jobs.contract import ImageOptions, SearchRequest

SCHEMA = AttributeSchema(
    (
        Attribute(name="title", type=AttributeType.TEXT),
        Attribute(name="price", type=AttributeType.PRICE, currencies=("EUR", "GBP"), decimal=","),
        Attribute(name="weight", type=AttributeType.NUMBER),
        Attribute(name="colour", type=AttributeType.KEYWORD),
        Attribute(name="place", type=AttributeType.PLACE),
        Attribute(name="added", type=AttributeType.TIME),
        Attribute(name="sold", type=AttributeType.BOOLEAN),
    )
)
READ: list[tuple[str, object, JsonValue]] = [
    ("title", "  a lamp ", "a lamp"),
    ("price", 12.5, {"amount": 12.5, "currency": "EUR"}),
    ("price", "£1,250.00", {"amount": 1250.0, "currency": "GBP"}),
    ("price", {"amount": 3}, {"amount": 3.0, "currency": "EUR"}),
    ("price", {"amount": 3, "currency": "SEK"}, {"amount": 3.0, "currency": "SEK"}),
    ("weight", 3, 3.0),
    ("colour", " dark \n red ", "dark red"),
    ("place", "Bath,  Somerset", "Bath, Somerset"),
    ("added", "2026-11-29", "2026-11-29"),
    ("added", "2026-11-29T20:00:00+02:00", "2026-11-29T18:00:00Z"),
    ("sold", False, False),
]
REFUSED: list[tuple[str, object, str]] = [
    ("title", 5, "the attribute is a text, not 5"),
    ("title", "\ud800", "half a surrogate pair"),
    ("title", 20_001 * "a", "20001 characters; 20000 are the most of a text"),
    ("price", "cheap", "the attribute is a price"),
    ("price", True, "the attribute is a price"),
    ("price", {"amount": 1, "currency": "euro"}, "the attribute is a price"),
    ("price", {"amount": 1, "unit": "kg"}, "the attribute is a price"),
    ("price", float("nan"), "the attribute is a price"),
    ("weight", "3", 'the attribute is a number, not "3"'),
    ("weight", True, "the attribute is a number, not true"),
    ("weight", 10**400, "the attribute is a number"),
    ("colour", 401 * "a", "401 characters; 400 are the most of a keyword"),
    ("colour", ["red"], 'not ["red"]'),
    ("added", "yesterday", "the attribute is a time"),
    ("added", "0001-01-01T00:00:00+05:00", "the attribute is a time"),
    ("sold", 1, "the attribute is true or false, not 1"),
]


@pytest.mark.parametrize(("name", "given", "read"), READ)
def test_a_value_of_a_request_is_read_as_answers_have_it(name: str, given: object, read: JsonValue) -> None:
    assert read_values({name: given}, SCHEMA) == {name: read}


@pytest.mark.parametrize(("name", "given", "told"), REFUSED, ids=[f"{n}-{t[:24]}" for n, _, t in REFUSED])
def test_a_value_of_another_type_is_refused_by_name(name: str, given: object, told: str) -> None:
    with pytest.raises(InvalidRequest) as found:
        read_values({name: given}, SCHEMA)
    assert str(found.value).startswith(f"attributes.{name}: ")
    assert told in str(found.value)


def test_nothing_is_no_value() -> None:
    assert read_values({"title": None, "colour": "", "place": "  ", "sold": None}, SCHEMA) == {}


def test_unknown_names_and_too_much_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"attributes: the catalogue has no attribute 'size'; it has title, price"):
        read_values({"size": 4}, SCHEMA)
    with pytest.raises(InvalidRequest, match=r"65 attributes; 64 are the most"):
        read_values({f"a{n}": 1 for n in range(65)}, SCHEMA)
    with pytest.raises(InvalidRequest, match=r"attributes: must be a JSON object"):
        read_values([], SCHEMA)
    texts = AttributeSchema(tuple(Attribute(name=f"t{n}", type=AttributeType.TEXT) for n in range(4)))
    with pytest.raises(InvalidRequest, match=r"attributes: 80\d\d\d bytes; 65536 are the most"):
        read_values({f"t{n}": 20_000 * "a" for n in range(4)}, texts)


def test_cells_of_a_table_are_read_by_the_columns_way_of_writing() -> None:
    [price, added] = [SCHEMA.require(name, "") for name in ("price", "added")]
    assert parse_text(price, "1.250,50 £") == {"amount": 1250.5, "currency": "GBP"}
    assert parse_text(price, "12.50") == {"amount": 12.5, "currency": "EUR"}  # cannot be meant otherwise
    assert parse_text(price, "1.2.50") is None
    assert parse_text(price, " n/a ") is None
    assert parse_text(added.model_copy(update={"day_first": False}), "3/4/2026") == "2026-03-04"
    assert parse_text(added, "\u0663/\u0664/\u0661\u0669\u0662\u0663") == "1923-04-03"
    assert parse_text(price, "20 ريال") == {"amount": 20.0, "currency": ""}  # never the column's euros
    in_riyal = price.model_copy(update={"currencies": ("SAR",)})
    assert parse_text(in_riyal, "20 ريال") == {"amount": 20.0, "currency": "SAR"}
    assert parse_text(added, "3/4/2026 18:30") == "2026-04-03T18:30:00Z"
    assert parse_text(SCHEMA.require("sold", ""), "Nein") is False


@pytest.mark.parametrize(
    ("is_true", "is_false"),
    [("J", "N"), ("O", "N"), ("1", "0"), ("t", "f"), ("X", "off"), ("Evet", "Hay\u0131r"), ("Sì", "no")],
)
def test_a_column_of_booleans_may_have_letters_and_signs(is_true: str, is_false: str) -> None:
    sold = SCHEMA.require("sold", "")
    assert (parse_text(sold, is_true), parse_text(sold, is_false)) == (True, False)
    assert parse_text(sold, "2") is None


@pytest.mark.parametrize(
    ("currencies", "expected"), [((), ""), (("EUR",), ""), (("SEK", "EUR"), "SEK"), (("EUR", "NOK"), "NOK")]
)
def test_crowns_are_those_of_the_column_and_never_its_euros(currencies: tuple[str, ...], expected: str) -> None:
    price = Attribute(name="price", type=AttributeType.PRICE, currencies=currencies)
    assert parse_text(price, "20 kr") == {"amount": 20.0, "currency": expected}


def test_a_date_of_a_request_has_the_order_of_the_columns_dates() -> None:
    american = AttributeSchema((Attribute(name="added", type=AttributeType.TIME, day_first=False),))
    assert read_values({"added": "3/4/2026"}, american) == {"added": "2026-03-04"}
    asked = bind_filter({"must": [{"key": "added", "range": {"gte": "3/4/2026"}}]}, american, OLDER_CATEGORIES)
    assert isinstance(asked, Between)
    assert asked.low == datetime(2026, 3, 4, tzinfo=UTC).timestamp()


def test_times_are_in_utc_and_impossible_ones_are_none() -> None:
    assert parse_time("2026-11-29T20:00+02:00") == datetime(2026, 11, 29, 18, tzinfo=UTC)
    assert parse_time("20261129") == datetime(2026, 11, 29, tzinfo=UTC)
    assert parse_time("2026/1/29") == datetime(2026, 1, 29, tzinfo=UTC)
    for text in ("2026/11/29 18:00", "2026-11-29 18:00:00 UTC", "2026-11-29T18:00:00.000GMT"):
        moment = datetime(2026, 11, 29, 18, tzinfo=UTC)
        assert parse_time(text) == moment, text
    for text in (
        "31.11.2026",
        "2026-13-01",
        "29.11.26",
        "2026",
        "9999-12-31T23:59-05:00",
        "2026-11-29T25:00",
        "29.11/2026",
    ):
        assert parse_time(text) is None, text


def test_a_short_text_has_one_value_however_its_letters_are_encoded() -> None:
    colour = Attribute(name="colour", type=AttributeType.KEYWORD)
    town = Attribute(name="town", type=AttributeType.PLACE)
    schema = AttributeSchema((colour, town))
    assert parse_text(colour, "cafe\u0301  noir") == parse_text(colour, "caf\u00e9 noir") == "caf\u00e9 noir"
    assert read_values({"colour": "cafe\u0301", "town": "Orle\u0301ans"}, schema) == {
        "colour": "caf\u00e9", "town": "Orl\u00e9ans",
    }  # fmt: skip
    asked = bind_filter({"must": [{"key": "colour", "match": {"value": "cafe\u0301"}}]}, schema, OLDER_CATEGORIES)
    for as_indexed in ("caf\u00e9", "cafe\u0301"):  # the second by an earlier build
        assert holds(asked, PhotoFacts(0, "l", "p", {"colour": as_indexed}))
    assert not holds(asked, PhotoFacts(0, "l", "p", {"colour": "cafe"}))


@pytest.mark.parametrize("asked", ["İstanbul", "istanbul", "ISTANBUL", "I\u0307STANBUL"])
def test_a_place_is_found_with_a_dot_on_its_capital_i_or_without(asked: str) -> None:
    town = Attribute(name="town", type=AttributeType.PLACE)
    condition = bind_filter(
        {"must": [{"key": "town", "match": {"value": asked}}]}, AttributeSchema((town,)), OLDER_CATEGORIES
    )
    assert holds(condition, PhotoFacts(0, "l", "p", {"town": "Beyoğlu, İstanbul"}))
    assert not holds(condition, PhotoFacts(0, "l", "p", {"town": "Stanbul"}))


def test_a_place_is_found_by_itself_and_its_parts() -> None:
    assert parts_of_place("Bath,  Somerset") == {"bath, somerset", "bath", "somerset"}


def test_values_that_a_new_schema_has_no_place_for_are_left_out() -> None:
    values: dict[str, JsonValue] = {
        "price": {"amount": 3.0, "currency": "EUR"},
        "weight": "heavy",
        "gone": 1,
        "sold": True,
    }
    assert fitting_values(values, SCHEMA) == {"price": {"amount": 3.0, "currency": "EUR"}, "sold": True}


def test_a_schema_is_compared_by_what_defines_it() -> None:
    found = [a.model_copy(update={"n_listings": 5, "currencies": (*a.currencies, "SEK")}) for a in SCHEMA]
    assert SCHEMA.is_that_of(found)
    assert not SCHEMA.is_that_of(found[1:])
    assert not SCHEMA.is_that_of([found[0].model_copy(update={"type": AttributeType.KEYWORD}), *found[1:]])
    assert not AttributeSchema((SCHEMA.require("price", ""),)).is_that_of(
        [found[1].model_copy(update={"currencies": ()})]
    )


@pytest.mark.parametrize(
    "text", ["[]", "5", "{", '{"a":"\\ud800"}', '{"a":NaN}', "[" * 5000, '{"a":' * 40 + "1" + "}" * 40, " " * 70_000]
)
def test_json_that_cannot_be_kept_is_refused_in_any_option(text: str) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate({"filter": text})
    with pytest.raises(ValidationError):
        ImageOptions.model_validate({"listing_id": "l", "category": "c", "attributes": text})


def test_options_may_be_text_or_json() -> None:
    text = SearchRequest.model_validate({"filter": '{"must": []}', "include": " title , price ,", "facets": "*"})
    typed = SearchRequest.model_validate_json(
        json.dumps({"filter": {"must": []}, "include": ["title", "price"], "facets": ["*"]}), strict=True
    )
    assert text == typed


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("Preis (EUR)", "preis_eur"),
        ("  ", ""),
        ("product_description", "description"),
        ("\u0915\u0940\u092e\u0924", None),
        ("\u0130LAN", "ilan"),
    ],
)
def test_the_name_of_a_column(column: str, name: str | None) -> None:
    assert attribute_name(column) == (column if name is None else name)  # of Devanagari the vowel signs stay
