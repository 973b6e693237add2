"""The whole path as its users see it: gunicorn, Celery, the model and the index as real processes."""

import base64
import http.client
import json
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES
from tests.conftest import encode, noise_image
from tests.e2e.conftest import Stack, eventually, lookalike, verb
from tests.support.places import copy_installation, location_of
from tests.support.signals import send
from tests.support.snapshots import flip_a_bit


def noise_bytes() -> bytes:
    return encode(noise_image(99))


def search(stack: Stack, photo: bytes, **options: object) -> dict[str, object]:
    answer = requests.post(
        stack.url + "/v1/jobs/search",
        files={"image": photo},
        data=options,
        headers={"Prefer": "wait=20"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "succeeded", body
    result: dict[str, object] = body["result"]
    return result


def ids(result: dict[str, object]) -> list[str]:
    return [neighbour["image_id"] for neighbour in result["neighbours"]]  # type: ignore[attr-defined]


def test_the_seeds_client_runs_unchanged(stack: Stack, photos: list[Path]) -> None:
    host, file_path, file_name = stack.url, f"{photos[0].parent}/", photos[0].stem
    assert requests.get(url=host + "/healthcheck", timeout=30).json() == {"message": "API is up and running!"}
    with open(file_path + file_name + ".jpg", "rb") as photo:
        answer = requests.post(url=host + "/predict/feature_embedding", files={"image": photo}, timeout=30)
    features = answer.json()["features"]
    assert len(features) == 13
    assert all(isinstance(feature, float) for feature in features)
    with open(file_path + file_name + ".jpg", "rb") as photo:
        answer = requests.post(url=host + "/predict/similar_images", files={"image": photo}, timeout=30)
    found = dict(answer.json())
    assert list(found) == ["similar_index", "image_labels"]
    assert found["image_labels"][0] == file_name
    assert len(found["similar_index"]) == len(found["image_labels"]) == 4
    assert all(isinstance(row, int) for row in found["similar_index"])


def test_a_catalogue_photo_finds_itself_first_and_knows_its_category(stack: Stack, photos: list[Path]) -> None:
    for photo in photos[:15]:
        result = search(stack, photo.read_bytes())
        assert ids(result)[0] == photo.stem
        first = result["neighbours"][0]  # type: ignore[index]
        assert first["score"] == pytest.approx(1, abs=1e-4)  # batches of other sizes round differently


def test_a_shrunk_and_recompressed_photo_is_still_found(stack: Stack, photos: list[Path]) -> None:
    found = 0
    for photo in photos[:15]:
        image = Image.open(photo)
        small = encode(image.resize((image.width // 2, image.height // 2)), quality=60)
        found += photo.stem in ids(search(stack, small))
    assert found == 15


def test_options_are_obeyed(stack: Stack, photos: list[Path]) -> None:
    photo = photos[0].read_bytes()
    first = search(stack, photo)["neighbours"][0]  # type: ignore[index]
    others = search(stack, photo, exclude_listing=first["listing_id"], k=20)["neighbours"]
    assert first["listing_id"] not in {n["listing_id"] for n in others}  # type: ignore[attr-defined]
    one_per_listing = search(stack, photo, distinct="listing", k=52)["neighbours"]
    assert len({n["listing_id"] for n in one_per_listing}) == 52  # type: ignore[attr-defined]
    only = search(stack, photo, category="Appliances", k=100)["neighbours"]
    assert {n["category"] for n in only} == {"Appliances"}  # type: ignore[attr-defined]
    assert search(stack, noise_bytes(), min_score="0.999")["neighbours"] == []


def test_an_embedding_is_a_unit_vector_in_either_encoding(stack: Stack, photos: list[Path]) -> None:
    results = []
    for encoding in ("float", "base64"):
        answer = requests.post(
            stack.url + "/v1/jobs/embed",
            files={"image": photos[0].read_bytes()},
            data={"encoding": encoding},
            headers={"Prefer": "wait=20"},
            timeout=30,
        )
        results.append(answer.json()["result"])
    as_list = np.array(results[0]["embedding"], dtype="<f4")
    as_bytes = np.frombuffer(base64.b64decode(results[1]["embedding"]), dtype="<f4")
    assert as_list.shape == (results[0]["dimension"],)
    assert np.linalg.norm(as_list) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(as_list, as_bytes, atol=1e-6)
    assert results[0]["category"]["name"] == CATEGORIES[int(np.argmax(results[0]["scores"]))]


def test_submit_and_poll(stack: Stack, photos: list[Path]) -> None:
    submitted = requests.post(stack.url + "/v1/jobs/search", files={"image": photos[1].read_bytes()}, timeout=30)
    assert submitted.status_code == 202
    job = requests.get(stack.url + submitted.headers["Location"], params={"wait": "20"}, timeout=30).json()
    assert job["status"] == "succeeded"
    assert job["result"]["timing_ms"]["total"] > 0


def test_a_photo_of_the_index_can_be_asked_for_by_id(stack: Stack, photos: list[Path]) -> None:
    def ask(image_id: str) -> dict[str, object]:
        answer = requests.post(
            stack.url + "/v1/jobs/search",
            json={"image_id": image_id},
            headers={"Prefer": "wait=20"},
            timeout=30,
        )
        body: dict[str, object] = answer.json()
        return body

    known = ask(photos[2].stem)["result"]
    assert ids(known) == ids(search(stack, photos[2].read_bytes()))  # type: ignore[arg-type]
    unknown = ask("nobody")
    assert unknown["status"] == "failed"
    assert unknown["error"]["code"] == "image_not_found"  # type: ignore[index]


def test_the_index_tells_what_serves(stack: Stack, catalogue: Path) -> None:
    index = requests.get(stack.url + "/v1/index", timeout=30).json()
    assert (index["count"], index["catalogue"], index["backbone"]) == (104, catalogue.name, "efficientnet_lite0")
    assert len(index["model_fingerprint"]) == 64
    assert index["metrics"]["accuracy"] > 0.3


def test_many_clients_at_once_all_get_their_own_answer(stack: Stack, photos: list[Path]) -> None:
    wrong: list[str] = []

    def ask(photo: Path) -> None:
        if ids(search(stack, photo.read_bytes()))[0] != photo.stem:
            wrong.append(photo.stem)

    threads = [threading.Thread(target=ask, args=(photo,)) for photo in photos[:24]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_batches_form_under_load_and_the_metrics_tell(stack: Stack, photos: list[Path]) -> None:
    def passes() -> tuple[float, float]:
        text = requests.get(stack.url + "/metrics", timeout=10).text
        values = dict(re.findall(r"^(lookalike_batch_photos_(?:sum|count)){[^}]*} ([0-9.]+)$", text, re.MULTILINE))
        assert "lookalike_cache_lookups_total" in text
        return float(values["lookalike_batch_photos_sum"]), float(values["lookalike_batch_photos_count"])

    n_before, passes_before = passes()
    fresh = [encode(noise_image(seed)) for seed in range(1000, 1060)]  # none of them in any cache
    worker = stack.processes["worker"]
    send(worker, signal.SIGSTOP)  # so that they wait together, however fast or busy the machine is
    try:
        accepted = [requests.post(stack.url + "/v1/jobs/search", files={"image": photo}, timeout=30) for photo in fresh]
    finally:
        worker.send_signal(signal.SIGCONT)
    for answer in accepted:
        job = requests.get(stack.url + answer.headers["Location"], params={"wait": "20"}, timeout=30).json()
        assert job["status"] == "succeeded"
    eventually(lambda: passes()[0] >= n_before + 60, 20, "a heartbeat has told")
    n_after, passes_after = passes()
    assert passes_after - passes_before < n_after - n_before  # at least one pass was shared


def test_the_same_photo_again_costs_no_forward_pass(stack: Stack) -> None:
    def hits() -> float:
        text = requests.get(stack.url + "/metrics", timeout=10).text
        return float(re.findall(r'lookalike_cache_lookups_total{outcome="hit",[^}]*} ([0-9.]+)', text)[0])

    photo = encode(noise_image(4242))
    first = search(stack, photo)
    before = hits()
    assert ids(search(stack, photo)) == ids(first)
    eventually(lambda: hits() >= before + 1, 20, "a heartbeat has told")


def test_an_upload_far_over_the_limit_is_answered_not_cut_off(stack: Stack) -> None:
    answer = requests.post(stack.url + "/v1/jobs/embed", files={"image": BytesIO(b"x" * (30 << 20))}, timeout=60)
    assert answer.status_code == 413
    assert answer.json()["code"] == "upload_too_large"


def test_a_refusal_is_heard_though_the_body_was_not_read(stack: Stack) -> None:
    """urllib closes after one request: whoever stops reading would reset its connection."""
    for path, status in (("/v1/jobs/embed", 422), ("/nowhere", 404)):
        request = urllib.request.Request(
            stack.url + path, data=b"x" * (9 << 20), headers={"Content-Type": "image/jpeg"}, method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == status
        refused.value.close()


PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/v1/jobs/search", "application/json", b'{"image_id": "p1"}'),
        ("/predict/similar_images", FORM, PART + noise_bytes() + b"\r\n--x--\r\n"),
        ("/predict/similar_images", FORM, PART + noise_bytes()[:900]),
        ("/v1/jobs/embed", FORM, PART[:40]),
        ("/v1/jobs/embed", FORM, b""),
    ],
)
def test_a_body_cut_short_is_400_and_no_job(stack: Stack, path: str, content_type: str, body: bytes) -> None:
    length = f"Content-Length: {len(body) + 90}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n{length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert b"body_incomplete" in answer


CHUNKED_FORM = PART + noise_bytes() + b"\r\n--x--\r\n"
MAX_UPLOAD = 10 << 20


def chunked(
    stack: Stack, path: str, content_type: str, coded: bytes, *, ends: bool = True
) -> tuple[int, dict[str, str]]:
    """Status and JSON of the answer to a chunked body, after which the client closes, or waits."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port), timeout=60) as connection:
        connection.sendall(head.encode() + coded)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


def in_chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


@pytest.mark.parametrize("size", [7, 1000, 1 << 20])
def test_a_chunked_body_is_taken(stack: Stack, size: int) -> None:
    coded = in_chunks(CHUNKED_FORM, size) + b"0\r\nX-Trailer: t\r\n\r\n"
    status, job = chunked(stack, "/v1/jobs/embed", FORM, coded, ends=False)
    assert (status, job["kind"]) == (202, "embed")


def test_options_in_chunked_json_count(stack: Stack) -> None:
    coded = in_chunks(b'{"mode": "odd"}', 5) + b"0\r\n\r\n"
    status, problem = chunked(stack, "/v1/jobs/reindex", "application/json", coded)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert "mode" in problem["detail"]
    status, problem = chunked(stack, "/v1/jobs/reindex", "text/plain", coded)
    assert "not JSON" in problem["detail"]


@pytest.mark.parametrize("path", ["/v1/jobs/embed", "/predict/similar_images", "/v1/batches"])
@pytest.mark.parametrize(
    "end",
    [
        b"",  # after whole chunks, so that the form in them is complete
        b"0\r\n",  # the last chunk, without the end of the trailers
        b"0\r\nX-Trailer: t\r\n",
        b"100\r\nabc",
        b"5\r\nabcdefgh\r\n0\r\n\r\n",
        b"-5\r\nabcde\r\n0\r\n\r\n",
        b"zz\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_chunked_body_cut_short_or_malformed_is_400_and_no_job(stack: Stack, path: str, end: bytes) -> None:
    jobs = requests.get(f"{stack.url}/v1/jobs", timeout=30).json()["jobs"]
    status, problem = chunked(stack, path, FORM, in_chunks(CHUNKED_FORM, 500) + end)
    assert (status, problem["code"]) == (400, "body_incomplete")
    after = requests.get(f"{stack.url}/v1/jobs", timeout=30).json()["jobs"]
    assert [job["id"] for job in after] == [job["id"] for job in jobs]


def test_a_chunked_json_body_cut_short_is_400(stack: Stack) -> None:
    for path, body in {"/v1/jobs/reindex": b'{"dry_run": true}', "/v1/jobs/search": b'{"image_id": "p1"}'}.items():
        status, problem = chunked(stack, path, "application/json", in_chunks(body, 500))
        assert (status, problem["code"]) == (400, "body_incomplete")


def test_a_chunked_body_has_the_same_limit_to_the_byte(stack: Stack) -> None:
    before, after = b'--x\r\nContent-Disposition: form-data; name="n"; filename="n"\r\n\r\n', b"\r\n" + CHUNKED_FORM
    for more, expected in ((0, 202), (1, 413)):
        body = before + b"9" * (MAX_UPLOAD + more - len(before) - len(after)) + after
        coded = in_chunks(body, 1 << 16) + b"0\r\n\r\n"
        assert chunked(stack, "/v1/jobs/embed", FORM, coded, ends=False)[0] == expected
        declared = requests.post(f"{stack.url}/v1/jobs/embed", data=body, headers={"Content-Type": FORM}, timeout=60)
        assert declared.status_code == expected


def test_a_slow_client_holds_up_nobody(stack: Stack, photos: list[Path]) -> None:
    slow = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"POST /v1/jobs/embed HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    try:
        assert requests.get(stack.url + "/livez", timeout=5).status_code == 200
        assert ids(search(stack, photos[3].read_bytes()))[0] == photos[3].stem
    finally:
        for connection in slow:
            connection.close()


def test_the_command_line_searches_verifies_and_evaluates(home: Path, catalogue: Path, photos: list[Path]) -> None:
    found = lookalike("search", str(photos[4]), "-k", "2", "--json", home=home)
    assert ids(json.loads(found.stdout))[0] == photos[4].stem
    verified = json.loads(verb("index", "verify", "--json", home=home).stdout)
    assert (verified["ok"], verified["count"]) == (True, 104)
    measured = json.loads(verb("evaluate", "--catalogue", str(catalogue), "--json", home=home).stdout)
    assert {"accuracy", "macro_f1", "precision_at_4", "sibling_recall_at_1", "sibling_recall_at_4"} <= set(measured)
    assert 0 < measured["n_held_out"] < measured["n_photos"] == 104


def test_the_command_line_says_what_is_wrong_and_exits_1(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    copy_installation(home, copy)
    flip_a_bit(location_of(copy), index_store(location_of(copy)).newest())
    refused = verb("index", "verify", "--json", home=copy)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == "index_damaged"
    (tmp_path / "not-a-photo.jpg").write_bytes(b"hello")
    refused = lookalike("search", str(tmp_path / "not-a-photo.jpg"), home=home)
    assert refused.returncode == 1
    assert "a text file is not read; send one of JPEG" in refused.stderr
    assert "Traceback" not in refused.stderr
