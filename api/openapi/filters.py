"""The schema of a filter: components of the OpenAPI document, since a condition may be a filter again."""

from api.openapi.operation import Schema
from shared.attributes.filters import BOUNDS, CLAUSES

_KEY: Schema = {
    "type": "string",
    "description": "an attribute; in `match` also `category`, `listing_id` or `image_id`",
}
_VALUE: Schema = {"type": ["string", "number", "boolean"]}
_CURRENCY: Schema = {"type": "string", "description": "of a price: its code, such as `EUR`"}
_BOUND: Schema = {"type": ["number", "string"], "description": "a number, or of a time its text"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(description: str, properties: dict[str, Schema], *required: str) -> Schema:
    needed: Schema = {"required": list(required)} if required else {"minProperties": 1}
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
        **needed,
    }


_CONDITIONS: Schema = {"anyOf": [{"type": "array", "items": _ref("FilterCondition")}, _ref("FilterCondition")]}
FILTER = _ref("Filter")
COMPONENTS: dict[str, Schema] = {
    "Filter": {
        "type": "object",
        "description": "Holds where every condition of `must`, at least one of `should` and none of `must_not` does.",
        "properties": dict.fromkeys(CLAUSES, _CONDITIONS),
        "additionalProperties": False,
    },
    "FilterCondition": {
        "description": "One condition on a listing's values, or a filter again.",
        "anyOf": [_ref("MatchCondition"), _ref("RangeCondition"), _ref("EmptyCondition"), FILTER],
    },
    "MatchCondition": _object(
        "Holds where the value is one of some.", {"key": _KEY, "match": _ref("FilterMatch")}, "key", "match"
    ),
    "FilterMatch": _object(
        "Exactly one of `value`, `any` and `except`.",
        {
            "value": _VALUE,
            "any": {"type": "array", "items": _VALUE},
            "except": {"type": "array", "items": _VALUE, "description": "none of these, or no value at all"},
            "currency": _CURRENCY,
        },
    ),
    "RangeCondition": _object(
        "Holds where a number, a price or a time is within bounds.",
        {"key": _KEY, "range": _ref("FilterRange")},
        *("key", "range"),
    ),
    "FilterRange": _object("One bound at least.", dict.fromkeys(BOUNDS, _BOUND) | {"currency": _CURRENCY}),
    "EmptyCondition": _object(
        "Holds where there is no value.",
        {"is_empty": _object("Of which attribute.", {"key": {"type": "string"}}, "key")},
        "is_empty",
    ),
}
