"""An upgrade: what the previous build wrote is served by this one, and meanwhile parts of both work side by side"""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.catalogue.categories import CATEGORIES
from tests.conftest import encode, noise_image
from tests.e2e.conftest import eventually
from tests.e2e.support.two_builds import TwoBuilds, unpack
from tests.support.once import small_catalogue

PREVIOUS = "5a635aa9dc75fec0a14f248df126e74412d29d18"
WITHIN_S = 30  # a job that the other build would be woken for in another way is found within seconds
# Both run the same graph on the same processor, but how many photos share a pass is up to chance.
TOLERANCE = 1e-4

Body = dict[str, Any]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 drawn listings, 26 photos."""
    return small_catalogue(tmp_path_factory, 13)


@pytest.fixture(scope="module")
def photos(catalogue: Path) -> dict[str, bytes]:
    """The catalogue's photos by their ids."""
    return {path.stem: path.read_bytes() for path in sorted((catalogue / "images").iterdir())}


@pytest.fixture(scope="module")
def builds(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoBuilds]:
    """An installation that the previous build has made; nothing runs yet but Valkey."""
    directory = tmp_path_factory.mktemp("upgrade")
    sources = unpack(PREVIOUS, directory / "previous")
    settings = {"catalogue": catalogue, "precision": "float32", "lease_s": 4, "canary_s": 0}
    builds = TwoBuilds(sources, directory / "home", directory / "valkey", log=directory / "log", **settings)
    try:
        builds.previous_lookalike("index", "build")
        yield builds
    finally:
        builds.close()


@pytest.fixture(scope="module")
def admin(builds: TwoBuilds) -> str:
    """An administrator's key, made by the previous build."""
    return builds.previous_lookalike("keys", "create", "--name", "admin", "--scopes", "admin").strip()


class Caller:
    """Somebody with a key, who calls one of the APIs."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, *, key: str = "", **content: Any) -> requests.Response:
        """Make a call, with an Idempotency-Key if one is given."""
        headers = self._headers | ({"Idempotency-Key": key} if key else {})
        return requests.request(method, self._url + path, headers=headers, timeout=WITHIN_S + 10, **content)

    def read(self, path: str) -> Body:
        return _body(self.call("GET", path), 200)

    def submit(self, kind: str, photo: bytes, *, key: str = "", **options: Any) -> Body:
        files = {"image": BytesIO(photo)}
        return _body(self.call("POST", f"/v1/jobs/{kind}", key=key, files=files, data=options), 202)

    def submit_json(self, kind: str, **options: Any) -> Body:
        return _body(self.call("POST", f"/v1/jobs/{kind}", json=options), 202)

    def submit_batch(self, photos: list[bytes], *, key: str = "") -> Body:
        parts = [("image", (f"{number}.jpg", photo)) for number, photo in enumerate(photos)]
        return _body(self.call("POST", "/v1/batches", key=key, files=parts), 202)

    def put(self, image_id: str, photo: bytes) -> Body:
        said = {"listing_id": "live", "category": CATEGORIES[3]}
        return _body(self.call("PUT", f"/v1/images/{image_id}", files={"image": BytesIO(photo)}, data=said), 202)

    def delete(self, image_id: str) -> Body:
        return _body(self.call("DELETE", f"/v1/images/{image_id}"), 202)

    def ended(self, *jobs: Body) -> list[Body]:
        """The jobs, once all have ended."""
        until = time.monotonic() + WITHIN_S
        bodies = [self.read(f"{job['links']['self']}?wait={max(0, until - time.monotonic()):.1f}") for job in jobs]
        assert all(body["finished_at"] for body in bodies), bodies
        return bodies

    def results(self, *jobs: Body) -> list[Body]:
        """The results of jobs that end well, each at the first attempt."""
        bodies = self.ended(*jobs)
        assert {(body["status"], body["attempt"]) for body in bodies} == {("succeeded", 1)}, bodies
        return [body["result"] for body in bodies]

    def batch_ended(self, batch: Body) -> bool:
        """Whether every photo of a batch has been searched for."""
        counts = self.read(batch["links"]["self"])["counts"]
        return bool(counts["succeeded"] == counts["total"] == len(batch["items"]))

    def nearest(self, *photos: bytes) -> list[str]:
        """The image that is most like each photo."""
        found = self.results(*(self.submit("search", photo, k=1) for photo in photos))
        return [result["neighbours"][0]["image_id"] for result in found]

    def jobs(self) -> dict[str, Body]:
        """Every job that this key may see, by its id."""
        return {job["id"]: job for job in self.read("/v1/jobs?limit=200")["jobs"]}


def _body(answer: requests.Response, status: int) -> Body:
    assert answer.status_code == status, (answer.request.url, answer.text)
    body: Body = answer.json()
    return body


def have(builds: TwoBuilds, api: str, worker: str) -> str:
    """Run one API and one worker, and nothing else; returns where the API is."""
    builds.have(api, worker)
    url = builds.url_of(api)

    def ready() -> bool:
        answer = requests.get(url + "/readyz", timeout=5)
        return answer.status_code == 200 and answer.json()["workers"] == 1

    eventually(ready, 60, f"{api} and {worker} are ready")
    return url


def known(now: Body, before: Body) -> Body:
    """What is said now under the names under which something was said before."""
    return {name: now[name] for name in before}


def numbers(caller: Caller, photo: bytes) -> list[float]:
    """The 13 numbers, as the older service answers."""
    answer = caller.call("POST", "/predict/feature_embedding", files={"image": BytesIO(photo)})
    features: list[float] = _body(answer, 200)["features"]
    assert len(features) == 13
    return features


def assert_same_neighbours(now: Body, before: Body) -> None:
    assert [one["image_id"] for one in now["neighbours"]] == [one["image_id"] for one in before["neighbours"]]
    scores_before = [one["score"] for one in before["neighbours"]]
    assert [one["score"] for one in now["neighbours"]] == pytest.approx(scores_before, abs=TOLERANCE)


def test_what_the_previous_build_left_is_served_and_nothing_is_lost_or_done_twice(
    builds: TwoBuilds, admin: str, photos: dict[str, bytes]
) -> None:
    asked, *others = photos
    put, put_later = encode(noise_image(901), "PNG"), encode(noise_image(902), "PNG")
    shop_key = builds.previous_lookalike("keys", "create", "--name", "shop").strip()

    # All that the previous build has done...
    url = have(builds, "previous-api", "previous-worker")
    before, shop = Caller(url, admin), Caller(url, shop_key)
    searched, embedded = before.submit("search", photos[asked], k=6), before.submit("embed", photos[asked])
    found, _ = before.results(searched, embedded)
    numbers_before = numbers(before, photos[asked])
    # What goes away is none of the neighbours, so that those stay the same.
    deleted, deleted_later, *_ = sorted(set(others) - {one["image_id"] for one in found["neighbours"]})
    before.results(before.put("put", put), before.delete(deleted))
    [failed] = before.ended(before.submit_json("search", image_id="none"))
    assert failed["status"] == "failed"
    done = [before.read(job["links"]["self"]) for job in (searched, embedded, failed)]

    # ... and all that it has accepted while its workers were stopped.
    builds.have("previous-api")
    waiting = [
        before.submit("search", photos[asked], key="interactive", k=6),
        before.submit("embed", photos[asked], key="bulk", priority="bulk"),
        before.put("put-later", put_later),
        before.delete(deleted_later),
    ]
    of_shop = shop.submit("search", photos[asked])
    canceled = before.submit("search", photos[asked])
    assert before.call("POST", canceled["links"]["cancel"]).json()["status"] == "canceled"
    batch = before.submit_batch([photos[asked], put, photos[deleted]], key="batch")
    jobs_before = before.jobs()

    url = have(builds, "api", "worker")
    now, shop = Caller(url, admin), Caller(url, shop_key)
    found_now, *_ = now.results(*waiting, of_shop)
    eventually(lambda: now.batch_ended(batch), WITHIN_S, "the batch has ended")

    # Nothing is lost, and nothing was done twice.
    jobs = now.jobs()
    assert jobs.keys() == jobs_before.keys()
    not_succeeded = {failed["id"]: "failed", canceled["id"]: "canceled"}
    assert {job_id: job["status"] for job_id, job in jobs.items() if job["status"] != "succeeded"} == not_succeeded
    assert {job["attempt"] for job_id, job in jobs.items() if job_id != canceled["id"]} == {1}
    assert [known(now.read(job["links"]["self"]), job) for job in done] == done

    # The same photo is answered as before.
    assert_same_neighbours(found_now, found)
    assert numbers(now, photos[asked]) == pytest.approx(numbers_before, abs=TOLERANCE)

    # Who repeats a request finds what became of the first.
    assert now.submit("search", photos[asked], key="interactive", k=6)["id"] == waiting[0]["id"]
    assert now.submit("embed", photos[asked], key="bulk", priority="bulk")["id"] == waiting[1]["id"]
    assert now.submit_batch([photos[asked], put, photos[deleted]], key="batch")["id"] == batch["id"]
    refused = now.call("POST", "/v1/jobs/search", key="interactive", files={"image": BytesIO(put)})
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_conflict")

    # Keys let in whom they let in before, and nobody else.
    assert shop.jobs().keys() == {of_shop["id"]}
    assert shop.call("GET", searched["links"]["self"]).status_code == 404
    assert requests.get(f"{url}/v1/jobs", timeout=5).status_code == 401

    # What was put and deleted is so, also when the change log has been compacted into an index.
    for compacted in (False, True):
        if compacted:
            [result] = now.results(now.submit_json("reindex"))
            assert result["promoted"], result
        *best, other, other_later = now.nearest(put, put_later, photos[deleted], photos[deleted_later])
        assert best == ["put", "put-later"]
        assert (other != deleted, other_later != deleted_later) == (True, True)
        assert now.call("GET", "/v1/images/put").headers["Content-Type"] == "image/jpeg"
        assert now.call("GET", f"/v1/images/{deleted}").status_code == 404


@pytest.mark.parametrize(
    ("api", "worker"),
    [
        pytest.param("previous-api", "worker", id="this worker beside the previous API"),
        pytest.param("api", "previous-worker", id="the previous worker beside this API"),
    ],
)
def test_parts_of_both_builds_work_side_by_side(
    builds: TwoBuilds, admin: str, photos: dict[str, bytes], api: str, worker: str
) -> None:
    caller = Caller(have(builds, api, worker), admin)
    photo, image_id = encode(noise_image(len(api)), "PNG"), f"put-by-{api}"
    asked, deleted = list(photos)[-2:] if api == "api" else list(photos)[-4:-2]
    jobs = [
        caller.submit("search", photos[asked]),
        caller.submit_json("search", image_id=asked),
        caller.submit("embed", photos[asked]),
        caller.submit("embed", photo, priority="bulk"),
        caller.put(image_id, photo),
        caller.delete(deleted),
    ]
    failing = caller.submit_json("search", image_id="none")
    batch = caller.submit_batch([photos[asked], photo])
    caller.results(*jobs)
    assert caller.ended(failing)[0]["status"] == "failed"
    eventually(lambda: caller.batch_ended(batch), WITHIN_S, "the batch has ended")

    reindex = caller.submit_json("reindex")
    best, other = caller.nearest(photo, photos[deleted])
    assert (best, other != deleted) == (image_id, True)
    [result] = caller.results(reindex)
    assert result["promoted"], result
    live = [version["version"] for version in caller.read("/v1/index/versions")["versions"] if version["live"]]
    assert live == [result["index_version"]]
    best, other = caller.nearest(photo, photos[deleted])
    assert (best, other != deleted) == (image_id, True)
    assert [worker["state"] for worker in caller.read("/v1/workers")["workers"]] == ["ready"]
    assert caller.jobs().keys() >= {job["id"] for job in jobs}
