"""/v1/jobs/duplicates, the groups that such a job found, and /v1/duplicates/verdicts: what people decided of them."""

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field

from api.http.options import idempotency_key, once, read_json, read_json_options, validated
from api.http.responses import answer, submitted
from api.http.views import DuplicatesPage, PairVerdict, VerdictList, VerdictView
from api.openapi.operation import JOB, SUBMIT, SUBMIT_HEADERS, SUBMITTED, Operation
from api.openapi.schemas import json_only, options_only
from api.routes.images import live_sha256
from api.service import service
from shared import errors as e
from shared.artifacts import versions
from shared.blocking import to_thread
from shared.duplicates.report import n_pages, read_report
from shared.jobs.contract import JobKind
from shared.jobs.duplicates_contract import DuplicatesRequest, DuplicatesResult, Verdict

bp = Blueprint("duplicates", __name__, url_prefix="/v1")

_MOST_IMAGES = 50
_AUDITED_CHARS = 500


class PageQuery(BaseModel):
    """The query of a page of groups."""

    model_config = ConfigDict(extra="forbid")

    cursor: int = Field(0, ge=0, le=10**6, description="`next_cursor` of the page before, or of the job's result")


class VerdictQuery(BaseModel):
    """The query of a page of verdicts."""

    model_config = ConfigDict(extra="forbid")

    cursor: int = Field(0, ge=0, lt=1 << 64, description="`next_cursor` of the page before")


class VerdictRequest(BaseModel):
    """What somebody has decided of some photos: every two of them are duplicates, or none are."""

    model_config = ConfigDict(extra="forbid")

    image_ids: list[str] = Field(
        min_length=2,
        max_length=_MOST_IMAGES,
        description="photos of the live index: a pair, or all of a group",
        json_schema_extra={"uniqueItems": True},
    )
    verdict: Verdict | None = Field(description="null: forget what was decided earlier")


@bp.post("/jobs/duplicates")
@Operation(
    "Find the photos of the live index that are duplicates of one another, in different listings",
    SUBMITTED,
    errors=(*SUBMIT, e.VersionNotFound),
    parameters=SUBMIT_HEADERS,
    body=options_only(DuplicatesRequest),
)
def submit_duplicates() -> Response:
    """POST /v1/jobs/duplicates: submit a duplicates job."""
    key = idempotency_key()
    options, submission = read_json_options(DuplicatesRequest)
    storage = service().settings.storage
    if since := options.since:
        to_thread(lambda: versions.show_version(storage, since))
    return submitted(service().accept(JobKind.DUPLICATES, options, None, submission=submission, idempotency_key=key))


@bp.get("/jobs/<job_id:job_id>/duplicates")
@Operation(
    "The groups that a duplicates job found, page by page",
    {200: (DuplicatesPage, "one page; the first is that of the job's result")},
    errors=JOB,
    query=PageQuery,
)
def list_groups(job_id: str) -> Response:
    """GET /v1/jobs/ID/duplicates: one page of the groups that a job found."""
    page = validated(PageQuery, {**once(request.args)}).cursor
    job = service().find(job_id)
    if job.kind is not JobKind.DUPLICATES:
        raise e.JobNotFound("the job is no duplicates job")
    if not isinstance(job.result, DuplicatesResult):
        raise e.JobNotFound(f"the job has no groups: it is {job.status}")
    storage, n_all = service().settings.storage, n_pages(job.result.n_groups)
    try:
        groups = job.result.groups
        if page:
            groups = to_thread(lambda: read_report(storage, job_id, page)) if page < n_all else []
    except FileNotFoundError as exc:
        raise e.JobGone("the job's groups are no longer kept") from exc
    return answer(DuplicatesPage(groups=groups, next_cursor=str(page + 1) if page + 1 < n_all else None))


@bp.post("/duplicates/verdicts")
@Operation(
    "Decide that photos are duplicates, or are none; later duplicates jobs remember it",
    {200: (VerdictView, "stored, for every two of them")},
    errors=(e.InvalidRequest, e.ImageNotFound, e.IndexMissing, e.IndexDamaged),
    body=json_only(VerdictRequest),
)
def give_verdict() -> Response:
    """POST /v1/duplicates/verdicts: store what somebody has decided of some photos."""
    given = read_json(VerdictRequest)
    image_ids = sorted(set(given.image_ids))
    if len(image_ids) < 2:
        raise e.InvalidRequest("image_ids: two different photos at least")
    photos = {image_id: live_sha256(image_id) for image_id in image_ids}
    n_pairs = service().verdicts.give(photos, given.verdict)
    service().audit(f"duplicates.{given.verdict or 'forget'}", ",".join(image_ids)[:_AUDITED_CHARS])
    return answer(VerdictView(image_ids=image_ids, verdict=given.verdict, n_pairs=n_pairs))


@bp.get("/duplicates/verdicts")
@Operation("What was decided of pairs of photos", {200: (VerdictList, "one page, in no order")}, query=VerdictQuery)
def list_verdicts() -> Response:
    """GET /v1/duplicates/verdicts: one page of the verdicts."""
    found, after = service().verdicts.page(validated(VerdictQuery, {**once(request.args)}).cursor)
    shown = [PairVerdict(image_ids=one.image_ids, verdict=one.verdict) for one in found]
    return answer(VerdictList(verdicts=shown, next_cursor=str(after) if after else None))
