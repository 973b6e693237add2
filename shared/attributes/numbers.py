"""Reads numbers and prices in the forms in which people write them into tables."""

import html
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

_SYMBOLS = {
    "£": "GBP", "€": "EUR", "$": "USD", "¥": "JPY", "₹": "INR", "₽": "RUB", "₴": "UAH", "₺": "TRY", "₩": "KRW",
    "₫": "VND", "₪": "ILS", "₦": "NGN", "₱": "PHP", "₸": "KZT", "฿": "THB", "zł": "PLN", "kč": "CZK", "ft": "HUF",
    "lei": "RON", "kr": "", "us$": "USD", "a$": "AUD", "c$": "CAD", "r$": "BRL", "nz$": "NZD",
    "hk$": "HKD", "s$": "SGD", "chf": "CHF", "fr": "CHF", "euro": "EUR", "euros": "EUR", "eur": "EUR", "rs": "INR",
    "tl": "TRY", "ر.س": "SAR", "د.إ": "AED", "ج.م": "EGP", "ريال": "",
    "円": "JPY", "元": "CNY", "원": "KRW", "руб": "RUB", "грн": "UAH", "лв": "BGN", "nt$": "TWD", "mx$": "MXN",  # noqa: RUF001
}  # fmt: skip
_MORE_CODES = "AED ARS BGN CLP CNY COP DKK EGP IDR ISK KES MAD MXN MYR NOK PEN PKR QAR RSD SAR SEK TWD UYU ZAR"
_CODES = frozenset(re.findall("[A-Z]{3}", _MORE_CODES)) | frozenset(filter(None, _SYMBOLS.values()))
_NUMBER = re.compile(r"[+-]?[0-9](?:[0-9.,']*[0-9])?")
_EXPONENT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{1,3}")
_UNIT = re.compile(r"(?:[^\W\d]|[%‰°'\"])[^\s,;()]{0,11}(?: [^\s,;()]{1,11})?")  # km, cm3, %, l/100 km
_NO_FRACTION = r"(?:[.,:][-\u2013\u2014]+|/-)"  # "20,-", "20:-", "20/-"
_NO_FRACTION_AT_END = re.compile(f"{_NO_FRACTION}$")
_AMOUNT = re.compile(rf"[0-9](?:[0-9.,']*[0-9])?{_NO_FRACTION}?")
# Minus, apostrophe, Arabic's decimal separator; and the marks of direction that programs write around amounts.
_SIGNS = {0x2212: "-", 0x2019: "'", 0x066B: ".", **dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F)])}
_NEGOTIABLE = re.compile(r"\b(?:vb|vhb|fp|ono|obo)\b", re.IGNORECASE)  # "30 \u20ac VB", "\u00a320 ono"
_OTHER = {".": ",", ",": "."}
_MAX_DIGITS = 15  # of which a float64 keeps every one


class Amount(NamedTuple):
    """A number with a currency.

    Attributes:
        number: the amount.
        currency: ISO 4217 code; empty: none is given.
        mark: whether something that means a currency stands beside it, such as "kr".
    """

    number: float
    currency: str
    mark: bool


def plain(text: str) -> str:
    """Turn other forms of digits, signs and spaces into the usual ones, and leave out spaces inside a number."""
    if "&" in text:  # &euro; and &nbsp; of a shop's export
        text = html.unescape(text)
    if not text.isascii():
        text = plain_digits(unicodedata.normalize("NFKC", text)).translate(_SIGNS)
        text = re.sub(r"(?<=[0-9])\u066c(?=[0-9]{3}(?![0-9]))", "", text)  # Arabic's between thousands
    return re.sub(r"(?<=[0-9])\s(?=[0-9]{3}(?![0-9]))", "", text.strip())


def plain_digits(text: str) -> str:
    """Turn the decimal digits of any script into those of ASCII: "\u0661\u0662" -> "12"."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def parse_number(text: str, decimal: str = ".") -> float | None:
    """Parse a number: "1,250.5" -> 1250.5 and with `decimal` "," "1.250,5" likewise; None for anything else.

    Args:
        text: as a table has it.
        decimal: what stands before the fraction; the other of point and comma, apostrophe and space group thousands.
    """
    text = plain(text)
    if _EXPONENT.fullmatch(text):
        return found if math.isfinite(found := float(text)) else None
    if not _NUMBER.fullmatch(text):
        return None
    whole, mark, fraction = text.partition(decimal)
    group = _OTHER[decimal]
    sign, digits = ("-", whole[1:]) if whole[0] == "-" else ("", whole.removeprefix("+"))
    for separator in (group, "'"):
        if separator in digits:
            first, *rest = digits.split(separator)
            if not 1 <= len(first) <= 3 or not _are_groups(separator, rest):
                return None
            digits = first + "".join(rest)
    if not digits.isdecimal() or (mark and not fraction.isdecimal()) or len(digits + fraction) > _MAX_DIGITS + 15:
        return None
    return float(f"{sign}{digits}.{fraction or 0}")


def _are_groups(separator: str, groups: list[str]) -> bool:
    """Whether digits behind the first separator are groups of three, or as in India of two and a last of three."""
    *others, last = map(len, groups)
    return last == 3 and (set(others) <= {3} or (separator == "," and set(others) == {2}))


def parse_amount(text: str, decimal: str = ".") -> Amount | None:
    """Parse a price: "£1,250.00", "1.250,- €" with `decimal` ",", "EUR 20", "20 € VB"; None for anything else.

    Args:
        text: as a table has it.
        decimal: as of `parse_number`.
    """
    text = _NEGOTIABLE.sub("", plain(text)).strip()
    if _EXPONENT.fullmatch(text):
        number = parse_number(text, decimal)
        return None if number is None else Amount(number, "", mark=False)
    found = _AMOUNT.search(text)
    if not found:
        return None
    before, after = text[: found.start()].strip(), text[found.end() :].strip()
    sign = ""
    if before.endswith(("-", "+")):
        before, sign = before[:-1].strip(), before[-1]
    elif before.startswith("-"):
        before, sign = before[1:].strip(), "-"
    if before and after:
        return None
    currency = ""
    if mark := before or after:
        code = mark.upper().rstrip(".")
        known = code if code in _CODES else _SYMBOLS.get(mark.lower().rstrip("."))
        if known is None:
            return None
        currency = known
    whole = _NO_FRACTION_AT_END.sub("", found[0])
    behind = found[0][len(whole) :]
    number = parse_number(sign + whole, (behind and _decimal_before_nothing(whole, behind)) or decimal)
    return None if number is None else Amount(number, currency, bool(mark))


def _decimal_before_nothing(digits: str, behind: str) -> str:
    """What the dash behind an amount says of the sign before fractions: "," in "1.250,-"; empty text: nothing."""
    found = re.match(_NO_FRACTION, behind)
    mark = found[0][0] if found else ""
    if mark in _OTHER and mark in digits:
        return _OTHER[mark]  # 1.250.-
    return mark if mark in _OTHER else ""


def currency_in(text: str) -> str:
    """The currency whose sign stands in a text, as in "Prix (€)" or "Price A$"; empty where there is none."""
    words = re.split(r"[\s()\[\]/,:_]+", text.lower())
    signs = (word for word in words if any(unicodedata.category(character) == "Sc" for character in word))
    return next(filter(None, map(_SYMBOLS.get, signs)), "")


def read_number(text: str, decimal: str) -> float | None:
    """Parse a number of a table: as `parse_number`, or as the other convention has it where only that can be meant."""
    found = parse_number(text, decimal)
    return parse_number(text, _OTHER[decimal]) if found is None else found


def unit_of(text: str) -> str:
    """What stands behind a number: "120 000 km" -> "km"; empty text where that is nothing or no unit."""
    text = plain(text)
    found = _NUMBER.match(text)
    unit = text[found.end() :].strip() if found else ""
    return unit if _UNIT.fullmatch(unit) else ""


def read_with_unit(text: str, unit: str, decimal: str) -> float | None:
    """Parse a number of a table that may have a unit behind it: that one, and no other."""
    if unit and unit_of(text) == unit:
        text = plain(text).removesuffix(unit)
    return read_number(text, decimal)


def read_amount(text: str, decimal: str) -> Amount | None:
    """Parse a price of a table, as `read_number` a number: of "£1,250.00" and "12,50 €" in one column both are read."""
    return parse_amount(text, decimal) or parse_amount(text, _OTHER[decimal])


def decimal_of(texts: Iterable[str]) -> tuple[str, str]:
    """Tell from a column's numbers what stands before the fraction in them.

    Args:
        texts: of the column.

    Returns:
        "." or ",", and an example of a number that can be read both ways, unless the column has numbers of one
        convention only, which decides; else "".
    """
    votes: Counter[str] = Counter()
    both_ways = ""
    for text in texts:
        spelled = plain(text)
        found = _NUMBER.search(spelled)
        if not found:
            continue
        if said := _decimal_before_nothing(found[0], spelled[found.end() :]):
            votes[said] += 1  # 1.250,-
            continue
        digits = found[0].lstrip("+-")
        last = max(digits.rfind("."), digits.rfind(","))
        if last < 0:
            continue
        mark, other = digits[last], _OTHER[digits[last]]
        if other in digits[:last]:
            votes[mark] += 1  # 1.250,50: the last one
        elif digits.count(mark) > 1:
            votes[other] += 1  # 1.250.000: groups
        elif len(digits) - last - 1 != 3 or last > 3 or digits[0] == "0":
            votes[mark] += 1  # 12,5 and 0,125 and 1250,125
        else:
            both_ways = both_ways or text
    if not votes:
        return ".", both_ways
    return "," if votes[","] > votes["."] else ".", both_ways if len(votes) > 1 else ""
