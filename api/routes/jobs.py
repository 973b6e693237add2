"""/v1/jobs: submit, ask, list, cancel, try again."""

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.routing import BaseConverter

from api.http.auth import caller
from api.http.options import once, read_options, validated, wait_s
from api.http.views import JobList
from api.service import accepted, answer, idempotency_key, service, show, submitted
from shared.jobs.contract import PHOTO_REQUESTS, Job, JobKind, JobStatus
from shared.jobs.view import summary

bp = Blueprint("jobs", __name__, url_prefix="/v1")


class JobIdConverter(BaseConverter):
    """A path's job id: whatever is not the name of a submit, so that those answer 405 to a GET."""

    regex = rf"(?!(?:{'|'.join(JobKind)})(?:/|$))[^/]+"


class ListQuery(BaseModel):
    """The query of a list of jobs."""

    model_config = ConfigDict(extra="forbid")

    status: JobStatus | None = None
    kind: JobKind | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, min_length=1, max_length=200)


@bp.post("/jobs/search")
def submit_search() -> Response:
    return _submit(JobKind.SEARCH)


@bp.post("/jobs/embed")
def submit_embed() -> Response:
    return _submit(JobKind.EMBED)


@bp.get("/jobs/<job_id:job_id>")
def get_job(job_id: str) -> Response:
    within_s = wait_s()
    job = service().wait(service().find(job_id), within_s)
    return show(job)


@bp.get("/jobs")
def list_jobs() -> Response:
    asked = validated(ListQuery, {**once(request.args)})
    page = service().listing.page(owner=caller().reads, **asked.model_dump())
    return answer(JobList(jobs=[summary(job) for job in page.jobs], next_cursor=page.cursor))


@bp.post("/jobs/<job_id>/cancel")
def cancel_job(job_id: str) -> Response:
    found = service().find(job_id)
    job = service().store.cancel(job_id)
    _audit_others("cancel", found)
    return show(job, status=200 if job.status.terminal else 202)


@bp.post("/jobs/<job_id>/retry")
def retry_job(job_id: str) -> Response:
    key = idempotency_key()
    found = service().find(job_id)
    job = service().retry(found, idempotency_key=key)
    _audit_others("retry", found)
    return accepted(job)


def _submit(kind: JobKind) -> Response:
    key = idempotency_key()
    options, submission = read_options(PHOTO_REQUESTS[kind])
    photo = None if request.is_json else service().reader.read(request, service().spec)
    return submitted(service().accept(kind, options, photo, submission=submission, idempotency_key=key))


def _audit_others(action: str, job: Job) -> None:
    if job.owner != caller().owner:
        service().audit(f"jobs.{action}", job.id)
