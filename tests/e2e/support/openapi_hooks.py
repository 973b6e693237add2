"""What a schema cannot say, for Schemathesis: photos that are photos, an Idempotency-Key a request, an id a photo."""

import re
import uuid
from typing import Any
from urllib.parse import quote

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from api.openapi.schemas import PHOTO_TYPES
from shared.catalogue.categories import CATEGORIES
from shared.jobs.contract import EmbedRequest, SearchRequest
from tests.conftest import encode

_OF_SEARCH, _OF_EMBED = set(SearchRequest.model_fields), set(EmbedRequest.model_fields)
_NOT_OF = {"search": _OF_EMBED - _OF_SEARCH, "embed": _OF_SEARCH - _OF_EMBED}
_LISTS = ("/v1/batches", "/v1/jobs/search", "/v1/jobs/embed")  # that take many photos
_MADE: set[bytes] = set()
_SIZE = (40, 32)  # half of it has the pixels that a part needs
_COLOURS = st.integers(0, (1 << 24) - 1)


def _photos(media_type: str) -> "st.SearchStrategy[bytes]":
    image_format = media_type.partition("/")[2].upper().replace("HEIC", "HEIF")
    return _COLOURS.map(lambda colour: _made(encode(Image.new("RGB", (16, 12), colour), image_format)))


def _made(photo: bytes) -> bytes:
    _MADE.add(photo)
    return photo


for _media_type in PHOTO_TYPES:
    schemathesis.openapi.media_type(_media_type, _photos(_media_type))


@schemathesis.hook
def filter_body(_context: Any, body: Any) -> bool:
    """A form cannot carry null, or an empty list: what would be sent is the word, or nothing.

    Nor is a box with a line break at its end one, though Python's `$` matches before it.
    """
    if not isinstance(body, dict) or "image" not in body:
        return True
    return not any(value is None or value == [] for value in body.values()) and not str(body.get("box")).endswith("\n")


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """A form does not tell one photo from a list of one, so what breaks that rule is right when sent.

    Nor does a schema tell a photo from other bytes; and where a form needs more than one, the others are left empty.
    """
    body = case.body if isinstance(case.body, dict) else {}
    if case.operation.path == "/v1/images/{id}" and "image" in body:
        photo = body["image"]
        return isinstance(photo, bytes) and photo in _MADE and body.get("category") != ""
    return case.operation.path not in _LISTS or isinstance(body.get("image", []), list)


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Mend what is right by the schema and wrong in truth."""
    if not case.meta or not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.body, dict):
        case.body.pop("filter", None)  # what fits the types of attributes is more than a schema can say
        if isinstance(case.body.get("image"), list):  # which is not made from its items' media types
            case.body["image"] = [encode(Image.new("RGB", _SIZE))]
        if "box" in case.body:  # nor can it say that a part lies inside its photo, or has no parts proposed
            case.body["box"] = "0.25,0.25,0.5,0.5"
            case.body.pop("propose_boxes", None)
        if case.body.get("listing_score"):  # nor what one option asks of another
            case.body["distinct"] = "listing"
        if not case.body.get("text"):
            case.body.pop("text_weight", None)
        if case.operation.path == "/v1/feedback":
            wanted, other = (
                ("category", "image_id") if case.body.get("event") == "category" else ("image_id", "category")
            )
            case.body[wanted] = CATEGORIES[0]  # any id is one of a photo
            case.body.pop(other, None)
        if "attributes" in case.body:  # of which `text` stands for some
            case.body.pop("text", None)
        if case.operation.path == "/v1/batches":
            case.body.pop("custom_id", None)  # there must be as many as photos
            for option in _NOT_OF[case.body.get("kind", "search")]:
                case.body.pop(option, None)
        case._record_starting_state()  # else a body with bytes in it, once changed, counts as wrong
    if case.headers and re.fullmatch("[!-~]{1,255}", str(case.headers.get("Idempotency-Key", ""))):
        # Two requests that differ under one key are refused
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if case.operation.path == "/v1/images/{id}":  # printable is more than a schema can say
        case.path_parameters["id"] = quote(f"image {uuid.uuid4()}")
