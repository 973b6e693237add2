"""Makes the OpenAPI 3.1 document of the routes and the operations beside them. Tests hold it against reality."""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from api.http.auth import PUBLIC
from api.http.views import Problem
from api.openapi.examples import filter_example, values_example
from api.openapi.filters import COMPONENTS, FILTER
from api.openapi.operation import JPEG, Errors, Operation, Schema
from api.openapi.schemas import PHOTO_TYPES, exactly, options_of
from api.uploads.bodies import FIELD
from shared import errors as e
from shared.attributes.schema import MAX_KEYWORD_LENGTH, NO_ATTRIBUTES, AttributeSchema, AttributeType
from shared.catalogue.categories import OLDER_CATEGORIES, Categories
from shared.errors import LookalikeError
from shared.settings import Settings

_EVERY_CALL: Errors = (
    *(e.HostNotTrusted, e.CrossSiteRefused),
    *(e.ApiKeyRequired, e.ApiKeyInvalid, e.ScopeMissing, e.RateLimited, e.QueueUnavailable),
)
_EVERY_BODY: Errors = (e.BodyIncomplete, e.UploadTooLarge, e.RequestTimeout, e.ResourcesExhausted)
_ID: Schema = {"schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
_PATH_PARAMETERS: dict[str, Schema] = {  # by the name of the variable in the route
    "job_id": _ID,
    "batch_id": _ID,
    "version": {"schema": {"type": "string", "pattern": "^[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}$"}},
    "image_id": {
        "description": "of the image: printable characters other than a slash",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^/]+$"},
    },
}
# Subjects of calls by blueprint, where the blueprint is not called as its subject.
_TAGS = {"legacy": "older service", "page": "operations", "ops": "operations", "docs": "operations"}
# A part without a file name is text to most parsers of forms, ours too.
_DISPOSITION = {"schema": {"type": "string"}, "example": f'form-data; name="{FIELD}"; filename="photo.jpg"'}
_PART: Schema = {"headers": {"Content-Disposition": _DISPOSITION}}


_MAX_LIST = 4096  # characters
_TEXT: Schema = {"type": "string"}
_KEYWORD: Schema = {"type": "string", "maxLength": MAX_KEYWORD_LENGTH}
_AMOUNT: Schema = exactly(amount={"type": "number"}, currency={"type": "string", "pattern": "^[A-Z]{3}$"})
_VALUES: dict[AttributeType, Schema] = {
    AttributeType.NUMBER: {"type": "number"},
    AttributeType.PRICE: {"anyOf": [{"type": "number"}, _AMOUNT]},
    AttributeType.TEXT: _TEXT,
    AttributeType.KEYWORD: _KEYWORD,
    AttributeType.PLACE: _KEYWORD,
    AttributeType.TIME: {"type": "string", "format": "date-time"},
    AttributeType.BOOLEAN: {"type": "boolean"},
}


def describe(
    app: Flask,
    settings: Settings,
    categories: Categories = OLDER_CATEGORIES,
    attributes: AttributeSchema = NO_ATTRIBUTES,
) -> Schema:
    """The contract as OpenAPI 3.1.

    Args:
        app: whose routes are described, in the order in which they were added.
        settings: what is switched off here is not in it.
        categories: that the model that serves tells apart.
        attributes: of the live index.
    """
    models: dict[type[BaseModel], None] = {Problem: None}
    paths: dict[str, dict[str, Schema]] = {}
    for rule, method, operation in _operations(app):
        models |= dict.fromkeys(body for body, _ in operation.answers.values() if isinstance(body, type))
        path = re.sub("<[^>]+>", "{id}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _described(operation, rule, method, settings)
    _, defined = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    for schema in defined["$defs"].values():
        for field in schema.get("properties", {}).values():
            # Answers leave such fields out: what has a default, generators of clients take for always there.
            field.pop("default", None)
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Lookalike",
            "version": "1",
            "description": "Visual search: post a photo; get its category and the listings that look like it. "
            "Every error is `application/problem+json` with a stable `code`.",
        },
        **({"servers": [{"url": settings.url_prefix}]} if settings.url_prefix else {}),
        "paths": paths,
        "components": {
            # pydantic also defines what a schema written by hand stands for, such as JsonValue: anything.
            "schemas": {name: schema for name, schema in defined["$defs"].items() if schema} | COMPONENTS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "lookalike keys create"}},
        },
    }
    _name_what_is_served(document, list(categories), attributes)
    return document


def _name_what_is_served(part: object, categories: list[str], attributes: AttributeSchema) -> None:
    """List the categories and attributes wherever a schema asks for some."""
    if isinstance(part, dict):
        if part.pop("x-category", None):
            part["enum"] = categories
        if kind := part.pop("x-attribute", None):
            part |= {"enum": _names(kind, attributes)} if attributes else {}
        if kind := part.pop("x-attributes-list", None):
            one = "|".join(re.escape(name) for name in _names(kind, attributes))
            part |= {"pattern": f"^({one})(,({one}))*$", "maxLength": _MAX_LIST} if attributes else {}
        if part.pop("x-filter", None):
            del part["type"]
            part |= FILTER | {"example": filter_example(categories, attributes)}
        if part.pop("x-attributes", None):
            part |= {"properties": {one.name: _VALUES[one.type] for one in attributes}, "additionalProperties": False}
            part["example"] = values_example(attributes)
        for value in part.values():
            _name_what_is_served(value, categories, attributes)
    elif isinstance(part, list):
        for value in part:
            _name_what_is_served(value, categories, attributes)


def _names(kind: str, attributes: AttributeSchema) -> list[str]:
    if kind == "include":
        return [*(one.name for one in attributes), "*"]
    return ["category", *(one.name for one in attributes if one.type is not AttributeType.TEXT)]


def _operations(app: Flask) -> Iterator[tuple[Rule, str, Operation]]:
    for rule in app.url_map.iter_rules():
        if operation := Operation.of(app.view_functions[rule.endpoint]):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method, operation


def _described(operation: Operation, rule: Rule, method: str, settings: Settings) -> Schema:
    is_public = rule.endpoint in PUBLIC
    parameters = _parameters(operation, rule, settings)
    blueprint, view = rule.endpoint.split(".")
    responses = {str(status): _answer(body, meaning) for status, (body, meaning) in operation.answers.items()}
    if operation.page:
        responses["200"]["content"]["text/html"] = {"schema": {"type": "string"}}
    of_body = _EVERY_BODY if method != "GET" else ()
    of_query = (e.InvalidRequest,) if any(parameter["in"] == "query" for parameter in parameters) else ()
    of_call = () if is_public else _EVERY_CALL
    for status, codes in _by_status((*of_body, *operation.errors, *of_query, *of_call)).items():
        responses.setdefault(str(status), _problem(" or ".join(f"`{code}`" for code in codes)))
    described: Schema = {
        "operationId": view,
        "summary": operation.summary,
        "tags": [_TAGS.get(blueprint, blueprint)],
        "responses": responses,
    }
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = _body(operation.body(settings))
    if not is_public:
        described["security"] = [{"key": []}, {}]
    return described


def _parameters(operation: Operation, rule: Rule, settings: Settings) -> list[Schema]:
    path = [{"name": "id", "in": "path", "required": True, **_PATH_PARAMETERS[name]} for name in rule.arguments]
    query = options_of(settings, operation.query).items() if operation.query else ()
    return [*path, *operation.parameters, *(_query(name, schema) for name, schema in query)]


def _query(name: str, schema: Schema) -> Schema:
    described = {"description": schema.pop("description")} if "description" in schema else {}
    return {"name": name, "in": "query", **described, "schema": schema}


def _body(schemas: dict[str, Schema]) -> Schema:
    content: dict[str, Schema] = {media: {"schema": schema} for media, schema in schemas.items()}
    if form := content.get("multipart/form-data"):
        is_list = form["schema"]["properties"][FIELD].get("type") == "array"
        form["encoding"] = {FIELD: _PART if is_list else _PART | {"contentType": ", ".join(PHOTO_TYPES)}}
    return {"required": any(schema["required"] for schema in schemas.values()), "content": content}


def _answer(body: type[BaseModel] | Schema | str, meaning: str) -> Schema:
    if isinstance(body, str):
        binary = {"format": "binary"} if body == JPEG else {}
        return {"description": meaning, "content": {body: {"schema": {"type": "string", **binary}}}}
    schema = {"$ref": f"#/components/schemas/{body.__name__}"} if isinstance(body, type) else body
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


def _problem(meaning: str) -> Schema:
    return {
        "description": meaning,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _by_status(errors: Iterable[type[LookalikeError]]) -> dict[int, list[str]]:
    codes: dict[int, list[str]] = {HTTPStatus.BAD_REQUEST: ["bad_request"], HTTPStatus.INTERNAL_SERVER_ERROR: []}
    possible: list[type[LookalikeError]] = [e.InternalError, *errors]
    for error in possible:
        if error.code not in codes.setdefault(error.http_status, []):
            codes[error.http_status].append(error.code)
    return dict(sorted(codes.items()))
