"""The page by keyboard alone, in forced colours, and with answers that are late, lost, cut off or those of a proxy."""

import re
import signal
from pathlib import Path

import requests
from playwright.sync_api import Page, Route, expect

from tests.e2e.page.conftest import Go
from tests.e2e.support.fleet import Fleet


def jobs_of(served: Fleet, kind: str) -> set[str]:
    listed = requests.get(f"{served.url}/v1/jobs", params={"kind": kind, "limit": "200"}, timeout=10).json()
    return {job["id"] for job in listed["jobs"]}


def held(page: Page, url: str | re.Pattern[str]) -> list[Route]:
    """Requests to an address that get no answer before they are told to go on."""
    routes: list[Route] = []

    def hold(route: Route) -> None:
        routes.append(route)

    page.route(url, hold)
    return routes


def press(page: Page, name: str) -> None:
    button = page.get_by_role("button", name=name).first
    button.focus()
    page.keyboard.press("Enter")


# --- by keyboard alone ---


def test_a_button_keeps_the_focus_while_it_works(go: Go, photos: list[Path], served: Fleet) -> None:
    visit = go()
    visit.search_from(photos[0])
    page = visit.page
    feedback = held(page, "**/v1/feedback")
    right = page.get_by_role("button", name="This is it").nth(1)
    right.focus()
    page.keyboard.press("Enter")
    expect(right).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("Enter")  # once more, and nothing more is sent
    assert len(feedback) == 1
    feedback[0].continue_()
    expect(right).to_have_text("Thank you")
    expect(right).to_be_focused()
    page.get_by_role("link", name="Index").click()
    page.get_by_label("Only say what would be done").check()
    press(page, "Reindex")
    expect(page.locator("#reindex-message")).to_contain_text("This would be done", timeout=30_000)
    expect(page.get_by_role("button", name="Reindex")).to_be_focused()
    press(page, "Report of version")
    expect(page.get_by_role("dialog")).to_contain_text("Report of version")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Report of version").first).to_be_focused()


def test_whoever_cancels_a_search_or_tries_again_is_not_sent_to_the_top(go: Go, photos: list[Path]) -> None:
    page = go().page
    searches = held(page, "**/v1/jobs/search")
    page.set_input_files("#file", photos[0])
    expect(page.locator("#search-message")).to_contain_text("The service has not answered yet.")
    press(page, "Cancel")
    expect(page.locator("#search-message .note")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Search again")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Similar listings")).to_be_focused()
    searches[-1].continue_()
    expect(page.locator(f'#grid a[href$="{photos[0].stem}"]')).to_be_visible()


def test_a_group_of_duplicates_is_looked_into_and_a_verdict_taken_back(
    go: Go, served: Fleet, photos: list[Path]
) -> None:
    put = {"listing_id": "a relist", "category": "Appliances"}
    requests.put(
        f"{served.url}/v1/images/relist",
        data=put,
        files={"image": photos[7].read_bytes()},
        headers={"Prefer": "wait=20"},
        timeout=30,
    ).raise_for_status()
    visit = go("#/duplicates")
    page = visit.page
    press(page, "Find duplicates")
    group = page.locator("#groups > li", has_text="relist").first
    expect(group).to_be_visible(timeout=30_000)
    refute = group.get_by_role("button", name="Not a duplicate")
    refute.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(refute).to_be_focused()
    assert requests.get(f"{served.url}/v1/duplicates/verdicts", timeout=10).json()["verdicts"] == []
    group.locator("a", has_text="a relist").click()
    page.wait_for_url("**/#/search?image=relist")
    assert "relist" in visit.found()
    requests.delete(f"{served.url}/v1/images/relist", headers={"Prefer": "wait=20"}, timeout=30)


# --- coming back ---


def test_after_a_reload_the_way_back_shows_no_other_photo(go: Go, photos: list[Path]) -> None:
    visit = go()
    visit.search_from(photos[0])
    page = visit.page
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The photo has to be chosen again")
    visit.search_from(photos[9])
    expect(page.get_by_role("alert")).to_have_count(0)
    page.go_back()
    expect(page.get_by_role("alert")).to_contain_text("The photo has to be chosen again")
    expect(page.locator("#preview")).to_be_hidden()
    page.go_forward()
    assert visit.found()[0] == photos[9].stem


def test_a_dropped_picture_that_comes_late_replaces_no_newer_search(go: Go, photos: list[Path]) -> None:
    visit = go()
    page = visit.page
    pictures = held(page, "**/late.jpg")
    drop = """url => {
        const carried = new DataTransfer();
        carried.setData("text/uri-list", url);
        carried.setData("text/html", `<img src="${url}">`);
        const given = { bubbles: true, cancelable: true, dataTransfer: carried };
        document.querySelector("#drop").dispatchEvent(new DragEvent("drop", given));
    }"""
    page.evaluate(drop, f"{visit.url}/late.jpg")
    visit.search_from(photos[0])
    pictures[0].fulfill(path=photos[9])
    with page.expect_response("**/readyz"):  # what the page does with the picture, it does before its next look
        pass
    expect(page.locator("#preview figcaption")).to_contain_text(photos[0].name)
    assert visit.found()[0] == photos[0].stem


# --- late, lost and broken answers ---


def test_a_search_whose_answer_is_lost_is_sent_again_and_made_once(go: Go, served: Fleet, photos: list[Path]) -> None:
    visit = go()
    page = visit.page
    answers: list[int] = []

    def lose(route: Route) -> None:
        if len(answers) == 2:
            route.continue_()
            return
        answers.append(route.fetch().status)
        route.abort("connectionreset")

    page.route("**/v1/jobs/search", lose)
    before = jobs_of(served, "search")
    visit.open(f"#/search?image={photos[0].stem}")
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"The service does not answer; trying again in \d+ s"))
    assert visit.found()[0] == photos[0].stem
    expect(page.locator("#search-message")).to_be_empty()
    assert answers == [200, 200]
    assert len(jobs_of(served, "search") - before) == 1


def test_an_answer_that_is_cut_off_or_of_a_proxy_does_not_end_a_search(
    go: Go, served: Fleet, photos: list[Path]
) -> None:
    visit = go()
    page = visit.page
    broken = [
        lambda route: route.fulfill(status=502, content_type="text/html", body="<html>Bad gateway</html>"),
        lambda route: route.fulfill(status=200, content_type="application/json", body='{"id": "'),
        lambda route: route.abort("connectionreset"),
    ]

    def poll(route: Route) -> None:
        if broken:
            broken.pop(0)(route)
        else:
            route.continue_()

    def without_waiting(route: Route) -> None:
        asked = {name: value for name, value in route.request.headers.items() if name != "prefer"}
        route.fulfill(response=route.fetch(headers=asked))

    page.route(re.compile("/v1/jobs/[0-9a-f]{32}$"), poll)
    page.route("**/v1/jobs/search", without_waiting)
    before = jobs_of(served, "search")
    served.signal("counting", signal.SIGSTOP)  # so that the search is still queued when it is asked for
    try:
        visit.open(f"#/search?image={photos[0].stem}")
        expect(page.locator("#search-message")).to_contain_text("your search goes on there")
    finally:
        served.signal("counting", signal.SIGCONT)
    assert visit.found()[0] == photos[0].stem
    assert not broken
    assert len(jobs_of(served, "search") - before) == 1


def test_the_answer_to_an_older_search_never_replaces_a_newer_one(go: Go, photos: list[Path]) -> None:
    visit = go()
    page = visit.page
    searches = held(page, "**/v1/jobs/search")
    for photo in photos[:3]:
        page.set_input_files("#file", photo)
        expect(page.locator("#preview figcaption")).to_contain_text(photo.name)
    searches[-1].continue_()
    assert visit.found()[0] == photos[2].stem
    for older in searches[:-1]:
        older.abort()
    assert visit.found()[0] == photos[2].stem
    expect(page.locator("#search-message")).to_be_empty()


def test_more_groups_are_asked_for_once(go: Go, served: Fleet) -> None:
    page = go().page

    def with_more(route: Route) -> None:
        answer = route.fetch()
        job = answer.json()
        job["result"]["next_cursor"] = "x"
        route.fulfill(response=answer, json=job)

    done = requests.post(f"{served.url}/v1/jobs/duplicates", json={}, headers={"Prefer": "wait=30"}, timeout=40).json()
    assert done["status"] == "succeeded"
    page.route(f"**/v1/jobs/{done['id']}", with_more)
    asked = held(page, "**/duplicates?cursor=*")
    page.goto(f"{served.url}/#/duplicates")
    page.locator("#more-groups").dblclick()
    expect(page.locator("#more-groups")).to_be_focused()
    assert len(asked) == 1


def test_a_service_that_hangs_is_told_as_one_that_does_not_answer(go: Go) -> None:
    page = go().page
    page.add_init_script(
        "const limit = AbortSignal.timeout; AbortSignal.timeout = (ms) => limit.call(AbortSignal, ms / 20);"
    )
    page.reload()
    expect(page.locator("#health")).to_have_text("Ready")
    held(page, "**/readyz")
    expect(page.locator("#health")).to_have_text("Unreachable", timeout=20_000)
    page.unroute("**/readyz")
    expect(page.locator("#health")).to_have_text("Ready", timeout=20_000)


# --- few colours ---


def test_in_forced_colours_it_shows_where_one_is_and_what_is_chosen(go: Go, photos: list[Path]) -> None:
    visit = go(f"#/search?image={photos[0].stem}&prefer=same_kind")
    visit.page.emulate_media(forced_colors="active")
    visit.found()
    page = visit.page

    def outlined(selector: str) -> str:
        style: str = page.locator(selector).evaluate("it => getComputedStyle(it).outlineStyle")
        return style

    assert outlined("nav a[aria-current]") == outlined(".choice label:has(:checked)") == "solid"
    assert (
        outlined("nav a:not([aria-current]) >> nth=0")
        == outlined(".choice label:has(:not(:checked)) >> nth=0")
        == "none"
    )
    page.locator("#distinct").check()
    ground = "it => getComputedStyle(it).backgroundColor"
    assert page.locator("#distinct").evaluate(ground) != page.locator("#options").evaluate(ground)
    visit.keep("forced-colours", whole=True)
