"""/v1/jobs: submit, get, list, cancel and retry jobs."""

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.routing import BaseConverter

from api.http.auth import caller
from api.http.options import idempotency_key, once, read_options, validated, wait_s
from api.http.responses import accepted, answer, show, submitted
from api.http.views import JobList
from api.openapi.operation import ADMISSION, JOB, PHOTO, SUBMIT, SUBMIT_HEADERS, SUBMITTED, WAIT, Operation
from api.openapi.schemas import photo_or_id
from api.service import service
from shared import errors as e
from shared.jobs.contract import PHOTO_REQUESTS, EmbedRequest, Job, JobKind, JobStatus, SearchRequest
from shared.jobs.listing import CURSOR_PATTERN
from shared.jobs.view import JobView, summary

bp = Blueprint("jobs", __name__, url_prefix="/v1")


class JobIdConverter(BaseConverter):
    """A job id in a path: anything but the name of a kind, so that GET /v1/jobs/search answers 405 and not 404."""

    regex = rf"(?!(?:{'|'.join(JobKind)})(?:/|$))[^/]+"


class ListQuery(BaseModel):
    """The query of a list of jobs."""

    model_config = ConfigDict(extra="forbid")

    status: JobStatus | None = None
    kind: JobKind | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, min_length=1, max_length=200, json_schema_extra={"pattern": CURSOR_PATTERN})


@bp.post("/jobs/search")
@Operation(
    "Category of a photo, and the catalogue photos most similar to it",
    SUBMITTED,
    errors=(*PHOTO, *SUBMIT),
    parameters=SUBMIT_HEADERS,
    body=photo_or_id(SearchRequest),
)
def submit_search() -> Response:
    """POST /v1/jobs/search: submit a search."""
    return _submit(JobKind.SEARCH)


@bp.post("/jobs/embed")
@Operation(
    "Embedding of a photo, and its score for each category",
    SUBMITTED,
    errors=(*PHOTO, *SUBMIT),
    parameters=SUBMIT_HEADERS,
    body=photo_or_id(EmbedRequest),
)
def submit_embed() -> Response:
    """POST /v1/jobs/embed: submit an embedding."""
    return _submit(JobKind.EMBED)


@bp.get("/jobs/<job_id:job_id>")
@Operation("A job", {200: (JobView, "the job, whatever became of it")}, errors=JOB, parameters=(WAIT,))
def get_job(job_id: str) -> Response:
    """GET /v1/jobs/ID: the state of a job; `wait` waits for its end."""
    within_s = wait_s()
    job = service().wait(service().find(job_id), within_s)
    return show(job)


@bp.get("/jobs")
@Operation("Your jobs, newest first", {200: (JobList, "one page")}, query=ListQuery)
def list_jobs() -> Response:
    """GET /v1/jobs: one page of the caller's jobs, newest first."""
    asked = validated(ListQuery, {**once(request.args)})
    page = service().listing.page(owner=caller().reads, **asked.model_dump())
    return answer(JobList(jobs=[summary(job, request.script_root) for job in page.jobs], next_cursor=page.cursor))


@bp.post("/jobs/<job_id>/cancel")
@Operation(
    "Cancel a job",
    {200: (JobView, "canceled"), 202: (JobView, "canceling: a worker has it in hand")},
    errors=(*JOB, e.JobFinished),
)
def cancel_job(job_id: str) -> Response:
    """POST /v1/jobs/ID/cancel: 200 if the job is cancelled, 202 while its worker still holds it."""
    found = service().find(job_id)
    job = service().store.cancel(job_id)
    _audit_others("cancel", found)
    return show(job, status=200 if job.status.terminal else 202)


@bp.post("/jobs/<job_id>/retry")
@Operation(
    "Submit a failed job again, as a new one",
    {202: (JobView, "the new job")},
    errors=(*JOB, *ADMISSION, e.NotRetryable, e.ReindexRunning),
)
def retry_job(job_id: str) -> Response:
    """POST /v1/jobs/ID/retry: submit a failed job again."""
    key = idempotency_key()
    found = service().find(job_id)
    job = service().retry(found, idempotency_key=key)
    _audit_others("retry", found)
    return accepted(job)


def _submit(kind: JobKind) -> Response:
    key = idempotency_key()
    options, submission = read_options(PHOTO_REQUESTS[kind])
    photo = None
    if not request.is_json:
        photo = service().reader.read_query(request, service().spec, box=options.box, priority=submission.priority)
    if isinstance(options, EmbedRequest) and options.propose_boxes:
        if photo is None or len(photo.files) > 1 or options.box is not None:
            raise e.InvalidRequest("propose_boxes: send one photo, and no box: parts are proposed of a whole photo")
        options = options.model_copy(update={"photo_size": service().reader.size(photo)})
    return submitted(service().accept(kind, options, photo, submission=submission, idempotency_key=key))


def _audit_others(action: str, job: Job) -> None:
    """Write to the audit log that the caller changed a job of another owner."""
    if job.owner != caller().owner:
        service().audit(f"jobs.{action}", job.id)
