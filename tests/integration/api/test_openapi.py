"""/openapi.json is valid, complete and closed; /docs reads it without leaving this service."""

import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from api.http.auth import PUBLIC
from shared.attributes.filters import bind_filter
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType
from shared.catalogue.categories import OLDER_CATEGORIES
from shared.errors import InvalidRequest
from shared.jobs.answers_contract import Neighbour
from tests.integration.conftest import photo_form


def test_the_contract_is_valid_openapi(http: FlaskClient) -> None:
    contract = http.get("/openapi.json").get_json()
    assert contract["openapi"].startswith("3.1")
    validate(contract)


def test_every_route_is_in_the_contract_and_the_reverse(http: FlaskClient) -> None:
    paths = http.get("/openapi.json").get_json()["paths"]
    told = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    routes = {
        (method, re.sub(r"<[^>]*>", "{id}", rule.rule))
        for rule in http.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint == "docs.specification" or not rule.endpoint.startswith(("docs.", "page.asset"))
    }
    assert told == routes


def test_the_contract_says_which_calls_need_a_key(http: FlaskClient) -> None:
    paths = http.get("/openapi.json").get_json()["paths"]
    rules = {re.sub(r"<[^>]*>", "{id}", rule.rule): rule.endpoint for rule in http.application.url_map.iter_rules()}
    for path, methods in paths.items():
        for operation in methods.values():
            assert ("security" not in operation) == (rules[path] in PUBLIC), path


_TYPES = {"type", "$ref", "anyOf", "oneOf", "allOf", "const"}
_SCHEMAS = {"properties", "$defs"}  # by name
_IN_EXAMPLES = {"example", "examples", "default", "enum"}


def untyped(part: object, place: str = "") -> Iterator[str]:
    """Places of schemas from which a generator of clients can make no type, or only one that says nothing."""
    if isinstance(part, list):
        for n, inner in enumerate(part):
            yield from untyped(inner, f"{place}/{n}")
    elif isinstance(part, dict):
        named = {f"{place}/{by}/{name}": one for by in _SCHEMAS & part.keys() for name, one in part[by].items()}
        alone = {f"{place}/{key}": part[key] for key in ("schema", "items") if key in part}
        yield from (where for where, schema in (named | alone).items() if not _TYPES & schema.keys())
        if part.get("type") == "array" and not {"items", "prefixItems"} & part.keys():
            yield f"{place}: a list of what?"
        if "properties" in part and {"oneOf", "anyOf"} & part.keys():
            yield f"{place}: generators forget the properties beside a choice"
        for key in part.keys() - _IN_EXAMPLES:
            yield from untyped(part[key], f"{place}/{key}")


def test_every_value_of_the_contract_has_a_type_that_clients_can_be_generated_from(http: FlaskClient) -> None:
    contract = http.get("/openapi.json").get_json()
    assert list(untyped(contract["paths"], "paths")) == []
    components = contract["components"]["schemas"]
    assert list(untyped({"properties": components}, "components")) == []


def test_no_field_that_an_answer_may_leave_out_is_told_to_be_always_there(http: FlaskClient) -> None:
    components = http.get("/openapi.json").get_json()["components"]["schemas"]
    left_out = Neighbour(rank=1, image_id="a", listing_id="b", category="c", score=1, row=0).model_dump(mode="json")
    assert "attributes" not in left_out
    assert "attributes" not in components["Neighbour"]["required"]
    fields = {name: field for schema in components.values() for name, field in schema.get("properties", {}).items()}
    assert {name for name, field in fields.items() if "default" in field} == set()


_ONE_QUERY: list[dict[str, str | None]] = [
    {"image_id": "one", "text": None},
    {"listing_id": "one", "text": "a lamp"},
    {"text": "a lamp"},
]
_NONE_OR_TWO: list[dict[str, str | None]] = [{}, {"text": None}, {"image_id": "one", "listing_id": "two"}]


def test_the_contract_takes_one_query(http: FlaskClient) -> None:
    contract = http.get("/openapi.json").get_json()
    schema = contract["paths"]["/v1/jobs/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    taken = Draft202012Validator({**schema, "components": contract["components"]})
    assert all(taken.is_valid(body) for body in _ONE_QUERY)
    for body in _NONE_OR_TWO:
        assert not taken.is_valid(body)
        assert http.post("/v1/jobs/search", json=body).status_code == 422, body


@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/jobs/search", ""), ("/v1/jobs/embed", ""), ("/v1/batches", ""), ("/v1/batches", "embed")]
)
def test_what_a_client_sends_that_names_every_default_is_taken(http: FlaskClient, path: str, kind: str) -> None:
    submit = http.get("/openapi.json").get_json()["paths"][path]["post"]
    form = submit["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    defaults = {name: str(field["default"]) for name, field in form.items() if "default" in field}
    answer = http.post(path, data=defaults | ({"kind": kind} if kind else {}) | photo_form())
    assert answer.status_code == 202, answer.json


_ATTRIBUTES = AttributeSchema(
    (
        Attribute(name="price", type=AttributeType.PRICE, currencies=("EUR",)),
        Attribute(name="colour", type=AttributeType.KEYWORD),
    )
)
_FILTERS: list[dict[str, object]] = [
    {},
    {"must": {"key": "price", "range": {"gte": 1, "lt": 2.5, "currency": "EUR"}}},
    {"must": [{"key": "category", "match": {"any": ["Other Goods"]}}], "must_not": [{"is_empty": {"key": "price"}}]},
    {
        "should": [
            {"must": [{"key": "colour", "match": {"except": ["red"]}}]},
            {"key": "colour", "match": {"value": "a"}},
        ]
    },
    {"must": "price"},
    {"must": ["price"]},
    {"must": [{"key": "price"}]},
    {"must": [{"key": "price", "range": {}}]},
    {"must": [{"key": "price", "range": {"from": 1}}]},
    {"must": [{"key": "colour", "match": {"any": "red"}}]},
    {"must": [{"is_empty": {"key": "price", "and": 1}}]},
    {"any": []},
]


def test_the_contract_takes_the_filters_that_the_service_takes(http: FlaskClient) -> None:
    components = http.get("/openapi.json").get_json()["components"]
    contract = Draft202012Validator({"$ref": "#/components/schemas/Filter", "components": components})
    assert [given for given in _FILTERS if contract.is_valid(given) != _is_taken(given)] == []
    assert [_is_taken(given) for given in _FILTERS] == [True] * 4 + [False] * 8


def _is_taken(given: object) -> bool:
    try:
        bind_filter(given, _ATTRIBUTES, OLDER_CATEGORIES)
    except InvalidRequest:
        return False
    return True


def test_the_page_loads_nothing_from_elsewhere(http: FlaskClient) -> None:
    page = http.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert linked
    for target in linked:
        assert "//" not in target
        assert http.get(f"/{target}").status_code == 200, target
    assert http.get("/docs/js/../../__init__.py").status_code == 404
