"""Options and photos as fields and files of multipart forms, and as JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from math import isfinite
from numbers import Integral
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from lookalike.boxes import box_text
from lookalike.errors import InputError
from lookalike.exchange import Part

_KEY = "idempotency_key"
_VISIBLE = re.compile(r"[\x21-\x7e]{1,200}")
_OBJECTS = frozenset({"filter", "attributes"})  # options that are JSON objects
_NAMES = frozenset({"include", "facets"})  # options that are lists of names


def photo_part(content: bytes) -> Part:
    """A photo as a file of a multipart form. The caller's file name is not sent."""
    return "image", ("photo", content, "application/octet-stream")


def request_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that go into the body or query of a request: all that were given, without the idempotency key.

    Raises:
        InputError: an option is of another type than it has to be, or has no form in JSON.
    """
    sent = {name: _sent(name, value) for name, value in options.items() if value is not None and name != _KEY}
    return {name: value for name, value in sent.items() if value is not None}


def text_of(name: str, value: object) -> str:
    """An id as text; a whole number is written in digits.

    Args:
        name: the argument, for the error.
        value: text or a whole number.

    Raises:
        InputError: it is something else, empty, or cannot be encoded.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str) or not value:
        raise InputError(f"{name}: text or a whole number is needed, not {value!r}")
    return _encodable(name, value)


def path_segment(name: str, value: object) -> str:
    """An id as a segment of a path.

    Raises:
        InputError: as of `text_of`; or a path cannot hold it.
    """
    text = text_of(name, value)
    if text in (".", ".."):
        raise InputError(f"{name}: {text!r} cannot be sent in a path")
    return quote(text, safe="")


def _sent(name: str, value: object) -> object:
    """An option as a JSON body has it; None: there is nothing to send."""
    if name in _OBJECTS:
        if not isinstance(value, Mapping):
            raise InputError(f"{name}: a dictionary is needed, not {value!r:.100}")
        try:
            return _json(name, value)
        except RecursionError as exc:
            raise InputError(f"{name}: it is nested too deep") from exc
    if name == "box":
        return box_text(value)
    if name in _NAMES:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, Sequence | set | frozenset) or not all(isinstance(one, str) for one in names):
            raise InputError(f"{name}: a list of names is needed, not {value!r:.100}")
        return [_encodable(name, stripped) for one in names if (stripped := one.strip())] or None
    return _plain(name, value)


def _json(name: str, value: object) -> object:
    """A value inside a JSON object: a date becomes text, a tuple or set a list."""
    if isinstance(value, Mapping):
        return {_encodable(name, str(key)): _json(name, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(name, inner) for inner in value]
    if isinstance(value, date):  # a datetime is one, too
        return value.isoformat()
    return None if value is None else _plain(name, value)


def _plain(name: str, value: object) -> object:
    """An option as a type that JSON has; scalars of numpy become Python's."""
    if not isinstance(value, str | bool | int | float) and hasattr(value, "item"):
        with suppress(TypeError, ValueError):  # an array, which is refused below
            value = value.item()
    if isinstance(value, str):
        return _encodable(name, value)
    if not isinstance(value, bool | int | float) or not isfinite(value):
        raise InputError(f"{name}: text or a number is needed, not {value!r:.100}")
    return value


def _encodable(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InputError(f"{name}: it has characters that are not text ({exc.reason})") from exc
    return text


def form_fields(options: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Options as the text fields of a form: an object as JSON, names joined by commas."""
    return {name: _field(value) for name, value in options.items()}


def _field(value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return ",".join(value) if isinstance(value, list) else str(value)


def idempotency_key_of(options: Mapping[str, Any]) -> str:
    """The caller's idempotency key; a random one if there is none.

    Raises:
        InputError: the key cannot be sent in a header.
    """
    key = str(options.get(_KEY) or uuid4())
    if not _VISIBLE.fullmatch(key):
        raise InputError("idempotency_key: 1 to 200 visible ASCII characters are needed; a UUID is a good choice")
    return key
