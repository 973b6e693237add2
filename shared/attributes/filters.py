"""Filters on attributes, in the JSON form of Qdrant: `{"must": [{"key": "price", "range": {"lte": 50}}]}`.

`bind_filter` checks a filter against the catalogue's types and makes it a tree of conditions. The index evaluates that
tree over columns, the delta index over single photos with `holds`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from shared.attributes.schema import BUILT_IN, NUMERIC, Attribute, AttributeSchema, AttributeType, Values
from shared.attributes.values import (
    EXPECTED,
    as_compared,
    finite,
    folded_place,
    number_of,
    parse_time,
    parts_of_place,
    shown,
)
from shared.catalogue.categories import Categories
from shared.errors import InvalidRequest

MAX_DEPTH = 8
MAX_CONDITIONS = 100
MAX_MATCHES = 2_000
CLAUSES = ("must", "should", "must_not")
BOUNDS = ("gt", "gte", "lt", "lte")
_MATCHES = ("value", "any", "except")
# A condition has its currency beside the amounts.
_EXPECTED = EXPECTED | {AttributeType.PRICE: 'a price: a number, and "currency": "EUR" beside it where it matters'}


@dataclass(frozen=True)
class AllOf:
    """Holds where every one of its conditions does; so without conditions everywhere."""

    conditions: "tuple[Condition, ...]"


@dataclass(frozen=True)
class AnyOf:
    """Holds where one of its conditions does."""

    conditions: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Not:
    """Holds where its condition does not; so also where the attribute has no value."""

    condition: "Condition"


@dataclass(frozen=True)
class Between:
    """Holds where an attribute has a number in a range.

    Attributes:
        attribute: a number, a price (its amount) or a time (seconds since the epoch).
        low, high: bounds.
        low_open, high_open: whether a bound itself is outside.
        currency: of the price; None: whichever.
    """

    attribute: Attribute
    low: float
    high: float
    low_open: bool
    high_open: bool
    currency: str | None


@dataclass(frozen=True)
class OneOf:
    """Holds where an attribute has one of some values.

    Attributes:
        attribute: of any type but text.
        values: numbers as of `Between`; texts, those of a place in small letters; true and false.
        currency: as of `Between`.
    """

    attribute: Attribute
    values: frozenset[float] | frozenset[str] | frozenset[bool]
    currency: str | None


@dataclass(frozen=True)
class Present:
    """Holds where an attribute has a value."""

    attribute: Attribute


@dataclass(frozen=True)
class InCategories:
    """Holds where the photo's category is one of some, given by their positions."""

    positions: frozenset[int]


@dataclass(frozen=True)
class HasId:
    """Holds where the photo's or the listing's id is one of some."""

    key: str  # image_id or listing_id
    ids: frozenset[str]


Condition = AllOf | AnyOf | Not | Between | OneOf | Present | InCategories | HasId


def bind_filter(given: object, schema: AttributeSchema, categories: Categories) -> Condition:
    """Check a filter against a catalogue's types.

    Args:
        given: parsed JSON.
        schema: of the catalogue's attributes.
        categories: of the catalogue.

    Raises:
        InvalidRequest: names the place in the filter, and the attribute with its type.
    """
    return _Binder(schema, categories).clauses(given, "filter", 1)


class _Binder:
    """Binds one filter, and counts what is in it."""

    def __init__(self, schema: AttributeSchema, categories: Categories) -> None:
        self._schema = schema
        self._categories = categories
        self._n_conditions = self._n_matches = 0

    def clauses(self, given: object, where: str, depth: int) -> Condition:
        """Bind `{"must": [...], "should": [...], "must_not": [...]}`."""
        if not isinstance(given, Mapping) or not given.keys() <= set(CLAUSES):
            raise InvalidRequest(f"{where}: must be a JSON object with must, should or must_not, not {shown(given)}")
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{where}: nested more than {MAX_DEPTH} deep")
        bound: dict[str, tuple[Condition, ...]] = {}
        for clause in CLAUSES:
            conditions = given.get(clause) or []
            listed = [conditions] if isinstance(conditions, Mapping) else conditions
            if not isinstance(listed, list):
                raise InvalidRequest(f"{where}.{clause}: must be a list of conditions, not {shown(conditions)}")
            places = (f"{where}.{clause}.{n}" for n in range(len(listed)))
            bound[clause] = tuple(self._condition(one, place, depth) for one, place in zip(listed, places, strict=True))
        parts = [*bound["must"]]
        if bound["should"]:
            parts.append(AnyOf(bound["should"]))
        if bound["must_not"]:
            parts.append(Not(AnyOf(bound["must_not"])))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _condition(self, given: object, where: str, depth: int) -> Condition:
        self._n_conditions += 1
        if self._n_conditions > MAX_CONDITIONS:
            raise InvalidRequest(f"filter: more than {MAX_CONDITIONS} conditions")
        match given:
            case {"key": str() as key, "match": Mapping() as asked, **rest} if not rest:
                return self._match(key, asked, where)
            case {"key": str() as key, "range": Mapping() as asked, **rest} if not rest:
                return self._range(self._attribute(key, f"{where}.key"), asked, where)
            case {"is_empty": {"key": str() as key, **rest}, **others} if not rest and not others:
                return Not(Present(self._attribute(key, f"{where}.is_empty.key")))
            case Mapping() if given.keys() & set(CLAUSES):
                return self.clauses(given, where, depth + 1)
        raise InvalidRequest(
            f'{where}: must be {{"key": ..., "match": {{...}}}}, {{"key": ..., "range": {{...}}}}, '
            f'{{"is_empty": {{"key": ...}}}} or a filter with must, should or must_not, not {shown(given)}'
        )

    def _attribute(self, key: str, place: str) -> Attribute:
        """The attribute of a condition other than `match`."""
        if key in BUILT_IN:
            raise InvalidRequest(f"{place}: of {key}, which every photo has, only match can be asked")
        return self._schema.require(key, place)

    def _match(self, key: str, asked: Mapping[str, object], where: str) -> Condition:
        """Bind `{"value": x}`, `{"any": [x, y]}` or `{"except": [x, y]}`."""
        kinds, currency = asked.keys() - {"currency"}, asked.get("currency")
        if len(kinds) != 1 or (kind := next(iter(kinds))) not in _MATCHES:
            raise InvalidRequest(f"{where}.match: one of {', '.join(_MATCHES)} is needed, not {shown(asked)}")
        place = f"{where}.match.{kind}"
        values = [asked[kind]] if kind == "value" else asked[kind]
        if not isinstance(values, list):
            raise InvalidRequest(f"{place}: must be a list of values, not {shown(values)}")
        self._n_matches += len(values)
        if self._n_matches > MAX_MATCHES:
            raise InvalidRequest(f"filter: more than {MAX_MATCHES} values")
        condition: Condition
        if key in BUILT_IN:
            condition = self._built_in(key, values, place)
        else:
            attribute = self._schema.require(key, f"{where}.key")
            read = [_matched(attribute, value, place) for value in values]
            # Beside what was asked for: indexes of an earlier build hold letters as the table had them.
            folded = folded_place if attribute.type is AttributeType.PLACE else as_compared
            read += [folded(text) for text in read if isinstance(text, str)]
            code = _currency(attribute, currency, f"{where}.match", single=False)
            condition = OneOf(attribute, frozenset(read), code)  # type: ignore[arg-type]
        return Not(condition) if kind == "except" else condition

    def _built_in(self, key: str, values: list[object], place: str) -> Condition:
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) < len(values):
            wrong = next(value for value in values if not isinstance(value, str))
            raise InvalidRequest(f"{place}: {key} is a text, not {shown(wrong)}")
        if key != "category":
            return HasId(key, frozenset(texts))
        try:
            return InCategories(frozenset(self._categories.position(text) for text in texts))
        except InvalidRequest as exc:
            raise InvalidRequest(f"{place}: {exc}") from exc

    def _range(self, attribute: Attribute, asked: Mapping[str, object], where: str) -> Condition:
        """Bind `{"gte": low, "lt": high}`, or with gt and lte."""
        place = f"{where}.range"
        if attribute.type not in NUMERIC:
            raise InvalidRequest(
                f"{place}: {attribute.name} is a {attribute.type}, which has no range; number, price and time have one"
            )
        bounds = {name: _bound(attribute, asked[name], f"{place}.{name}") for name in BOUNDS if name in asked}
        if not bounds or not asked.keys() <= {*BOUNDS, "currency"}:
            raise InvalidRequest(f"{place}: {', '.join(BOUNDS)} are possible, not {shown(asked)}")
        low, low_open = max((bounds.get("gte", -inf), False), (bounds.get("gt", -inf), True))
        high, high_closed = min((bounds.get("lte", inf), True), (bounds.get("lt", inf), False))
        currency = _currency(attribute, asked.get("currency"), place, single=True)
        return Between(attribute, low, high, low_open, not high_closed, currency)


def _bound(attribute: Attribute, value: object, place: str) -> float:
    number = _number(attribute, value)
    if number is None:
        raise InvalidRequest(f"{place}: {attribute.name} is {_EXPECTED[attribute.type]}; {shown(value)} is no bound")
    return number


def _number(attribute: Attribute, value: object) -> float | None:
    """What a number or time of a filter is compared by; None: it is neither."""
    if attribute.type is not AttributeType.TIME:
        return finite(value)
    moment = parse_time(value, day_first=attribute.day_first) if isinstance(value, str) else None
    return moment.timestamp() if moment else None


def _matched(attribute: Attribute, value: object, place: str) -> float | str | bool:
    found: float | str | bool | None = None
    if attribute.type is AttributeType.TEXT:
        raise InvalidRequest(f"{place}: {attribute.name} is a text, of which only is_empty can be asked")
    if attribute.type in NUMERIC:
        found = _number(attribute, value)
    elif attribute.type is AttributeType.BOOLEAN:
        found = value if isinstance(value, bool) else None
    elif isinstance(value, str):
        spaced = " ".join(value.split())
        found = spaced.casefold() if attribute.type is AttributeType.PLACE else spaced
    if found is None:
        raise InvalidRequest(f"{place}: {attribute.name} is {_EXPECTED[attribute.type]}, not {shown(value)}")
    return found


def _currency(attribute: Attribute, given: object, place: str, *, single: bool) -> str | None:
    """Check the currency of a price's condition; None: whichever.

    Args:
        attribute: that the condition is on.
        given: code; None: none.
        place: in the filter, for the error.
        single: whether it is needed where the catalogue has several.
    """
    if attribute.type is not AttributeType.PRICE:
        if given is not None:
            raise InvalidRequest(f"{place}.currency: {attribute.name} is a {attribute.type}, which has no currency")
        return None
    if given is None:
        if single and len(attribute.currencies) > 1:
            raise InvalidRequest(
                f"{place}: {attribute.name} is in {', '.join(attribute.currencies)}; say which is meant: "
                f'"currency": "{attribute.currencies[0]}"'
            )
        return None
    if given not in attribute.currencies:
        known = ", ".join(attribute.currencies) or "none"
        raise InvalidRequest(f"{place}.currency: {attribute.name} is in {known}, not in {shown(given)}")
    return str(given)


class PhotoFacts(NamedTuple):
    """What a filter can ask of one photo.

    Attributes:
        category: position.
        listing_id, image_id: ids.
        values: of its attributes.
    """

    category: int
    listing_id: str
    image_id: str
    values: Values


def holds(condition: Condition, photo: PhotoFacts) -> bool:
    """Tell whether a photo meets a condition."""
    match condition:
        case AllOf(conditions):
            held = all(holds(one, photo) for one in conditions)
        case AnyOf(conditions):
            held = any(holds(one, photo) for one in conditions)
        case Not(one):
            held = not holds(one, photo)
        case InCategories(positions):
            held = photo.category in positions
        case HasId(key, ids):
            held = getattr(photo, key) in ids
        case Present(attribute):
            held = photo.values.get(attribute.name) is not None
        case Between() | OneOf():
            held = _holds_for_value(condition, photo.values)
    return held


def _holds_for_value(condition: Between | OneOf, values: Values) -> bool:
    attribute = condition.attribute
    value = values.get(attribute.name)
    if value is None or (condition.currency is not None and _code(value) != condition.currency):
        return False
    if isinstance(condition, OneOf):
        if attribute.type is AttributeType.PLACE:
            return not condition.values.isdisjoint(parts_of_place(str(value)))
        compared = number_of(attribute, values) if attribute.type in NUMERIC else value
        return compared in condition.values
    number = number_of(attribute, values)
    if number is None:
        return False
    above = number > condition.low if condition.low_open else number >= condition.low
    below = number < condition.high if condition.high_open else number <= condition.high
    return above and below


def _code(value: object) -> object:
    return value.get("currency") if isinstance(value, Mapping) else None


def attributes_in(condition: Condition) -> Iterator[Attribute]:
    """Yield the attributes that a condition asks of, one by one."""
    match condition:
        case AllOf(conditions) | AnyOf(conditions):
            for one in conditions:
                yield from attributes_in(one)
        case Not(one):
            yield from attributes_in(one)
        case Between() | OneOf() | Present():
            yield condition.attribute
