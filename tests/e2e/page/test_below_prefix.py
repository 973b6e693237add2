"""The page at a path of a site: everything it loads and asks is below that path."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.support.browser import Visit
from tests.e2e.support.fleet import Fleet

PREFIX = "/shop/lookalike"


@pytest.fixture
def below(browser: Browser, home: Path, catalogue: Path, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet.over_copies(home, catalogue, tmp_path, probe_every_s=0, url_prefix=PREFIX)
    fleet.start("api")
    fleet.start("counting")
    fleet.wait_ready()
    yield fleet
    fleet.close()


def test_the_page_works_below_a_path(below: Fleet, browser: Browser, photos: list[Path]) -> None:
    visit = Visit(browser, below.url + PREFIX)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    page = visit.open()
    visit.search_from(photos[0])
    assert visit.found()[0] == photos[0].stem
    for part, awaited in (("Index", "#versions li"), ("Jobs", "#list li")):
        page.get_by_role("navigation").get_by_role("link", name=part).click()
        expect(page.locator(awaited).first).to_be_visible()
    page.get_by_role("link", name="API", exact=True).click()
    expect(page.get_by_text("/v1/jobs/search").first).to_be_visible()
    ours = [url for url in asked if url.startswith("http")]
    assert len(ours) > 20
    assert [url for url in ours if not url.startswith(below.url + PREFIX)] == []
    assert visit.complaints == []
    visit.close()
