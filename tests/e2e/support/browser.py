"""A real browser for the tests of the page: Debian's Chromium without a window, and pages that keep what went wrong."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

Scheme = Literal["light", "dark"]
# The shell is the same engine without the window, tabs and menus around it, and takes two thirds of the processor time.
_NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
_REFUSED = "Failed to load resource"  # what Chromium says of every answer of 400 and more
_WITHIN_MS = 30_000

_looks: WeakKeyDictionary[BrowserContext, tuple[str, Scheme, int]] = WeakKeyDictionary()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium; tests skip without one, but never where changes are judged."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        missing = "no Chromium: `make test` as root installs it; on Debian: apt-get install chromium-headless-shell"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    # As root Chromium does not start in its sandbox; what it shows here is our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


def _context(browser: Browser, url: str, scheme: Scheme, width: int) -> BrowserContext:
    """That of all visits of this look to this service: the page keeps nothing outside its tab, which opens sooner."""
    for context in browser.contexts:
        if _looks[context] == (url, scheme, width):
            return context
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
        has_touch=width < 500,
        is_mobile=width < 500,
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(_WITHIN_MS)
    context.new_page().goto(f"{url}/livez")  # while it is open, Chromium keeps the process for tabs of this service
    _looks[context] = (url, scheme, width)
    return context


class Visit:
    """One visit to the page of a service, in a tab of its own.

    Attributes:
        complaints: errors on the console, among them breaches of the page's policy; and exceptions nobody caught.
    """

    def __init__(self, browser: Browser, url: str, *, scheme: Scheme = "light", width: int = 1280) -> None:
        self._context = _context(browser, url, scheme, width)
        self.url = url
        self.page: Page = self._context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, part: str = "") -> Page:
        """Go to a part of the page: `#/index`, `#/jobs`, `#/search?image=…`."""
        self.page.goto(f"{self.url}/{part}")
        return self.page

    def search_from(self, photo: Path) -> None:
        """Pick a photo, and wait for what is found."""
        self.page.set_input_files("#file", photo)
        self.found()

    def found(self) -> list[str]:
        """The photos that were found, best first, once they are shown."""
        self.page.wait_for_selector("#grid:not([aria-busy]) .result .photo:is(.gone, :has(img[src]))")
        links = self.page.locator("#grid .result a").all()
        return [str(link.get_attribute("href")).partition("image=")[2].partition("&")[0] for link in links]

    def violations(self) -> list[str]:
        """What axe-core finds wrong for those who do not see or use a mouse."""
        # Results that others will replace are pale, and those behind a dialog wait for it.
        expect(self.page.locator("body:not(:has(dialog[open])) #grid[aria-busy]")).to_have_count(0, timeout=_WITHIN_MS)
        found = Axe().run(self.page).response["violations"]
        return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes']]}" for rule in found]

    def keep(self, name: str, *, whole: bool = False) -> None:
        """Keep a picture in the directory SCREENSHOTS of the environment; without one nobody looks at it."""
        if directory := os.environ.get("SCREENSHOTS"):
            self.page.screenshot(path=Path(directory) / f"{name}.png", full_page=whole)

    def offline(self, is_offline: bool = True) -> None:
        self._context.set_offline(is_offline)

    def close(self) -> None:
        self.offline(False)
        self.page.close()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_REFUSED):
            self.complaints.append(message.text)
