"""filter, include, facets and attributes over HTTP: taken as text and as JSON, and checked before a job is made"""

import json
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.uploads.bodies import PhotoReader
from shared.artifacts.snapshots import index_store
from shared.artifacts.store import MANIFEST
from shared.attributes.schema import Attribute, AttributeType
from shared.jobs.contract import PutImageRequest, SearchRequest
from shared.jobs.store import JobStore
from tests.integration.conftest import PHOTO, application, assert_problem, photo_form, post, settings
from tests.support.versions import write_version

ATTRIBUTES = (
    Attribute(name="title", type=AttributeType.TEXT),
    Attribute(name="price", type=AttributeType.PRICE, currencies=("EUR", "GBP")),
    Attribute(name="colour", type=AttributeType.KEYWORD),
)
RED = {"must": [{"key": "colour", "match": {"value": "red"}}]}


@pytest.fixture
def http(client: redis.Redis, valkey_url: str, reader: PhotoReader, tmp_path: Any) -> FlaskClient:
    """The API of an installation whose live index has these attributes."""
    store = index_store(tmp_path)
    with store.write() as draft:
        first = write_version(tmp_path)
        manifest = json.loads((store.root / first / MANIFEST).read_text())
        manifest["attributes"] = [attribute.model_dump(mode="json") for attribute in ATTRIBUTES]
        (draft.directory / MANIFEST).write_text(json.dumps(manifest))
    store.promote(draft.version)
    app = application(settings(valkey_url, home=tmp_path, max_queued=100), reader)
    return app.test_client()


def test_options_come_as_text_of_a_form_and_as_json_alike(http: FlaskClient, jobs: JobStore) -> None:
    options: dict[str, Any] = {"filter": RED, "include": ["title", "*"], "facets": ["category"], "facet_scope": "hits"}
    form = post(
        http, "/v1/jobs/search", filter=json.dumps(RED), include="title,*", facets="category", facet_scope="hits"
    )
    body = http.post("/v1/jobs/search", json={"image_id": "p1", **options})
    batch = http.post(
        "/v1/batches",
        data=photo_form(filter=json.dumps(RED), include="title,*", facets="category", facet_scope="hits"),
    )
    assert [one.status_code for one in (form, body, batch)] == [202] * 3, (form.text, body.text, batch.text)
    ids = [form.get_json()["id"], body.get_json()["id"], batch.get_json()["items"][0]["job_id"]]
    for one in ids:
        request = jobs.get(one).request
        assert isinstance(request, SearchRequest)
        assert (request.filter, request.include, request.facets) == (RED, ("title", "*"), ("category",))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"filter": {"must": [{"key": "size", "range": {"lt": 5}}]}}, "filter.must.0.key: the catalogue has no"),
    ({"filter": {"must": [{"key": "price", "range": {"lt": "5"}}]}}, "filter.must.0.range.lt: price is a price"),
    ({"filter": {"must": [{"key": "price", "range": {"lt": 5}}]}}, "price is in EUR, GBP; say which is meant"),
    ({"filter": []}, "filter: "),
    ({"include": ["size"]}, "include: the catalogue has no attribute 'size'; it has title, price, colour"),
    ({"facets": ["title"]}, "facets: title is a text"),
    ({"include": ["a"] * 65}, "65 names; 64 are the most"),
    ({"facet_scope": "all"}, "facet_scope: "),
]  # fmt: skip


def field(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(("options", "told"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_with_an_option_is_told_by_name_in_form_and_json(
    http: FlaskClient, options: dict[str, Any], told: str
) -> None:
    fields = {name: field(value) for name, value in options.items()}
    for answer in (
        post(http, "/v1/jobs/search", PHOTO, **fields),
        http.post("/v1/batches", data=photo_form(PHOTO, **fields)),
        http.post("/v1/jobs/search", json={"image_id": "p1", **options}),
    ):
        assert told in assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", "[" * 9000, '{"must":[' * 500 + "]}" * 500, '{"must": NaN}', "x" * 70_000, '{"must": "\\ud800"}'],
)
def test_text_that_is_no_filter_is_refused_in_few_words(http: FlaskClient, text: str) -> None:
    detail = assert_problem(post(http, "/v1/jobs/search", filter=text), 422, "invalid_request")
    assert detail.startswith("filter: ")
    assert len(detail) < 800


def test_attributes_of_a_put_are_kept_as_answers_have_them(http: FlaskClient, jobs: JobStore) -> None:
    def put(attributes: str) -> Any:
        fields = photo_form(listing_id="l", category="Appliances", attributes=attributes)
        return http.put("/v1/images/p1", data=fields)

    answer = put('{"title": " a lamp ", "price": "£5", "colour": null}')
    assert answer.status_code == 202, answer.text
    request = jobs.get(answer.get_json()["id"]).request
    assert isinstance(request, PutImageRequest)
    assert request.attributes == {"title": "a lamp", "price": {"amount": 5.0, "currency": "GBP"}}
    assert "attributes.colour: the attribute is a keyword" in assert_problem(
        put('{"colour": 5}'), 422, "invalid_request"
    )
    assert "no attribute 'size'" in assert_problem(put('{"size": 5}'), 422, "invalid_request")
    assert "must be a JSON object" in assert_problem(put("[]"), 422, "invalid_request")
