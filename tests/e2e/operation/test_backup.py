"""The backup of docs/operations.md: made beside a working service, and enough when everything else is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import ROOT
from tests.documents.blocks import Block, blocks
from tests.e2e.conftest import eventually
from tests.e2e.support.checkout import Checkout
from tests.support.places import needs_neither

PAGE = ROOT / "docs/operations.md"

pytestmark = needs_neither(reason="the page saves a directory")


@pytest.fixture
def checkout(home: Path, catalogue: Path, tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path / "lookalike", home, catalogue, streams=2, max_batch=2)
    yield checkout
    checkout.kill()


def test_jobs_live_photos_and_keys_outlive_the_loss_of_everything_but_the_backup(
    checkout: Checkout, photos: list[Path]
) -> None:
    checkout.wait_ready()
    key = checkout.lookalike("keys", "create", "--name", "shop", "--scopes", "submit,read").strip()
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {key}"
    put = session.put(
        f"{checkout.url}/v1/images/backed-up",
        headers={"Prefer": "wait=20"},
        files={"image": photos[0].read_bytes()},
        data={"listing_id": "4711", "category": "Home & Garden"},
    )
    assert put.json()["status"] == "succeeded"
    session.delete(f"{checkout.url}/v1/images/{photos[0].stem}", headers={"Prefer": "wait=20"}).raise_for_status()
    parts = [("image", (photo.name, photo.read_bytes())) for photo in photos[:40]]
    batch = session.post(f"{checkout.url}/v1/batches", files=parts).json()["id"]

    _type(checkout, "cp -a var/redis backup/")
    checkout.kill()
    _type(checkout, "mv backup var")
    checkout.start()
    checkout.wait_ready()

    assert requests.get(f"{checkout.url}/v1/jobs").status_code == 401
    batch_url = f"{checkout.url}/v1/batches/{batch}"
    eventually(lambda: session.get(batch_url).json()["counts"]["succeeded"] == 40, 60, "the batch that waited is done")
    found = session.post(
        f"{checkout.url}/v1/jobs/search", headers={"Prefer": "wait=20"}, files={"image": photos[0].read_bytes()}
    )
    assert found.json()["result"]["neighbours"][0]["listing_id"] == "4711"


def _type(checkout: Checkout, holding: str) -> None:
    """The block of the page that holds this command, less the start of the service."""
    [block] = [block for block in blocks(PAGE) if holding in block.text]
    checkout.read(PAGE, [Block(block.line, "sh", "", block.text.replace("make run\n", ""))])
