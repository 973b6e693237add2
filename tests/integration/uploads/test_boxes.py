"""`box`: the job's pixels are those of the part, and what cannot be a part is refused by name."""

from io import BytesIO

import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from api.uploads.decoder_pool import DecoderPool
from shared.errors import InternalError
from shared.jobs.contract import EmbedRequest, SearchRequest
from shared.jobs.store import JobStore
from shared.photos.boxes import Box
from shared.photos.images import PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image
from tests.integration.conftest import PHOTO, assert_problem, photo_form, post

BOX = "0.25,0.5,0.5,0.4"
SPEC = PreprocessSpec()
PART = decode_photo(PHOTO, SPEC, box=Box(0.25, 0.5, 0.5, 0.4)).tobytes()


@pytest.mark.parametrize(("path", "request_type"), [("search", SearchRequest), ("embed", EmbedRequest)])
def test_a_job_is_about_the_part_and_its_record_says_which(
    http: FlaskClient, jobs: JobStore, path: str, request_type: type[SearchRequest | EmbedRequest]
) -> None:
    for answer in (post(http, f"/v1/jobs/{path}", box=BOX), post(http, f"/v1/jobs/{path}?box={BOX}")):
        assert answer.status_code == 202
        job = jobs.get(answer.get_json()["id"])
        assert job.request == request_type(box=Box(0.25, 0.5, 0.5, 0.4))
        claim = jobs.claim("w", lease_s=15)
        assert claim
        assert claim.pixels == PART


def test_boxes_are_proposed_of_one_whole_photo_whose_upright_size_the_worker_is_told(
    http: FlaskClient, jobs: JobStore
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = encode(Image.new("RGB", (60, 40)), exif=exif)
    answer = http.post("/v1/jobs/embed", data=photo_form(sideways, propose_boxes="true"))
    assert jobs.get(answer.get_json()["id"]).request == EmbedRequest(propose_boxes=True, photo_size=(40, 60))
    refused = [
        post(http, "/v1/jobs/embed", box=BOX, propose_boxes="true"),
        http.post("/v1/jobs/embed", json={"image_id": "p", "propose_boxes": True}),
        post(http, "/v1/batches", kind="embed", propose_boxes="true"),
        post(http, "/v1/jobs/search", propose_boxes="true"),
        post(http, "/v1/jobs/embed", photo_size="[1,1]"),
    ]
    for answer in refused:
        assert_problem(answer, 422, "invalid_request")
    assert jobs.depth() == 1


def test_a_retry_is_about_the_same_part(http: FlaskClient, jobs: JobStore) -> None:
    job_id = post(http, "/v1/jobs/search", box=BOX).get_json()["id"]
    claim = jobs.claim("w", lease_s=15)
    assert claim
    jobs.fail(claim.job, InternalError("x"))
    again = http.post(f"/v1/jobs/{job_id}/retry").get_json()["id"]
    retried = jobs.claim("w", lease_s=15)
    assert retried
    assert (retried.job.id, retried.pixels, retried.job.request) == (again, PART, claim.job.request)


def keyed(http: FlaskClient, **options: str) -> TestResponse:
    return http.post("/v1/jobs/search", data=photo_form(PHOTO, **options), headers={"Idempotency-Key": "k"})


def test_another_box_under_the_same_key_is_another_request(http: FlaskClient) -> None:
    first = keyed(http, box=BOX).get_json()["id"]
    assert keyed(http, box="0.250,0.50,0.5,0.4").get_json()["id"] == first
    for options in ({"box": "0.25,0.5,0.5,0.5"}, {}):
        assert_problem(keyed(http, **options), 422, "idempotency_conflict")


@pytest.mark.parametrize("box", ["", "1", "0,0,1", "0,0,2,1", "0,0,nan,1", "0.5,0.5,0.6,0.5", "0,0,0,1", "0,0,0.05,1"])
@pytest.mark.parametrize("path", ["search", "embed"])
def test_a_box_that_is_none_or_has_too_few_pixels_is_422_and_named(
    http: FlaskClient, jobs: JobStore, path: str, box: str
) -> None:
    assert "box: " in assert_problem(post(http, f"/v1/jobs/{path}", box=box), 422, "invalid_request")
    assert jobs.depth() == 0


@pytest.mark.parametrize("box", [BOX, [0, 0, 1, 1], None])
def test_a_photo_of_the_index_has_no_parts(http: FlaskClient, box: object) -> None:
    answer = http.post("/v1/jobs/search", json={"image_id": "p", "box": box})
    assert "box: send it with the photo itself" in assert_problem(answer, 422, "invalid_request")


def test_a_batch_takes_photos_whole(http: FlaskClient, jobs: JobStore) -> None:
    assert "box: photos of a batch" in assert_problem(post(http, "/v1/batches", box=BOX), 422, "invalid_request")
    assert jobs.depth() == 0


@pytest.mark.parametrize("path", ["feature_embedding", "similar_images"])
def test_the_older_services_calls_take_the_whole_photo_whatever_else_is_in_the_form(
    http: FlaskClient, jobs: JobStore, path: str
) -> None:
    assert post(http, f"/predict/{path}", box=BOX).status_code == 202
    claim = jobs.claim("w", lease_s=15)
    assert claim
    assert claim.pixels == decode_photo(PHOTO, SPEC).tobytes()


def test_photos_whose_part_needs_more_memory_go_to_the_decoder_of_large_ones() -> None:
    photo = encode(noise_image(8, (4000, 3000)), "PNG", compress_level=1)
    box = Box(0, 0, 0.9, 0.9)
    decoders = DecoderPool(1, max_pixels=64_000_000)
    assert decoders.decode(BytesIO(photo), SPEC, box=box) == decode_photo(photo, SPEC, box=box).tobytes()
    assert [len(pool._idle) for pool in (decoders._small, decoders._large)] == [1, 1]
