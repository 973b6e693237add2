"""/v1: submit jobs, ask for them, and what they are run against."""

import re
from typing import TypeVar

from flask import Blueprint, Response, jsonify, request
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from api.service import accepted, location, service, show
from api.uploads import FIELD, require_whole
from shared.errors import IndexMissing, InvalidRequest, JobNotFound
from shared.jobs import EmbedRequest, JobKind, SearchRequest

bp = Blueprint("jobs", __name__, url_prefix="/v1")

_MAX_WAIT_S = 30
_MAX_JSON_BYTES = 64 << 10
_MAX_PROBLEMS = 5
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
_JOB_ID = re.compile(r"[0-9a-f]{32}")

R = TypeVar("R", EmbedRequest, SearchRequest)


@bp.post("/jobs/search")
def submit_search() -> Response:
    return _submit(JobKind.SEARCH, SearchRequest)


@bp.post("/jobs/embed")
def submit_embed() -> Response:
    return _submit(JobKind.EMBED, EmbedRequest)


@bp.get("/jobs/<job_id>")
def get_job(job_id: str) -> Response:
    wait_s = _seconds(request.args.get("wait", "0"))
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound("no such job")
    return show(service().wait(service().store.get(job_id), wait_s))


@bp.get("/index")
def get_index() -> Response:
    serving = [worker.index for worker in service().store.workers() if worker.index]
    if not serving:
        raise IndexMissing("no worker with a loaded index has reported; see /readyz")
    return jsonify(serving[0].model_dump(mode="json"))


def _submit(kind: JobKind, contract: type[R]) -> Response:
    wait_s = _preferred_wait_s()
    if request.is_json:
        options, pixels = _json_options(contract), None
    else:
        options = _options(contract, {**request.args.to_dict(), **_form()})
        pixels = service().reader.read(request, service().spec)
    job = service().accept(kind, options, pixels)
    if wait_s is None:
        return accepted(job)
    job = service().wait(job, wait_s)
    response = show(job) if job.status.terminal else accepted(job)
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    response.headers["Location"] = location(job)
    return response


def _form() -> dict[str, str]:
    if request.mimetype != "multipart/form-data":
        return {}
    if None in request.form:
        raise InvalidRequest("a part of the form has no name")
    return {name: value for name, value in request.form.items() if name != FIELD}


def _json_options(contract: type[R]) -> R:
    """Options of a request that names a photo of the index instead of carrying one."""
    if (request.content_length or 0) > _MAX_JSON_BYTES:
        raise InvalidRequest(f"the JSON is longer than {_MAX_JSON_BYTES} bytes")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    require_whole()
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object")
    options = _options(contract, {**request.args.to_dict(), **body})
    if options.image_id is None:
        raise InvalidRequest("image_id: required in a JSON request; a photo itself is sent as multipart/form-data")
    return options


def _options(contract: type[R], given: dict[str, object]) -> R:
    if "image_id" in given and not request.is_json:
        raise InvalidRequest("image_id: send it in a JSON request; a multipart request carries the photo itself")
    try:
        return contract.model_validate(given)
    except ValidationError as exc:
        raise InvalidRequest("; ".join(_in_words(e, contract) for e in exc.errors()[:_MAX_PROBLEMS])) from exc


def _in_words(error: ErrorDetails, contract: type[R]) -> str:
    option = ".".join(map(str, error["loc"]))[:100]
    if error["type"] == "extra_forbidden":
        return f"{option}: unknown option; this call takes {', '.join(contract.model_fields)}"
    return f"{option}: {error['msg'].removeprefix('Value error, ')[:600]}"


def _preferred_wait_s() -> int | None:
    """Seconds of `Prefer: wait=N`, capped; None when the client does not ask to wait. Other preferences are ignored."""
    found = _PREFER_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), _MAX_WAIT_S) if found else None


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        raise InvalidRequest(f"wait: a number of seconds from 0 to {_MAX_WAIT_S} is needed")
    return min(float(text), _MAX_WAIT_S)
