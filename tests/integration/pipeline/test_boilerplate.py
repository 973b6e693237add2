"""Rules are learned from a site's texts in several languages, and remove its words from rows and queries alike."""

import random
from collections.abc import Callable, Sequence

import pytest

from pipeline.training.words.boilerplate import LearnedRules, ListingText, learn_rules
from shared.text.cleaning import TextRules

PLACES = ["Whitby, Yorkshire", "St Ives, Cornwall", "Stow-on-the-Wold, Gloucestershire", "Rye, Sussex", "Leek, Staffs"]
PATHS = ["Home & Garden / Chairs / Armchairs", "Music, Films & Books / Books", "Sport / Bicycles", "Sofa"]
THINGS = ["red armchair", "cook book", "racing bicycle", "corner sofa"]
STATES = [
    "like new",
    "in good condition",
    "hardly used",
    "a bit worn",
    "as found in the loft",
    "needs a clean",
    "boxed",
]
DATES = ["3 May 2021", "12 June 2022", "30 April 2022"]


def listings(
    n: int,
    title: Callable[[random.Random, str, str, str], str],
    description: Callable[[random.Random, str, str, str], str] | None = None,
    *,
    things: Sequence[str] = THINGS,
    paths: Sequence[str] = PATHS,
    places: Sequence[str] = PLACES,
) -> list[ListingText]:
    """Listings whose texts are written from what they are, their path and their place."""
    drawn = random.Random(5)
    found = []
    for _ in range(n):
        kind, place = drawn.randrange(len(things)), drawn.choice(places)
        said = (f"{things[kind]} no {drawn.randrange(1000)}", paths[kind], place)
        texts = {"title": title(drawn, *said)}
        if description:
            texts["description"] = description(drawn, *said)
        found.append(ListingText(texts, {"location": place}, paths[kind], kind))
    return found


def seller(drawn: random.Random, thing: str, path: str, place: str) -> str:
    """Plain words that now and then say place and category."""
    town = place.partition(",")[0]
    fetched = drawn.choice(["Collection in", "Pick up from", "I live in", "Can be seen near"])
    ending = drawn.choice(["", f". {fetched} {town}", f". A {path.rsplit(maxsplit=1)[-1]}", f", from {town}"])
    return f"{thing}, {drawn.choice(STATES)}, bought {drawn.randrange(1990, 2020)}{ending}"


def english(n: int = 400) -> list[ListingText]:
    """A site that writes place, path and its name; every tenth row has no column for the place."""

    def description(drawn: random.Random, thing: str, path: str, place: str) -> str:
        said = seller(drawn, thing, path, place)
        levels = ", ".join(path.split(" / ")[-2:])
        framed = f". Posted in {levels} in {place.partition(',')[0]}. {drawn.choice(DATES)}"
        return said + framed if drawn.random() < 0.1 else said

    found = listings(n, lambda _, thing, __, place: f"{thing} | in {place} | Attic & Co", description)
    return [ListingText(one.texts, {"location": ""}, one.path, one.category) if at % 10 == 0 else one
            for at, one in enumerate(found)]  # fmt: skip


@pytest.fixture(scope="module")
def learned() -> LearnedRules:
    return learn_rules(english())


def test_frames_go_from_all_rows_and_the_sellers_words_stay(learned: LearnedRules) -> None:
    for one in english():
        title = one.texts["title"].partition(" | ")[0]
        description = one.texts["description"].partition(". Posted in ")[0]
        assert learned.rules.clean(one.texts["title"]) == title
        assert learned.rules.clean(one.texts["description"]) == description
    assert any("Collection in Whitby" in learned.rules.clean(one.texts["description"]) for one in english())


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("blue chair | in Ely, Cambridgeshire | Attic & Co", "blue chair"),
        ("blue chair | Attic & Co", "blue chair"),
        ("blue chair\nsoft. Posted in Tables, Side Tables in Ely. 1 July 2023", "blue chair\nsoft"),
        ("sofa", "sofa"),
        ("corner sofa in Whitby", "corner sofa in Whitby"),
        ("Posted sleeved. Posted to you tomorrow", "Posted sleeved. Posted to you tomorrow"),
        ("tin of biscuits in good condition", "tin of biscuits in good condition"),
        ("Attic & Co", ""),
    ],
)
def test_rules_clean_queries_of_which_no_column_is_known(learned: LearnedRules, query: str, left: str) -> None:
    assert learned.rules.clean(query) == left


def test_each_rule_is_reported_with_rows_and_a_shape_without_values(learned: LearnedRules) -> None:
    shapes = {one.shape: one.n_listings for one in learned.found if one.kind == "frame"}
    assert shapes["| in {location} | attic & co"] == 400
    (posted,) = (shape for shape in shapes if shape.startswith(". posted in {category}"))
    assert posted.endswith("# … #")
    assert "400" in learned.summary


def test_the_leak_is_measured_on_listings_that_were_not_fitted() -> None:
    """Each category's listings are of one place, as if collected so: the place alone tells it."""
    places = dict(zip(PATHS, PLACES, strict=False))
    found = listings(300, lambda _, thing, path, __: f"{thing} | in {places[path]} | Attic")
    found = [ListingText(one.texts, {"location": places[one.path]}, one.path, one.category) for one in found]
    leak = learn_rules(found).leak
    assert leak is not None
    assert leak.n_listings == 60
    assert leak.accuracy > 0.95
    assert leak.majority < 0.5


def test_learning_gives_the_same_again_and_survives_json(learned: LearnedRules) -> None:
    assert learn_rules(english()) == learned
    assert TextRules.model_validate_json(learned.rules.model_dump_json()) == learned.rules


@pytest.mark.parametrize("n", [0, 1, 30, 400])
def test_plain_words_teach_nothing(n: int) -> None:
    found = listings(n, lambda drawn, thing, *_: f"{thing} - {drawn.choice(STATES)} {drawn.random()}", seller)
    assert learn_rules(found).rules == TextRules()


def test_a_category_that_many_rows_name_is_no_boilerplate() -> None:
    def title(drawn: random.Random, thing: str, path: str, _: str) -> str:
        return f"{thing} - {path.rpartition(' / ')[2]}" if drawn.random() < 0.4 else thing

    learned = learn_rules(listings(400, title))
    assert learned.rules == TextRules()
    assert learned.rules.clean("Ikea corner - Sofa") == "Ikea corner - Sofa"


@pytest.mark.parametrize(
    "form",
    [
        "{thing} ({name})",
        "[{name}] {thing}",
        "{thing} | {name}",
        "{thing} | {name} | Some Site",
        "{thing} - {name}",
        "{thing} \u2013 {name}",
        "{thing}: {name}",
        "{name} - {thing}",
        "{thing} - Buy {name} Online",
        "Start > {path} > {thing}",
    ],
)
def test_names_and_paths_of_categories_that_a_site_puts_around_titles_are_removed(form: str) -> None:
    def title(thing: str, path: str) -> str:
        return form.format(thing=thing, path=path.replace(" / ", " > "), name=path.rpartition(" / ")[2])

    def drawn_title(drawn: random.Random, thing: str, path: str, _: str) -> str:
        return title(f"{thing} {''.join(drawn.choices('abcdefgh', k=5))}", path)

    rules = learn_rules(listings(400, drawn_title)).rules
    assert rules.clean(title("green armchair", PATHS[0])) == "green armchair"
    assert rules.clean("green armchair (velvet) | tall") == "green armchair (velvet) | tall"


def test_a_phrase_of_some_categories_only_stays_and_is_told() -> None:
    found = listings(400, lambda drawn, thing, *_: f"{thing} {drawn.random()}" + " - e-bike" * ("bicycle" in thing))
    learned = learn_rules(found)
    assert learned.rules == TextRules()
    assert learned.kept == ("e-bike",)


def test_paths_behind_a_mark_are_removed_where_they_were_seen() -> None:
    found = listings(400, lambda _, thing, path, __: f"{thing} | {path.replace(' / ', ' > ')}")
    rules = learn_rules(found).rules
    assert rules.clean("green armchair | Home & Garden > Chairs > Armchairs") == "green armchair"
    assert rules.clean("green armchair | velvet") == "green armchair | velvet"


def test_a_frame_at_the_beginning_ends_at_its_line() -> None:
    found = listings(
        400,
        lambda _, thing, *__: thing,
        lambda drawn, thing, path, place: f"Location: {place}\n{seller(drawn, thing, path, place)}",
    )
    rules = learn_rules(found).rules
    assert rules.clean("Location: Ely, Cambs\nblue chair, 40 cm") == "blue chair, 40 cm"
    assert rules.clean("blue chair, location: north") == "blue chair, location: north"


def test_german_frames_and_endings_behind_one_another() -> None:
    things, paths = ["roter Sessel", "Kochbuch", "Rennrad"], ["Haus & Garten > Sessel", "Bücher", "Fahrräder"]
    places = ["01067 Dresden", "80331 München", "50667 Köln - Südstadt"]
    found = listings(
        200,
        lambda drawn, thing, path, place: f"{thing} {drawn.choice(['blau', 'alt', 'neu'])} in {place} - Markthalle.de",
        lambda drawn, thing, *_: f"{thing} {drawn.random()} gut erhalten. Privatverkauf, keine Garantie. Viele Grüße!",
        things=things,
        paths=paths,
        places=places,
    )
    rules = learn_rules(found).rules
    assert rules.clean("Stuhl aus Eiche. Privatverkauf, keine Garantie. Viele Grüße!") == "Stuhl aus Eiche"
    assert rules.clean("Stuhl aus Eiche in 39104 Magdeburg - Markthalle.de") == "Stuhl aus Eiche"
    assert rules.clean("Stuhl 90 cm") == "Stuhl 90 cm"


@pytest.mark.parametrize(
    ("things", "paths", "places", "frame", "query", "left"),
    [
        (
            ["красное кресло", "поваренная книга", "гоночный велосипед"],
            ["Дом / Кресла", "Книги", "Велосипеды"],
            ["Тверь", "Псков", "Нижний Новгород"],
            "{thing} | Объявление в городе {place} | Чердак",
            "синий стул | Объявление в городе Омск | Чердак",
            "синий стул",
        ),
        (
            ["赤い椅子", "料理の本", "自転車"],
            ["家具 / 椅子", "本", "自転車"],
            ["東京都", "大阪市", "札幌市"],
            "{thing}【地域:{place}】屋根裏",
            "青い机【地域:福岡市】屋根裏",
            "青い机",
        ),
    ],
)
def test_frames_are_learned_in_other_scripts(
    things: list[str], paths: list[str], places: list[str], frame: str, query: str, left: str
) -> None:
    found = listings(
        120,
        lambda _, thing, __, place: frame.format(thing=thing, place=place),
        things=things,
        paths=paths,
        places=places,
    )
    rules = learn_rules(found).rules
    assert rules.clean(query) == left
    assert all(rules.clean(one.texts["title"]).startswith(things[one.category]) for one in found)


def test_a_large_catalogue_is_sampled() -> None:
    """10,000 of 100,000 rows are read, spread over all: of those with the ending, the later two fifths, a tenth."""
    titles = (f"stool no {number}{' | Attic' * (number >= 60_000)}" for number in range(100_000))
    learned = learn_rules([ListingText({"title": title}, {}, "Chairs", 0) for title in titles])
    assert learned.rules.endings == ("attic",)
    assert {one.shape: one.n_listings for one in learned.found} == {"attic": 4_000}
