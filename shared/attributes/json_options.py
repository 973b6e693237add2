"""Types of options that are JSON within a request: in a form they come as text, in a JSON body as they are."""

import json
from typing import Annotated

from pydantic import BeforeValidator, JsonValue, WithJsonSchema

MAX_JSON_CHARS = 64 << 10
_MAX_NAMES = 64
_MAX_NESTED = 32  # lists and objects in one another; filters take fewer


def _object(given: object) -> object:
    """Parse the text of a JSON object, and check that one can be kept as JSON; anything else passes."""
    found = _parsed(given) if isinstance(given, str) else given
    if isinstance(found, dict):
        if _is_deeper(found, _MAX_NESTED):
            raise ValueError("the JSON is nested too deep")
        try:
            json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as exc:
            raise ValueError("half a surrogate pair is no character") from exc
        except ValueError as exc:
            raise ValueError("NaN and infinity are no JSON") from exc
    return found


def _is_deeper(value: object, n_levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return n_levels < 0 or any(_is_deeper(one, n_levels - 1) for one in inner)


def _parsed(given: str) -> object:
    if len(given) > MAX_JSON_CHARS:
        raise ValueError(f"the JSON has {len(given)} characters; {MAX_JSON_CHARS} are the most")
    try:
        found = json.loads(given)
    except RecursionError as exc:
        raise ValueError("the JSON is nested too deep") from exc
    except ValueError as exc:
        raise ValueError(f"must be a JSON object; {exc}") from exc
    if not isinstance(found, dict):
        raise ValueError("must be a JSON object")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise ValueError("must be text throughout: half a surrogate pair is no character") from exc
    return found


def _names(given: object) -> object:
    """Split `title,price` into names; a list passes."""
    names = [name for part in given.split(",") if (name := part.strip())] if isinstance(given, str) else given
    if isinstance(names, list | tuple):
        if len(names) > _MAX_NAMES:
            raise ValueError(f"{len(names)} names; {_MAX_NAMES} are the most")
        return tuple(names)
    return names


# The API's description has the schema, and an example from the catalogue.
# `shared.attributes.filters.bind_filter` checks it against the attributes that the catalogue has.
FilterJson = Annotated[
    dict[str, JsonValue],
    BeforeValidator(_object),
    WithJsonSchema({"type": "object", "x-filter": True}),
]
# `shared.attributes.values.read_values` does likewise.
AttributeValues = Annotated[
    dict[str, JsonValue],
    BeforeValidator(_object),
    WithJsonSchema({"type": "object", "x-attributes": True}),
]


def _names_of(kind: str) -> dict[str, object]:
    # The API's description names those that there are, and in forms makes a text of the list.
    return {"type": "array", "items": {"type": "string", "x-attribute": kind}, "maxItems": _MAX_NAMES}


IncludeNames = Annotated[tuple[str, ...], BeforeValidator(_names), WithJsonSchema(_names_of("include"))]
FacetNames = Annotated[tuple[str, ...], BeforeValidator(_names), WithJsonSchema(_names_of("facets"))]
