"""Numbers and prices are read in the forms in which people write them, and what is none is refused."""

import pytest

from shared.attributes.numbers import decimal_of, parse_amount, parse_number

POINT = {
    "12": 12, "12.5": 12.5, "-5": -5, "\u22125": -5, "+5": 5, "007": 7, "1,250": 1250, "1,250.50": 1250.5,
    "1,250,000": 1_250_000, "1'250.50": 1250.5, "1\u2019250": 1250, "1 250": 1250, "1\u00a0250": 1250,
    "1\u202f250.5": 1250.5, "\uff11\uff12": 12, "1.250": 1.25, "1e3": 1000, "1.5E-3": 0.0015, "0.5": 0.5,
    "\u0661\u066c\u0662\u0665\u0660": 1250, "\u0663\u066b\u0665": 3.5, "\u06f1\u06f2": 12, "\u0967\u0968": 12,
}  # fmt: skip
COMMA = {"12,5": 12.5, "0,5": 0.5, "1.250": 1250, "1.250,50": 1250.5, "1 250,50": 1250.5, "1'250,5": 1250.5}
NEITHER = [
    *("", "x", "1,2,3", "1.2.3", "1..2", "1,2,345", "1.25.000", "12.", ".5", "5 cm", "10-20", "--5", "1/2", "1 2"),
    *("1e999", "12,345.6.7", "\u0663\u2153", "0x10", "inf", "nan", 31 * "9"),
]
PRICES = {
    "£1,250.00": (1250, "GBP"), "€20": (20, "EUR"), "20€": (20, "EUR"), "20 Euro": (20, "EUR"), "EUR 20": (20, "EUR"),
    "eur 20": (20, "EUR"), "$5": (5, "USD"), "US$ 5": (5, "USD"), "5 USD": (5, "USD"), "Fr. 20.\u2013": (20, "CHF"),
    "CHF 20.-": (20, "CHF"), "1 250 zł": (1250, "PLN"), "500 Kč": (500, "CZK"), "1 234 567 Ft": (1_234_567, "HUF"),
    "Rs. 500": (500, "INR"), "20 kr": (20, ""), "5 000 kr.": (5000, ""), "NOK 5": (5, "NOK"), "20,-": (20, ""),
    "20,\u2013 €": (20, "EUR"), "-£5": (-5, "GBP"), "£-5": (-5, "GBP"), "- 5 €": (-5, "EUR"), "20": (20, ""),
    "20 € VB": (20, "EUR"), "VB 20 €": (20, "EUR"), "£20 ono": (20, "GBP"), "₹1,25,000": (125_000, "INR"),
    "1,23,45,678": (12_345_678, ""), "Rs 500/-": (500, "INR"), "20:-": (20, ""), "5 лв": (5, "BGN"),
    "1,200円": (1200, "JPY"), "NT$20": (20, "TWD"), "5 руб.": (5, "RUB"),  # noqa: RUF001
    "1,250 TL": (1250, "TRY"), "5 tl": (5, "TRY"), "\u200f\u0661\u066c\u0662\u0665\u0660 ر.س.\u200f": (1250, "SAR"),
    "1&nbsp;250&nbsp;&euro;": (1250, "EUR"), "&pound;5": (5, "GBP"), "1e12": (1e12, ""), "1.5E+3": (1500, ""),
}  # fmt: skip
NO_PRICES = [
    "",
    "£",
    "free",
    "£10 - £20",
    "10-20",
    "ab 20 €",
    "VB",
    "VBX 20",
    "£5 each",
    "1e999",
    "£1e3",
    "xyz 5",
    "12 cm",
    "5 %",
    "₹1,25,00",
]


@pytest.mark.parametrize(("text", "number"), POINT.items())
def test_a_number_with_a_decimal_point(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(("text", "number"), COMMA.items())
def test_a_number_with_a_decimal_comma(text: str, number: float) -> None:
    assert parse_number(text, ",") == number


@pytest.mark.parametrize("text", NEITHER)
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None
    assert parse_number(text, ",") is None or text == "12,345.6.7"


@pytest.mark.parametrize(("text", "price"), PRICES.items())
def test_a_price_and_its_currency(text: str, price: tuple[float, str]) -> None:
    found = parse_amount(text)
    assert found is not None
    assert (found.number, found.currency) == price


@pytest.mark.parametrize("text", NO_PRICES)
def test_what_is_no_price(text: str) -> None:
    assert parse_amount(text) is None
    assert parse_amount(text, ",") is None


@pytest.mark.parametrize("decimal", [".", ","])
def test_a_dash_for_no_fraction_says_what_groups_thousands(decimal: str) -> None:
    for text in ("12.900,- €", "12,900.- €", "12.900.- €", "12,900,- €", "12'900.- €"):
        assert parse_amount(text, decimal) == (12_900, "EUR", True), text


def test_a_price_with_a_decimal_comma() -> None:
    found = parse_amount("1.250,50 €", ",")
    assert found is not None
    assert (found.number, found.currency, found.mark) == (1250.5, "EUR", True)
    assert parse_amount("1.250,- €", ",") == (1250, "EUR", True)


@pytest.mark.parametrize(
    ("texts", "decimal", "both_ways"),
    [
        ([], ".", ""),
        (["x", "7"], ".", ""),
        (["12,5 €"], ",", ""),
        (["1.250", "12,5"], ",", ""),
        (["1,250", "3.5"], ".", ""),
        (["0.125"], ".", ""),
        (["1.250.000"], ",", ""),
        (["1,250.50", "2.500"], ".", ""),
        (["3", "€ 1.250", "2.000"], ".", "€ 1.250"),
    ],
)
def test_a_column_tells_its_decimal_mark_or_an_example_that_does_not(
    texts: list[str], decimal: str, both_ways: str
) -> None:
    assert decimal_of(texts) == (decimal, both_ways)
