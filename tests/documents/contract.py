"""The API's reference, from the OpenAPI document that the service serves. Knows the document's form, and no call."""

from typing import Any

from flask import Flask

from api.app import add_routes
from api.openapi.document import describe
from shared.catalogue.categories import CATEGORIES
from shared.settings import Settings
from tests.documents.regions import table

Schema = dict[str, Any]
_TELLING = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems")


def default_settings(**changed: object) -> Settings:
    """Settings as they are where nothing is set, whatever the environment says."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    return Settings.model_validate(defaults | changed)


def contract() -> Schema:
    """The OpenAPI document of a service where nothing is switched off."""
    secret = "whsec_" + "A" * 32
    app = Flask("contract")
    add_routes(app)
    return describe(app, default_settings(webhook_hosts="hooks.example.org", webhook_secret=secret))


def call_table() -> str:
    """Every call with its summary, as links into the reference."""
    calls = _calls(contract())
    rows = ((f"[`{call}`](reference/api-reference.md#{_anchor(call)})", op["summary"]) for call, op in calls)
    return table(["call", "does"], rows)


def api_reference() -> str:
    """A section for each call by subject, and one for each body that is answered."""
    document = contract()
    lines: list[str] = []
    for tag in dict.fromkeys(operation["tags"][0] for _, operation in _calls(document)):
        lines.append(f"## {tag.capitalize()}")
        lines += [_section(call, op) for call, op in _calls(document) if op["tags"][0] == tag]
    lines.append("## Bodies")
    lines += [_body(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n\n".join(lines)


def _calls(document: Schema) -> list[tuple[str, Schema]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _anchor(heading: str) -> str:
    """As GitHub makes them."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _section(call: str, operation: Schema) -> str:
    parts = [f"### {call}", f"{operation['summary']}." + ("" if "security" in operation else " Needs no API key.")]
    if parameters := operation.get("parameters"):
        told = [(f"`{p['name']}` ({p['in']})", *_told(p["schema"], p.get("description", ""))) for p in parameters]
        parts.append(table(["parameter", "type", "meaning"], told))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        required = schema.get("required", [])
        rows = [
            (f"`{name}`", *_told(field, ("required; " if name in required else "") + field.get("description", "")))
            for name, field in schema["properties"].items()
        ]
        optional = "" if operation["requestBody"]["required"] else " (optional)"
        parts.append(f"Body, `{media}`{optional}:\n\n" + (table(["field", "type", "meaning"], rows)))
    parts.append(table(["status", "answer"], ((status, _answer(a)) for status, a in operation["responses"].items())))
    return "\n\n".join(parts)


def _answer(response: Schema) -> str:
    media = list(response["content"])
    if media == ["application/problem+json"]:
        return response["description"] or "`internal_error`"
    told = [_type(response["content"][m]["schema"]) if m == "application/json" else f"`{m}`" for m in media]
    return f"{' or '.join(told)}: {response['description']}"


def _body(name: str, schema: Schema) -> str:
    told = [f"### {name}"]
    if text := schema.get("description"):
        told.append(text.split("\n\n")[0])
    if "properties" in schema:
        rows = [
            (f"`{field}`", *_told(kind, kind.get("description", ""))) for field, kind in schema["properties"].items()
        ]
        told.append(table(["field", "type", "meaning"], rows))
    else:
        told.append(_type(schema))
    return "\n\n".join(told)


def _told(schema: Schema, meaning: str) -> tuple[str, str]:
    """A field's type, and what else there is to say of it."""
    bounds = [f"{name} {schema[name]}" for name in _TELLING if name in schema]
    default = [f"default `{schema['default']}`"] if schema.get("default") not in (None, "", []) else []
    return _type(schema), "; ".join(filter(None, [meaning.removesuffix("; "), *bounds, *default]))


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if schema.get("enum") == list(CATEGORIES):
        return "[category](../api.md#categories)"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    for alternatives in ("anyOf", "oneOf", "allOf"):
        if alternatives in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[alternatives])))
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "prefixItems" in schema:
        return f"[{', '.join(map(_type, schema['prefixItems']))}]"
    if inner := schema.get("properties"):
        return "{" + ", ".join(f"`{name}`: {_type(kind)}" for name, kind in inner.items()) + "}"
    types = schema.get("type") or "anything"
    named = str(schema.get("format") or (" or ".join(types) if isinstance(types, list) else types))
    return (
        f"{named} by name of {_type(more)}" if isinstance(more := schema.get("additionalProperties"), dict) else named
    )
