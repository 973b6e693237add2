"""What people do with the page who have a photo, and what they see when something is wrong."""

import re
import signal
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Route, expect

from shared.api_keys import KeyRing, Scope
from shared.feedback.contract import FeedbackEvent
from shared.feedback.store import FeedbackStore
from tests.e2e.conftest import eventually
from tests.e2e.page.conftest import CERTAIN_FROM, MAX_QUEUED, Go
from tests.e2e.support.browser import Scheme
from tests.e2e.support.fleet import Fleet


def png(width: int, height: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


# --- search ---


def test_a_photo_is_shown_with_its_category_and_what_looks_like_it(go: Go, photos: list[Path]) -> None:
    visit = go()
    visit.keep("fresh")
    visit.search_from(photos[0])
    page = visit.page
    assert visit.found()[0] == photos[0].stem
    expect(page.locator("#grid .result")).to_have_count(12)
    expect(page.locator("#grid .result").first).to_contain_text("1.00")
    expect(page.locator("#category li")).to_have_count(3)
    expect(page.locator("#category")).to_contain_text(re.compile(r"\d %"))
    assert page.evaluate("document.querySelector('#preview img').naturalWidth") > 0
    expect(page.locator("#spoken")).to_contain_text("12 photos found")
    visit.keep("search")


def test_a_result_is_searched_from_by_a_click_and_the_way_back_leads_to_the_photo(go: Go, photos: list[Path]) -> None:
    visit = go()
    visit.search_from(photos[0])
    page, second = visit.page, visit.found()[1]
    page.locator("#grid a").nth(1).click()
    page.wait_for_url(f"**/#/search?image={second}")
    expect(page.locator("#grid .itself")).to_have_text("this photo")
    assert visit.found()[0] == second
    page.go_back()
    expect(page.locator("#preview figcaption")).to_contain_text(photos[0].name)
    expect(page.locator("#grid .itself")).to_have_count(0)
    assert visit.found()[0] == photos[0].stem
    page.get_by_role("button", name="Start again").click()
    expect(page.get_by_text("Drop a photo here")).to_be_visible()


def test_options_run_the_search_again_and_are_in_the_address(go: Go, photos: list[Path]) -> None:
    visit = go(f"#/search?image={photos[0].stem}&k=5")
    page = visit.page
    assert len(visit.found()) == 5
    page.get_by_label("Results").fill("30")
    expect(page.locator("#grid .result")).to_have_count(30)
    with page.expect_response("**/v1/jobs/search") as answer:
        page.get_by_label("One photo of each listing").check()
    listings = [one["listing_id"] for one in answer.value.json()["result"]["neighbours"]]
    assert len(set(listings)) == len(listings) > 4
    page.get_by_label("Only in").select_option("Appliances")
    expect(page.locator("#grid .result").filter(has_not_text="Appliances")).to_have_count(0)
    expect(page.locator("#grid .result").filter(has_text="Appliances").first).to_be_visible()
    page.get_by_label("Least similarity").fill("0.95")
    expect(page.get_by_text("Lower the least similarity")).to_be_visible()
    assert page.url.endswith(
        f"#/search?image={photos[0].stem}&k=30&category=Appliances&distinct=listing&min_score=0.95"
    )
    page.reload()
    expect(page.get_by_text("Lower the least similarity")).to_be_visible()


def test_what_is_clicked_right_or_of_another_category_is_fed_back(go: Go, photos: list[Path], served: Fleet) -> None:
    visit = go()
    visit.search_from(photos[0])
    page, found = visit.page, visit.found()
    store = FeedbackStore(served.client())
    page.get_by_role("button", name="This is it").nth(1).click()
    expect(page.locator("#grid .result").nth(1)).to_contain_text("Thank you")
    page.get_by_text("Wrong category?").click()
    with page.expect_response("**/v1/feedback"):
        page.get_by_label("The right category").select_option("Appliances")
    visit.keep("feedback")
    with page.expect_response("**/v1/feedback"):
        page.locator("#grid a").nth(2).click()
    *_, stored = store.read()  # others have searched before
    assert [one.image_id for one in stored.impression.shown] == found
    assert (set(stored.of(FeedbackEvent.RIGHT)), stored.category) == ({found[1]}, "Appliances")
    assert set(stored.of(FeedbackEvent.CLICK)) == {found[2]}


def test_a_photo_may_be_pasted_or_dropped(go: Go, photos: list[Path]) -> None:
    visit = go()
    page = visit.page
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(120, 80);
            canvas.getContext("2d").fillRect(10, 10, 50, 50);
            const photo = await canvas.convertToBlob({ type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": photo })]);
        }"""
    )
    page.keyboard.press("Control+V")
    visit.found()
    dropped = page.evaluate_handle(
        """async (path) => {
            const carried = new DataTransfer();
            const photo = await (await fetch(path)).blob();
            carried.items.add(new File([photo], "dropped.jpg", { type: "image/jpeg" }));
            return carried;
        }""",
        f"/v1/images/{photos[5].stem}?size=640",
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": dropped})
    expect(page.locator("#preview figcaption")).to_contain_text("dropped.jpg")
    expect(page.locator(f'#grid a[href*="{photos[5].stem}"]')).to_be_visible()


DROP = """([data, place]) => {
    const carried = new DataTransfer();
    for (const [type, text] of Object.entries(data)) carried.setData(type, text);
    return ["dragenter", "dragover", "drop"].map((kind) => {
        const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried });
        document.querySelector(place).dispatchEvent(event);
        return event.defaultPrevented;
    });
}"""


def dragged_picture(url: str) -> dict[str, str]:
    return {"text/uri-list": url, "text/html": f'<meta charset="utf-8"><img src="{url}">'}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (dragged_picture("https://shop.example/a.jpg"), "This page may not load that picture"),
        ({"text/uri-list": "https://shop.example/a"}, "That is a link, not a photo"),
        ({"text/uri-list": "# a comment\r\nfile:///etc/passwd"}, "That is a link, not a photo"),
        (dragged_picture("data:text/plain,x"), "That is not a photo this service reads"),
        ({"text/html": "<img src='data:image/png;base64,%'>"}, "The photo is damaged"),
    ],
)
@pytest.mark.parametrize("place", ["#drop", "footer"])
def test_what_cannot_be_taken_when_dropped_is_explained(go: Go, data: dict[str, str], told: str, place: str) -> None:
    page = go().page
    assert page.evaluate(DROP, [data, place]) == [True, True, True]
    expect(page.locator("#search-message")).to_contain_text(told)


def test_a_picture_dropped_from_another_tab_is_searched_from(go: Go, photos: list[Path]) -> None:
    visit = go()
    page = visit.page
    encoded = b64encode(photos[3].read_bytes()).decode()
    page.evaluate(DROP, [dragged_picture(f"data:image/jpeg;base64,{encoded}"), "#drop"])
    expect(page.locator("#preview figcaption")).to_contain_text("picture")
    assert visit.found()[0] == photos[3].stem
    page.evaluate(DROP, [dragged_picture(f"{visit.url}/v1/images/{photos[4].stem}?size=640"), "#drop"])
    page.wait_for_url(f"**/#/search?image={photos[4].stem}")
    assert visit.found()[0] == photos[4].stem
    page.evaluate(DROP, [{"text/uri-list": f"{visit.url}/#/search?image={photos[5].stem}"}, "footer"])
    page.wait_for_url(f"**/#/search?image={photos[5].stem}")
    page.evaluate(DROP, [dragged_picture(f"{visit.url}/nowhere.jpg"), "#drop"])
    expect(page.locator("#search-message")).to_contain_text("Its address answers 404.")


@pytest.mark.parametrize("part", ["#/search", "#/index", "#/jobs"])
def test_a_drop_anywhere_leaves_no_part_of_the_page(go: Go, part: str) -> None:
    page = go(part).page
    for data in ({"text/uri-list": "https://shop.example/"}, {"text/plain": "https://shop.example/"}):
        for place in ("body", "header", "footer", "main"):
            assert page.evaluate(DROP, [data, place])[1:] == [True, True]
    assert page.url.endswith(part)


def test_a_chosen_file_that_is_gone_is_told_as_such(go: Go, photos: list[Path], tmp_path: Path) -> None:
    visit = go()
    page, photo = visit.page, tmp_path / "gone.jpg"
    photo.write_bytes(photos[0].read_bytes())
    visit.search_from(photo)
    photo.unlink()
    page.get_by_label("Only in").select_option("Appliances")
    expect(page.locator("#search-message")).to_contain_text("The photo cannot be read any more")
    expect(page.locator("#search-message")).to_contain_text("gone.jpg")


def test_a_phone_gets_a_camera_and_nothing_wider_than_its_screen(go: Go, photos: list[Path]) -> None:
    visit = go(width=320)
    page = visit.page
    expect(page.get_by_text("Take a photo")).to_be_visible()
    assert page.get_attribute("#camera", "capture") == "environment"
    visit.search_from(photos[0])
    visit.keep("phone-search", whole=True)
    for part, awaited in (("search", ".result"), ("index", "#versions li"), ("jobs", "#list li")):
        page.get_by_role("navigation").get_by_role("link", name=part).click()
        expect(page.locator(awaited).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), part
    visit.keep("phone-jobs", whole=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_on_any_part(go: Go, photos: list[Path], scheme: Scheme) -> None:
    visit = go(scheme=scheme)
    page = visit.page
    assert visit.violations() == []
    visit.search_from(photos[0])
    assert visit.violations() == []
    for part, awaited in (("index", "#versions li"), ("jobs", "#list li")):
        page.get_by_role("navigation").get_by_role("link", name=part).click()
        expect(page.locator(awaited).first).to_be_visible()
        visit.keep(f"{part}-{scheme}", whole=True)
        assert visit.violations() == []
    page.locator("#list").get_by_role("button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert visit.violations() == []


def test_everything_is_reached_by_keyboard_and_focus_goes_where_one_goes_on(go: Go, photos: list[Path]) -> None:
    visit = go(f"#/search?image={photos[0].stem}")
    page = visit.page
    visit.found()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.locator("#grid a").nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results-title")).to_be_focused()
    visit.found()
    page.get_by_role("link", name="Jobs").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_focused()
    page.locator("#list").get_by_role("button").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("neighbours")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_category_that_is_not_probable_enough_is_told_as_a_guess(go: Go, served: Fleet, photos: list[Path]) -> None:
    def category_of(photo: Path) -> dict[str, Any]:
        asked = {"image_id": photo.stem}
        answer = requests.post(f"{served.url}/v1/jobs/search", json=asked, headers={"Prefer": "wait=20"}, timeout=30)
        return answer.json()["result"]["category"]  # type: ignore[no-any-return]

    categories = [(category_of(photo), photo) for photo in photos[::4]]
    sure, certain = next(told for told in categories if told[0]["probability"] >= CERTAIN_FROM)
    guess, doubtful = next(told for told in categories if told[0]["probability"] < CERTAIN_FROM)
    visit = go()
    visit.open(f"#/search?image={certain.stem}")
    expect(visit.page.locator("#category h2")).to_have_text(sure["name"])
    visit.open(f"#/search?image={doubtful.stem}")
    expect(visit.page.locator("#category h2")).to_have_text("Not sure")
    expect(visit.page.locator("#spoken")).to_contain_text(f"perhaps {guess['name']}")
    expect(visit.page.locator("#category li").first).to_contain_text(guess["name"])
    assert visit.violations() == []
    visit.keep("not-sure")


def test_the_part_of_a_path_that_is_certain_is_shown_and_spoken(go: Go, photos: list[Path]) -> None:
    visit = go()

    def of_two_levels(route: Route) -> None:
        answer = route.fetch()
        job = answer.json()
        if job["status"] == "succeeded":
            job["result"]["category"] |= {
                "name": "Boats / Sail",
                "certain": False,
                "certain_path": {"name": "Boats", "path": ["Boats"], "probability": 0.914},
            }
        route.fulfill(response=answer, json=job)

    visit.page.route(re.compile("/v1/jobs/"), of_two_levels)
    visit.open(f"#/search?image={photos[0].stem}")
    visit.found()
    expect(visit.page.locator("#category h2")).to_have_text("Boats")
    expect(visit.page.locator("#category")).to_contain_text("Sure of this much, 91")
    expect(visit.page.locator("#spoken")).to_contain_text("perhaps Boats / Sail")


# --- what is wrong, in words ---


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("notes.txt", b"not a photo", "notes.txt is not a photo"),
        ("empty.jpg", b"", "The file is empty"),
        ("claims.png", b"not a photo either", "not a photo this service reads"),
        ("cut.png", png(300, 300)[:200], "The photo is damaged"),
        ("heavy.png", png(2, 2) + bytes(1 << 20), "at most 1.0 MB are taken"),
        ("wide.png", png(20_001, 200), "too many pixels"),
    ],
)
def test_what_cannot_be_searched_from_is_refused_in_words(go: Go, name: str, content: bytes, told: str) -> None:
    page = go().page
    kind = "text/plain" if name.endswith("txt") else f"image/{name[-3:]}"
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})
    expect(page.get_by_role("alert")).to_contain_text(told)


def test_a_lost_connection_is_told_and_the_search_goes_on_once_it_is_back(go: Go, photos: list[Path]) -> None:
    visit = go()
    visit.offline()
    visit.page.set_input_files("#file", photos[0])
    expect(visit.page.get_by_role("alert")).to_contain_text("The service does not answer")
    expect(visit.page.locator("#health")).to_have_text("Unreachable")
    visit.keep("unreachable")
    visit.offline(False)
    visit.page.get_by_role("button", name="Try now").click()
    assert visit.found()[0] == photos[0].stem
    expect(visit.page.locator("#health")).to_have_text("Ready")


def test_a_photo_that_left_the_index_is_told(go: Go) -> None:
    page = go("#/search?image=nobody%20knows%20it").page
    expect(page.get_by_role("alert")).to_contain_text("not in the index any more")


def test_searches_wait_for_a_worker_and_for_room_in_the_queue_and_then_go_on(
    go: Go, served: Fleet, photos: list[Path]
) -> None:
    assert served.kill("counting", signal.SIGTERM) == 0
    first = go()
    expect(first.page.locator("#banner")).to_contain_text("No worker is running")
    first.page.set_input_files("#file", photos[0])
    expect(first.page.locator("#search-message")).to_contain_text("Yours is next")
    first.keep("waiting")
    while requests.post(f"{served.url}/v1/jobs/embed", json={"image_id": photos[1].stem}, timeout=10).ok:
        pass
    second = go()
    second.page.set_input_files("#file", photos[2])
    expect(second.page.get_by_role("alert")).to_contain_text(
        re.compile(r"Too many jobs are waiting; trying again in \d+ s")
    )
    second.keep("queue-full")
    third = go("#/jobs")
    expect(third.page.locator("#queue")).to_contain_text(f"Waiting{MAX_QUEUED}")
    # A row by its job: the room that this makes may go to the second page's search, which is then the newest.
    row = third.page.locator("#list li").nth(1)
    cancelled = third.page.locator("#list li").filter(has_text=row.locator("code").inner_text())
    cancelled.get_by_role("button", name="Cancel").click()
    expect(cancelled.locator(".badge")).to_have_text("cancelled")
    served.start("counting")
    assert first.found()[0] == photos[0].stem
    second.page.get_by_role("button", name="Try now").or_(second.page.locator(".result").first).click()
    assert second.found()
    expect(first.page.locator("#banner")).to_be_empty()


# --- keys ---


def test_with_keys_the_page_asks_for_one_and_says_what_it_may_not_do(go: Go, served: Fleet, photos: list[Path]) -> None:
    with served.client() as client:
        ring = KeyRing(client)
        _, reader = ring.create("reader", {Scope.READ})
        _, shop = ring.create("shop", {Scope.READ, Scope.SUBMIT})
        try:
            eventually(lambda: requests.get(f"{served.url}/v1/jobs", timeout=10).status_code == 401, 10, "keys are on")
            visit = go(f"#/search?image={photos[0].stem}")
            page, dialog = visit.page, visit.page.get_by_role("dialog")
            expect(dialog).to_contain_text("asks for an API key")
            assert visit.violations() == []
            visit.keep("key")
            dialog.get_by_label("API key").fill("lk_wrong")
            page.keyboard.press("Enter")
            expect(dialog).to_contain_text("not valid")
            dialog.get_by_label("API key").fill(f" {reader} ")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("Your API key may not do this")
            expect(page.get_by_role("alert")).to_contain_text("scope submit")
            page.get_by_role("button", name="Use another key").click()
            dialog.get_by_label("API key").fill(shop)
            page.keyboard.press("Enter")
            assert visit.found()[0] == photos[0].stem
            assert page.evaluate("document.querySelector('#grid img').naturalWidth") > 0
            assert shop not in page.url
            page.get_by_role("link", name="Index").click()
            expect(page.locator("#versions")).to_contain_text("live")
            page.get_by_role("button", name="Report").first.click()
            dialog.get_by_role("button", name="Close").click()
            page.get_by_role("button", name="Reindex").click()
            expect(page.locator("#reindex-message")).to_contain_text("scope admin")
            page.get_by_role("button", name="API key").click()
            dialog.get_by_role("button", name="Forget the key").click()
            expect(dialog).to_contain_text("asks for an API key")
            dialog.get_by_role("button", name="Not now").click()
            expect(page.get_by_role("alert").first).to_contain_text("asks for an API key")
        finally:
            ring.forget_all()
    eventually(lambda: requests.get(f"{served.url}/v1/jobs", timeout=10).ok, 10, "keys are off again")
