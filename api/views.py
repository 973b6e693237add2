"""The bodies of answers, as models: what is sent and what /openapi.json says of it are one."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from shared.jobs import EmbedResult, Job, JobError, JobKind, JobStatus, Priority, SearchResult
from shared.store.jobs import Place

Timestamp = Annotated[
    float,
    PlainSerializer(
        lambda at: datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    ),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class View(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(frozen=True, use_enum_values=True)


class Problem(View):
    """Every error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do")
    code: str = Field(description="stable; the README lists them")
    request_id: str


class JobLinks(View):
    self: str
    cancel: str | None = Field(description="while the job is not finished")
    retry: str | None = Field(description="of a failed job")


class Progress(View):
    stage: str
    done: int
    total: int


class QueuePlace(View):
    ahead: int = Field(description="jobs served before this one, as things are")
    eta_s: float | None = Field(description="seconds until it is served, at the pace measured")


class JobSummary(View):
    """A job less its result."""

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
    links: JobLinks


class JobView(JobSummary):
    """A job."""

    queue: QueuePlace | None = Field(description="of a queued job that is asked for")
    result: SearchResult | EmbedResult | None


class JobList(View):
    """One page of jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None = Field(description="null when there are no more")


class BatchItemView(View):
    custom_id: str
    job_id: str | None = Field(description="null when the photo never became a job")
    status: JobStatus
    result: SearchResult | EmbedResult | None
    error: JobError | None


class BatchCounts(View):
    total: int
    queued: int
    running: int
    canceling: int
    succeeded: int
    failed: int
    canceled: int
    expired: int


class BatchLinks(View):
    self: str
    cancel: str


class BatchView(View):
    """Many photos sent together, each with its own outcome."""

    id: str
    kind: JobKind
    status: Literal["running", "ended"]
    counts: BatchCounts
    items: list[BatchItemView]
    links: BatchLinks


class Readiness(View):
    status: Literal["ready", "unready"]
    workers: int = Field(description="workers with a loaded model and index")
    problems: list[str]


def location(job_id: str) -> str:
    """Where a job can be asked for."""
    return f"/v1/jobs/{job_id}"


def summary(job: Job) -> JobSummary:
    """A job as lists show it."""
    return JobSummary(**_fields(job))


def view(job: Job, place: Place | None = None) -> JobView:
    """A job as its own address shows it."""
    queue = QueuePlace(ahead=place.ahead, eta_s=place.eta_s) if place else None
    return JobView(**_fields(job), queue=queue, result=job.result)


def _fields(job: Job) -> dict[str, Any]:
    at = location(job.id)
    return {
        **{name: getattr(job, name) for name in JobSummary.model_fields if hasattr(job, name)},
        "priority": job.submission.priority,
        "progress": None,
        "links": JobLinks(
            self=at,
            cancel=None if job.status.terminal else f"{at}/cancel",
            retry=f"{at}/retry" if job.status is JobStatus.FAILED else None,
        ),
    }
