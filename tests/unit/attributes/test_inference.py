"""Columns become attributes: their types, what counts as stray, and what the operator says of them."""

import pytest

from shared.attributes.configuration import ColumnChoice, parse_configuration
from shared.attributes.inference import infer
from shared.attributes.numbers import unit_of
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType
from shared.attributes.values import parse_text
from shared.errors import CatalogueUnusable

TYPES: list[tuple[str, list[str], AttributeType]] = [
    ("weight", ["1.5", "2", "-3"], AttributeType.NUMBER),
    ("tiny", ["1.5e-3", "2e-4"], AttributeType.NUMBER),
    ("latitude", ["47.1", "47.102000000000004", "-0.30000000000000004"], AttributeType.NUMBER),
    ("account", ["1,234,567,890,123,456", "1"], AttributeType.KEYWORD),
    ("year", ["1998", "2004"], AttributeType.NUMBER),
    ("price", ["10", "12.50"], AttributeType.PRICE),
    ("Preis (EUR)", ["10", "12,50"], AttributeType.PRICE),
    ("cena", ["10 zł", "12 zł"], AttributeType.PRICE),
    ("costs", ["£5", "£7.50", "9"], AttributeType.PRICE),
    ("Schadstoffklasse", ["Euro 4", "Euro 6"], AttributeType.KEYWORD),
    ("Schuhgröße", ["EUR 42", "EUR 38"], AttributeType.KEYWORD),
    ("Preis in Euro", ["Euro 4", "Euro 6"], AttributeType.PRICE),
    ("Miete", ["Euro 400", "Euro 95"], AttributeType.PRICE),
    ("sku", ["0012", "0345"], AttributeType.KEYWORD),
    ("ean", ["4006381333931000", "40063813339310001"], AttributeType.KEYWORD),
    ("colour", ["red", "blue"], AttributeType.KEYWORD),
    ("size", ["10", "XL", "12"], AttributeType.KEYWORD),
    ("title", ["Lamp", "Chair"], AttributeType.TEXT),
    ("Başlık", ["Vazo", "Kilim"], AttributeType.TEXT),  # noqa: RUF001
    ("İlan Başlığı", ["Vazo", "Kilim"], AttributeType.TEXT),  # noqa: RUF001
    ("Τίτλος", ["Δαχτυλίδι", "Ρολόι"], AttributeType.TEXT),
    ("Título", ["Lámpara", "Silla"], AttributeType.TEXT),
    ("商品名", ["茶碗", "皿"], AttributeType.TEXT),
    ("العنوان", ["سجادة", "مصباح"], AttributeType.TEXT),
    ("Şehir", ["İzmir", "Bursa"], AttributeType.PLACE),
    ("remarks", ["It was my grandmother's, hardly used, and comes with all of its parts."], AttributeType.TEXT),
    ("location", ["Bath, Somerset", "Leeds"], AttributeType.PLACE),
    ("Standort", ["Köln", "Bonn"], AttributeType.PLACE),
    ("Fiyat", ["1.250,50 TL", "900 TL"], AttributeType.PRICE),
    ("codes", ["007", "1e5"], AttributeType.KEYWORD),
    ("السنة", ["\u0661\u0669\u0662\u0663", "1924"], AttributeType.NUMBER),
    ("added", ["2026-11-29", "2026-11-30T18:00:00Z"], AttributeType.TIME),
    ("Datum", ["29.11.2026", "1.12.2026 18:00"], AttributeType.TIME),
    ("neu", ["ja", "nein", "Ja"], AttributeType.BOOLEAN),
    ("used", ["true", "false"], AttributeType.BOOLEAN),
    ("flag", ["0", "1"], AttributeType.NUMBER),
    ("χρώμα", ["κόκκινο", "μπλε"], AttributeType.KEYWORD),
    ("価格", ["1000円", "高い"], AttributeType.KEYWORD),
]


def one(column: str, cells: list[str], **choice: object) -> Attribute:
    choices = {"x": ColumnChoice(column=column, **choice)} if choice else {}
    [attribute] = infer({column: cells}, choices)[0]
    return attribute


@pytest.mark.parametrize(("column", "cells", "expected"), TYPES, ids=[column for column, _, _ in TYPES])
def test_the_type_of_a_column(column: str, cells: list[str], expected: AttributeType) -> None:
    assert one(column, [*cells, "", "n/a"]).type is expected


def test_one_stray_value_in_twenty_does_not_change_a_columns_type() -> None:
    assert one("weight", [*["1.5"] * 19, "heavy"]).type is AttributeType.NUMBER
    assert one("weight", [*["1.5"] * 18, "heavy", "light"]).type is AttributeType.KEYWORD
    assert one("new", [*["yes"] * 99, "perhaps"]).type is AttributeType.KEYWORD  # of booleans every one counts


def test_a_column_called_price_holds_prices_though_many_cells_are_words() -> None:
    cells = ["£5", "Free", "£7.50", "swap", "12", "£1,200"]
    assert one("Price", cells).type is AttributeType.PRICE
    assert one("given", cells).type is AttributeType.KEYWORD
    assert one("Price", ["low", "£5", "high"]).type is AttributeType.KEYWORD


def test_names_are_small_letters_digits_and_underscores_of_any_script() -> None:
    columns = {
        "Preis (EUR)": ["1"],
        "product_name": ["a"],
        "Χρώμα": ["b"],
        "商品名": ["c"],
        "  --  ": ["d"],
        "\uff29\uff242": ["e"],
    }
    schema, notes = infer(columns)
    assert [attribute.name for attribute in schema] == ["preis_eur", "title", "χρώμα", "商品名", "id2"]
    assert [(note.reason, note.column) for note in notes] == [("column without a name of its own", "  --  ")]


def test_of_two_columns_with_one_name_the_first_is_taken_and_the_other_told() -> None:
    schema, [note] = infer({"Farbe": ["rot"], "farbe ": ["blau"]})
    assert [attribute.column for attribute in schema] == ["Farbe"]
    assert (note.column, note.detail) == ("farbe ", "left out; Farbe is farbe")


def test_what_every_photo_has_gets_another_name_and_what_is_empty_or_of_pandas_none() -> None:
    schema, notes = infer({"Listing_ID": ["a"], "empty": ["", " ", "n/a"], "Unnamed: 0": ["1"], "index": ["1"]})
    assert [attribute.name for attribute in schema] == ["listing_id_"]
    assert notes == []


def test_of_seventy_columns_the_first_64_are_taken_and_the_others_told() -> None:
    schema, notes = infer({f"c{n}": ["x"] for n in range(70)})
    assert [attribute.name for attribute in schema] == [f"c{n}" for n in range(64)]
    assert [(note.reason, note.column) for note in notes] == [("too many columns", f"c{n}") for n in range(64, 70)]


def test_a_price_has_the_currencies_of_its_cells_or_of_its_name() -> None:
    assert one("price", ["£5", "€5", "€6", "7"]).currencies == ("EUR", "GBP")
    assert one("price_gbp", ["5", "6.50"]).currencies == ("GBP",)
    assert one("Prix (€)", ["5", "6,50"]).currencies == one("prix €", ["5"]).currencies == ("EUR",)
    assert one("Price A$", ["5"]).currencies == ("AUD",)
    assert one("Price ($)", ["£5", "6"]).currencies == ("GBP",)
    assert one("price", ["5"]).currencies == ()
    assert one("price", ["5"], type="price", currency="CHF").currencies == ("CHF",)


def test_a_number_that_can_be_read_both_ways_is_told_and_a_price_of_three_decimals_is_none() -> None:
    schema, [note] = infer({"weight": ["1.250", "3"]})
    assert (schema.attributes[0].decimal, note.reason, note.value) == (
        ".", "number that can be read both ways", "1.250",
    )  # fmt: skip
    schema, [note] = infer({"price": ["1.250", "3"]})
    assert (schema.attributes[0].decimal, note.detail.split(";")[0]) == (",", "read as 1250.0")
    assert infer({"price": ["1.250", "12,50"]})[1] == []
    schema, notes = infer({"price": ["€ 12.100,-", "€ 900,-"]})
    assert (schema.attributes[0].decimal, notes) == (",", [])
    assert infer({"price": ["1.250"]}, {"price": ColumnChoice(decimal=".")})[1] == []


def test_a_number_that_can_be_read_both_ways_is_read_as_the_tables_other_numbers() -> None:
    german = {"Preis": ["1.234,50", "12,00"], "Menge": ["1.000", "2.500"], "Gewicht": ["1,250", "2"]}
    schema, notes = infer(german)
    assert {one.name: one.decimal for one in schema} == {"preis": ",", "menge": ",", "gewicht": ","}
    assert [note.detail.split(";")[0] for note in notes] == ["read as 1000.0", "read as 1.25"]
    english = {"Price": ["£1,234.50"], "Amount": ["1,000"], "Weight": ["1.250"]}
    assert [note.detail.split(";")[0] for note in infer(english)[1]] == ["read as 1000.0", "read as 1.25"]
    # Where the others do not agree, or none says it, a point; and a price has no three decimals whatever they say.
    assert infer({"a": ["0,5"], "b": ["0.5"], "c": ["1.250"]})[0].attributes[2].decimal == "."
    schema, [note] = infer({"Gewicht": ["0,5"], "Preis": ["1,250 €"]})
    assert (schema.attributes[1].decimal, note.detail.split(";")[0]) == (".", "read as 1250.0")
    # A table with types has points in its numbers, which say nothing of its texts.
    assert infer({"a": ["0.5"], "b": ["0,5"], "c": ["1.250"]}, numbers={"a"})[0].attributes[2].decimal == ","


def test_an_attribute_that_is_gone_or_has_another_type_than_in_the_live_index_is_told() -> None:
    live = AttributeSchema(
        (
            Attribute(name="price", type=AttributeType.PRICE, column="Price"),
            Attribute(name="colour", type=AttributeType.KEYWORD),
            Attribute(name="weight", type=AttributeType.NUMBER),
        )
    )
    table = {"Price": ["on request", "ask"], "weight": ["5", "7"]}
    schema, notes = infer(table, {}, live)
    assert [one.type for one in schema] == [AttributeType.KEYWORD, AttributeType.NUMBER]
    assert [(note.reason, note.column, note.value) for note in notes] == [
        ("attribute of another type than before", "Price", "on request"),
        ("attribute is gone", "colour", ""),
    ]
    kept = {"price": ColumnChoice(type=AttributeType.PRICE), "colour": ColumnChoice(skip=True)}
    assert infer(table, kept, live)[1] == []


def test_one_price_with_three_decimals_among_others_is_told() -> None:
    [note] = infer({"price": ["12.50 EUR", "199.999 EUR"]})[1]
    assert (note.value, note.detail.split(";")[0]) == ("199.999 EUR", "read as 199.999")
    [note] = infer({"Preis": ["12,50", "1,250"]})[1]
    assert (note.value, note.detail.split(";")[0]) == ("1,250", "read as 1.25")
    assert infer({"price": ["12.50", "1,250", "1,250.000", "0.125", "1250.125"]})[1] == []
    assert infer({"price": ["12.50", "1.250"]}, numbers={"price"})[1] == []
    assert infer({"price": ["12.50", "1.250"]}, {"price": ColumnChoice(decimal=".")})[1] == []


def test_a_column_may_have_numbers_of_both_conventions() -> None:
    schema, notes = infer({"price": ["£1,234.50", "1.234,50 €", "$20", "£3.50"]})
    [price] = schema
    assert (price.type, price.currencies, price.decimal, notes) == (
        AttributeType.PRICE, ("GBP", "EUR", "USD"), ".", [],
    )  # fmt: skip
    # One of the other convention does not turn the rest round.
    schema, [note] = infer({"price": ["1.250 €", "12,50 €", "£1,250", "£3.50", "£4.50"]})
    assert (schema.attributes[0].decimal, note.detail.split(";")[0]) == (".", "read as 1.25")
    # What may be of either is read by the more frequent one, and told.
    schema, [note] = infer({"size": ["1.5", "2.5", "3,5", "1,250"]})
    assert (schema.attributes[0].type, note.value, note.detail.split(";")[0]) == (
        AttributeType.NUMBER, "1,250", "read as 1250.0",
    )  # fmt: skip


def test_dates_of_both_orders_are_told_apart_by_one_above_twelve() -> None:
    assert one("added", ["3/4/2026", "11/29/2026"]).day_first is False
    assert one("added", ["3/4/2026", "29/11/2026"]).day_first is True
    schema, [note] = infer({"added": ["5/5/2026", "3/4/2026"]})
    assert schema.attributes[0].day_first is True
    assert (note.reason, note.value) == ("date that can be read both ways", "3/4/2026")
    schema, notes = infer({"added": ["3/4/2026"]}, {"added": ColumnChoice(day_first=False)})
    assert (schema.attributes[0].day_first, notes) == (False, [])


def test_the_configuration_renames_types_and_skips() -> None:
    choices = parse_configuration(
        """
        [attributes.price]
        column = "Betrag"
        type = "price"
        currency = "EUR"
        decimal = ","
        [attributes.internal]
        skip = true
        [attributes.colour]
        type = "text"
        """
    ).attributes
    schema, _ = infer({"Betrag": ["12,50"], "internal": ["x"], "Colour": ["red"]}, choices)
    price, colour = schema
    assert (price.name, price.column, price.type, price.currencies, price.decimal) == (
        "price", "Betrag", AttributeType.PRICE, ("EUR",), ",",
    )  # fmt: skip
    assert (colour.name, colour.type) == ("colour", AttributeType.TEXT)


def test_the_column_that_the_configuration_names_is_the_attribute_whatever_others_are_called() -> None:
    text = "[attributes.price]\ncolumn = 'Net'\n[attributes.size]\ncolumn = 'size'\nskip = true"
    choices = parse_configuration(text).attributes
    columns = {"price": ["£1"], "Net": ["2"], "size": ["3"], "Size": ["4"]}
    schema, [note] = infer(columns, choices)
    assert [(one.name, one.column) for one in schema] == [("price", "Net"), ("size", "Size")]
    assert (note.column, note.detail) == ("price", "left out; Net is price")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[attributes", "is no TOML"),
        ("[attributes.größe]", '[attributes."größe"]'),
        (
            "[attribute.price]",
            "attribute: is not known; possible are [listings], [photos] and, for each attribute, [attributes.NAME]",
        ),
        (
            "[attributes.price]\nkind = 'price'",
            "attributes.price.kind: is not known; possible are column, type, currency",
        ),
        ("[attributes.price]\ntype = 'money'", "attributes.price.type: Input should be 'number', 'price'"),
        ("[attributes.price]\ncurrency = '€'", "attributes.price.currency: must be a code of three capital letters"),
        ("[attributes.price]\ndecimal = ';'", "attributes.price.decimal"),
        ("[attributes]\nprice = 5", "attributes.price: must be a table: [attributes.NAME]"),
        (
            "[attributes.a]\ncolumn = 'x'\n[attributes.b]\ncolumn = 'x'",
            "attributes.a and attributes.b are both the column x",
        ),
        ("[attributes.'Preis (EUR)']", "small letters, digits and underscores, such as preis_eur"),
        ("[attributes.'--']", "such as price"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_named(text: str, told: str) -> None:
    with pytest.raises(CatalogueUnusable) as found:
        parse_configuration(text)
    assert told in str(found.value)
    assert str(found.value).startswith("catalogue.toml")


KM = ["120 000 km", "5 km", "80.500 km", "n/a"]


def test_numbers_with_a_unit_are_keywords_until_the_operator_says_numbers() -> None:
    schema, [note] = infer({"Kilometerstand": KM})
    assert (schema.attributes[0].type, note.reason) == (AttributeType.KEYWORD, "numbers with a unit")
    assert note.detail.endswith("to compare the numbers before km")
    chosen = {"kilometerstand": ColumnChoice(type=AttributeType.NUMBER, decimal=",")}
    schema, notes = infer({"Kilometerstand": [*KM, "90000"]}, chosen)
    [number] = schema
    assert (number.type, number.unit, notes) == (AttributeType.NUMBER, "km", [])
    assert [parse_text(number, cell) for cell in [*KM, "90000", "7 mi"]] == [120_000, 5, 80_500, None, 90_000, None]
    # What the live index has as numbers stays so; and where keywords are meant, nothing is told.
    assert infer({"Kilometerstand": KM}, {}, schema)[0].attributes[0].unit == "km"
    assert infer({"Kilometerstand": KM}, {"kilometerstand": ColumnChoice(type=AttributeType.KEYWORD)})[1] == []


def test_a_stray_unit_among_bare_numbers_is_not_guessed_away() -> None:
    [weight] = infer({"weight_g": [*["500"] * 19, "5 kg"]})[0]
    assert (weight.type, weight.unit, parse_text(weight, "5 kg")) == (AttributeType.NUMBER, "", None)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("1.6 l", "l"), ("1005 cm\u00b3", "cm3"), ("4,5 l/100 km", "l/100 km"), ("3,5 %", "%"), ("12V", "V"),
        ("12", ""), ("65 kW (88 PS)", ""), ("ca. 5 kg", ""), ("5-10 kg", ""), ("2 x 4", "x 4"), ("5, 6", ""), ("", ""),
    ],
)  # fmt: skip
def test_the_unit_behind_a_number(text: str, unit: str) -> None:
    assert unit_of(text) == unit
