"""The responses that routes have in common: a job, and the answer to a submit."""

from math import ceil

from flask import Response, request
from pydantic import BaseModel

from api.http.options import preferred_wait_s
from api.service import service
from shared.jobs.acceptance import acceptance_unknown
from shared.jobs.contract import Job
from shared.jobs.view import location, view_json

_POLL_AFTER_S = 1  # Retry-After of an unfinished job, at least
_POLL_AFTER_AT_MOST_S = 30


def answer(body: BaseModel, *, status: int = 200) -> Response:
    """Make a JSON response of a model."""
    return Response(body.model_dump_json(), status, content_type="application/json")


def show(job: Job, *, status: int = 200) -> Response:
    """Make the response that describes a job; with Retry-After while the job is unfinished."""
    place = service().place(job)
    body = view_json(job, place, prefix=request.script_root)
    response = Response(body, status, content_type="application/json")
    if not job.status.terminal:
        eta_s = ceil(place.eta_s or 0) if place else 0
        response.headers["Retry-After"] = str(min(max(_POLL_AFTER_S, eta_s), _POLL_AFTER_AT_MOST_S))
    return response


def submitted(job: Job) -> Response:
    """Make the response to a submit: 202; or 200 with the finished job if the client waits and it ends in time.

    Raises:
        AcceptanceUnknown: a failover of Redis has lost the job meanwhile.
    """
    wait_s = preferred_wait_s()
    if wait_s is None:
        return accepted(job)
    with acceptance_unknown(job.id):
        job = service().wait(job, wait_s)
    response = show(job) if job.status.terminal else accepted(job)
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    response.headers["Location"] = location(job.id, request.script_root)
    return response


def accepted(job: Job) -> Response:
    """Make the 202 response to an accepted job, with its path in Location."""
    response = show(job, status=202)
    response.headers["Location"] = location(job.id, request.script_root)
    return response
