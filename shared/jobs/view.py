"""The JSON form of a job in HTTP responses, lists and webhooks."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from shared.jobs.contract import ImageChangeResult, Job, JobError, JobKind, JobStatus, PhotoResult, Priority
from shared.jobs.duplicates_contract import DuplicatesResult
from shared.jobs.records import Place
from shared.jobs.reindex_contract import Progress, ReindexResult

Timestamp = Annotated[
    float,
    PlainSerializer(
        lambda at: datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    ),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class View(BaseModel):
    """Base of the models in HTTP responses."""

    model_config = ConfigDict(frozen=True, use_enum_values=True)


class QueuePlace(View):
    """The position of a queued job."""

    ahead: int = Field(description="jobs served before this one, as things are")
    eta_s: float | None = Field(description="seconds until it is served, at the pace measured")


class JobSummary(View):
    """A job without its result."""

    id: str
    kind: JobKind
    status: JobStatus
    priority: Priority
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    deadline_at: Timestamp
    expires_at: Timestamp | None = Field(description="until when a finished job can be read")
    attempt: int
    progress: Progress | None
    error: JobError | None
    links: dict[str, str] = Field(description="self; cancel while it is not finished; retry of a failed one")


class JobView(JobSummary):
    """A job with its result."""

    queue: QueuePlace | None = Field(description="of a queued job that is asked for")
    result: PhotoResult | ImageChangeResult | ReindexResult | DuplicatesResult | None  # the last: see `view_json`


def location(job_id: str, prefix: str = "") -> str:
    """Return the URL path of a job, below the path prefix of the service."""
    return f"{prefix}/v1/jobs/{job_id}"


def summary(job: Job, prefix: str = "") -> JobSummary:
    """Build the JSON form of a job for lists, with links below the path prefix of the service."""
    return JobSummary(**_fields(job, prefix))


def view(job: Job, *, prefix: str = "") -> JobView:
    """Build the JSON form of a job.

    Args:
        job: to show.
        prefix: path prefix of the service, for the links.
    """
    return JobView(**_fields(job, prefix), queue=None, result=job.result)


def view_json(job: Job, place: Place | None = None, *, prefix: str = "") -> str:
    """Write the JSON form of a job for `GET /v1/jobs/{id}`, with the result as its worker wrote it.

    2,048 numbers are not read here to be written again.

    Args:
        job, prefix: as of `view`.
        place: of a queued job, if it was looked up.
    """
    queue = QueuePlace(ahead=place.ahead, eta_s=place.eta_s) if place else None
    shown = JobView(**_fields(job, prefix), queue=queue, result=None).model_dump_json()
    return shown if job.result_json is None else f"{shown.removesuffix('null}')}{job.result_json}}}"


def _fields(job: Job, prefix: str) -> dict[str, Any]:
    at = location(job.id, prefix)
    links = {"self": at}
    if not job.status.terminal:
        links["cancel"] = f"{at}/cancel"
    if job.status is JobStatus.FAILED:
        links["retry"] = f"{at}/retry"
    return {
        **{name: getattr(job, name) for name in JobSummary.model_fields if hasattr(job, name)},
        "priority": job.submission.priority,
        "links": links,
    }
