"""Options and photos as multipart forms and JSON carry them."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from lookalike.errors import InputError
from lookalike.exchange import Part

_KEY = "idempotency_key"
_VISIBLE = re.compile(r"[\x21-\x7e]{1,200}")


def part(content: bytes) -> Part:
    """A photo as part of a form; no file name of the caller's leaves the machine."""
    return "image", ("photo", content, "application/octet-stream")


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given and belong into the request."""
    return {name: value for name, value in options.items() if value is not None and name != _KEY}


def form_of(options: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Options as the fields of a form, or as a query."""
    return {name: str(value) for name, value in options.items()}


def key_of(options: Mapping[str, Any]) -> str:
    """The caller's idempotency key, or one made for this call.

    Raises:
        InputError: it is no header's value.
    """
    key = str(options.get(_KEY) or uuid4())
    if not _VISIBLE.fullmatch(key):
        raise InputError("idempotency_key: 1 to 200 visible ASCII characters are needed; a UUID is a good choice")
    return key
