"""What is searched from on the page beside one whole photo: a part of it, several photos, words, and both."""

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.page.conftest import Go
from tests.e2e.support.browser import Scheme, Visit

# What the page sends of a form with a file no test can read from the request.
NOTE_BOXES = """() => {
    window.boxes = [];
    const append = FormData.prototype.append;
    FormData.prototype.append = function (name, value, ...rest) {
        if (name === "box") window.boxes.push(value.split(",").map(Number));
        if (name === "image" && !this.has("box")) window.boxes.push(null);
        return append.call(this, name, value, ...rest);
    };
}"""

# As office programs copy text; answers whether the page has taken it.
PASTE_TEXT_WITH_ITS_PICTURE = """() => {
    const carried = new DataTransfer();
    carried.setData("text/plain", "red sofa");
    carried.items.add(new File([], "text.png", { type: "image/png" }));
    const event = new ClipboardEvent("paste", { bubbles: true, cancelable: true, clipboardData: carried });
    return !document.querySelector("#text").dispatchEvent(event);
}"""


@pytest.fixture
def two_things(photos: list[Path], tmp_path: Path) -> Path:
    """Two photos of the catalogue side by side, stored as by a camera that was held upright."""
    both = Image.new("RGB", (800, 400), "white")
    for left, photo in ((0, photos[0]), (400, photos[9])):
        both.paste(Image.open(photo).convert("RGB").resize((400, 400)), (left, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    both.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "two.jpg", quality=90, exif=exif)
    return tmp_path / "two.jpg"


def show(go: Go, photo: Path, **options: object) -> Visit:
    """A visit that shows a photo, and notes in `boxes` what is searched by from then on; null stands for all of it."""
    visit = go(**options)
    visit.page.evaluate(NOTE_BOXES)
    visit.search_from(photo)
    return visit


def corners(page: Page, box: tuple[float, float, float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where a box begins and ends on the screen."""
    area = page.locator("#area").bounding_box()
    assert area
    x, y, w, h = box
    begin = (area["x"] + x * area["width"], area["y"] + y * area["height"])
    return begin, (begin[0] + w * area["width"], begin[1] + h * area["height"])


def drag(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2)
    page.mouse.move(*end)
    page.mouse.up()


def searched(visit: Visit, n: int) -> list[float] | None:
    """The box of the n-th search, once its answer is shown."""
    visit.page.wait_for_function("n => window.boxes.length === n", arg=n)
    visit.found()
    boxes: list[list[float] | None] = visit.page.evaluate("window.boxes")
    return boxes[-1]


def test_a_part_is_drawn_with_the_mouse_searched_by_moved_resized_and_taken_back(
    go: Go, two_things: Path, photos: list[Path]
) -> None:
    visit = show(go, two_things)
    page = visit.page
    drag(page, *corners(page, (0.5, 0, 0.499, 1)))
    assert searched(visit, 2) == pytest.approx([0.5, 0, 0.5, 1], abs=0.02)
    assert visit.found()[0] == photos[9].stem
    expect(page.locator("#told")).to_contain_text("for part of the photo")
    expect(page.locator("#spoken")).to_contain_text("for part of the photo")
    expect(page.locator("#box")).to_be_focused()
    visit.keep("part")
    drag(page, *corners(page, (0.7, 0.5, -0.5, 0)))
    assert searched(visit, 3) == pytest.approx([0, 0, 0.5, 1], abs=0.02)
    assert visit.found()[0] == photos[0].stem
    drag(page, *corners(page, (0.49, 0.98, -0.2, -0.4)))
    assert searched(visit, 4) == pytest.approx([0, 0, 0.3, 0.6], abs=0.03)
    page.get_by_role("button", name="Whole photo").click()
    assert searched(visit, 5) is None
    expect(page.locator("#told")).not_to_contain_text("part")
    expect(page.locator("#box")).to_be_hidden()


def test_a_part_is_suggested_and_picked_by_mouse_and_by_keyboard(go: Go, two_things: Path) -> None:
    visit = show(go, two_things)
    page = visit.page
    page.get_by_role("button", name="Suggest parts").click()
    offers = page.locator(".proposal")
    expect(offers.first).to_be_focused()
    expect(page.locator("#spoken")).to_contain_text("suggested")
    visit.keep("suggested")
    offers.last.click()
    by_mouse = searched(visit, 3)
    expect(page.locator("#box")).to_be_focused()
    expect(offers.first).to_be_hidden()
    page.get_by_role("button", name="Whole photo").click()
    assert searched(visit, 4) is None
    offers.last.focus()
    page.keyboard.press("Enter")
    assert searched(visit, 5) == by_mouse is not None
    page.get_by_role("button", name="Whole photo").click()
    assert searched(visit, 6) is None
    offers.first.click(position={"x": 4, "y": 40})  # the smaller ones within it leave its rim free
    larger = searched(visit, 7)
    assert larger
    assert larger[2] * larger[3] > by_mouse[2] * by_mouse[3]


def test_a_part_is_suggested_and_picked_with_a_finger(go: Go, two_things: Path) -> None:
    visit = show(go, two_things, width=390)
    visit.page.get_by_role("button", name="Suggest parts").tap()
    visit.page.locator(".proposal").last.tap()
    assert searched(visit, 3)


def test_a_part_is_chosen_moved_and_resized_by_keyboard_alone(go: Go, two_things: Path) -> None:
    visit = show(go, two_things)
    page = visit.page
    page.get_by_role("button", name="Choose a part").focus()
    page.keyboard.press("Enter")
    box = page.get_by_role("application", name="Part of the photo")
    expect(box).to_be_focused()
    assert searched(visit, 2) == [0.25, 0.25, 0.5, 0.5]
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    assert searched(visit, 3) == pytest.approx([0.21, 0.27, 0.52, 0.48])
    expect(box).to_have_accessible_name(re.compile("21 % from the left, 27 % from the top, 52 % wide, 48 % high"))
    for _ in range(60):
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("ArrowUp")
    found = searched(visit, 4)
    assert found
    assert found[:2] == [0.21, 0]
    assert 17 / 800 <= found[2] < 0.1
    page.keyboard.press("Delete")
    assert searched(visit, 5) is None
    expect(page.get_by_role("button", name="Choose a part")).to_be_focused()


def test_a_part_is_drawn_with_a_finger_on_a_small_screen(go: Go, two_things: Path) -> None:
    visit = show(go, two_things, width=320)
    page = visit.page
    page.locator("#area").scroll_into_view_if_needed()
    begin, end = corners(page, (0.1, 0.1, 0.6, 0.7))
    before = page.evaluate("scrollY")
    touch = page.context.new_cdp_session(page)
    for kind, at in (("touchStart", begin), ("touchMove", (end[0], begin[1])), ("touchMove", end), ("touchEnd", None)):
        points = [{"x": at[0], "y": at[1]}] if at else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert searched(visit, 2) == pytest.approx([0.1, 0.1, 0.6, 0.7], abs=0.03)
    assert page.evaluate("scrollY") == before
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    visit.keep("phone-part", whole=True)


def test_the_way_back_leads_from_a_part_to_the_whole_photo_and_options_keep_it(go: Go, two_things: Path) -> None:
    visit = show(go, two_things)
    page = visit.page
    page.get_by_role("button", name="Choose a part").click()
    assert searched(visit, 2) == [0.25, 0.25, 0.5, 0.5]
    page.get_by_label("Only in").select_option("Appliances")
    assert searched(visit, 3) == [0.25, 0.25, 0.5, 0.5]
    page.go_back()
    assert searched(visit, 4) is None
    page.go_forward()
    assert searched(visit, 5) == [0.25, 0.25, 0.5, 0.5]


def test_a_click_draws_nothing_and_a_photo_of_the_index_has_no_parts(
    go: Go, two_things: Path, photos: list[Path]
) -> None:
    visit = show(go, two_things)
    page = visit.page
    page.locator("#area").click()
    expect(page.locator("#box")).to_be_hidden()
    page.get_by_role("button", name="Choose a part").click()
    searched(visit, 2)
    page.locator("#area").click(position={"x": 2, "y": 2})
    expect(page.locator("#box")).to_be_visible()
    page.locator("#grid a").first.click()
    expect(page.locator("#preview figcaption")).to_contain_text("a photo of the index")
    visit.found()
    expect(page.locator("#area")).to_be_hidden()
    expect(page.get_by_role("button", name="Choose a part")).to_be_hidden()
    visit.search_from(photos[3])
    expect(page.locator("#box")).to_be_hidden()
    expect(page.get_by_role("button", name="Choose a part")).to_be_visible()
    assert page.evaluate("window.boxes") == [None, [0.25, 0.25, 0.5, 0.5], None]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_with_a_part(go: Go, two_things: Path, scheme: Scheme) -> None:
    visit = show(go, two_things, scheme=scheme)
    assert visit.violations() == []
    visit.page.get_by_role("button", name="Choose a part").click()
    searched(visit, 2)
    assert visit.violations() == []
    visit.keep(f"part-{scheme}")


def test_several_photos_are_searched_together_each_shown_and_taken_out(go: Go, photos: list[Path]) -> None:
    visit = go(width=400)
    page = visit.page
    page.evaluate(NOTE_BOXES)
    page.set_input_files("#file", photos[:2])
    visit.found()
    expect(page.locator("#together img")).to_have_count(2)
    expect(page.locator("#preview figcaption")).to_contain_text("2 photos")
    expect(page.get_by_role("button", name="Choose a part")).to_be_hidden()
    with page.expect_response("**/v1/jobs/search") as answer:
        page.set_input_files("#more", photos[4])
    assert answer.value.status == 200
    assert page.evaluate("window.boxes") == (2 + 3) * [None]  # photos that were sent, none with a box
    expect(page.locator("#together img")).to_have_count(3)
    assert visit.violations() == []
    visit.keep("together")
    page.set_input_files("#more", 8 * [photos[5]])
    expect(page.get_by_text("Too many photos")).to_be_visible()
    for number in (1, 0):
        page.get_by_role("button", name=f"Remove {photos[number].name}").click()
        visit.found()
    expect(page.locator("#together")).to_be_hidden()
    expect(page.locator("#preview figcaption")).to_contain_text(photos[4].name)
    assert visit.found()[0] == photos[4].stem
    expect(page.get_by_role("button", name="Choose a part")).to_be_visible()
    page.go_back()
    expect(page.locator("#together img")).to_have_count(2)


# --- words ---


def test_words_find_listings_alone_and_with_a_photo_as_much_as_is_chosen(go: Go, photos: list[Path]) -> None:
    visit = go()
    page, bar, told = visit.page, visit.page.get_by_label("In words"), visit.page.locator("#told")
    weight, parts = page.get_by_label("Words count"), page.locator(".parts li")
    assert visit.violations() == []
    bar.fill("guitar")
    bar.press("Enter")
    by_words = visit.found()
    expect(page.locator("#grid .result").first).to_contain_text(re.compile("guitar", re.IGNORECASE))
    expect(told).to_contain_text("for the words")
    expect(weight).to_be_hidden()
    visit.search_from(photos[0])
    expect(told).to_contain_text("for the photo and the words")
    expect(page.locator("#spoken")).to_contain_text("for the photo and the words")
    expect(page.locator("output[for=text_weight]")).to_contain_text("(default)")
    expect(parts).to_have_count(2)
    expect(parts.last).to_contain_text(re.compile(r"Words: .+, \d.*counts \d"))
    assert visit.violations() == []
    visit.keep("words")
    weight.fill("0")
    expect(page.locator("#grid .result").first).to_contain_text("1.00")
    assert visit.found()[0] == photos[0].stem
    weight.fill("1")
    expect(page.locator("#grid .result").first).to_contain_text(re.compile("guitar", re.IGNORECASE))
    assert page.url.endswith("#/search?text=guitar&text_weight=1")
    page.go_back()
    expect(told).to_contain_text("for the words")
    assert visit.found() == by_words
    page.go_forward()
    expect(told).to_contain_text("for the photo and the words")
    bar.fill("")
    bar.press("Enter")
    expect(told).not_to_contain_text("words")
    expect(parts).to_have_count(0)
    assert visit.found()[0] == photos[0].stem


def test_words_weight_and_preference_are_in_the_address_and_fit_a_small_screen(go: Go, photos: list[Path]) -> None:
    visit = go(width=320, scheme="dark")
    page, bar = visit.page, visit.page.get_by_label("In words")
    with page.expect_request("**/v1/jobs/search") as asked:
        visit.open(f"#/search?image={photos[0].stem}&text=Red+sofa%0AHardly+used&text_weight=0.9&prefer=same_kind")
    asks = {"image_id": photos[0].stem, "text": "Red sofa\nHardly used", "text_weight": 0.9, "prefer": "same_kind"}
    assert asks.items() <= (asked.value.post_data_json or {}).items()
    visit.found()
    expect(bar).to_have_value("Red sofa\nHardly used")
    expect(page.locator("output[for=text_weight]")).to_have_text("90 %")
    page.locator("#options summary").click()
    expect(page.get_by_label("Same kind")).to_be_checked()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert visit.violations() == []
    visit.keep("phone-words", whole=True)
    bar.press("Control+End")
    for key in ("Shift+Enter", *"teal", "Enter"):
        bar.press(key)
    page.wait_for_url(re.compile("used%0Ateal&text_weight=0.9&prefer=same_kind$"))
    visit.found()
    page.get_by_label("Balanced").check()
    page.wait_for_url(re.compile("text_weight=0.9$"))
    second = visit.found()[1]
    expect(page.locator("#grid a").nth(1)).to_have_attribute("href", f"#/search?image={second}")
    page.get_by_role("button", name="Start again").click()
    expect(bar).to_have_value("")
    assert not page.evaluate(PASTE_TEXT_WITH_ITS_PICTURE)
    expect(page.locator("#search-message")).to_be_empty()
    bar.fill("!?")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("there is no word in it that says what the thing is")
