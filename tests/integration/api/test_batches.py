"""Batches over HTTP: every photo has an outcome of its own, and what is wrong with one is no other's business"""

import time
from io import BytesIO
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from api.uploads.bodies import PhotoReader
from shared.errors import InternalError
from shared.jobs.contract import JobStatus, Priority, SearchRequest
from shared.jobs.records import PREFIX
from shared.jobs.store import JobStore
from tests.conftest import encode, noise_image
from tests.integration.api.test_api import FOUND
from tests.integration.conftest import application, assert_problem, settings

PHOTOS = [encode(noise_image(seed, (40, 30))) for seed in range(4)]


@pytest.fixture
def http(client: redis.Redis, valkey_url: str, reader: PhotoReader) -> FlaskClient:
    return application(settings(valkey_url, max_queued=1000), reader).test_client()


def send(
    http: FlaskClient,
    photos: list[bytes],
    ids: list[str] | None = None,
    query: str = "",
    headers: dict[str, str] | None = None,
    **fields: str,
) -> TestResponse:
    parts: list[tuple[str, object]] = [("image", (BytesIO(photo), "a.jpg")) for photo in photos]
    parts += [("custom_id", custom_id) for custom_id in ids or []]
    return http.post(f"/v1/batches{query}", data=MultiDict([*parts, *fields.items()]), headers=headers)


def accepted(http: FlaskClient, photos: list[bytes], ids: list[str] | None = None, **options: Any) -> dict[str, Any]:
    answer = send(http, photos, ids, **options)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.get_json()
    assert answer.headers["Location"] == body["links"]["self"] == f"/v1/batches/{body['id']}"
    return body


def counts(body: dict[str, Any]) -> dict[str, int]:
    """Those that are not zero."""
    assert body["counts"]["total"] == len(body["items"]) == sum(body["counts"].values()) - body["counts"]["total"]
    return {state: count for state, count in body["counts"].items() if count and state != "total"}


def finish(jobs: JobStore, count: int) -> None:
    for _ in range(count):
        taken = jobs.claim("w", lease_s=15)
        assert taken
        jobs.succeed(taken.job, FOUND)


def test_every_photo_becomes_a_bulk_search_in_the_order_sent(http: FlaskClient, jobs: JobStore) -> None:
    body = accepted(http, PHOTOS, ["d", "c", "b", "a"])
    assert [item["custom_id"] for item in body["items"]] == ["d", "c", "b", "a"]
    assert (body["status"], body["kind"], counts(body)) == ("running", "search", {"queued": 4})
    for item in body["items"]:
        shown = http.get(item["links"]["job"]).get_json()
        assert (shown["kind"], shown["priority"]) == ("search", "bulk")
    pixels = []
    while taken := jobs.claim("w", lease_s=15):
        pixels.append(taken.pixels)
    assert len(set(pixels)) == 4


def test_options_and_kind_are_those_of_every_photo(http: FlaskClient, jobs: JobStore) -> None:
    body = accepted(http, PHOTOS[:2], query="?kind=search&k=7", category="Appliances", priority="interactive")
    for item in body["items"]:
        job = jobs.get(item["links"]["job"].rsplit("/")[-1])
        assert job.request == SearchRequest(k=7, category="Appliances")
        assert job.submission.priority is Priority.INTERACTIVE
    embed = accepted(http, PHOTOS[:1], kind="embed", encoding="base64")
    assert (embed["kind"], embed["items"][0]["custom_id"]) == ("embed", "0")


@pytest.mark.parametrize(
    ("query", "named"),
    [("?kind=reindex", "kind"), ("?k=0", "k"), ("?encoding=base64", "encoding"), ("?colour=red", "colour")],
)
def test_a_wrong_option_is_422_and_nothing_is_accepted(
    http: FlaskClient, jobs: JobStore, query: str, named: str
) -> None:
    assert named in assert_problem(send(http, PHOTOS, query=query), 422, "invalid_request")
    assert jobs.depth() == 0


def test_bad_photos_fail_alone(http: FlaskClient, jobs: JobStore) -> None:
    body = accepted(http, [b"", PHOTOS[0], b"no photo", PHOTOS[1][:200]], ["empty", "good", "text", "short"])
    items = {item["custom_id"]: item for item in body["items"]}
    assert counts(body) == {"queued": 1, "failed": 3}
    codes = {custom_id: item["error"] and item["error"]["code"] for custom_id, item in items.items()}
    assert codes == {
        "empty": "photo_undecodable",
        "good": None,
        "text": "unsupported_format",
        "short": "photo_undecodable",
    }
    assert items["text"]["links"] == {}
    finish(jobs, 1)
    body = http.get(body["links"]["self"]).get_json()
    assert (body["status"], counts(body)) == ("ended", {"succeeded": 1, "failed": 3})
    assert body["items"][1]["result"] == FOUND.model_dump(mode="json")


def test_a_batch_of_bad_photos_only_has_ended_at_once(http: FlaskClient) -> None:
    answer = send(http, [b"no photo", b"nor this"])
    assert (answer.status_code, answer.get_json()["status"]) == (202, "ended")
    assert "Retry-After" not in answer.headers


def test_the_counts_follow_the_jobs(http: FlaskClient, jobs: JobStore, client: redis.Redis) -> None:
    url = accepted(http, PHOTOS)["links"]["self"]
    finish(jobs, 1)
    failing = jobs.claim("w", lease_s=15)
    assert failing
    jobs.fail(failing.job, InternalError("it crashed"))
    jobs.claim("w", lease_s=15)
    answer = http.get(url)
    body = answer.get_json()
    assert counts(body) == {"succeeded": 1, "failed": 1, "running": 1, "queued": 1}
    assert (body["status"], answer.headers["Retry-After"]) == ("running", "1")
    assert sorted(item["error"]["code"] for item in body["items"] if item["error"]) == ["internal_error"]
    for item in body["items"]:  # as their TTLs will
        if item["status"] == JobStatus.SUCCEEDED:
            client.delete(PREFIX + "job:" + item["links"]["job"].rsplit("/")[-1])
    body = http.get(url).get_json()
    assert counts(body) == {"gone": 1, "failed": 1, "running": 1, "queued": 1}
    assert {item["error"]["code"] for item in body["items"] if item["status"] == "gone"} == {"job_gone"}


def test_waiting_ends_with_the_last_of_the_batch_or_in_time(http: FlaskClient, jobs: JobStore) -> None:
    url = accepted(http, PHOTOS[:3])["links"]["self"]
    began = time.monotonic()
    assert counts(http.get(f"{url}?wait=0.4").get_json()) == {"queued": 3}
    assert 0.3 < time.monotonic() - began < 3
    finish(jobs, 3)
    began = time.monotonic()
    assert counts(http.get(f"{url}?wait=20").get_json()) == {"succeeded": 3}
    assert time.monotonic() - began < 5
    assert_problem(http.get(f"{url}?wait=long"), 422, "invalid_request")


def test_cancelling_a_batch_cancels_what_has_not_ended(http: FlaskClient, jobs: JobStore) -> None:
    url = accepted(http, [*PHOTOS[:3], b"no photo"])["links"]["self"]
    finish(jobs, 1)
    held = jobs.claim("w", lease_s=15)
    assert held
    answer = http.post(f"{url}/cancel")
    assert answer.status_code == 202
    assert counts(answer.get_json()) == {"succeeded": 1, "canceling": 1, "canceled": 1, "failed": 1}
    jobs.succeed(held.job, FOUND)
    answer = http.post(f"{url}/cancel")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "ended")
    assert counts(answer.get_json()) == {"succeeded": 1, "canceled": 2, "failed": 1}


def test_the_admission_limit_may_be_reached_midway(
    client: redis.Redis, jobs: JobStore, valkey_url: str, reader: PhotoReader
) -> None:
    http = application(settings(valkey_url, max_queued=2), reader).test_client()
    body = accepted(http, [b"no photo", *PHOTOS])
    assert counts(body) == {"queued": 2, "failed": 3}
    assert [item["error"] and item["error"]["code"] for item in body["items"]] == [
        "unsupported_format", None, None, "queue_full", "queue_full",
    ]  # fmt: skip
    assert body["items"][3]["error"]["retryable"]
    answer = send(http, [b"no photo", *PHOTOS])
    assert_problem(answer, 429, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1
    assert jobs.depth() == 2


def test_too_many_photos_are_413_and_nothing_is_accepted(
    client: redis.Redis, jobs: JobStore, valkey_url: str, reader: PhotoReader
) -> None:
    http = application(settings(valkey_url, max_batch_photos=3), reader).test_client()
    assert "3" in assert_problem(send(http, PHOTOS), 413, "upload_too_large")
    assert jobs.depth() == 0
    assert accepted(http, PHOTOS[:3], ["a", "b", "c"])


def test_the_default_limit_is_64_photos(http: FlaskClient) -> None:
    assert len(accepted(http, PHOTOS[:1] * 64, [str(n) for n in range(64)])["items"]) == 64
    assert_problem(send(http, PHOTOS[:1] * 65), 413, "upload_too_large")


def test_a_batch_may_be_larger_than_an_upload_and_not_than_its_own_limit(
    client: redis.Redis, valkey_url: str, reader: PhotoReader
) -> None:
    http = application(settings(valkey_url, max_upload_mb=1, max_batch_mb=2, max_queued=9), reader).test_client()
    large = PHOTOS[0] + bytes(900_000)  # what follows the end of a JPEG is passed over
    assert counts(accepted(http, [large] * 2)) == {"queued": 2}
    answer = send(http, [large] * 3)
    assert "2 MiB" in assert_problem(answer, 413, "upload_too_large")
    assert_problem(http.post("/v1/jobs/embed", data={"image": (BytesIO(large + large), "a")}), 413, "upload_too_large")


@pytest.mark.parametrize("ids", [["a", "a"], ["a"], ["a", "b", "c"], ["", "b"], ["x" * 201, "b"]])
def test_custom_ids_that_do_not_tell_the_photos_apart_are_422(
    http: FlaskClient, jobs: JobStore, ids: list[str]
) -> None:
    assert "custom_id" in assert_problem(send(http, PHOTOS[:2], ids), 422, "invalid_request")
    assert jobs.depth() == 0


def test_custom_ids_may_be_of_any_letters(http: FlaskClient) -> None:
    ids = ["é / ü", "<script>", "\U0001f9f8", "a b"]
    assert [item["custom_id"] for item in accepted(http, PHOTOS, ids)["items"]] == ids


def test_the_same_photo_twice_is_two_jobs(http: FlaskClient, jobs: JobStore) -> None:
    body = accepted(http, [PHOTOS[0]] * 2)
    assert len({item["links"]["job"] for item in body["items"]}) == 2
    assert jobs.depth() == 2


def test_what_is_no_batch_is_422(http: FlaskClient) -> None:
    assert_problem(send(http, []), 422, "image_missing")
    assert_problem(send(http, [], ["a"]), 422, "image_missing")
    for more in ({"data": PHOTOS[0], "content_type": "image/jpeg"}, {"json": {"image_id": "p"}}, {}):
        answer = http.post("/v1/batches", **more)
        assert_problem(answer, 422, answer.get_json()["code"])


@pytest.mark.parametrize("batch_id", ["0" * 32, "nonsense", "%00", "é", "x" * 5000])
def test_an_unknown_batch_is_404(http: FlaskClient, batch_id: str) -> None:
    assert_problem(http.get(f"/v1/batches/{batch_id}"), 404, "batch_not_found")
    assert_problem(http.post(f"/v1/batches/{batch_id}/cancel"), 404, "batch_not_found")


def test_a_batch_with_the_same_idempotency_key_is_the_same_batch(http: FlaskClient, jobs: JobStore) -> None:
    key = {"Idempotency-Key": "k"}
    first = accepted(http, PHOTOS, headers=key)
    finish(jobs, 1)
    again = accepted(http, PHOTOS, headers=key)
    assert (again["id"], counts(again)) == (first["id"], {"succeeded": 1, "queued": 3})
    assert jobs.depth() == 3
    for other in (
        send(http, PHOTOS[:3], headers=key),
        send(http, PHOTOS[::-1], headers=key),
        send(http, PHOTOS, ["a", "b", "c", "d"], headers=key),
        send(http, PHOTOS, headers=key, k="5"),
        send(http, PHOTOS, headers=key, kind="embed"),
        http.post("/v1/jobs/search", json={"image_id": "p"}, headers=key),
    ):
        assert_problem(other, 422, "idempotency_conflict")


def test_a_key_is_pending_while_its_first_batch_is_being_accepted(http: FlaskClient, client: redis.Redis) -> None:
    key = {"Idempotency-Key": "k"}
    body = accepted(http, PHOTOS, headers=key)
    client.delete(f"{PREFIX}batch:{body['id']}")  # the key is bound before the record is written
    answer = send(http, PHOTOS, headers=key)
    assert_problem(answer, 409, "idempotency_pending")
    assert answer.headers["Retry-After"] == "1"


def test_the_key_of_a_refused_batch_is_free_again(
    client: redis.Redis, jobs: JobStore, valkey_url: str, reader: PhotoReader
) -> None:
    http = application(settings(valkey_url, max_queued=1), reader).test_client()
    key = {"Idempotency-Key": "k"}
    accepted(http, PHOTOS[:1])
    assert_problem(send(http, PHOTOS[1:], headers=key), 429, "queue_full")
    finish(jobs, 1)
    assert counts(accepted(http, PHOTOS[:2], headers=key)) == {"queued": 1, "failed": 1}


def test_a_batch_that_could_not_be_written_frees_its_key_for_the_next_try(
    http: FlaskClient, client: redis.Redis
) -> None:
    key = {"Idempotency-Key": "k"}
    client.config_set("maxmemory", 1)
    try:
        assert_problem(send(http, PHOTOS, headers=key), 503, "queue_unavailable")
    finally:
        client.config_set("maxmemory", 0)
    assert counts(accepted(http, PHOTOS, headers=key)) == {"queued": 4}


def test_nothing_of_a_batch_is_kept_for_ever(http: FlaskClient, client: redis.Redis) -> None:
    accepted(http, PHOTOS, headers={"Idempotency-Key": "k"})
    lasting = {str(key, "ascii") for key in client.keys(f"{PREFIX}*") if client.ttl(key) < 0}  # type: ignore[arg-type]
    assert {name.removeprefix(PREFIX) for name in lasting} == {"queued", "line:bulk:", "turns:bulk", "deadlines"}
