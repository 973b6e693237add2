"""The legacy API: three synchronous endpoints with the responses they have always had, done by the same jobs as /v1."""

from flask import Blueprint, Response, jsonify, request

from api.http.problems import job_problem
from api.http.responses import accepted
from api.openapi.operation import ADMISSION, PHOTO, Answers, Errors, Operation, Schema
from api.openapi.schemas import exactly, photo_only
from api.service import service
from shared import errors as e
from shared.jobs.answers_contract import EmbedResult, SearchResult
from shared.jobs.contract import (
    EmbedRequest,
    Job,
    JobKind,
    JobRequest,
    SearchRequest,
)
from shared.jobs.view import JobView

bp = Blueprint("legacy", __name__)

_N_SIMILAR = 4
_SCORES: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 13, "maxItems": 13}
_ROWS: Schema = {"type": "array", "items": {"type": "integer"}, "maxItems": _N_SIMILAR}
_IMAGE_IDS: Schema = {"type": "array", "items": {"type": "string"}, "maxItems": _N_SIMILAR}
_LATER: Answers = {202: (JobView, "not finished in time: the job to poll")}
_FAILED: Errors = (e.InternalError, e.WorkerLost, e.PhotoExpired, e.DeadlineExceeded, e.JobCanceled)


@bp.get("/healthcheck")
@Operation("The process answers", {200: (exactly(message={"type": "string"}), "alive")})
def healthcheck() -> Response:
    """GET /healthcheck: the process is alive."""
    return jsonify({"message": "API is up and running!"})


@bp.post("/predict/feature_embedding")
@Operation(
    "The classifier's 13 outputs",
    {200: (exactly(features=_SCORES), "the outputs in the order of the categories"), **_LATER},
    errors=(*PHOTO, *ADMISSION, *_FAILED),
    body=photo_only,
)
def feature_embedding() -> Response:
    """POST /predict/feature_embedding: the classifier's scores; 202 with the job if it takes too long."""
    job = _run(JobKind.EMBED, EmbedRequest())
    if not job.status.terminal:
        return accepted(job)
    result = job.result
    if not isinstance(result, EmbedResult):
        return job_problem(job)
    return jsonify({"features": result.scores})


@bp.post("/predict/similar_images")
@Operation(
    "The four most similar photos",
    {200: (exactly(similar_index=_ROWS, image_labels=_IMAGE_IDS), "most similar first"), **_LATER},
    errors=(*PHOTO, *ADMISSION, *_FAILED),
    body=photo_only,
)
def similar_images() -> Response:
    """POST /predict/similar_images: the four most similar photos; 202 with the job if it takes too long."""
    job = _run(JobKind.SEARCH, SearchRequest(k=_N_SIMILAR))
    if not job.status.terminal:
        return accepted(job)
    result = job.result
    if not isinstance(result, SearchResult):
        return job_problem(job)
    return jsonify(
        {
            "similar_index": [neighbour.row for neighbour in result.neighbours],
            "image_labels": [neighbour.image_id for neighbour in result.neighbours],
        }
    )


def _run(kind: JobKind, options: JobRequest) -> Job:
    """Submit a job for the photo of the request, and wait for it up to `legacy_wait_s`."""
    photo = service().reader.read(request, service().spec)
    return service().wait(service().accept(kind, options, photo), service().settings.legacy_wait_s)
