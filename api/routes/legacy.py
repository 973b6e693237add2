"""The older service's three endpoints, answer for answer, over the same jobs as /v1."""

from flask import Blueprint, Response, jsonify, request

from api.http.problems import job_problem
from api.service import accepted, service
from shared.jobs.contract import EmbedRequest, EmbedResult, Job, JobKind, JobRequest, SearchRequest, SearchResult

bp = Blueprint("seed", __name__)

_N_SIMILAR = 4


@bp.get("/healthcheck")
def healthcheck() -> Response:
    return jsonify({"message": "API is up and running!"})


@bp.post("/predict/feature_embedding")
def feature_embedding() -> Response:
    job = _run(JobKind.EMBED, EmbedRequest())
    if not job.status.terminal:
        return accepted(job)
    result = job.result
    if not isinstance(result, EmbedResult):
        return job_problem(job)
    return jsonify({"features": result.scores})


@bp.post("/predict/similar_images")
def similar_images() -> Response:
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
    photo = service().reader.read(request, service().spec)
    return service().wait(service().accept(kind, options, photo), service().settings.legacy_wait_s)
