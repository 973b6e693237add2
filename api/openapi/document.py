"""The contract as OpenAPI 3.1. Tests hold it against reality."""

from collections.abc import Iterable
from http import HTTPStatus

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.http.views import Problem
from api.openapi.contract import EVERY_CALL, PHOTO_TYPES, Operation, Schema, operations
from api.openapi.contract_images import image_operations
from api.openapi.contract_index import index_operations
from api.uploads.bodies import FIELD
from shared.errors import InternalError, LookalikeError
from shared.settings import Settings

# A part without a file name is text to most parsers of forms, ours too.
_DISPOSITION = {"schema": {"type": "string"}, "example": f'form-data; name="{FIELD}"; filename="photo.jpg"'}
_PART: Schema = {"headers": {"Content-Disposition": _DISPOSITION}}


def describe(settings: Settings) -> Schema:
    """The contract as OpenAPI 3.1.

    Args:
        settings: what is switched off here is not in it.
    """
    models: list[type[BaseModel]] = [Problem]
    paths: dict[str, dict[str, Schema]] = {}
    for (method, path), operation in _all(settings).items():
        for body, _ in operation.answers.values():
            if isinstance(body, type) and body not in models:
                models.append(body)
        paths.setdefault(path, {})[method] = _described(operation)
    _, defined = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lookalike",
            "version": "1",
            "description": "Visual search: post a photo; get its category and the listings that look like it. "
            "Every error is `application/problem+json` with a stable `code`.",
        },
        "paths": paths,
        "components": {
            "schemas": defined["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "lookalike keys create"}},
        },
    }


def _all(settings: Settings) -> dict[tuple[str, str], Operation]:
    return operations(settings) | index_operations(settings) | image_operations(settings)


def _described(operation: Operation) -> Schema:
    responses = {str(status): _answer(body, meaning) for status, (body, meaning) in operation.answers.items()}
    if operation.page:
        responses["200"]["content"]["text/html"] = {"schema": {"type": "string"}}
    if operation.jpeg:
        responses["200"]["content"] = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}
    common = () if operation.public else EVERY_CALL
    for status, codes in _by_status((*operation.errors, *common)).items():
        told = " or ".join(f"`{code}`" for code in codes)
        responses.setdefault(str(status), _problem(told))
    described: Schema = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": responses,
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body:
        content = {media: {"schema": schema} for media, schema in operation.body.items()}
        if form := content.get("multipart/form-data"):
            is_list = form["schema"]["properties"][FIELD].get("type") == "array"
            form["encoding"] = {FIELD: _PART if is_list else _PART | {"contentType": ", ".join(PHOTO_TYPES)}}
        described["requestBody"] = {"required": not operation.body_optional, "content": content}
    if not operation.public:
        described["security"] = [{"key": []}, {}]
    return described


def _answer(body: type[BaseModel] | Schema | None, meaning: str) -> Schema:
    if body is None:
        return {"description": meaning, "content": {"text/plain": {"schema": {"type": "string"}}}}
    schema = {"$ref": f"#/components/schemas/{body.__name__}"} if isinstance(body, type) else body
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


def _problem(told: str) -> Schema:
    return {
        "description": told,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _by_status(errors: Iterable[type[LookalikeError]]) -> dict[int, list[str]]:
    codes: dict[int, list[str]] = {HTTPStatus.BAD_REQUEST: ["bad_request"], HTTPStatus.INTERNAL_SERVER_ERROR: []}
    possible: list[type[LookalikeError]] = [InternalError, *errors]
    for error in possible:
        if error.code not in codes.setdefault(error.http_status, []):
            codes[error.http_status].append(error.code)
    return dict(sorted(codes.items()))
