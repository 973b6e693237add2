"""Options and photos as fields and files of multipart forms, and as JSON."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from lookalike.errors import InputError
from lookalike.exchange import Part

_KEY = "idempotency_key"
_VISIBLE = re.compile(r"[\x21-\x7e]{1,200}")


def photo_part(content: bytes) -> Part:
    """A photo as a file of a multipart form. The caller's file name is not sent."""
    return "image", ("photo", content, "application/octet-stream")


def request_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that go into the body or query of a request: all that were given, without the idempotency key."""
    return {name: value for name, value in options.items() if value is not None and name != _KEY}


def form_fields(options: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Options as the text fields of a form."""
    return {name: str(value) for name, value in options.items()}


def idempotency_key_of(options: Mapping[str, Any]) -> str:
    """The caller's idempotency key; a random one if there is none.

    Raises:
        InputError: the key cannot be sent in a header.
    """
    key = str(options.get(_KEY) or uuid4())
    if not _VISIBLE.fullmatch(key):
        raise InputError("idempotency_key: 1 to 200 visible ASCII characters are needed; a UUID is a good choice")
    return key
