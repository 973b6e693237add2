"""Infers a catalogue's attributes from the columns of its table: a name and a type for each, and how it is written."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from shared.attributes.configuration import ColumnChoice
from shared.attributes.numbers import currency_in, decimal_of, parse_amount, plain, read_amount, read_number, unit_of
from shared.attributes.schema import (
    BUILT_IN,
    MAX_ATTRIBUTES,
    MAX_KEYWORD_LENGTH,
    NO_ATTRIBUTES,
    Attribute,
    AttributeSchema,
    AttributeType,
    attribute_name,
)
from shared.attributes.values import BOOLEANS, NOTHING, parse_text, parse_time

_ENOUGH = 0.95  # of a column's values are of a type: it is the column's
_AS_EXPECTED = 0.5  # likewise, if it was the column's before, or a price in a column that is called so
_TEXTS = frozenset({AttributeType.TEXT, AttributeType.KEYWORD, AttributeType.PLACE})
# What columns of titles and descriptions are called.
_PROSE = re.compile(
    "title|description|name|text|comment|notes|headline|titel|beschreibung|bezeichnung|titre|nom|désignation|título|"
    "titulo|nombre|nome|descripción|descripcion|descrição|descricao|titolo|descrizione|naam|omschrijving|namn|rubrik|"
    "beskrivning|navn|beskrivelse|overskrift|nimi|otsikko|kuvaus|nazwa|tytuł|tytul|opis|název|nazev|popis|názov|naziv|"
    "naslov|név|megnevezés|cím|leírás|titlu|nume|denumire|descriere|başlık|baslik|isim|ürün_adı|ilan_başlığı|açıklama|"  # noqa: RUF001
    "aciklama|τίτλος|όνομα|ονομασία|περιγραφή|название|наименование|заголовок|описание|назва|опис|заглавие|име|العنوان|"
    "عنوان|الاسم|اسم|الوصف|وصف|כותרת|שם|תיאור|شرح|शीर्षक|नाम|विवरण|ชื่อ|รายละเอียด|tên|tiêu_đề|mô_tả|judul|nama|deskripsi|"
    "タイトル|商品名|品名|名称|説明|标题|描述|標題|名稱|제목|상품명|설명"
)
_PRICES = re.compile(
    r"(?:^|_)(?:price|preis|prix|precio|prezzo|preco|preço|prijs|pris|cena|kaina|hind|hinta|ár|fiyat|цена|ціна)(?:_|$)"
)
_SIZE = re.compile(r"\s*euro? ?[0-9]{1,2}\s*", re.IGNORECASE)  # Euro 6 of a car's exhaust, EUR 42 of a shoe
_PLACES = re.compile(
    r"(?:^|_)(?:location|place|city|town|region|county|country|ort|stadt|land|standort|ville|lieu|localisation|ciudad|"
    r"lugar|localidad|provincia|città|comune|cidade|plaats|stad|miasto|miejscowość|město|oraș|város|kaupunki|by|sted|"
    r"город|место|місто|πόλη|περιοχή|şehir|sehir|ilçe|semt|konum|المدينة|مدينة|עיר|所在地|都市|城市|地区|도시|지역)(?:_|$)"
)
_CODE_IN_NAME = re.compile(r"(?:^|_)(eur|gbp|usd|chf|pln|sek|nok|dkk|czk|huf)(?:_|$)")
_NAMELESS = "left out; its header has no letter or digit"
_GONE = "it is an attribute of the live index; no column has values for it now"
_UNNAMED = re.compile(r"unnamed:? ?[0-9]*|index", re.IGNORECASE)  # of pandas' own numbering
_PROSE_LENGTH, _PROSE_WORDS = 60, 5
_SLASHES = re.compile(r"([0-9]{1,2})[/-]([0-9]{1,2})[/-][0-9]{4}")
_SAMPLE = 20_000
_MAX_DIGITS = 15


@dataclass(frozen=True)
class ColumnNote:
    """What was assumed of a column, for the report.

    Attributes:
        reason: one of a fixed set of texts.
        column: its name.
        value: an example, where there is one.
        detail: how it is read.
    """

    reason: str
    column: str
    value: str = ""
    detail: str = ""


def infer(
    columns: Mapping[str, Sequence[str]],
    choices: Mapping[str, ColumnChoice] | None = None,
    known: AttributeSchema = NO_ATTRIBUTES,
    *,
    numbers: Collection[str] = (),
) -> tuple[AttributeSchema, list[ColumnNote]]:
    """Infer the attributes of a table.

    Args:
        columns: the cells of each column, as text; without those of id and category.
        choices: what the catalogue's configuration says of attributes, by name.
        known: those of the live index: one bad export does not turn a price into a keyword.
        numbers: columns whose cells were numbers in a table with types, so that a point stands before their fraction.

    Returns:
        the attributes in the columns' order, and what was assumed or left out.

    Raises:
        CatalogueUnusable: the configuration names a column that the table lacks.
    """
    choices = choices or {}
    notes: list[ColumnNote] = []
    chosen = {choice.column: name for name, choice in choices.items() if choice.column}
    # A column that is meant by name is that attribute even where an earlier one is called so.
    taken = {_free(name): column for column, name in chosen.items() if column in columns and not choices[name].skip}
    found: dict[str, Attribute] = {}
    usual_decimal = cache(partial(_usual_decimal, columns, numbers))
    for column, cells in columns.items():
        name = chosen.get(column, attribute_name(column))
        choice = choices.get(name)
        if choice and choice.column not in ("", column):
            choice = None  # it is said of another column
        if (choice and choice.skip) or _UNNAMED.fullmatch(column):
            continue
        name = _free(name)
        filled = _filled(cells)
        other = found[name].column if name in found else taken.get(name, column)
        if not name or other != column:
            reason = "column without a name of its own"
            notes.append(ColumnNote(reason, column, detail=f"left out; {other} is {name}" if name else _NAMELESS))
        elif not filled:
            continue  # nothing is lost with it
        elif len(found) == MAX_ATTRIBUTES:
            notes.append(ColumnNote("too many columns", column, detail=f"left out; {MAX_ATTRIBUTES} are the most"))
        else:
            decimal = _decimal(filled, known.get(name), usual_decimal, is_number=column in numbers)
            attribute, note = _typed(name, column, filled, choice, known.get(name), *decimal)
            is_decided = column in numbers or (choice and choice.decimal) or known.get(name)
            if attribute.type is AttributeType.PRICE and not note and not is_decided:
                note = _three_decimals(attribute, filled)
            found[name] = attribute
            notes += [note] if note else []
            notes += _changed_type(known.get(name), attribute, filled[0])
    gone = (one for one in known if one.name not in found and not (one.name in choices and choices[one.name].skip))
    notes += [ColumnNote("attribute is gone", one.column or one.name, detail=_GONE) for one in gone]
    return AttributeSchema(tuple(found.values())), notes


def _changed_type(was: Attribute | None, now: Attribute, cell: str) -> list[ColumnNote]:
    """A note where an attribute of the live index has another type: filters that fitted it are refused then."""
    if was is None or was.type is now.type:
        return []
    detail = f'a {was.type} in the live index, a {now.type} here; `type = "{was.type}"` in catalogue.toml keeps it so'
    return [ColumnNote("attribute of another type than before", now.column, cell, detail)]


def _free(name: str) -> str:
    """A name that is none of those which every photo has."""
    return f"{name}_" if name in BUILT_IN else name


def _filled(cells: Sequence[str]) -> list[str]:
    return [cell for cell in cells if cell.strip().casefold() not in NOTHING]


def _some(filled: Sequence[str]) -> Sequence[str]:
    return filled if len(filled) <= _SAMPLE else filled[:: -(-len(filled) // _SAMPLE)]


def _usual_decimal(columns: Mapping[str, Sequence[str]], numbers: Collection[str]) -> str:
    """What stands before the fraction in all of a table's columns of numbers that say it; empty text if none does."""
    said: set[str] = set()
    for cells in (some for column, some in columns.items() if column not in numbers):
        some = _filled(cells[: _SAMPLE // 10])
        decimal, both_ways = decimal_of(some)
        if not both_ways and any("." in cell or "," in cell for cell in some):
            n_amounts = sum(read_amount(cell, decimal) is not None for cell in some)
            said |= {decimal} if n_amounts >= _ENOUGH * len(some) else set()
    return said.pop() if len(said) == 1 else ""


def _decimal(
    filled: Sequence[str], known: Attribute | None, usual: Callable[[], str], *, is_number: bool
) -> tuple[str, str]:
    """What stands before the fraction in a column, and an example of a number that can be read both ways."""
    decimal, both_ways = (".", "") if is_number else decimal_of(_some(filled))
    if both_ways:
        return (known.decimal, "") if known else (usual() or decimal, both_ways)
    return decimal, both_ways


def _typed(
    name: str,
    column: str,
    filled: Sequence[str],
    choice: ColumnChoice | None,
    known: Attribute | None,
    decimal: str,
    both_ways: str,
) -> tuple[Attribute, ColumnNote | None]:
    """An attribute with its type and way of writing, and a note where a number can be read both ways."""
    some = _some(filled)
    type_ = (choice and choice.type) or _kept(known, _type_of(name, some, decimal), some)
    if type_ is AttributeType.PRICE and both_ways:  # prices have no three decimals: 1.250 is over a thousand
        groups, fraction = (".", ",") if "." in both_ways else (",", ".")
        decimal = decimal if _needs(some, groups) else fraction
    decimal = (choice and choice.decimal) or decimal
    attribute = Attribute(name=name, type=type_, column=column, decimal=decimal)
    note = None
    chosen_number = choice is not None and choice.type is AttributeType.NUMBER
    if type_ is AttributeType.NUMBER and (chosen_number or (known and known.unit)):
        attribute = attribute.model_copy(update={"unit": _unit(some, _AS_EXPECTED)})
    if type_ is AttributeType.KEYWORD and not (choice and choice.type) and (unit := _unit(some, _ENOUGH)):
        detail = f'compared as texts; say `type = "number"` in catalogue.toml to compare the numbers before {unit}'
        note = ColumnNote("numbers with a unit", column, some[0], detail)
    if type_ in (AttributeType.NUMBER, AttributeType.PRICE) and both_ways and not (choice and choice.decimal):
        note = _both_ways(attribute, both_ways)
    if type_ is AttributeType.PRICE:
        given = (choice.currency,) if choice and choice.currency else ()
        attribute = attribute.model_copy(update={"currencies": given or _currencies(column, filled, decimal)})
    if type_ is AttributeType.TIME:
        day_first, in_both_orders = _day_first(some)
        if choice and choice.day_first is not None:
            day_first, in_both_orders = choice.day_first, ""
        if in_both_orders:
            order = "day, month, year; say `day_first = false` in catalogue.toml if that is wrong"
            note = ColumnNote("date that can be read both ways", column, in_both_orders, f"read as {order}")
        attribute = attribute.model_copy(update={"day_first": day_first})
    return attribute, note


def _three_decimals(price: Attribute, filled: Sequence[str]) -> ColumnNote | None:
    """A note where one price has three decimals, as prices have none, beside others that say what is before them."""
    alike = re.compile(rf"(?<![0-9.,'])[1-9][0-9]{{0,2}}{re.escape(price.decimal)}[0-9]{{3}}(?![0-9.,'])")
    if cell := next((one for one in _some(filled) if alike.search(plain(one))), ""):
        return _both_ways(price, cell)
    return None


def _both_ways(attribute: Attribute, cell: str) -> ColumnNote:
    read = read_amount(cell, attribute.decimal)
    told = f"read as {read.number if read else 'nothing'}; say `decimal` in catalogue.toml if that is wrong"
    return ColumnNote("number that can be read both ways", attribute.column, cell, told)


def _unit(cells: Sequence[str], share: float) -> str:
    """The unit that stands behind the numbers of so large a share of the cells; empty text if there is none."""
    [(unit, n)] = Counter(map(unit_of, cells)).most_common(1)
    return unit if n >= share * len(cells) else ""


def _needs(cells: Iterable[str], decimal: str) -> bool:
    """Whether some prices can only be meant with this before the fraction, as £1,250.50 with a point."""
    other = "," if decimal == "." else "."
    return any(parse_amount(cell, decimal) and not parse_amount(cell, other) for cell in cells)


def _kept(known: Attribute | None, found: AttributeType, cells: Sequence[str]) -> AttributeType:
    """The type that an attribute had, if it still fits; else the one that was found now."""
    if known is None or known.type is found:
        return found
    if known.type in _TEXTS:
        return known.type if found in _TEXTS else found
    fits = _share(cells, lambda cell: parse_text(known, cell) is not None) >= _AS_EXPECTED
    return known.type if fits else found


def _currencies(column: str, filled: Iterable[str], decimal: str) -> tuple[str, ...]:
    amounts = (read_amount(cell, decimal) for cell in filled)
    counts = Counter(amount.currency for amount in amounts if amount and amount.currency)
    if not counts:
        if code := _CODE_IN_NAME.search(attribute_name(column)):
            return (code[1].upper(),)
        return tuple(filter(None, [currency_in(column)]))
    return tuple(code for code, _ in counts.most_common())


def _type_of(name: str, cells: Sequence[str], decimal: str) -> AttributeType:
    """The type that nearly all of a column's values are of."""
    if _share(cells, lambda cell: parse_time(cell) is not None) >= _ENOUGH:
        return AttributeType.TIME
    if _share(cells, lambda cell: cell.strip().casefold() in BOOLEANS) == 1:
        return AttributeType.BOOLEAN
    if found := _numeric(name, cells, decimal):
        return found
    if _PROSE.fullmatch(name) or _is_prose(cells):
        return AttributeType.TEXT
    return AttributeType.PLACE if _PLACES.search(name) else AttributeType.KEYWORD


def _numeric(name: str, cells: Sequence[str], decimal: str) -> AttributeType | None:
    amounts = [amount for cell in cells if (amount := read_amount(cell, decimal))]
    is_called_price = bool(_PRICES.search(name))
    if len(amounts) >= (_AS_EXPECTED if is_called_price else _ENOUGH) * len(cells):
        are_prices = sum(amount.mark for amount in amounts) >= len(amounts) / 2
        if is_called_price or (are_prices and not all(map(_SIZE.fullmatch, cells))):
            return AttributeType.PRICE
        if are_prices:
            return None
        return None if any(_is_code(cell, decimal) for cell in cells) else AttributeType.NUMBER
    # With an exponent: 1.5e-3.
    numbers = _share(cells, lambda cell: read_number(cell, decimal) is not None)
    return AttributeType.NUMBER if numbers >= _ENOUGH else None


def _share(cells: Sequence[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, cells)) / len(cells)


def _is_code(cell: str, decimal: str) -> bool:
    """Whether a number is none to count with: it has leading zeros, or more digits than a number keeps.

    Of a fraction the last digits say nothing: 47.102000000000004 is what programs write for 47.102.
    """
    digits = plain(cell).lstrip("+-")
    return (len(digits) > 1 and digits[0] == "0" and digits[1].isdecimal()) or (
        sum(c.isdecimal() for c in digits.partition(decimal)[0]) > _MAX_DIGITS
    )


def _is_prose(cells: Sequence[str]) -> bool:
    n_words = sum(len(cell.split()) for cell in cells) / len(cells)
    length = sum(map(len, cells)) / len(cells)
    too_long = any(len(cell) > MAX_KEYWORD_LENGTH for cell in cells)
    return too_long or length > _PROSE_LENGTH or (n_words > _PROSE_WORDS and len(set(cells)) > len(cells) / 2)


def _day_first(cells: Sequence[str]) -> tuple[bool, str]:
    """Tell whether the day comes before the month in a column's dates: unless some can only be read the other way.

    Returns:
        whether it does, and an example of a date that can be read both ways, if no date decides; else "".
    """
    both_ways = ""
    for cell in cells:
        if found := _SLASHES.match(cell.strip()):
            first, second = int(found[1]), int(found[2])
            if max(first, second) > 12:
                return first > 12, ""
            both_ways = both_ways or (cell if first != second else "")
    return True, both_ways
