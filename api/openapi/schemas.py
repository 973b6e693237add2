"""Schemas of what is sent, from the models that requests are validated by."""

from pydantic import BaseModel

from api.openapi.operation import Body, Schema
from api.uploads.bodies import FIELD, MAX_QUERY_PHOTOS
from shared.jobs.contract import (
    OF_THE_INDEX,
    OF_WHAT_IS_SENT,
    PHOTO_REQUESTS,
    EmbedRequest,
    JobKind,
    SearchRequest,
    Submission,
)
from shared.settings import Settings

PHOTO_TYPES = tuple(f"image/{kind}" for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic", "heif"))
_FORM = "multipart/form-data"
_JSON = "application/json"
_FILE: Schema = {"type": "string", "format": "binary"}
_PHOTO_FILE: Schema = {**_FILE, "description": "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"}
_QUERY_PHOTOS: Schema = {
    "type": "array",
    "items": _FILE,
    "minItems": 1,
    "maxItems": MAX_QUERY_PHOTOS,
    "description": f"{_PHOTO_FILE['description']}; several are one query, the mean of their embeddings",
}


def photo_only(_: Settings) -> dict[str, Schema]:
    """A photo in a form that may hold anything else: the older service's calls."""
    return {_FORM: {"type": "object", "properties": {FIELD: _PHOTO_FILE}, "required": [FIELD]}}


def photo_with(options: type[BaseModel]) -> Body:
    """A photo in a form, and options with it; or in JSON options alone, about the photo that there is."""

    def body(settings: Settings) -> dict[str, Schema]:
        fields = {FIELD: _PHOTO_FILE} | options_of(settings, options, Submission)
        alone = closed(options_of(settings, options, Submission, nullable=True), *_required(options))
        return {_FORM: closed(fields, FIELD, *_required(options)), _JSON: alone}

    return body


# Said without oneOf: generators of clients make a type of each of its parts, and forget the options beside it.
_ONE_QUERY: Schema = {
    "not": {"required": list(OF_THE_INDEX)},
    "if": {"not": {"anyOf": [{"required": [name]} for name in OF_THE_INDEX]}},
    "then": {"required": ["text"], "properties": {"text": {"type": "string"}}},
}


def photo_or_id(options: type[BaseModel]) -> Body:
    """Photos with options in a form; or in JSON options with words alone, or the id of photos of the index."""

    def body(settings: Settings) -> dict[str, Schema]:
        form = options_of(settings, options, Submission)
        ids = {name: form.pop(name) for name in OF_THE_INDEX}
        by_id = closed(options_of(settings, options, Submission, nullable=True) | ids)
        for name in OF_WHAT_IS_SENT:
            by_id["properties"].pop(name, None)
        return {_FORM: closed({FIELD: _QUERY_PHOTOS, **form}, FIELD), _JSON: by_id | _ONE_QUERY}

    return body


def many_photos(settings: Settings) -> dict[str, Schema]:
    """Many photos in a form, each with an id of its own, and options for all."""
    options = options_of(settings, SearchRequest, EmbedRequest, Submission)
    search, embed = SearchRequest.model_fields.keys(), EmbedRequest.model_fields.keys()
    for kind, names in ((JobKind.SEARCH, search - embed), (JobKind.EMBED, embed - search)):
        options |= {name: _of_kind(options[name], kind) for name in options.keys() & names}
    for name in (*OF_THE_INDEX, *OF_WHAT_IS_SENT):
        del options[name]
    fields: dict[str, Schema] = {
        FIELD: {"type": "array", "items": _FILE, "minItems": 1, "maxItems": settings.max_batch_photos},
        "custom_id": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 200},
            "description": "one for each photo, in their order; or none, and they are counted from 0",
        },
        "kind": {
            "type": "string",
            "enum": list(PHOTO_REQUESTS),
            "default": JobKind.SEARCH,
            "description": "other options are those of the kind",
        },
    }
    return {_FORM: closed(fields | options, FIELD)}


def _of_kind(option: Schema, kind: JobKind) -> Schema:
    """An option that only one kind of job has, its default in words: generated clients send defaults unasked."""
    written = {key: value for key, value in option.items() if key != "default"}
    told = [option.get("description", "").removesuffix("."), f"only with `kind={kind}`"]
    if "default" in option:
        told.append(f"`{option['default']}` by default")
    return written | {"description": "; ".join(filter(None, told))}


def options_only(options: type[BaseModel]) -> Body:
    """Options in JSON."""

    def body(settings: Settings) -> dict[str, Schema]:
        fields = options_of(settings, options, Submission, nullable=True)
        return {_JSON: closed(fields, *_required(options))}

    return body


def json_only(model: type[BaseModel]) -> Body:
    """A JSON object that is no submit."""
    return lambda settings: {_JSON: closed(options_of(settings, model, nullable=True), *_required(model))}


def options_of(settings: Settings, *models: type[BaseModel], nullable: bool = False) -> dict[str, Schema]:
    """The schema of every field of some models, by name.

    Args:
        settings: what is switched off there is left out.
        nullable: null may be sent, as in JSON; elsewhere nothing can carry it.
    """
    options: dict[str, Schema] = {}
    for model in models:
        schema = model.model_json_schema()
        for name, option in schema["properties"].items():
            if option.get("x-internal"):
                continue
            written = _inlined(option if nullable else _without_null(option), schema.get("$defs", {}))
            options[name] = written if nullable else _as_text(written)
    if not settings.webhook_hosts:
        options.pop("webhook_url", None)
    return options


def closed(properties: dict[str, Schema], *required: str) -> Schema:
    """An object of these fields and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def exactly(**properties: Schema) -> Schema:
    """An object of these fields, all of them, and no others."""
    return closed(properties, *properties)


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _without_null(option: Schema) -> Schema:
    kinds = option.get("anyOf")
    if not isinstance(kinds, list):
        return option
    kind: Schema
    [kind] = [kind for kind in kinds if kind.get("type") != "null"]
    return {key: value for key, value in option.items() if key not in ("anyOf", "default")} | kind


def _as_text(option: Schema) -> Schema:
    """A list as a form or a query has it: names between commas."""
    if option.get("type") != "array":
        return option
    kept = {key: value for key, value in option.items() if key not in ("items", "maxItems", "default")}
    return kept | {"type": "string", "x-attributes-list": option["items"]["x-attribute"]}


def _inlined(option: Schema, definitions: dict[str, Schema]) -> Schema:
    """An option with what it refers to in its place, and without the title that pydantic makes of its name."""
    named = definitions[option["$ref"].rsplit("/", 1)[1]] if "$ref" in option else {}
    written = {key: value for key, value in (named | option).items() if key not in ("title", "$ref")}
    if kinds := written.get("anyOf"):
        written["anyOf"] = [_inlined(kind, definitions) for kind in kinds]
    return written
