"""Every command of the documentation is typed, page by page, beside a service that `make run` has started."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.documents.blocks import blocks
from tests.documents.regions import pages
from tests.e2e.support.checkout import Checkout
from tests.support.places import needs_neither

PAGES = [page for page in pages() if any(block.is_run for block in blocks(page))]

pytestmark = needs_neither(reason="whoever types it has set nothing")


@pytest.fixture(scope="module")
def checkout(home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path_factory.mktemp("reader") / "lookalike", home, catalogue)
    yield checkout
    checkout.close()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_command_of_the_page_does_what_it_is_there_for(checkout: Checkout, page: Path) -> None:
    checkout.wait_ready()
    checkout.read(page, (block for block in blocks(page) if block.is_run))


def test_the_notebook_runs_to_its_end(checkout: Checkout) -> None:
    checkout.wait_ready()
    assert checkout.run_notebook(ROOT / "docs/clients/quickstart.ipynb").count("a picture of") == 2


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no patch(1) to apply the page's diff with")
def test_the_kind_of_job_that_the_page_adds_can_be_asked(home: Path, catalogue: Path, tmp_path: Path) -> None:
    page = ROOT / "docs/extending.md"
    *_, diff, asked = blocks(page)
    checkout = Checkout(tmp_path / "lookalike", home, catalogue, diff.text, streams=2, max_batch=2)
    try:
        checkout.wait_ready()
        shutil.copy(next((catalogue / "images").iterdir()), checkout.directory / "photo.jpg")
        answer = json.loads(checkout.read(page, [asked]))
    finally:
        checkout.close()
    assert (answer["kind"], answer["status"]) == ("classify", "succeeded")
    assert set(answer["result"]) == {"category", "model_fingerprint", "timing_ms"}
