"""What the page shows of each listing, and what people do to see only some of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.conftest import Stack, lookalike
from tests.e2e.page.conftest import Go
from tests.e2e.support.browser import Visit
from tests.support.catalogues import GERMAN, draw_catalogue
from tests.support.once import made_once
from tests.support.places import copy_installation

COLOURS = ("rot", "blau", "grün", "gelb", "schwarz", "weiß", "grau", "braun", "lila")
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


def build(home: Path) -> None:
    home.mkdir()
    catalogue = draw_catalogue(home / "dump", GERMAN, cells=CELLS)
    built = lookalike("index", "build", "--catalogue", str(catalogue), home=home, precision="float32")
    assert built.returncode == 0, built.stderr


def build_bare(home: Path) -> None:
    home.mkdir()
    catalogue = draw_catalogue(home / "dump", GERMAN[:3], columns=("id", "category"))
    built = lookalike("index", "build", "--catalogue", str(catalogue), home=home, precision="float32")
    assert built.returncode == 0, built.stderr


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
    for told in ("Farbe", "rot", "Versand", "no", "1 Jan 2026", "<img src=x onerror=alert(0)> Nummer 0", FIRST):
        expect(dialog).to_contain_text(told)
    expect(dialog.locator("img")).to_have_count(0)
    assert visit.violations() == []
    visit.keep("details")
    page.keyboard.press("Escape")
    expect(details).to_be_focused()


def test_a_catalogue_without_attributes_shows_category_and_listing(bare: Stack, browser: Browser) -> None:
    visit = Visit(browser, bare.url)
    page = visit.open(f"#/search?image={FIRST}")
    visit.found()
    first = page.locator("#grid .result").first
    expect(first.locator("strong")).to_have_text("Boote")
    expect(first).to_contain_text("Listing L000-00")
    expect(page.get_by_role("button", name="Details")).to_have_count(0)
    assert visit.complaints == []
    visit.close()
