"""Every row of the table of status codes for input, against a real Valkey."""

import gzip
import struct
import time
import zlib
from io import BytesIO

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from api.uploads.bodies import PhotoReader
from shared.jobs.celery_config import QUEUES, make_celery
from shared.jobs.contract import Priority
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from tests.conftest import encode, noise_image
from tests.integration.conftest import PHOTO, application, assert_problem, photo_form, post, settings

FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nphoto\r\n--x--\r\n'
SUBMITS = ["/predict/feature_embedding", "/predict/similar_images", "/v1/jobs/embed", "/v1/jobs/search"]


@pytest.mark.parametrize("path", SUBMITS)
def test_a_missing_image_field_is_422_with_detail(http: FlaskClient, path: str) -> None:
    assert "image" in assert_problem(http.post(path, data={"imag": (BytesIO(PHOTO), "a")}), 422, "image_missing")
    assert_problem(http.post(path, data={"image": "text"}, content_type="multipart/form-data"), 422, "image_missing")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/x-www-form-urlencoded"])
def test_a_form_of_words_alone_is_told_that_they_are_sent_as_json(http: FlaskClient, content_type: str) -> None:
    answer = http.post("/v1/jobs/search", data={"text": "a lamp"}, content_type=content_type)
    assert "without a photo, send text as JSON" in assert_problem(answer, 422, "image_missing")


@pytest.mark.parametrize("path", SUBMITS)
@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream", "text/plain", ""])
def test_what_is_not_multipart_is_422(http: FlaskClient, path: str, content_type: str) -> None:
    assert_problem(http.post(path, data=PHOTO, content_type=content_type), 422, "image_missing")


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({"Content-Type": "multipart/form-data"}, FORM, "names no boundary"),
        ({"Content-Type": "multipart/form-data; boundary=y"}, FORM, "no part was found"),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            FORM.replace(b'"image"', b'"file"'),
            "field named 'file'",
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": "gzip"},
            gzip.compress(FORM, mtime=0),
            "Content-Encoding gzip is not undone",
        ),
        ({"Content-Type": "multipart/form-data; boundary=x"}, FORM.replace(b'; filename="a"', b""), "with a filename"),
    ],
    ids=["no boundary", "another boundary", "another field", "compressed", "no filename"],
)
def test_a_form_whose_photo_is_not_found_is_told_why(
    http: FlaskClient, headers: dict[str, str], body: bytes, says: str
) -> None:
    answer = http.post("/v1/jobs/search", data=body, headers=headers)
    assert says in assert_problem(answer, 422, "image_missing")


def test_compressed_json_is_told_that_it_is_not_undone(http: FlaskClient) -> None:
    body = gzip.compress(b'{"image_id": "p1"}', mtime=0)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = http.post("/v1/jobs/search", data=body, headers=headers)
    assert "Content-Encoding gzip is not undone" in assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/jobs/search", "/v1/jobs/embed", "/v1/batches"])
def test_an_option_that_was_sent_as_a_file_is_refused_and_not_passed_over(http: FlaskClient, path: str) -> None:
    form = {"image": (BytesIO(PHOTO), "a.jpg"), "deadline_s": (BytesIO(b"5"), "deadline_s")}
    answer = http.post(path, data=form, content_type="multipart/form-data")
    assert "deadline_s: it was sent as a file" in assert_problem(answer, 422, "invalid_request")


def test_broken_multipart_is_a_4xx_problem(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs/search", data=b"--x\r\nnonsense", content_type="multipart/form-data; boundary=x")
    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("k", "0"),
        ("k", "101"),
        ("k", "four"),
        ("k", "1.5"),
        ("category", "Cars"),
        ("distinct", "photo"),
        ("min_score", "2"),
        ("min_score", "nan"),
        ("exclude_listing", ""),
        ("exclude_listing", "x" * 201),
        ("colour", "red"),
        ("image_id", "p1"),
    ],
)
def test_an_unknown_option_or_value_is_422_and_named(http: FlaskClient, option: str, value: str) -> None:
    assert option in assert_problem(
        post(http, "/v1/jobs/search", PHOTO, prefer="", **{option: value}), 422, "invalid_request"
    )


def test_an_unknown_option_is_told_which_there_are(http: FlaskClient) -> None:
    detail = assert_problem(post(http, "/v1/jobs/search", colour="red"), 422, "invalid_request")
    assert "unknown option" in detail
    assert "exclude_listing" in detail
    assert "Value error" not in assert_problem(post(http, "/v1/jobs/search", category="x"), 422, "invalid_request")


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"k": 3}', b'"image_id"', b'{"image_id": 5}', b"\xff\xfe"])
def test_json_without_a_usable_image_id_is_422(http: FlaskClient, body: bytes) -> None:
    answer = http.post("/v1/jobs/search", data=body, content_type="application/json")
    assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("wait", ["-1", "x", "1e999", "nan", "\u0661"])
def test_a_wait_that_is_no_number_is_422(http: FlaskClient, wait: str) -> None:
    assert_problem(http.get("/v1/jobs/" + "0" * 32, query_string={"wait": wait}), 422, "invalid_request")


def test_a_body_larger_than_the_limit_is_413(client: redis.Redis, valkey_url: str) -> None:
    http = create_app(settings(valkey_url, max_upload_mb=1)).test_client()
    assert "1 MiB" in assert_problem(post(http, "/v1/jobs/embed", PHOTO + b"x" * (1 << 20)), 413, "upload_too_large")


def test_more_pixels_than_the_limit_are_413_from_the_header(http: FlaskClient) -> None:
    header = struct.pack(">IIBBBBB", 8001, 8000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert_problem(post(http, "/v1/jobs/embed", bomb), 413, "photo_too_large")


@pytest.mark.parametrize("content", [b"hello", b"%PDF-1.7", encode(noise_image(1, (32, 32)), "ICO")])
def test_no_photo_or_another_format_is_415(http: FlaskClient, content: bytes) -> None:
    assert_problem(post(http, "/predict/similar_images", content), 415, "unsupported_format")


@pytest.mark.parametrize("content", [b"", PHOTO[: len(PHOTO) // 2], b"\xff\xd8\xff\xe0garbage"])
def test_an_allowed_format_that_cannot_be_decoded_whole_is_422(http: FlaskClient, content: bytes) -> None:
    assert_problem(post(http, "/predict/similar_images", content), 422, "photo_undecodable")


def test_a_bad_photo_never_becomes_a_job(http: FlaskClient, client: redis.Redis) -> None:
    post(http, "/v1/jobs/search", b"hello")
    assert client.keys("*") == []


def test_a_queue_at_its_limit_is_429_with_retry_after(http: FlaskClient) -> None:
    for _ in range(3):
        assert post(http, "/v1/jobs/embed").status_code == 202
    answer = post(http, "/v1/jobs/embed")
    assert_problem(answer, 429, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", SUBMITS)
def test_redis_unreachable_is_503_with_retry_after(path: str) -> None:
    http = create_app(settings("redis://127.0.0.1:1/0")).test_client()
    answer = post(http, path)
    assert_problem(answer, 503, "queue_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert_problem(http.get("/v1/jobs/" + "0" * 32), 503, "queue_unavailable")


def test_a_job_whose_message_cannot_be_sent_is_accepted_and_its_message_replaced(
    http: FlaskClient, client: redis.Redis, valkey_url: str
) -> None:
    client.set(QUEUES[Priority.INTERACTIVE], "not a list")  # LPUSH will be refused
    assert post(http, "/v1/jobs/embed").status_code == 202
    client.delete(QUEUES[Priority.INTERACTIVE])
    store, celery = JobStore(client, clock=lambda: time.time() + 6), make_celery(valkey_url)
    assert Dispatcher(celery, client).republish_lost(store) == 1
    assert client.llen(QUEUES[Priority.INTERACTIVE]) == 1
    client.delete(PREFIX + "replacing-messages")
    assert Dispatcher(celery, client).republish_lost(store) == 0  # once is enough


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/v1/jobs/search", 405)])
def test_wrong_paths_and_methods_are_problems(http: FlaskClient, method: str, path: str, status: int) -> None:
    answer = http.open(path, method=method)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


def test_a_client_may_name_its_request_but_not_forge_a_header(http: FlaskClient) -> None:
    assert http.get("/livez", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    assert http.get("/livez", headers={"X-Request-ID": "a b"}).headers["X-Request-ID"] != "a b"


def test_a_photo_without_line_ends_is_not_taken_for_an_oversized_form(http: FlaskClient) -> None:
    """The parser holds what lies between two line ends in memory; white areas of a BMP have none."""
    white = noise_image(3, (700, 500))
    white.paste((255, 255, 255), (0, 0, 700, 400))
    assert post(http, "/v1/jobs/embed", encode(white, "BMP")).status_code == 202


def test_too_many_parts_or_a_nameless_one_are_422(http: FlaskClient) -> None:
    many = {f"option{i}": "x" for i in range(40)}
    assert "parts" in assert_problem(
        http.post("/v1/jobs/embed", data=photo_form(PHOTO, **many)), 422, "invalid_request"
    )
    nameless = b"--x\r\nContent-Disposition: form-data\r\n\r\n4\r\n--x--\r\n"
    answer = http.post("/v1/jobs/search", data=nameless, content_type="multipart/form-data; boundary=x")
    assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"a":' * 10_000, b"x" * 70_000])
def test_hostile_json_is_422(http: FlaskClient, body: bytes) -> None:
    answer = http.post("/v1/jobs/search", data=body, content_type="application/json")
    assert_problem(answer, 422, "invalid_request")


def test_a_flood_of_unknown_options_gets_a_short_answer(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs/search", json={"image_id": "p", **{f"{i}" * 50: 1 for i in range(500)}})
    assert_problem(answer, 422, "invalid_request")
    assert len(answer.data) < 5_000


def test_redis_lost_while_waiting_still_answers_202_with_the_job(http: FlaskClient, client: redis.Redis) -> None:
    waiting = http.application.extensions["lookalike"].store

    def lose(*_: object) -> object:
        raise redis.ConnectionError("gone")

    waiting.wait = lose
    answer = post(http, "/v1/jobs/embed", prefer="wait=5")
    assert answer.status_code == 202
    assert answer.headers["Location"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"])
def test_on_loopback_its_names_are_served(http: FlaskClient, host: str) -> None:
    assert http.get("/livez", headers={"Host": host}).status_code == 200


FOREIGN_HOSTS = ["evil.example", "localhost.evil.example:8080", "127.0.0.1.nip.io", "", "[::1", "a:b:c", "localhost:0"]
HEALTH_PATHS = ["/livez", "/readyz", "/metrics", "/healthcheck"]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_on_loopback_a_name_rebound_to_it_is_400(http: FlaskClient, host: str) -> None:
    answer = http.get("/", headers={"Host": host})
    assert "evil" not in assert_problem(answer, 400, "host_not_trusted")


@pytest.mark.parametrize("host", ["10.42.8.201:8080", "[fd00::7]:8080", "api-0.pods.internal", ""])
@pytest.mark.parametrize("path", HEALTH_PATHS)
def test_probes_are_answered_under_any_host(http: FlaskClient, path: str, host: str) -> None:
    answer = http.get(path, headers={"Host": host})
    assert answer.status_code == http.get(path).status_code != 400
    assert http.get("/v1/jobs", headers={"Host": host}).status_code == 400


def test_the_names_served_are_a_setting(valkey_url: str) -> None:
    http = create_app(settings(valkey_url, trusted_hosts="shop.example, localhost")).test_client()
    assert http.get("/", headers={"Host": "shop.example:443"}).status_code == 200
    assert http.get("/", headers={"Host": "127.0.0.1"}).status_code == 400
    anywhere = create_app(settings(valkey_url, host="0.0.0.0", published_elsewhere=True)).test_client()
    assert anywhere.get("/", headers={"Host": "shop.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},  # another program on this machine
        {"Origin": "http://localhost:3000"},  # to plain HTTP hosts browsers send no Sec-Fetch-Site
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_sites_page_may_look_but_not_submit(http: FlaskClient, headers: dict[str, str]) -> None:
    headers = {"Host": "localhost:8080", **headers}
    assert http.get("/livez", headers=headers).status_code == 200
    answer = http.post("/v1/jobs/embed", data=photo_form(), headers=headers)
    assert_problem(answer, 403, "cross_site_refused")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost:8080"},
        {"Host": "localhost", "Origin": "http://localhost:8443"},  # a proxy that passes on the name alone
    ],
)
def test_the_services_own_page_and_programs_may_submit(http: FlaskClient, headers: dict[str, str]) -> None:
    headers = {"Host": "localhost:8080", **headers}
    assert http.post("/v1/jobs/embed", data=photo_form(), headers=headers).status_code == 202


def test_an_operator_may_let_a_page_of_another_origin_submit(valkey_url: str, reader: PhotoReader) -> None:
    app = application(settings(valkey_url, trusted_origins="https://Shop.example:443/, http://localhost:3000"), reader)
    http = app.test_client()
    for origin, status in {
        "https://shop.example": 202,
        "http://localhost:3000": 202,
        "http://localhost:4000": 403,
    }.items():
        headers = {"Sec-Fetch-Site": "same-site", "Origin": origin}
        assert http.post("/v1/jobs/embed", data=photo_form(), headers=headers).status_code == status


def test_a_form_of_much_text_is_422(http: FlaskClient) -> None:
    answer = http.post("/predict/similar_images", data=photo_form(note="x" * 100_000))
    assert "text" in assert_problem(answer, 422, "invalid_request")
