"""A browser, a service for it to look at, and visits whose every complaint is a failure."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from shared.artifacts import MANIFEST
from shared.snapshots import bundle_store
from shared.storage import Location
from shared.vision.bundle import open_bundle
from tests.e2e.browser import Visit, chromium
from tests.e2e.fleet import Fleet
from tests.places import copy_installation, location_of

Go = Callable[..., Visit]
MAX_QUEUED = 4
CERTAIN_FROM = 0.5


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(browser: Browser, home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A service over copies of everything: reindexes take long enough to be watched, and the model often doubts."""
    directory = tmp_path_factory.mktemp("page")
    copy_installation(home, directory / "home")
    _doubt(location_of(directory / "home"))
    shutil.copytree(catalogue, directory / "catalogue")
    served = Fleet(
        directory / "home",
        directory / "valkey",
        log=directory / "log",
        canary_s=0,
        catalogue=directory / "catalogue",
        max_queued=MAX_QUEUED,
        max_upload_mb=1,
    )
    served.start("api")
    served.start("counting")
    served.wait_ready()
    yield served
    served.close()


@pytest.fixture
def go(browser: Browser, served: Fleet) -> Iterator[Go]:
    """Opens visits; at the end nobody may have complained."""
    visits: list[Visit] = []

    def visit(part: str = "", **options: object) -> Visit:
        visits.append(Visit(browser, served.url, **options))  # type: ignore[arg-type]
        visits[-1].open(part)
        return visits[-1]

    yield visit
    complaints = [complaint for visit in visits for complaint in visit.complaints]
    for one in visits:
        one.close()
    assert complaints == []


def _doubt(location: Location) -> None:
    """Make the live model take for a guess whatever is less probable than CERTAIN_FROM."""
    store = bundle_store(location)
    with store.write() as draft:
        shutil.copytree(open_bundle(store).directory, draft.directory, dirs_exist_ok=True)
        manifest = draft.directory / MANIFEST
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "abstain_below": CERTAIN_FROM}))
    store.promote(draft.version)
