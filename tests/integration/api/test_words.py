"""Words over HTTP: alone, beside a photo, and as the words of a photo that is put; refused where no model knows any."""

import json
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.uploads.bodies import PhotoReader
from shared.artifacts.snapshots import index_store
from shared.artifacts.store import MANIFEST
from shared.attributes.schema import Attribute, AttributeType
from shared.catalogue.categories import CATEGORIES
from shared.jobs.contract import EmbedRequest, PutImageRequest, SearchRequest, brings_photo
from shared.jobs.store import JobStore
from tests.integration.conftest import application, assert_problem, photo_form, post, settings
from tests.support.versions import promote_bundle, write_version

WORDS = ("title", "description")


def served(home: Any, valkey_url: str, reader: PhotoReader, words: tuple[str, ...]) -> FlaskClient:
    """The API of an installation whose live model knows these attributes as words."""
    store = index_store(home)
    attributes = [Attribute(name=name, type=AttributeType.TEXT) for name in WORDS]
    attributes.append(Attribute(name="colour", type=AttributeType.KEYWORD))
    with store.write() as draft:
        manifest = json.loads((store.root / write_version(home) / MANIFEST).read_text())
        manifest["attributes"] = [attribute.model_dump(mode="json") for attribute in attributes]
        (draft.directory / MANIFEST).write_text(json.dumps(manifest))
    store.promote(draft.version)
    promote_bundle(home, preprocess={}, text={"attributes": words} if words else None)
    app = application(settings(valkey_url, home=home, max_queued=100), reader)
    return app.test_client()


@pytest.fixture
def http(client: redis.Redis, valkey_url: str, reader: PhotoReader, tmp_path: Any) -> FlaskClient:
    return served(tmp_path, valkey_url, reader, WORDS)


@pytest.mark.parametrize("kind", ["search", "embed"])
def test_words_come_alone_beside_a_photo_and_beside_one_of_the_index(
    http: FlaskClient, jobs: JobStore, kind: str
) -> None:
    path, text = f"/v1/jobs/{kind}", "oak table\nsolid, 2 m"
    answers = [
        http.post(path, json={"text": text}),
        post(http, path, text=text),
        http.post(path, json={"text": text, "image_id": "p1"}),
        http.post(path, json={"text": text, "listing_id": "l1"}),
    ]
    requests = []
    for answer in answers:
        assert answer.status_code == 202, answer.text
        request = jobs.get(answer.get_json()["id"]).request
        assert isinstance(request, SearchRequest | EmbedRequest)
        assert request.text == text
        requests.append(request)
    assert [request.without_photo for request in requests] == [True, False, False, False]
    assert [brings_photo(request) for request in requests] == [False, True, False, False]


def test_a_batch_has_words_for_all_its_photos(http: FlaskClient, jobs: JobStore) -> None:
    answer = http.post("/v1/batches", data=photo_form(text="oak table", text_weight="0.3"))
    request = jobs.get(answer.get_json()["items"][0]["job_id"]).request
    assert isinstance(request, SearchRequest)
    assert (request.text, request.text_weight) == ("oak table", 0.3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "image_id: it, a listing_id or a text is required"),
        ({"text": ""}, "text: "),
        ({"text": "x" * 10_001}, "text: "),
        ({"text": "x", "text_weight": 1.5}, "text_weight: "),
        ({"image_id": "p1", "text_weight": 0.5}, "text_weight: it says how much words count; send `text` with it"),
        ({"text": "x", "prefer": "same"}, "prefer: "),
        ({"text": "x", "without_photo": True}, "without_photo: unknown option; this call takes image_id"),
        ({"text": "x", "box": "0,0,1,1"}, "box: "),
    ],
)
def test_wrong_words_are_refused_by_name(http: FlaskClient, options: dict[str, Any], says: str) -> None:
    answer = http.post("/v1/jobs/search", json=options)
    assert_problem(answer, 422, "invalid_request")
    assert says in answer.get_json()["detail"]
    assert "without_photo" not in answer.get_json()["detail"].partition("this call takes")[2]


def test_the_same_words_under_one_key_are_one_job(http: FlaskClient) -> None:
    first, again, other = (
        http.post("/v1/jobs/search", json={"text": text}, headers={"Idempotency-Key": "k"})
        for text in ("oak table", "oak table", "pine table")
    )
    assert first.get_json()["id"] == again.get_json()["id"]
    assert other.status_code == 422


def test_a_photo_that_is_put_has_its_words_as_attributes(http: FlaskClient, jobs: JobStore) -> None:
    form = {"listing_id": "l1", "category": CATEGORIES[1]}
    said = {"text": "oak table\nsolid\n2 m long", "attributes": json.dumps({"colour": "brown"})}
    answer = http.put("/v1/images/new", data={**photo_form(), **form, **said})
    assert answer.status_code == 202, answer.text
    request = jobs.get(answer.get_json()["id"]).request
    assert isinstance(request, PutImageRequest)
    assert request.attributes == {"colour": "brown", "title": "oak table", "description": "solid\n2 m long"}
    both = {"text": "oak table", "attributes": json.dumps({"title": "pine table"})}
    refused = http.put("/v1/images/new", data={**photo_form(), **form, **both})
    assert_problem(refused, 422, "invalid_request")
    assert "text: it stands for the attribute title" in refused.get_json()["detail"]


def test_as_json_a_put_says_anew_what_the_photo_is_and_brings_none(http: FlaskClient, jobs: JobStore) -> None:
    said = {"listing_id": "l1", "category": CATEGORIES[1], "text": "oak table"}
    answer = http.put("/v1/images/p1", json=said)
    assert answer.status_code == 202, answer.text
    request = jobs.get(answer.get_json()["id"]).request
    assert isinstance(request, PutImageRequest)
    assert request.without_photo
    assert not brings_photo(request)
    assert request.attributes == {"title": "oak table"}
    refused = http.put("/v1/images/p1", json={"text": "oak table"})
    assert_problem(refused, 422, "invalid_request")
    assert "listing_id" in refused.get_json()["detail"]


def test_where_the_model_knows_no_words_they_are_refused(
    client: redis.Redis, valkey_url: str, reader: PhotoReader, tmp_path: Any
) -> None:
    http = served(tmp_path, valkey_url, reader, ())
    put = {"listing_id": "l1", "category": CATEGORIES[1], "text": "oak table"}
    for answer in (
        http.post("/v1/jobs/search", json={"text": "oak table"}),
        post(http, "/v1/jobs/embed", text="oak table"),
        http.put("/v1/images/new", data={**photo_form(), **put}),
    ):
        assert_problem(answer, 422, "invalid_request")
        assert "text: the live model knows no words" in answer.get_json()["detail"]
    assert post(http, "/v1/jobs/search").status_code == 202
