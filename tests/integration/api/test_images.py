"""/v1/images over HTTP: changes become jobs in the order they were accepted, and thumbnails are of what is live"""

import hashlib
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import redis
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from api.app import create_app
from api.uploads.bodies import PhotoReader
from shared.artifacts.home import live_photo
from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import ChangeLog, PutPhoto
from shared.errors import InternalError
from shared.jobs.contract import DeleteImageRequest, ImageChangeResult, PutImageRequest
from shared.jobs.store import JobStore
from shared.model.embedder import Embeddings
from shared.photos.images import PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image
from tests.integration.conftest import PHOTO, application, assert_problem, photo_form, settings
from tests.support.limits import no_more_files
from tests.support.snapshots import write_snapshot

CATEGORY = CATEGORIES[1]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    directory = tmp_path / "catalogue"
    (directory / "images").mkdir(parents=True)
    (directory / "images" / "p1.jpg").write_bytes(encode(noise_image(1, (800, 400)), comment=b"secret"))
    return directory


@pytest.fixture
def home(tmp_path: Path, catalogue: Path) -> Path:
    """An installation whose live snapshot has the photos p1 and p2; the file of p2 is gone."""
    home = tmp_path / "home"
    promote(home, catalogue)
    return home


def promote(home: Path, catalogue: Path, compacted_through: str = "0-0") -> None:
    store = index_store(home)
    photos = [CataloguePhoto(i, "l", 0, catalogue / "images" / f"{i}.jpg", "5a") for i in ("p1", "p2")]
    embeddings = Embeddings(np.eye(2, dtype=np.float32), np.zeros((2, 13), dtype=np.float32))
    version = write_snapshot(
        store,
        photos,
        embeddings,
        fingerprint="f",
        catalogue="c",
        catalogue_digest="d",
        compacted_through=compacted_through,
        root=catalogue,
    )
    store.promote(version)


@pytest.fixture
def http(client: redis.Redis, valkey_url: str, reader: PhotoReader, home: Path, catalogue: Path) -> FlaskClient:
    app = application(settings(valkey_url, home=home, catalogue=catalogue, max_queued=100, max_changes=2), reader)
    return app.test_client()


def put(
    http: FlaskClient, image_id: str = "new", *, headers: dict[str, str] | None = None, **options: str
) -> TestResponse:
    form = {**photo_form(), "listing_id": "l1", "category": CATEGORY, **options}
    return http.put(f"/v1/images/{quote(image_id)}", data=form, headers=headers or {})


def carry_out(jobs: JobStore, log: ChangeLog, sha256: str = "5a") -> str:
    """Stands in for a worker: the change of the next job, without a model."""
    claim = jobs.claim("w", lease_s=15)
    assert claim
    request = claim.job.request
    assert isinstance(request, PutImageRequest | DeleteImageRequest)
    nothing = np.zeros(13, np.float32)
    photo = PutPhoto("l", 0, sha256, "f", nothing, nothing) if isinstance(request, PutImageRequest) else None
    entry = log.append(claim.job, request.image_id, request.sequence, photo)
    assert entry
    jobs.succeed(claim.job, ImageChangeResult(image_id=request.image_id, change_id=entry))
    return entry


@pytest.fixture
def log(client: redis.Redis) -> ChangeLog:
    return ChangeLog(client)


# --- put and delete ---


def test_a_put_is_a_job_with_its_photo_and_all_that_was_said_of_it(http: FlaskClient, jobs: JobStore) -> None:
    answer = put(http, "ä 1")
    body = answer.get_json()
    assert (answer.status_code, body["kind"], answer.headers["Location"]) == (202, "put_image", body["links"]["self"])
    claim = jobs.claim("w", lease_s=15)
    assert claim
    request = claim.job.request
    assert isinstance(request, PutImageRequest)
    assert (request.image_id, request.listing_id, request.category) == ("ä 1", "l1", CATEGORY)
    assert request.sequence > 0
    assert claim.pixels
    assert claim.job.spec == PreprocessSpec()
    pixels, kept = claim.pixels[: claim.job.spec.n_bytes], claim.pixels[claim.job.spec.n_bytes :]
    assert pixels == decode_photo(PHOTO, claim.job.spec).tobytes()
    assert Image.open(BytesIO(kept)).size == (160, 120)  # of any shape, so that every spec can make pixels of it


def test_a_change_says_when_it_is_done_which_entry_it_is(http: FlaskClient, jobs: JobStore, log: ChangeLog) -> None:
    job_id = http.delete("/v1/images/p1").get_json()["id"]
    entry = carry_out(jobs, log)
    body = http.get(f"/v1/jobs/{job_id}").get_json()
    assert (body["kind"], body["status"]) == ("delete_image", "succeeded")
    assert body["result"] == {"image_id": "p1", "change_id": entry, "timing_ms": None}


def test_of_two_changes_the_one_accepted_later_has_the_higher_sequence(http: FlaskClient, jobs: JobStore) -> None:
    accepted = [http.delete("/v1/images/a"), put(http, "a"), http.delete("/v1/images/a")]
    requests = [jobs.get(answer.get_json()["id"]).request for answer in accepted]
    sequences = [r.sequence for r in requests if isinstance(r, PutImageRequest | DeleteImageRequest)]
    assert sequences == sorted(set(sequences))
    assert len(sequences) == 3


def test_the_same_key_gives_the_same_job_and_for_another_photo_is_refused(http: FlaskClient) -> None:
    key = {"Idempotency-Key": "k1"}
    assert put(http, headers=key).get_json()["id"] == put(http, headers=key).get_json()["id"]
    assert_problem(put(http, "another", headers=key), 422, "idempotency_conflict")
    gone = {"Idempotency-Key": "k2"}
    first, again = (http.delete("/v1/images/a", headers=gone).get_json()["id"] for _ in range(2))
    assert first == again


def test_options_of_any_job_are_taken(http: FlaskClient, jobs: JobStore) -> None:
    of_put = jobs.get(put(http, priority="bulk").get_json()["id"])
    of_delete = jobs.get(http.delete("/v1/images/a?priority=bulk&deadline_s=5").get_json()["id"])
    assert (of_put.submission.priority, of_delete.submission.priority) == ("bulk", "bulk")
    assert of_delete.submission.deadline_s == 5


@pytest.mark.parametrize(
    ("image_id", "says"),
    [("a/b", "slash"), ("a\tb", "printable"), (" a", "space"), ("x" * 201, "200"), ("a\u2028b", "printable")],
)
def test_ids_that_would_be_trouble_are_refused_in_words(http: FlaskClient, image_id: str, says: str) -> None:
    for answer in (put(http, image_id), http.delete(f"/v1/images/{quote(image_id)}")):
        assert says in assert_problem(answer, 422, "invalid_request")
    assert_problem(http.get(f"/v1/images/{quote(image_id)}"), 422, "invalid_request")


@pytest.mark.parametrize(
    "options", [{"listing_id": ""}, {"listing_id": "x" * 201}, {"category": "Boats"}, {"k": "4"}, {"sequence": "9"}]
)
def test_what_a_put_says_is_checked(http: FlaskClient, options: dict[str, str]) -> None:
    assert next(iter(options)) in assert_problem(put(http, "new", headers=None, **options), 422, "invalid_request")


def test_a_put_needs_a_photo_and_a_listing_and_a_category(http: FlaskClient) -> None:
    assert "listing_id" in assert_problem(http.put("/v1/images/a"), 422, "invalid_request")
    said = {"listing_id": "l", "category": CATEGORY}
    assert_problem(http.put("/v1/images/a", data=said, content_type="multipart/form-data"), 422, "image_missing")
    broken = said | {"image": (BytesIO(b"\xff\xd8\xff"), "a.jpg")}
    assert_problem(http.put("/v1/images/a", data=broken), 422, "photo_undecodable")
    assert_problem(http.delete("/v1/images/a?listing_id=l"), 422, "invalid_request")


def test_too_many_changes_since_the_last_index_are_refused_until_they_are_folded(
    http: FlaskClient, jobs: JobStore, log: ChangeLog, home: Path, catalogue: Path
) -> None:
    for image_id in ("a", "b"):
        assert http.delete(f"/v1/images/{image_id}").status_code == 202
        last = carry_out(jobs, log)
    for refused in (put(http), http.delete("/v1/images/a")):
        assert "reindex" in assert_problem(refused, 429, "changes_full")
        assert int(refused.headers["Retry-After"]) > 0
    promote(home, catalogue, compacted_through=last)
    assert put(http).status_code == 202


def test_a_failed_put_whose_photo_is_gone_cannot_be_tried_again(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    job_id = put(http).get_json()["id"]
    claim = jobs.claim("w", lease_s=15)
    assert claim
    jobs.fail(claim.job, InternalError("x"))
    assert http.post(f"/v1/jobs/{job_id}/retry").status_code == 202
    client.delete(f"lookalike:pixels:{job_id}")
    assert_problem(http.post(f"/v1/jobs/{job_id}/retry"), 409, "job_not_retryable")


# --- get ---


def opened(answer: TestResponse) -> Image.Image:
    assert (answer.status_code, answer.mimetype) == (200, "image/jpeg"), answer.text
    return Image.open(BytesIO(answer.data))


def test_a_thumbnail_is_small_and_holds_nothing_but_pixels(http: FlaskClient) -> None:
    image = opened(http.get("/v1/images/p1"))
    assert image.size == (320, 160)
    assert "comment" not in image.info
    assert opened(http.get("/v1/images/p1?size=32")).size == (32, 16)
    assert opened(http.get("/v1/images/p1?size=640")).size == (640, 320)
    for size in ("31", "641", "big"):
        assert_problem(http.get(f"/v1/images/p1?size={size}"), 422, "invalid_request")


def test_who_has_the_thumbnail_already_is_told_so(http: FlaskClient) -> None:
    first = http.get("/v1/images/p1")
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = http.get("/v1/images/p1", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    weak = http.get("/v1/images/p1", headers={"If-None-Match": f"W/{first.headers['ETag']}"})  # as proxies weaken it
    assert weak.status_code == 304
    other = http.get("/v1/images/p1?size=100", headers={"If-None-Match": first.headers["ETag"]})
    assert other.status_code == 200


def test_photos_nobody_has_or_whose_file_is_gone_are_not_found(http: FlaskClient, catalogue: Path) -> None:
    for image_id in ("nobody", "p2", "..%2F..%2Fetc%2Fpasswd", "..%2Fhome%2Findexes"):
        answer = http.get(f"/v1/images/{image_id}")
        assert answer.status_code in (404, 422)
    assert_problem(http.get("/v1/images/p2"), 404, "image_not_found")
    (catalogue / "images" / "p1.jpg").write_bytes(b"no photo")
    assert_problem(http.get("/v1/images/p1"), 404, "image_not_found")


def test_where_the_api_may_open_no_more_files_photos_are_put_off_and_not_told_to_be_gone(http: FlaskClient) -> None:
    http.application.extensions["lookalike"].reader = PhotoReader(n_threads=1, max_pixels=10**6)
    for n_free in (0, 1):  # the table of photos, the photo's file; sockets to a decoder
        with no_more_files(but=n_free):
            refused = http.get("/v1/images/p1")
        assert_problem(refused, 503, "resources_exhausted")
        assert int(refused.headers["Retry-After"]) > 0
    assert opened(http.get("/v1/images/p1")).size == (320, 160)


def test_a_photo_put_live_shows_at_once_and_a_deleted_one_no_more(
    http: FlaskClient, jobs: JobStore, log: ChangeLog, home: Path, catalogue: Path
) -> None:
    file = encode(Image.new("RGB", (224, 224), (250, 0, 0)), "PNG")
    sha256 = hashlib.sha256(file).hexdigest()
    live_photo(home, sha256).parent.mkdir(parents=True)
    live_photo(home, sha256).write_bytes(file)
    before = http.get("/v1/images/p1").headers["ETag"]
    put(http, "p1")
    entry = carry_out(jobs, log, sha256)
    shown = http.get("/v1/images/p1", headers={"If-None-Match": before})
    assert opened(shown).resize((1, 1)).getpixel((0, 0))[0] > 240  # type: ignore[index]
    promote(home, catalogue, compacted_through=entry)  # where the catalogue had the later word
    assert opened(http.get("/v1/images/p1")).size == (320, 160)
    http.delete("/v1/images/p1")
    carry_out(jobs, log)
    assert_problem(http.get("/v1/images/p1"), 404, "image_not_found")


def test_without_an_index_there_is_nothing_to_show_or_change(
    client: redis.Redis, valkey_url: str, tmp_path: Path
) -> None:
    http = create_app(settings(valkey_url, home=tmp_path)).test_client()
    for answer in (http.get("/v1/images/p1"), put(http), http.delete("/v1/images/p1")):
        assert_problem(answer, 503, "index_missing")
