"""/openapi.json is valid, complete and closed; /docs reads it without leaving this service."""

import re

from flask.testing import FlaskClient
from openapi_spec_validator import validate

from api.http.auth import PUBLIC


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


def test_the_page_loads_nothing_from_elsewhere(http: FlaskClient) -> None:
    page = http.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert linked
    for target in linked:
        assert "//" not in target
        assert http.get(f"/{target}").status_code == 200, target
    assert http.get("/docs/js/../../__init__.py").status_code == 404
