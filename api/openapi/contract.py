"""Every call of the API as data: what it takes, what it answers, what can be wrong. Knows nothing of OpenAPI's form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import json
from pydantic import BaseModel

from api.http.options import CANCEL_AFTER_PATTERN
from api.http.views import BatchView, JobList, Readiness, WorkerList
from api.uploads.bodies import FIELD
from shared import errors as e
from shared.errors import LookalikeError
from shared.jobs.contract import PHOTO_REQUESTS, EmbedRequest, JobKind, JobStatus, SearchRequest, Submission
from shared.jobs.listing import CURSOR_PATTERN
from shared.jobs.view import JobView
from shared.settings import Settings

Schema = dict[str, Any]
Errors = tuple[type[LookalikeError], ...]

EVERY_CALL: Errors = (
    *(e.HostNotTrusted, e.CrossSiteRefused),
    *(e.ApiKeyRequired, e.ApiKeyInvalid, e.ScopeMissing, e.RateLimited, e.QueueUnavailable),
)
BODY: Errors = (e.LengthRequired, e.BodyIncomplete, e.UploadTooLarge, e.RequestTimeout)
_PHOTO: Errors = (*BODY, e.ImageMissing, e.InvalidRequest, e.PhotoUndecodable, e.UnsupportedFormat, e.PhotoTooLarge)
ADMISSION: Errors = (e.QueueFull, e.QueueShareFull)
SUBMIT: Errors = (*_PHOTO, *ADMISSION, e.IdempotencyConflict, e.JobGone, e.WebhookRefused)
_JOB: Errors = (e.JobNotFound, e.JobGone)
_RESULT: Errors = (e.InternalError, e.WorkerLost, e.PhotoExpired, e.DeadlineExceeded, e.JobCanceled)

PHOTO_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif")
PHOTO_FILE: Schema = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"}
_JOB_ID: Schema = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
PREFER: Schema = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: answer when the job has ended, within N <= 30 seconds",
    "schema": {"type": "string"},
    "example": "wait=10",
}
IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "the same key and request give the same job, however often they are sent",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
CANCEL_AFTER: Schema = {
    "name": "Cancel-After",
    "in": "header",
    "description": "as `deadline_s`, with an optional unit: 90, 90s, 5m, 1h",
    "schema": {"type": "string", "pattern": CANCEL_AFTER_PATTERN},
}
_WAIT: Schema = {
    "name": "wait",
    "in": "query",
    "description": "seconds to wait for the end, 30 at most",
    "schema": {"type": "number", "minimum": 0},
}


@dataclass(frozen=True)
class Operation:
    """One call, as the contract tells it.

    Attributes:
        answers: body and meaning by status.
        errors: what can be wrong besides what can be wrong with every call.
        body_optional: nothing may be sent.
        page: the 200 is a page, but for those who ask for JSON.
        jpeg: the 200 is one.
    """

    id: str
    summary: str
    tag: str
    answers: Mapping[int, tuple[type[BaseModel] | Schema | None, str]]
    errors: Errors = ()
    parameters: tuple[Schema, ...] = ()
    body: dict[str, Schema] = field(default_factory=dict)
    body_optional: bool = False
    public: bool = False
    page: bool = False
    jpeg: bool = False


def operations(settings: Settings) -> dict[tuple[str, str], Operation]:
    """Every call by method and path.

    Args:
        settings: what is switched off there is left out.
    """
    job = {200: (JobView, "the job, finished in the time asked for"), 202: (JobView, "accepted; ask at Location")}
    submit_headers = (PREFER, IDEMPOTENCY_KEY, CANCEL_AFTER)
    return (
        {
            ("post", f"/v1/jobs/{kind}"): Operation(
                id=f"submit_{kind}",
                summary=summary,
                tag="jobs",
                answers=job,
                errors=SUBMIT,
                parameters=submit_headers,
                body=_submit_bodies(contract, settings),
            )
            for kind, contract, summary in (
                (JobKind.SEARCH, SearchRequest, "Category of a photo, and the catalogue photos most similar to it"),
                (JobKind.EMBED, EmbedRequest, "Embedding of a photo, and its 13 scores"),
            )
        }
        | {
            ("get", "/v1/jobs"): Operation(
                id="list_jobs",
                summary="Your jobs, newest first",
                tag="jobs",
                answers={200: (JobList, "one page")},
                errors=(e.InvalidRequest,),
                parameters=(
                    _query("status", {"enum": list(JobStatus)}),
                    _query("kind", {"enum": list(JobKind)}),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
                    _query("cursor", {"type": "string", "pattern": CURSOR_PATTERN}),
                ),
            ),
            ("get", "/v1/jobs/{id}"): Operation(
                id="get_job",
                summary="A job",
                tag="jobs",
                answers={200: (JobView, "the job, whatever became of it")},
                errors=(*_JOB, e.InvalidRequest),
                parameters=(_JOB_ID, _WAIT),
            ),
            ("post", "/v1/jobs/{id}/cancel"): Operation(
                id="cancel_job",
                summary="Cancel a job",
                tag="jobs",
                answers={200: (JobView, "canceled"), 202: (JobView, "canceling: a worker has it in hand")},
                errors=(*_JOB, *BODY, e.JobFinished),
                parameters=(_JOB_ID,),
            ),
            ("post", "/v1/jobs/{id}/retry"): Operation(
                id="retry_job",
                summary="Submit a failed job again, as a new one",
                tag="jobs",
                answers={202: (JobView, "the new job")},
                errors=(*_JOB, *BODY, *ADMISSION, e.NotRetryable, e.ReindexRunning),
                parameters=(_JOB_ID,),
            ),
            ("post", "/v1/batches"): Operation(
                id="submit_batch",
                summary="Many photos in one request, each with its own outcome",
                tag="batches",
                answers={202: (BatchView, "accepted; ask at Location")},
                errors=(*SUBMIT, e.IdempotencyPending),
                parameters=(IDEMPOTENCY_KEY, CANCEL_AFTER),
                body={"multipart/form-data": _batch_form(settings)},
            ),
            ("get", "/v1/batches/{id}"): Operation(
                id="get_batch",
                summary="A batch",
                tag="batches",
                answers={200: (BatchView, "the batch and the outcomes so far")},
                errors=(e.BatchNotFound, e.InvalidRequest),
                parameters=(_JOB_ID, _WAIT),
            ),
            ("post", "/v1/batches/{id}/cancel"): Operation(
                id="cancel_batch",
                summary="Cancel the jobs of a batch that have not ended",
                tag="batches",
                answers={
                    200: (BatchView, "nobody works on it any more"),
                    202: (BatchView, "a worker has some in hand"),
                },
                errors=(e.BatchNotFound, *BODY),
                parameters=(_JOB_ID,),
            ),
        }
        | _older()
        | _ops()
    )


def _older() -> dict[tuple[str, str], Operation]:
    body: Schema = {"type": "object", "properties": {FIELD: PHOTO_FILE}, "required": [FIELD]}
    numbers: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 13, "maxItems": 13}
    rows: Schema = {"type": "array", "items": {"type": "integer"}, "maxItems": 4}
    ids: Schema = {"type": "array", "items": {"type": "string"}, "maxItems": 4}
    later = (JobView, "not finished in time: the job to poll")
    return {
        ("get", "/healthcheck"): Operation(
            id="healthcheck",
            summary="The process answers",
            tag="older service",
            answers={200: (_object(message={"type": "string"}), "alive")},
            public=True,
        ),
        ("post", "/predict/feature_embedding"): Operation(
            id="feature_embedding",
            summary="The classifier's 13 outputs",
            tag="older service",
            answers={200: (_object(features=numbers), "the outputs in the order of the categories"), 202: later},
            errors=(*_PHOTO, *ADMISSION, *_RESULT),
            body={"multipart/form-data": body},
        ),
        ("post", "/predict/similar_images"): Operation(
            id="similar_images",
            summary="The four most similar photos",
            tag="older service",
            answers={200: (_object(similar_index=rows, image_labels=ids), "most similar first"), 202: later},
            errors=(*_PHOTO, *ADMISSION, *_RESULT),
            body={"multipart/form-data": body},
        ),
    }


def _ops() -> dict[tuple[str, str], Operation]:
    anything: Schema = {"type": "object"}
    return {
        ("get", "/"): Operation(
            id="root",
            summary="What is at this address",
            tag="operations",
            answers={200: (anything, "for browsers the page, for programs names")},
            public=True,
            page=True,
        ),
        ("get", "/openapi.json"): Operation(
            id="specification",
            summary="This contract",
            tag="operations",
            answers={200: (anything, "OpenAPI 3.1")},
            public=True,
        ),
        ("get", "/livez"): Operation(
            id="livez",
            summary="The process answers",
            tag="operations",
            answers={200: (_object(status={"const": "alive"}), "alive")},
            public=True,
        ),
        ("get", "/readyz"): Operation(
            id="readyz",
            summary="Whether jobs are done, and what is missing if not",
            tag="operations",
            answers={200: (Readiness, "ready"), 503: (Readiness, "not ready")},
            public=True,
        ),
        ("get", "/v1/workers"): Operation(
            "list_workers", "Who works, and what waits", "operations", {200: (WorkerList, "by name")}
        ),
        ("get", "/metrics"): Operation(
            "metrics", "Prometheus metrics", "operations", {200: (None, "text in Prometheus's exposition format")}
        ),
    }


def _submit_bodies(contract: type[BaseModel], settings: Settings) -> dict[str, Schema]:
    options = options_of(contract, settings)
    named = options.pop("image_id")
    form = {FIELD: PHOTO_FILE, **options}
    by_id = {**options_of(contract, settings, nullable=True), "image_id": named}
    return {
        "multipart/form-data": {
            "type": "object",
            "properties": form,
            "required": [FIELD],
            "additionalProperties": False,
        },
        "application/json": {
            "type": "object",
            "properties": by_id,
            "required": ["image_id"],
            "additionalProperties": False,
        },
    }


def _batch_form(settings: Settings) -> Schema:
    photos: Schema = {
        "type": "array",
        "items": {"format": "binary"},
        "minItems": 1,
        "maxItems": settings.max_batch_photos,
    }
    ids: Schema = {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 200},
        "description": "one for each photo, in their order; or none, and they are counted from 0",
    }
    options = options_of(SearchRequest, settings) | options_of(EmbedRequest, settings)
    del options["image_id"]
    kind: Schema = {
        "enum": list(PHOTO_REQUESTS),
        "default": JobKind.SEARCH,
        "description": "other options are those of the kind",
    }
    return closed({FIELD: photos, "custom_id": ids, "kind": kind, **options}, FIELD)


def options_of(contract: type[BaseModel], settings: Settings, *, nullable: bool = False) -> dict[str, Schema]:
    """What a submit takes: the options of the contract, and those of any job."""
    properties: dict[str, Schema] = {}
    for model in (contract, Submission):
        schema = json.loads(json.dumps(model.model_json_schema()))
        for name, option in schema["properties"].items():
            named = schema["$defs"][option.pop("$ref").rsplit("/", 1)[1]] if "$ref" in option else {}
            properties[name] = {key: value for key, value in (option | named).items() if key != "title"}
    if not settings.webhook_hosts:
        properties.pop("webhook_url")
    return properties if nullable else {name: _without_null(option) for name, option in properties.items()}


def _without_null(option: Schema) -> Schema:
    """A form cannot carry null."""
    kinds = option.get("anyOf")
    if not isinstance(kinds, list):
        return option
    [kind] = [kind for kind in kinds if kind.get("type") != "null"]
    return {**{key: value for key, value in option.items() if key not in ("anyOf", "default")}, **kind}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _object(**properties: Schema) -> Schema:
    return closed(properties, *properties)


def closed(properties: dict[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
