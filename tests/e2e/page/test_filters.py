"""What the page shows of each listing, and what people do to see only some of them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.conftest import Stack, build_float32
from tests.e2e.page.conftest import Go
from tests.e2e.support.browser import Scheme, Visit
from tests.support.catalogues import GERMAN, draw_catalogue
from tests.support.once import made_once
from tests.support.places import copy_installation

COLOURS = ("rot", "blau", "grün", "gelb", "schwarz", "weiß", "grau", "braun", "lila")
N_LISTINGS = 40
CELLS: dict[str, Callable[[int], str]] = {
    "preis": lambda n: f"{1.12**n * 5:.2f} €".replace(".", ","),  # 5 to 416 €, half of them below 50 €
    "ort": lambda n: f"Dorf {n}, {('Hessen', 'Bayern')[n % 2]}",
    "farbe": lambda n: COLOURS[min(n % 12, 8)],  # the last has four times as many listings
    "versand": lambda n: ("ja", "nein")[n % 4 == 0],
    "eingestellt": lambda n: f"2026-{1 + n % 10:02}-{1 + n % 28:02}",
    "beschreibung": lambda n: (
        f"<img src=x onerror=alert({n})> Nummer {n}, gut erhalten, ohne Kratzer " + "und mehr " * 40
    ),
}
FIRST = "L000-00-0"


def cells(position: int, n: int) -> dict[str, str]:
    """What stands in the further columns of a listing; each category has eight."""
    return {column: cell(8 * position + n) for column, cell in CELLS.items()}


def build(home: Path) -> None:
    home.mkdir()
    catalogue = draw_catalogue(home / "dump", GERMAN, columns=("id", "titel", "category", *CELLS), further=cells)
    build_float32(home, catalogue)


def build_bare(home: Path) -> None:
    home.mkdir()
    catalogue = draw_catalogue(home / "dump", GERMAN[:3], columns=("id", "category"))
    build_float32(home, catalogue)


def start(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Stack:
    directory = factory.mktemp(name)
    copy_installation(made_once(factory, name, make), directory / "home")
    stack = Stack(directory / "home", directory / "valkey", directory / "log")
    for part in ("worker", "api"):
        stack.start(part, catalogue=stack.home / "dump", probe_every_s=0)
    stack.wait_ready()
    return stack


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose listings have a title, a price, a place, a colour, a day and a text, and are sent or not."""
    stack = start(tmp_path_factory, "attributed", build)
    yield stack
    stack.close()


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose listings have nothing but an id and a category."""
    stack = start(tmp_path_factory, "bare", build_bare)
    yield stack
    stack.close()


def address(*conditions: object, image: str = FIRST) -> str:
    """Of a search from a photo of the index, by conditions that all must hold."""
    return f"#/search?image={image}&filter={quote(json.dumps({'must': conditions}))}"


def filter_of(page: Page) -> dict[str, Any]:
    """The filter in the page's address."""
    [text] = parse_qs(page.url.partition("?")[2]).get("filter", ["{}"])
    found: dict[str, Any] = json.loads(text)
    return found


def group(page: Page, legend: str) -> Locator:
    return page.get_by_role("group", name=legend)


def entered(field: Locator, text: str) -> Callable[[], None]:
    """The act of writing something into a field."""

    def enter() -> None:
        field.fill(text)
        field.press("Enter")

    return enter


def searched(page: Page, act: Callable[[], object]) -> dict[str, Any]:
    """The result of the search that an act brings about, once it is shown."""
    with page.expect_response(lambda answer: answer.url.endswith("/v1/jobs/search") and answer.ok) as answer:
        act()
    found: dict[str, Any] = answer.value.json()["result"]
    expect(page.locator("#grid")).not_to_have_attribute("aria-busy", "true")
    return found


def counts_in(page: Page, legend: str) -> dict[str, str]:
    """Value and figure of the ticks that are seen."""
    ticks = group(page, legend).locator(".tick:visible").all()
    return {tick.locator("span").first.inner_text(): tick.locator(".figure").inner_text() for tick in ticks}


# --- results ---


def test_a_result_shows_title_price_and_place_and_everything_else_as_text_when_asked(go: Go) -> None:
    visit = go(f"#/search?image={FIRST}")
    page = visit.page
    visit.found()
    first = page.locator("#grid .result").first
    for told in ("titel 0", "€5", "Dorf 0, Hessen", "Boote"):
        expect(first).to_contain_text(told)
    expect(first).not_to_contain_text("Nummer 0")
    details = first.get_by_role("button", name="Details of titel 0")
    details.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("titel 0")
    for told in ("Farbe", "rot", "Versand", "no", "1 Jan 2026", "<img src=x onerror=alert(0)> Nummer 0", FIRST):
        expect(dialog).to_contain_text(told)
    expect(dialog.locator("img")).to_have_count(0)
    assert visit.violations() == []
    visit.keep("details")
    page.keyboard.press("Escape")
    expect(details).to_be_focused()


def test_a_catalogue_without_attributes_has_only_the_category_picker(bare: Stack, browser: Browser) -> None:
    visit = Visit(browser, bare.url)
    page = visit.open(f"#/search?image={FIRST}")
    visit.found()
    first = page.locator("#grid .result").first
    expect(first.locator("strong")).to_have_text("Boote")
    expect(first).to_contain_text("Listing L000-00")
    expect(page.get_by_role("button", name="Details")).to_have_count(0)
    expect(page.get_by_label("In words")).to_be_hidden()
    expect(page.locator("#filters").get_by_role("group")).to_have_count(0)
    found = searched(page, lambda: page.get_by_label("Only in").select_option("Fahrräder"))
    assert {one["category"] for one in found["neighbours"]} == {"Fahrräder"}
    expect(page.locator("#in-force")).to_contain_text("1 filter in force: Category")
    assert visit.complaints == []
    visit.close()


# --- the panel ---


def test_ticks_narrow_the_search_and_count_the_listings_that_match(go: Go) -> None:
    visit = go(f"#/search?image={FIRST}&k=100")
    page = visit.page
    assert len(visit.found()) == 2 * N_LISTINGS
    assert list(counts_in(page, "Farbe").items())[:2] == [("lila", "12"), ("rot", "4")]
    assert counts_in(page, "Versand") == {"yes": "30", "no": "10"}
    searched(page, lambda: group(page, "Farbe").get_by_label("lila").check())
    found = searched(page, lambda: group(page, "Farbe").get_by_label("rot").check())
    assert {one["attributes"]["farbe"] for one in found["neighbours"]} == {"lila", "rot"}
    assert filter_of(page) == {"must": [{"key": "farbe", "match": {"any": ["lila", "rot"]}}]}
    shown = counts_in(page, "Farbe")
    assert (shown["lila"], shown["rot"], shown["blau"]) == ("12", "4", "")  # how many blue ones, this search cannot say
    n_sent = sum(n % 4 != 0 for n in range(N_LISTINGS) if CELLS["farbe"](n) in ("lila", "rot"))
    assert counts_in(page, "Versand")["yes"] == str(n_sent)
    expect(page.get_by_label("Only in").locator("option").nth(1)).to_have_attribute(
        "label", re.compile(r"Boote \(\d\)")
    )
    found = searched(page, lambda: group(page, "Versand").get_by_label("no").check())
    assert {one["attributes"]["versand"] for one in found["neighbours"]} == {False}
    expect(page.locator("#in-force")).to_contain_text("2 filters in force: Farbe, Versand")
    expect(page.locator("#spoken")).to_contain_text("2 filters in force")


def test_the_rest_of_the_values_is_a_button_away(go: Go) -> None:
    page = go(f"#/search?image={FIRST}").page
    expect(group(page, "Farbe").locator(".tick:visible")).to_have_count(6)
    group(page, "Farbe").get_by_role("button", name="3 more").press("Enter")
    expect(group(page, "Farbe").locator(".tick:visible")).to_have_count(9)
    expect(group(page, "Farbe").locator("input").nth(6)).to_be_focused()


def test_a_price_is_chosen_by_slider_or_figures_and_stays_in_the_address(go: Go) -> None:
    visit = go(f"#/search?image={FIRST}&k=100")
    page = visit.page
    visit.found()
    highest = page.get_by_label("Preis, highest")
    found = searched(page, lambda: highest.press("PageDown"))
    most = filter_of(page)["must"][0]["range"]["lte"]
    amounts = [one["attributes"]["preis"]["amount"] for one in found["neighbours"]]
    assert max(amounts) <= most < 415
    assert len(amounts) == pytest.approx(0.9 * 2 * N_LISTINGS, abs=4)  # a tenth of the way is a tenth of the listings
    expect(highest).to_have_attribute("aria-valuetext", f"€{most:g}")
    expect(group(page, "Preis").get_by_label("To")).to_have_value(f"{most:g}")
    found = searched(page, entered(group(page, "Preis").get_by_label("From"), "50.5"))
    assert min(one["attributes"]["preis"]["amount"] for one in found["neighbours"]) >= 50.5
    assert filter_of(page)["must"] == [{"key": "preis", "range": {"gte": 50.5, "lte": most}}]
    n_found = len(visit.found())
    page.reload()
    assert len(visit.found()) == n_found
    expect(group(page, "Preis").get_by_label("From")).to_have_value("50.5")
    lowest = page.get_by_label("Preis, lowest")
    searched(page, lambda: lowest.press("End"))  # it goes as far as the other one
    assert lowest.input_value() == highest.input_value()
    searched(page, lambda: lowest.press("Home"))
    searched(page, lambda: highest.press("End"))
    expect(page.locator("#in-force")).to_be_hidden()


WALK = """async ([type, quantiles]) => {
    const page = document.querySelector("script[type=module]").src;
    const { scaleOf } = await import(page.replace("main.js", "filters/scale.js"));
    const { last, valueAt, positionOf } = scaleOf({ type, quantiles });
    return Array.from({ length: last + 1 }, (_, position) => [valueAt(position), positionOf(valueAt(position))]);
}"""


@pytest.mark.parametrize(
    ("kind", "quantiles", "step"),
    [
        ("price", [0, 2, 5, 5, 10, 10, 20, 45.5, 99, 863.5, 30_000], 0.01),
        ("number", [1990, 1998, 2001, 2004, 2005, 2005, 2006, 2007.5, 2008, 2009, 2010], 1),
        ("number", [n * 1e-4 + 3e-5 for n in range(21)], None),
        ("number", [-5.5, -5.5, -5.5, -0.25, 1e9 + 0.5], None),
        ("time", [86_400 * n * n + 3_600 for n in range(21)], None),
    ],
)
def test_a_slider_passes_through_every_range_in_order_and_by_round_values(
    go: Go, kind: str, quantiles: list[float], step: float | None
) -> None:
    walked = go().page.evaluate(WALK, [kind, quantiles])
    values = [value for value, _ in walked]
    assert (values[0], values[-1]) == (quantiles[0], quantiles[-1])
    assert values == sorted(values)
    for share, quantile in enumerate(quantiles):  # rounded by no more than half of a step
        room = (quantiles[min(share + 1, len(quantiles) - 1)] - quantiles[max(share - 1, 0)]) / 10
        assert abs(values[5 * share] - quantile) <= max(room, step or 0, 43_200 if kind == "time" else 0)
    assert [values[position] for _, position in walked] == values
    if step:
        assert all(
            round(value / step) * step == pytest.approx(value) for value in values[1:-1] if value not in quantiles
        )


def test_a_price_in_several_currencies_is_chosen_in_one(go: Go, served: Stack) -> None:
    now = requests.get(f"{served.url}/v1/index", timeout=10).json()
    for attribute in now["attributes"]:
        attribute["currencies"] = ["EUR", "GBP"] if attribute["type"] == "price" else []
    visit = go()
    page = visit.page
    page.route("**/v1/index", lambda route: route.fulfill(json=now))
    page.goto(f"{visit.url}/#/search?image={FIRST}")
    visit.found()
    expect(page.get_by_label("Currency of Preis")).to_have_value("EUR")
    searched(page, entered(group(page, "Preis").get_by_label("To"), "20"))
    assert filter_of(page)["must"] == [{"key": "preis", "range": {"lte": 20, "currency": "EUR"}}]
    page.get_by_label("Currency of Preis").select_option("GBP")
    expect(page.get_by_role("alert")).to_contain_text("preis is in EUR, not in")  # as this catalogue has no pounds


def test_days_are_chosen_as_dates_and_include_the_last(go: Go) -> None:
    days = {n: CELLS["eingestellt"](n) for n in range(N_LISTINGS)}
    last = sorted(days.values())[N_LISTINGS // 2]
    visit = go(address({"key": "eingestellt", "range": {"gte": "2026-02-01"}}) + "&k=100")
    page = visit.page
    visit.found()
    expect(group(page, "Eingestellt").get_by_label("From")).to_have_value("2026-02-01")
    found = searched(page, lambda: group(page, "Eingestellt").get_by_label("To").fill(last))
    shown = {one["attributes"]["eingestellt"] for one in found["neighbours"]}
    assert shown == {day for day in days.values() if "2026-02-01" <= day <= last}
    assert last in shown


def test_a_place_is_typed_whole_or_in_part_and_taken_back(go: Go) -> None:
    visit = go(f"#/search?image={FIRST}&k=100")
    page = visit.page
    visit.found()
    field = page.get_by_label("Add to Ort")
    assert field.get_attribute("list")
    found = searched(page, entered(field, "bayern"))
    assert {one["attributes"]["ort"].partition(", ")[2] for one in found["neighbours"]} == {"Bayern"}
    found = searched(page, entered(field, "dorf 2, HESSEN"))
    assert filter_of(page)["must"] == [{"key": "ort", "match": {"any": ["bayern", "Dorf 2, Hessen"]}}]
    found = searched(page, lambda: page.get_by_role("button", name="Remove bayern").click())
    assert {one["attributes"]["ort"] for one in found["neighbours"]} == {"Dorf 2, Hessen"}
    expect(field).to_be_focused()


def test_filters_are_cleared_all_at_once_also_those_without_a_control(go: Go) -> None:
    odd = {"is_empty": {"key": "titel"}}
    visit = go(address({"key": "farbe", "match": {"any": ["rot"]}}, odd) + "&category=Boote&k=5")
    page = visit.page
    expect(page.locator("#grid")).to_contain_text("No photo meets the filters")
    expect(page.locator("#in-force")).to_contain_text("3 filters in force: Category, Farbe, another condition")
    expect(group(page, "Farbe").get_by_label("rot")).to_be_checked()
    found = searched(page, lambda: page.get_by_role("button", name="Clear filters").click())
    assert len(found["neighbours"]) == 5
    assert page.url.endswith(f"#/search?image={FIRST}&k=5")
    expect(group(page, "Farbe").get_by_label("rot")).not_to_be_checked()
    expect(page.locator("#results-title")).to_be_focused()
    expect(page.locator("#in-force")).to_be_hidden()


# --- what is wrong ---


@pytest.mark.parametrize(
    "condition", [{"key": "laenge", "range": {"gte": 3}}, {"key": "farbe", "range": {"gte": 3}}, {"farbe": "rot"}, 7]
)
def test_a_filter_that_the_index_does_not_know_is_told_and_can_be_cleared(go: Go, condition: object) -> None:
    visit = go(address(condition))
    page = visit.page
    expect(page.get_by_role("alert")).to_contain_text("The service cannot take that")
    expect(page.get_by_role("alert")).to_contain_text("filter.must.0", ignore_case=True)
    page.get_by_role("button", name="Clear filters").click()
    assert visit.found()[0] == FIRST
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "7", '"x"'])
def test_what_is_no_filter_at_all_says_nothing(go: Go, text: str) -> None:
    visit = go(f"#/search?image={FIRST}&filter={quote(text)}")
    assert visit.found()[0] == FIRST
    expect(visit.page.locator("#in-force")).to_be_hidden()


def test_a_page_that_is_older_than_the_index_finds_out_and_searches_again(go: Go, served: Stack) -> None:
    now = requests.get(f"{served.url}/v1/index", timeout=10).json()
    size = {
        "name": "groesse",
        "type": "keyword",
        "n_listings": 3,
        "n_values": 1,
        "values": [{"value": "L", "count": 3}],
    }
    before = {
        **now,
        "version": "before",
        "attributes": [*now["attributes"], {**size, "quantiles": [], "currencies": []}],
    }
    visit = go()
    page = visit.page
    page.route("**/v1/index", lambda route: route.fulfill(json=before), times=1)
    page.goto(f"{visit.url}/#/search?image={FIRST}")
    assert visit.found()[0] == FIRST
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(group(page, "Farbe")).to_be_visible()
    expect(group(page, "Groesse")).to_have_count(0)


def test_a_page_that_could_not_learn_what_the_index_has_learns_it_with_the_answer(go: Go) -> None:
    visit = go()
    page = visit.page
    page.route("**/v1/index", lambda route: route.fulfill(status=503, json={"code": "index_missing"}), times=1)
    page.goto(f"{visit.url}/#/search?image={FIRST}")
    assert visit.found()[0] == FIRST
    expect(page.locator("#grid .result").first).to_contain_text("€5")
    expect(group(page, "Farbe")).to_be_visible()


# --- for everybody ---


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_panel_fits_and_axe_finds_nothing_wrong_with_it(go: Go, scheme: Scheme, width: int) -> None:
    visit = go(address({"key": "ort", "match": {"any": ["Hessen"]}}), scheme=scheme, width=width)
    page = visit.page
    visit.found()
    if width == 320:
        page.locator("#filters summary").click()
    expect(group(page, "Farbe")).to_be_visible()
    assert visit.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    visit.keep(f"filters-{width}-{scheme}", whole=True)
