"""A browser, a service for it to look at, and visits whose every complaint is a failure."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from shared.artifacts.snapshots import bundle_store
from tests.e2e.support.browser import Visit, chromium
from tests.e2e.support.fleet import Fleet
from tests.support.snapshots import write_doubting

Go = Callable[..., Visit]
MAX_QUEUED = 4
CERTAIN_FROM = 0.5


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(browser: Browser, home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A service over copies of everything: reindexes take long enough to be watched, and the model often doubts."""
    directory = tmp_path_factory.mktemp("page")
    changed = {"probe_every_s": 0, "max_queued": MAX_QUEUED, "max_upload_mb": 1, "shadow_share": 1}
    served = Fleet.over_copies(home, catalogue, directory, **changed)
    bundle_store(served.location).promote(write_doubting(served.location, CERTAIN_FROM))
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
