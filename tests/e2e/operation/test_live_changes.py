"""Photos put and deleted while the service runs: every worker sees it within two seconds, and no crash undoes it"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.catalogue.categories import CATEGORIES
from tests.conftest import encode, noise_image
from tests.e2e.conftest import eventually
from tests.e2e.support.fleet import Fleet
from tests.support.places import copy_installation

VISIBLE_WITHIN_S = 2
WORKERS = ("worker", "worker-2")


@pytest.fixture(scope="module")
def pair(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """API and two workers on an installation of their own."""
    directory = tmp_path_factory.mktemp("live")
    copy_installation(home, directory / "home")
    pair = Fleet(directory / "home", directory / "valkey", lease_s=4, probe_every_s=0)
    pair.man(2)
    yield pair
    pair.close()


def change(pair: Fleet, image_id: str, photo: bytes | None, listing_id: str = "live") -> None:
    """Put a photo, or delete one, and wait for the end of it."""
    url, headers = f"{pair.url}/v1/images/{image_id}", {"Prefer": "wait=20"}
    if photo is None:
        answer = requests.delete(url, headers=headers, timeout=30)
    else:
        said = {"listing_id": listing_id, "category": CATEGORIES[3]}
        answer = requests.put(url, headers=headers, data=said, files={"image": BytesIO(photo)}, timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded"), answer.text


def search(pair: Fleet, photo: bytes, **options: object) -> dict[str, Any]:
    answer = requests.post(
        f"{pair.url}/v1/jobs/search",
        data={name: str(value) for name, value in options.items()},
        files={"image": BytesIO(photo)},
        headers={"Prefer": "wait=20"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def found(job: dict[str, Any]) -> list[str]:
    return [neighbour["image_id"] for neighbour in job["result"]["neighbours"]]


def assert_seen_by_every_worker(pair: Fleet, photo: bytes, image_id: str, *, there: bool) -> None:
    """Ask until each worker has answered a search that came two seconds after the change, or as it should before."""
    changed_at = time.monotonic()
    seen: set[str] = set()

    def ask(_: int) -> tuple[float, dict[str, Any]]:
        return time.monotonic() - changed_at, search(pair, photo, k=1)

    with pair.client() as client, ThreadPoolExecutor(4) as clients:
        while len(seen) < len(WORKERS):
            assert time.monotonic() - changed_at < 30, f"only {seen} answered"
            for asked_after_s, job in clients.map(ask, range(4)):
                is_right = (image_id in found(job)) is there
                assert is_right or asked_after_s < VISIBLE_WITHIN_S
                if is_right:
                    seen.add(str(client.hget(f"lookalike:job:{job['id']}", "worker")))


def test_a_photo_that_was_put_is_found_by_every_worker_and_one_that_was_deleted_by_none(pair: Fleet) -> None:
    photo = encode(noise_image(901), "PNG")
    change(pair, "put-live", photo)
    assert_seen_by_every_worker(pair, photo, "put-live", there=True)
    [best] = search(pair, photo, k=1)["result"]["neighbours"]
    assert (best["listing_id"], best["category"]) == ("live", CATEGORIES[3])
    thumbnail = requests.get(f"{pair.url}/v1/images/put-live", timeout=10)
    assert (thumbnail.status_code, thumbnail.headers["Content-Type"]) == (200, "image/jpeg")
    change(pair, "put-live", None)
    assert_seen_by_every_worker(pair, photo, "put-live", there=False)
    assert requests.get(f"{pair.url}/v1/images/put-live", timeout=10).status_code == 404
    change(pair, "put-live", None)  # and once more


def test_a_photo_put_live_shares_its_listing_and_a_deleted_one_makes_room(pair: Fleet, photos: list[Path]) -> None:
    photo = photos[0].read_bytes()
    [first] = search(pair, photo, k=1)["result"]["neighbours"]
    assert first["image_id"] == photos[0].stem
    change(pair, "copy", photo, listing_id=first["listing_id"])
    eventually(lambda: "copy" in found(search(pair, photo, k=3)), 20, "the copy is found")
    distinct = search(pair, photo, k=20, distinct="listing")["result"]["neighbours"]
    assert len({neighbour["listing_id"] for neighbour in distinct}) == len(distinct) == 20
    change(pair, first["image_id"], None)
    assert_seen_by_every_worker(pair, photo, first["image_id"], there=False)
    assert found(search(pair, photo, k=1)) == ["copy"]
    assert len(found(search(pair, photo, k=100))) == 100


def test_what_was_put_and_deleted_is_still_so_after_everything_was_killed(pair: Fleet, photos: list[Path]) -> None:
    photo = encode(noise_image(902), "PNG")
    change(pair, "outlives", photo)
    change(pair, photos[1].stem, None)
    for name in ("api", *WORKERS):
        pair.kill(name)
    pair.restart_valkey()
    pair.man(2)
    assert_seen_by_every_worker(pair, photo, "outlives", there=True)
    assert_seen_by_every_worker(pair, photos[1].read_bytes(), photos[1].stem, there=False)
