"""Draws the documentation's pictures of the page (`make pictures`), from the demo catalogue, which may be shown."""

import tempfile
from io import BytesIO
from pathlib import Path

import requests
from PIL import Image
from playwright.sync_api import Browser, FilePayload, expect

from pipeline.demo.catalogue import generate
from tests import ROOT
from tests.e2e.conftest import Stack, lookalike
from tests.e2e.support.browser import Visit, chromium

_PICTURES = ROOT / "docs" / "images"
_COLOURS = 256
_GUITAR = 3
_HIGH_PX = 1180  # with room for what photo and words say


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        directory = Path(scratch)
        generate(directory / "demo-catalogue")
        built = lookalike("index", "build", "--catalogue", str(directory / "demo-catalogue"), home=directory / "home")
        assert built.returncode == 0, built.stderr
        stack = Stack(directory / "home", directory / "valkey")
        try:
            for part in ("worker", "api"):
                stack.start(part, catalogue=directory / "demo-catalogue")
            stack.wait_ready()
            _draw(browser, stack.url, sorted((directory / "demo-catalogue" / "images").iterdir()))
        finally:
            stack.close()


def _draw(browser: Browser, url: str, photos: list[Path]) -> None:
    visit = Visit(browser, url)
    page = visit.open()
    page.set_input_files(
        "#file", FilePayload(name="guitar.jpg", mimeType="image/jpeg", buffer=photos[_GUITAR].read_bytes())
    )
    visit.found()
    page.get_by_label("In words").fill("folk guitar")
    page.keyboard.press("Enter")
    expect(page.locator(".parts li")).to_have_count(2)
    expect(page.locator("#grid img[src]")).to_have_count(12)
    page.set_viewport_size({"width": 1280, "height": _HIGH_PX})
    _write("search", page.screenshot())
    page.set_viewport_size({"width": 1280, "height": 900})
    for body in ({"mode": "all"}, {"mode": "all", "promote": "never"}):
        answer = requests.post(f"{url}/v1/jobs/reindex", json=body, headers={"Prefer": "wait=30"}, timeout=60)
        assert answer.json()["status"] == "succeeded", answer.text
    visit.open("#/index")
    expect(page.locator("#versions li")).to_have_count(3)
    expect(page.locator("#quality li").first).to_be_visible()
    _write("index", page.screenshot(full_page=True))
    visit.close()


def _write(name: str, screenshot: bytes) -> None:
    """As small as it may be without looking poor."""
    image = Image.open(BytesIO(screenshot)).convert("RGB")
    image = image.resize((1000, round(1000 * image.height / image.width)), Image.Resampling.LANCZOS)
    _PICTURES.mkdir(exist_ok=True)
    path = _PICTURES / f"{name}.png"
    palette = image.quantize(_COLOURS)
    image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
