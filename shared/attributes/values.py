"""Reads the values of attributes: text of a table, and JSON of a request. Writes them as answers have them."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import JsonValue

from shared.attributes.numbers import Amount, parse_amount, plain_digits, read_amount, read_with_unit
from shared.attributes.schema import (
    MAX_ATTRIBUTES,
    MAX_KEYWORD_LENGTH,
    MAX_PAYLOAD_BYTES,
    MAX_TEXT_LENGTH,
    Attribute,
    AttributeSchema,
    AttributeType,
    Values,
    as_payload,
)
from shared.errors import InvalidRequest

_TRUE = frozenset({"true", "yes", "y", "ja", "oui", "si", "sí", "tak", "ano", "да", "vrai", "wahr", "はい", "是"})
_FALSE = frozenset({"false", "no", "n", "nein", "non", "nie", "ne", "нет", "faux", "falsch", "いいえ", "否"})
BOOLEANS = _TRUE | _FALSE
# Read as well where the column is one of booleans; by themselves these may be numbers, sizes or directions.
_TRUE_OF_BOOLEANS = (
    _TRUE
    | {"1", "j", "o", "s", "t", "x", "on", "evet", "sim", "sì", "da", "igen", "kyllä", "نعم", "✓", "✔"}
    | {"\u03bd\u03b1\u03b9"}  # Greek nai
)
_FALSE_OF_BOOLEANS = _FALSE | {"0", "f", "off", "hay\u0131r", "όχι", "não", "nee", "nej", "nem", "nu", "ei", "لا", "✗"}
# What tables write where there is nothing.
NOTHING = frozenset({"", "-", "--", "n/a", "#n/a", "na", "nan", "none", "null", "nil", "\\n", "?"})
_OF_ONE_NAME = frozenset({"SEK", "NOK", "DKK", "ISK", "SAR", "QAR", "OMR", "YER", "IRR"})  # "kr", or in Arabic "riyal"
_CURRENCY = re.compile(r"[A-Z]{3}")
_DAY = re.compile(r"([0-9]{1,2})([./-])([0-9]{1,2})\2([0-9]{4})(?:[ T,]+([0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?))?")
_YEAR_FIRST = re.compile(r"([0-9]{4})/([0-9]{1,2})/([0-9]{1,2})([T ].*)?")
_UTC = re.compile(r"(?<=[0-9]) ?(?:UTC|GMT)$")
_ISO = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}([T ].*)?")


def parse_time(text: str, *, day_first: bool = True) -> datetime | None:
    """Parse a date or time: ISO 8601, or day, month and year as people write them; None for anything else.

    Args:
        text: "2026-11-29", "2026-11-29T18:00:00Z", "29.11.2026", "29/11/2026 18:00", "2026/11/29". Without a
            zone it is UTC.
        day_first: whether 3/4/2026 is in April; a number above 12 decides by itself.

    Returns:
        the time in UTC.
    """
    text = _UTC.sub("Z", plain_digits(text).strip())
    if parts := _YEAR_FIRST.fullmatch(text):
        text = f"{parts[1]}-{parts[2]:0>2}-{parts[3]:0>2}{parts[4] or ''}"
    try:
        if _ISO.fullmatch(text):
            found = datetime.fromisoformat(text)
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        if parts := _DAY.fullmatch(text):
            first, mark, second = int(parts[1]), parts[2], int(parts[3])
            in_order = day_first or mark == "." or first > 12
            day, month = (first, second) if in_order and second <= 12 else (second, first)
            clock = datetime.strptime(parts[5] or "0:0", "%H:%M:%S" if (parts[5] or "").count(":") == 2 else "%H:%M")
            return datetime(int(parts[4]), month, day, clock.hour, clock.minute, clock.second, tzinfo=UTC)
    except (ValueError, OverflowError):  # the first or last day of all, in a zone in which it is another
        pass
    return None


def iso(moment: datetime) -> str:
    """Write a time in UTC as answers have it: ISO 8601, a date alone where the time is midnight."""
    if (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0):
        return moment.date().isoformat()
    return moment.isoformat().replace("+00:00", "Z")


def parse_text(attribute: Attribute, text: str) -> JsonValue:
    """Read a value as a table has it.

    Args:
        attribute: its type, currency and way of writing numbers.
        text: of the cell.

    Returns:
        the value; None: the text is empty, or no value of that type.
    """
    text = text.strip()
    if text.casefold() in NOTHING:
        return None
    value: JsonValue = None
    match attribute.type:
        case AttributeType.NUMBER:
            value = read_with_unit(text, attribute.unit, attribute.decimal)
        case AttributeType.PRICE:
            if amount := read_amount(text, attribute.decimal):
                value = _price(attribute, amount)
        case AttributeType.BOOLEAN:
            folded = text.casefold()
            is_true, is_false = folded in _TRUE_OF_BOOLEANS, folded in _FALSE_OF_BOOLEANS
            value = is_true if is_true or is_false else None
        case AttributeType.TIME:
            if moment := parse_time(text, day_first=attribute.day_first):
                value = iso(moment)
        case AttributeType.TEXT:
            value = text[:MAX_TEXT_LENGTH]
        case AttributeType.KEYWORD | AttributeType.PLACE:
            value = as_compared(text) if len(text) <= MAX_KEYWORD_LENGTH else None
    return value


def as_compared(text: str) -> str:
    """A keyword or place with single spaces and composed letters: "\u00e9" is one value, as one character or as two."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _price(attribute: Attribute, amount: Amount) -> JsonValue:
    """The price with its own currency, or else the attribute's; of "20 kr" only if that has such."""
    meant = [code for code in attribute.currencies if code in _OF_ONE_NAME or not amount.mark]
    return {"amount": amount.number, "currency": amount.currency or next(iter(meant), "")}


def read_values(given: object, schema: AttributeSchema, where: str = "attributes") -> dict[str, JsonValue]:
    """Read the attributes of a request.

    Args:
        given: parsed JSON: an object, value by name; null or an empty text: the listing has no such value.
        schema: of the catalogue.
        where: the option's name, for errors.

    Returns:
        values as answers have them.

    Raises:
        InvalidRequest: names the attribute that is unknown, of another type or too long.
    """
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{where}: must be a JSON object, value by name")
    if len(given) > MAX_ATTRIBUTES:
        raise InvalidRequest(f"{where}: {len(given)} attributes; {MAX_ATTRIBUTES} are the most")
    values: dict[str, JsonValue] = {}
    for name, value in given.items():
        attribute = schema.require(str(name), where)
        if value is not None and (read := _checked(attribute, value, f"{where}.{name}")) != "":
            values[attribute.name] = read
    n_bytes = len(as_payload(values).encode("utf-8", "surrogatepass"))
    if n_bytes > MAX_PAYLOAD_BYTES:
        raise InvalidRequest(f"{where}: {n_bytes} bytes; {MAX_PAYLOAD_BYTES} are the most")
    return values


def fitting_values(values: Values, schema: AttributeSchema) -> dict[str, JsonValue]:
    """Select the values that a schema has an attribute of that type for: a catalogue's columns change."""
    fitting: dict[str, JsonValue] = {}
    for name, value in values.items():
        if attribute := schema.get(name):
            with suppress(InvalidRequest):
                fitting[name] = _checked(attribute, value, name)
    return fitting


def _checked(attribute: Attribute, value: object, where: str) -> JsonValue:
    """A value of a request as answers have it; raises as `read_values`."""
    read: JsonValue = None
    match attribute.type:
        case AttributeType.BOOLEAN if isinstance(value, bool):
            read = value
        case AttributeType.NUMBER:
            read = finite(value)
        case AttributeType.PRICE:
            read = _checked_price(attribute, value)
        case AttributeType.TIME if isinstance(value, str):
            moment = parse_time(value, day_first=attribute.day_first)
            read = iso(moment) if moment else None
        case AttributeType.TEXT | AttributeType.KEYWORD | AttributeType.PLACE if isinstance(value, str):
            most = MAX_TEXT_LENGTH if attribute.type is AttributeType.TEXT else MAX_KEYWORD_LENGTH
            if len(value) > most:
                raise InvalidRequest(f"{where}: {len(value)} characters; {most} are the most of a {attribute.type}")
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                raise InvalidRequest(f"{where}: half a surrogate pair is no character")
            read = value.strip() if attribute.type is AttributeType.TEXT else as_compared(value)
    if read is None:
        raise InvalidRequest(f"{where}: the attribute is {EXPECTED[attribute.type]}, not {shown(value)}")
    return read


def _checked_price(attribute: Attribute, value: object) -> JsonValue:
    """A price of a request: a number, a text such as "£12.50", or an object; None for anything else."""
    if isinstance(value, str):
        amount = parse_amount(value)
        return _price(attribute, amount) if amount else None
    given = value if isinstance(value, Mapping) else {"amount": value}
    number, currency = finite(given.get("amount")), given.get("currency") or ""
    if number is None or not given.keys() <= {"amount", "currency"} or not isinstance(currency, str):
        return None
    fits = not currency or _CURRENCY.fullmatch(currency)
    return _price(attribute, Amount(number, currency, mark=False)) if fits else None


EXPECTED = {
    AttributeType.NUMBER: "a number",
    AttributeType.PRICE: 'a price: a number, or {"amount": 12.5, "currency": "EUR"}',
    AttributeType.TEXT: "a text",
    AttributeType.KEYWORD: "a keyword: a short text",
    AttributeType.PLACE: "a place: a short text",
    AttributeType.TIME: 'a time: "2026-11-29" or "2026-11-29T18:00:00Z"',
    AttributeType.BOOLEAN: "true or false",
}


def shown(value: object) -> str:
    """A value of a request as JSON, for an error."""
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def finite(value: object) -> float | None:
    """Return a JSON number that float64 can hold; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def number_of(attribute: Attribute, values: Values) -> float | None:
    """Return the number that a range of an attribute is compared with; None: there is no value.

    A price's amount, and a time's seconds since the epoch.
    """
    match values.get(attribute.name):
        case {"amount": int() | float() as amount}:
            return float(amount)
        case str() as text if attribute.type is AttributeType.TIME and (moment := parse_time(text)):
            return moment.timestamp()
        case int() | float() as number:
            return float(number)
    return None


def folded_place(text: str) -> str:
    """A place in small letters, its capital I dotted or not: "İstanbul", "ISTANBUL" and "istanbul" are one."""
    return as_compared(text.casefold()).replace("i\u0307", "i")


def parts_of_place(text: str) -> set[str]:
    """Return what a place is found by: itself and its parts between commas, in small letters.

    "Bath, Somerset" is found by "bath, somerset", "bath" and "somerset".
    """
    folded = folded_place(text)
    parts = {part for piece in folded.split(",") if (part := piece.strip())}
    return parts | {folded}
