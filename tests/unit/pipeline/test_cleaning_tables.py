"""Prices, texts and odd rows: what sellers type is read as a person would, and what cannot be read is reported."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.provisional import urls

from pipeline.cleaning.tables import clean_listings, normalise_text, parse_price, topic
from shared.catalogue.rows import PRODUCTS, RowProblem
from tests.conftest import write_catalogue


@pytest.mark.parametrize(
    ("text", "price_gbp"),
    [
        ("£1,250.00", 1250.0),
        ("£115.00", 115.0),
        (" £ 7 ", 7.0),
        ("0", 0.0),
        ("1250", 1250.0),
        ("£1,234,567.89", 1234567.89),
        ("£\uff17.\uff15", 7.5),
    ],
)
def test_an_amount_in_pounds_is_a_number(text: str, price_gbp: float) -> None:
    assert parse_price(text) == price_gbp


@pytest.mark.parametrize(
    "text", ["N/A", "", "£10 - £20", "FREE", "1.250,00", "-£5", "£-5", "£1,25", "£1,2345", "5 ono", "nan", "inf", "1e3",
             "€5", "9" * 400, "£1.234"]
)  # fmt: skip
def test_what_is_not_one_amount_in_pounds_is_no_price(text: str) -> None:
    assert parse_price(text) is None


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  Two\rlines\u2028and\ta tab ", "two lines and a tab"),
        ("\uff26\uff35\uff2c\uff2c \ufb01ne \u2460", "full fine 1"),
        ("Mail foo.bar+x@example.co.uk, thanks", "mail , thanks"),
        ("See https://example.com/a?b=c#d now", "see now"),
        ("www.Example.com/shop or shop.example.co.uk", "or"),
        ("hidden fo\u200bo@exam\u00adple.com", "hidden"),
        ("foo@example\uff0e\uff43om", ""),
        ("a@b.com@c.com or @a@@b.xyz", "or"),
        ("16GB@3200MHz, 3 @ £5", "16gb@3200mhz, 3 @ £5"),
        ("Call 07700 900123 today", "call today"),
        ("+44 (0)20 7946 0958", ""),
        ("(020) 7946-0958/07700.900.123", "/"),
        ("0044 20 7946 0958", ""),
        ("200 x 90 x 5 cm, 0.5 0.75 0.25 0.50 0.1 kg", "200 x 90 x 5 cm, 0.5 0.75 0.25 0.50 0.1 kg"),
        ("From 2019 2020 2021 2022, sizes 10 12 14 16", "from 2019 2020 2021 2022, sizes 10 12 14 16"),
        ("As new.Call me", "as new.call me"),
    ],
)
def test_text_is_folded_and_ways_to_reach_the_seller_go(text: str, normalised: str) -> None:
    assert normalise_text(text) == normalised


WORDS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.emails(),
        urls(),
        st.sampled_from(["@", ".", "://", "www.", "a@b", ".com", ".xyz", "\u200b"]),
    )
)


@given(WORDS.map("".join) | WORDS.map(" ".join))
def test_no_address_survives_whatever_stands_around_it(text: str) -> None:
    normalised = normalise_text(text)
    assert not re.search(r"[\w.+-]@[a-z0-9-]+\.[a-z]{2,}|://|(^|\s)www\.", normalised)


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise_text(normalise_text(text)) == normalise_text(text)


@pytest.mark.parametrize(
    "unit", ["a", "a.", "a@", "0 ", "(0", "@.", "x@y.", "aa.bb.", "-.", "+", "w.com", "a@b.c+", "a@b.c,"]
)
def test_a_hostile_description_takes_no_longer_than_its_length(unit: str) -> None:
    normalise_text(unit * 100_000)  # quadratic, this would take minutes


def test_a_category_path_has_the_same_spaces_everywhere() -> None:
    assert topic(" Home & Garden/ Rugs /  Wool/ ") == "Home & Garden / Rugs / Wool"


HEADER = "id,product_name,category,product_description,price,location\n"


def listings_of(tmp_path: Path, products: str) -> Path:
    return write_catalogue(tmp_path / "dump", products, "id,product_id\n", {})


def test_listings_become_typed_and_every_odd_row_is_reported(tmp_path: Path) -> None:
    rows = [
        'l1,Old Kettle,Appliances/Kitchen,"Call\r07700 900123","£1,250.00",Leeds',
        "l2,Ball,Other Goods,round,N/A,Leeds",
        "l3,Pan,Appliances,,£10 - £20,Leeds",
    ]
    listings, odd = clean_listings(listings_of(tmp_path, HEADER + "\n".join(rows) + "\n"))
    assert listings["price_gbp"].fillna(-1).to_dict() == {"l1": 1250.0, "l2": -1, "l3": -1}
    assert listings.loc["l1"].drop("price_gbp").to_dict() == {
        "topic": "Appliances / Kitchen", "name": "old kettle", "description": "call", "location": "Leeds",
    }  # fmt: skip
    assert odd == [
        RowProblem("listing without price", PRODUCTS, 3, "l2", "N/A"),
        RowProblem("listing without description", PRODUCTS, 4, "l3"),
        RowProblem("price is not one amount in pounds", PRODUCTS, 4, "l3", "£10 - £20"),
    ]


def test_rows_that_the_catalogue_does_not_use_are_not_looked_at(tmp_path: Path) -> None:
    products = HEADER + "l1,Pan,Pets,x,£5,Leeds\nl1,Kettle,Appliances,x,£5,Leeds\n"
    listings, odd = clean_listings(listings_of(tmp_path, products), [3])
    assert listings["name"].to_dict() == {"l1": "kettle"}
    assert odd == []


def test_a_dump_without_the_further_columns_is_not_odd(tmp_path: Path) -> None:
    listings, odd = clean_listings(listings_of(tmp_path, "id,category\nl1,Appliances\n"))
    assert odd == []
    assert listings["price_gbp"].isna().all()
    assert listings.loc["l1", "name"] == ""
