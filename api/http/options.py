"""Reads the options of a request from query, form, JSON and headers, and validates them."""

import json
import math
import re
from typing import TypeVar

from flask import request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.datastructures import MultiDict

from api.uploads.bodies import FIELD, body_size, encoding_of_body, require_whole
from shared.errors import InvalidRequest
from shared.jobs.contract import OF_THE_INDEX, PhotoRequest, SearchRequest, Submission

MAX_WAIT_S = 30
_MAX_JSON_BYTES = 64 << 10
_MAX_PROBLEMS = 5
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
CANCEL_AFTER_PATTERN = r"^([1-9][0-9]{0,8}(?:\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])(s|m|h)?$"
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}

M = TypeVar("M", bound=BaseModel)


def read_options(
    contract: type[PhotoRequest], *, ignore: frozenset[str] = frozenset()
) -> tuple[PhotoRequest, Submission]:
    """Read the options of a submit about a photo: from JSON, or from the query and the form, which overrides it.

    Args:
        contract: model of the options of this kind of job.
        ignore: fields of the request that are not options.

    Returns:
        The options of the kind, and those of every job.

    Raises:
        InvalidRequest: names the option that is wrong and what is possible.
    """
    given: dict[str, object]
    if request.is_json:
        if request.args:
            raise InvalidRequest("options of a JSON request belong into the JSON, not into the query")
        given = _json()
        if "box" in given:
            raise InvalidRequest("box: send it with the photo itself; a photo of the index is taken whole")
    else:
        given = {**once(request.args), **_form(ignore)}
        for name in OF_THE_INDEX:
            if name in given:
                raise InvalidRequest(f"{name}: send it in a JSON request; a multipart request carries the photo itself")
    asked = {name: value for name, value in given.items() if name not in ignore}
    options, submission = _split(contract, asked, typed=request.is_json)
    # Not in the contract: stored requests of an earlier build may have it, and mean nothing by it.
    if isinstance(options, SearchRequest) and options.text is None and options.text_weight is not None:
        raise InvalidRequest("text_weight: it says how much words count; send `text` with it")
    if request.is_json:
        named = [name for name in OF_THE_INDEX if getattr(options, name) is not None]
        if not named:
            if options.text is not None:
                return options.model_copy(update={"without_photo": True}), submission
            raise InvalidRequest(
                "image_id: it, a listing_id or a text is required in a JSON request; a photo itself is sent as "
                "multipart/form-data"
            )
        if len(named) > 1:
            raise InvalidRequest(
                "listing_id: it stands for all photos of the listing; send it or an image_id, not both"
            )
    return options, submission


def read_form_options(contract: type[M]) -> tuple[M, Submission]:
    """Read the options of a call about one image: from the query, and from the form, which overrides it.

    Args:
        contract: model of the options of this call.

    Returns:
        The options of the call, and those of every job.

    Raises:
        InvalidRequest: names the option that is wrong and what is possible.
    """
    return _split(contract, {**once(request.args), **_form(frozenset())})


def read_json_options(contract: type[M]) -> tuple[M, Submission]:
    """Read the options of a submit without a photo: from a JSON object, or none where there is no body.

    Args:
        contract: model of the options of this kind of job.

    Returns:
        The options of the kind, and those of every job.

    Raises:
        InvalidRequest: names the option that is wrong and what is possible.
    """
    if request.args:
        raise InvalidRequest("options of this call belong into a JSON body, not into the query")
    n_bytes = body_size()
    if n_bytes and not request.is_json:
        raise InvalidRequest("the body is not JSON; send it with Content-Type: application/json")
    return _split(contract, _json() if n_bytes else {}, typed=True)


def read_json(contract: type[M]) -> M:
    """Read a JSON object that is no submit: a job's options are not among its fields.

    Raises:
        InvalidRequest: names the field that is wrong and what is possible.
    """
    if not request.is_json:
        raise InvalidRequest("the body is not JSON; send it with Content-Type: application/json")
    return validated(contract, _json(), typed=True)


def _split(contract: type[M], given: dict[str, object], *, typed: bool = False) -> tuple[M, Submission]:
    """Split and validate the options, as `validated` does: those of `contract`, and those of every job."""
    if (deadline_s := _cancel_after_s()) is not None:
        given.setdefault("deadline_s", deadline_s)
    of_every_job = {name: given.pop(name) for name in list(given) if name in Submission.model_fields}
    known = [*_options_of(contract), *Submission.model_fields]
    if request.mimetype == "multipart/form-data" and (as_files := [name for name in known if name in request.files]):
        raise InvalidRequest(f"{as_files[0]}: it was sent as a file; send its part without a filename")
    if hidden := [name for name in given if name in contract.model_fields and name not in known]:
        raise InvalidRequest(_unknown(hidden[0], known))
    return (
        validated(contract, given, known, typed=typed),
        validated(Submission, of_every_job, known, typed=typed),
    )


def _options_of(contract: type[BaseModel]) -> list[str]:
    """Fields that clients may send."""
    extras = {name: field.json_schema_extra for name, field in contract.model_fields.items()}
    return [name for name, extra in extras.items() if not (isinstance(extra, dict) and extra.get("x-internal"))]


def validated(contract: type[M], given: dict[str, object], known: list[str] | None = None, *, typed: bool = False) -> M:
    """Validate options; an unknown one is an error, although who else reads the contract ignores it.

    Args:
        contract: model of the options.
        given: value by option.
        known: names of options to list in the error about an unknown one; by default those of `contract`.
        typed: they come from JSON, which has types: "4" is no number, and true is not 1. Else all are text.

    Raises:
        InvalidRequest: names the options that are wrong and why.
    """
    try:
        if typed:
            return contract.model_validate_json(json.dumps(given), strict=True, extra="forbid")
        return contract.model_validate(given, extra="forbid")
    except ValidationError as exc:
        options = known or list(contract.model_fields)
        raise InvalidRequest("; ".join(_message(e, options) for e in exc.errors()[:_MAX_PROBLEMS])) from exc


def once(given: MultiDict[str, str]) -> dict[str, str]:
    """Turn parameters into a dict, value by name.

    Raises:
        InvalidRequest: a name is given several times.
    """
    for name, values in given.lists():
        if len(values) > 1:
            raise InvalidRequest(f"{name[:100]}: it is given {len(values)} times; once is enough")
    return given.to_dict()


def preferred_wait_s() -> int | None:
    """Seconds of the header `Prefer: wait=N`, 30 at most; None without it. Other preferences are ignored."""
    found = _PREFER_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), MAX_WAIT_S) if found else None


def idempotency_key() -> str | None:
    """The Idempotency-Key of the current request; None without one.

    Raises:
        InvalidRequest: it is empty, too long or not visible ASCII.
    """
    given = request.headers.get("Idempotency-Key")
    if given is not None and not _IDEMPOTENCY_KEY.fullmatch(given):
        raise InvalidRequest("Idempotency-Key: 1 to 255 visible ASCII characters are needed; a UUID is a good choice")
    return given


def wait_s() -> float:
    """Seconds of the query parameter `wait`, 30 at most; 0 without it.

    Raises:
        InvalidRequest: it is not a number of seconds.
    """
    text = request.args.get("wait", "0")
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise InvalidRequest(f"wait: a number of seconds from 0 to {MAX_WAIT_S} is needed")
    return min(float(text), MAX_WAIT_S)


def _cancel_after_s() -> float | None:
    """Seconds of the header `Cancel-After`; None without it."""
    given = request.headers.get("Cancel-After")
    if given is None:
        return None
    found = re.fullmatch(CANCEL_AFTER_PATTERN, given.strip())
    if found is None:
        raise InvalidRequest("Cancel-After: a number of seconds is needed, or one with a unit: 90, 90s, 5m, 1h")
    return float(found[1]) * _UNIT_S[found[2] or "s"]


def _form(ignore: frozenset[str]) -> dict[str, str]:
    if request.mimetype != "multipart/form-data":
        return {}
    if None in request.form:
        raise InvalidRequest("a part of the form has no name")
    return once(
        MultiDict((name, value) for name, value in request.form.items(multi=True) if name not in ignore | {FIELD})
    )


def _json() -> dict[str, object]:
    if body_size() > _MAX_JSON_BYTES:
        raise InvalidRequest(f"the JSON is longer than {_MAX_JSON_BYTES} bytes")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    require_whole()
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body is not a JSON object{encoding_of_body()}")
    return body


def _message(error: ErrorDetails, known: list[str]) -> str:
    option = ".".join(map(str, error["loc"]))[:100]
    if error["type"] == "extra_forbidden":
        return _unknown(option, known)
    return f"{option}: {error['msg'].removeprefix('Value error, ')[:600]}"


def _unknown(option: str, known: list[str]) -> str:
    return f"{option}: unknown option; this call takes {', '.join(known)}"
