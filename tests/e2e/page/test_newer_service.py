"""The page beside a service that is newer than it: what it does not know it shows as text."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, Route, expect

from tests.e2e.page.conftest import Go
from tests.e2e.support.fleet import Fleet

SEARCHES = re.compile("/v1/jobs/(search|[0-9a-f]{32})$")
ENDED = "2026-01-01T00:00:00Z"


def altered(page: Page, url: str | re.Pattern[str], alter: Callable[[Any], None]) -> None:
    """Have answers from some addresses changed on their way to the page."""

    def change(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        alter(told)
        route.fulfill(response=answer, json=told)

    page.route(url, change)


def found_duplicates(served: Fleet) -> str:
    """The path of a search for duplicates that has ended, the newest one."""
    done = requests.post(f"{served.url}/v1/jobs/duplicates", json={}, headers={"Prefer": "wait=30"}, timeout=40).json()
    assert done["status"] == "succeeded"
    return f"**/v1/jobs/{done['id']}"


def test_a_label_of_duplicates_that_it_does_not_know_is_shown(go: Go, served: Fleet, photos: list[Path]) -> None:
    page = go().page
    images = [{"image_id": photo.stem, "listing_id": str(n)} for n, photo in enumerate(photos[:2])]
    group = {"label": "same_room", "n_images": 2, "images": images, "pairs": [{"score": 0.9, "mirrored": False}]}

    def with_group(job: Any) -> None:
        job["result"] |= {"groups": [group], "n_groups": 1}

    altered(page, found_duplicates(served), with_group)
    page.goto(f"{served.url}/#/duplicates")
    expect(page.locator("#groups > li .badge")).to_have_text("same_room")
    expect(page.locator("#groups > li")).to_contain_text("2 photos of 2 listings")


def test_an_end_that_it_does_not_know_is_an_end(go: Go, served: Fleet) -> None:
    page = go().page
    altered(page, found_duplicates(served), lambda job: job.update(status="superseded", result=None))
    page.goto(f"{served.url}/#/duplicates")
    expect(page.locator("#duplicates-message strong")).to_have_text("The search for duplicates ended: superseded")


@pytest.mark.parametrize(
    ("status", "title", "told"),
    [
        ("superseded", "That did not work", "The job ended: superseded."),
        ("expired", "There was not enough time", "Try again."),
    ],
)
def test_a_search_that_ended_otherwise_is_not_waited_for(
    go: Go, served: Fleet, photos: list[Path], status: str, title: str, told: str
) -> None:
    page = go().page
    altered(page, SEARCHES, lambda job: job.update(status=status, result=None, finished_at=ENDED))
    page.goto(f"{served.url}/#/search?image={photos[0].stem}")
    expect(page.locator("#search-message strong")).to_have_text(title)
    expect(page.locator("#search-message p").first).to_have_text(told)


def test_a_search_in_a_state_that_it_does_not_know_goes_on(go: Go, served: Fleet, photos: list[Path]) -> None:
    page = go().page
    altered(page, SEARCHES, lambda job: job.update(status="parked", result=None, finished_at=None))
    page.goto(f"{served.url}/#/search?image={photos[0].stem}")
    expect(page.locator("#search-message")).to_contain_text("Your search is parked.")
    page.get_by_role("button", name="Cancel").click()


def test_parts_and_attributes_that_it_does_not_know_are_text(go: Go, served: Fleet, photos: list[Path]) -> None:
    visit = go()
    page = visit.page
    dimensions = {"name": "dimensions", "type": "shape", "n_listings": 1}
    price = {"name": "price", "type": "price", "currencies": ["Gold"], "quantiles": [1, 2, 3], "values": []}

    def of_sound(job: Any) -> None:
        if result := job.get("result"):
            result["category"]["parts"] = [{"part": "sound", "name": "Music", "probability": 0.5, "share": 0.2}]
            result["neighbours"][0]["attributes"] = {"dimensions": {"width": 3}}

    altered(page, "**/v1/index", lambda index: index.update(attributes=[dimensions, price]))
    altered(page, SEARCHES, of_sound)
    page.goto(f"{served.url}/#/search?image={photos[0].stem}")
    visit.found()
    expect(page.locator("#category .parts")).to_contain_text("sound: Music")
    expect(page.locator("#attributes legend")).to_have_text("Price in Gold")
    page.get_by_role("button", name="Details").first.click()
    expect(page.locator("#show-content")).to_contain_text('{"width":3}')


def test_figures_that_are_no_numbers_are_text_or_left_out(go: Go, served: Fleet) -> None:
    page = go().page

    def with_words(index: Any) -> None:
        index["metrics"] = {"judged": "by hand", "not_measured": None}

    def unmeasured(quality: Any) -> None:
        quality["figures"] |= {"n_searches": 3, "recall_at_10": None, "best_score": None, "stages": {}}
        quality["figures"]["not_sure"] = 0.25

    altered(page, "**/v1/index", with_words)
    altered(page, "**/v1/quality?since=7d", unmeasured)
    page.goto(f"{served.url}/#/index")
    page.get_by_text("All measures").click()
    expect(page.locator("#quality")).to_contain_text("by hand")
    expect(page.locator("#live-quality")).to_contain_text("25 %")
    expect(page.locator("#live-quality")).not_to_contain_text("Best score")
