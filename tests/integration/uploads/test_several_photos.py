"""Several photos as one query: one job with the pixels of all, and what is wrong with one is said of that one."""

from io import BytesIO

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.errors import InternalError
from shared.jobs.contract import Distinct, EmbedRequest, ListingScore, SearchRequest
from shared.jobs.store import JobStore
from shared.photos.images import PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image
from tests.integration.conftest import PHOTO, assert_problem

PHOTOS = [PHOTO, *(encode(noise_image(n + 1), "PNG") for n in range(9))]
PIXELS = [decode_photo(photo, PreprocessSpec()).tobytes() for photo in PHOTOS]


def send(
    http: FlaskClient, photos: list[bytes], path: str = "/v1/jobs/search", *, key: str = "", **options: str
) -> TestResponse:
    files = [(BytesIO(photo), f"{number}.jpg") for number, photo in enumerate(photos)]
    return http.post(path, data={"image": files, **options}, headers={"Idempotency-Key": key} if key else {})


@pytest.mark.parametrize(("path", "request_"), [("search", SearchRequest(k=7)), ("embed", EmbedRequest())])
def test_the_photos_of_a_request_are_one_job_and_so_are_those_of_its_retry(
    http: FlaskClient, jobs: JobStore, path: str, request_: SearchRequest | EmbedRequest
) -> None:
    options = {"k": "7"} if path == "search" else {}
    answer = send(http, PHOTOS, f"/v1/jobs/{path}", **options)
    assert answer.status_code == 202
    job_id = answer.get_json()["id"]
    claim = jobs.claim("w", lease_s=15)
    assert claim
    assert (claim.job.id, claim.job.request, claim.pixels) == (job_id, request_, b"".join(PIXELS))
    jobs.fail(claim.job, InternalError("x"))
    http.post(f"/v1/jobs/{job_id}/retry")
    retried = jobs.claim("w", lease_s=15)
    assert retried
    assert (retried.job.request, retried.pixels) == (request_, claim.pixels)


def test_all_photos_count_for_the_idempotency_key(http: FlaskClient) -> None:
    first = send(http, PHOTOS[:2], key="k").get_json()["id"]
    assert send(http, PHOTOS[:2], key="k").get_json()["id"] == first
    for other in (PHOTOS[:1], PHOTOS[1:3], PHOTOS[:3]):
        assert_problem(send(http, other, key="k"), 422, "idempotency_conflict")


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        (PHOTO[:200], 422, "photo_undecodable"),
        (b"%PDF-1.7", 415, "unsupported_format"),
        (b"", 422, "photo_undecodable"),
    ],
)
def test_a_photo_that_cannot_be_used_fails_the_request_and_is_named(
    http: FlaskClient, jobs: JobStore, bad: bytes, status: int, code: str
) -> None:
    detail = assert_problem(send(http, [PHOTO, PHOTO, bad]), status, code)
    assert detail.startswith("photo 3 of 3: ")
    assert jobs.depth() == 0


def test_more_than_ten_photos_or_a_box_of_several_are_refused(http: FlaskClient, jobs: JobStore) -> None:
    assert "10 photos at most" in assert_problem(send(http, [*PHOTOS, PHOTO]), 422, "invalid_request")
    assert "box: " in assert_problem(send(http, PHOTOS[:2], box="0,0,0.5,0.5"), 422, "invalid_request")
    for path in ("/predict/similar_images", "/predict/feature_embedding"):
        assert "one photo" in assert_problem(send(http, PHOTOS[:2], path), 422, "invalid_request")
    assert jobs.depth() == 0


def test_a_listing_is_named_in_json_and_alone(http: FlaskClient, jobs: JobStore) -> None:
    for path, type_ in (("search", SearchRequest), ("embed", EmbedRequest)):
        answer = http.post(f"/v1/jobs/{path}", json={"listing_id": "l1"})
        assert jobs.get(answer.get_json()["id"]).request == type_(listing_id="l1")
        claim = jobs.claim("w", lease_s=15)
        assert claim
        assert claim.pixels is None
        jobs.fail(claim.job, InternalError("x"))
        assert http.post(f"/v1/jobs/{claim.job.id}/retry").status_code == 202  # which needs no photo
        assert jobs.claim("w", lease_s=15)
    for json in ({"listing_id": "l1", "image_id": "p1"}, {"listing_id": ""}, {"k": 3}):
        assert "listing_id" in assert_problem(http.post("/v1/jobs/search", json=json), 422, "invalid_request")
    assert "listing_id" in assert_problem(send(http, [PHOTO], listing_id="l1"), 422, "invalid_request")


def test_a_score_of_listings_needs_distinct_listings(http: FlaskClient, jobs: JobStore) -> None:
    job_id = send(http, [PHOTO], distinct="listing", listing_score="mean").get_json()["id"]
    assert jobs.get(job_id).request == SearchRequest(distinct=Distinct.LISTING, listing_score=ListingScore.MEAN)
    for options in ({"listing_score": "mean"}, {"distinct": "listing", "listing_score": "worst"}):
        assert "listing_score: " in assert_problem(send(http, [PHOTO], **options), 422, "invalid_request")


def test_requests_of_one_photo_are_what_they_were() -> None:
    assert SearchRequest().model_dump_json() == (
        '{"image_id":null,"k":4,"category":null,"distinct":"none","exclude_listing":null,"min_score":null}'
    )
    assert EmbedRequest(image_id="p").model_dump_json() == '{"image_id":"p","encoding":"float"}'
