"""The bodies of answers, as models: what is sent and what /openapi.json says of it are one."""

from typing import Literal

from pydantic import Field

from shared.artifacts.versions import VersionView
from shared.jobs.contract import JobError, JobKind, JobStatus, PhotoResult, WorkerReport
from shared.jobs.view import JobSummary, Timestamp, View


class Problem(View):
    """Every error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do")
    code: str = Field(description="stable; docs/api.md lists them")
    request_id: str
    job: str = Field("", description="of `reindex_running`: where the running one is")


class JobList(View):
    """One page of jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None = Field(description="null when there are no more")


class BatchItemView(View):
    custom_id: str
    job_id: str | None = Field(description="null when the photo never became a job")
    status: JobStatus | Literal["gone"] = Field(description="gone: it ended, and how is no longer known")
    result: PhotoResult | None
    error: JobError | None
    links: dict[str, str] = Field(description="job, where there is one")


class BatchCounts(View):
    total: int
    queued: int
    running: int
    canceling: int
    succeeded: int
    failed: int
    canceled: int
    expired: int
    gone: int


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


class VersionList(View):
    """The versions of the index, newest first."""

    versions: list[VersionView]


class Readiness(View):
    status: Literal["ready", "unready"]
    workers: int = Field(description="workers with a loaded model and index")
    problems: list[str]


class WorkerView(WorkerReport):
    """A worker as it reported itself last."""

    reported_at: Timestamp


class QueueView(View):
    queued: dict[str, int] = Field(description="jobs not yet claimed, by class")
    running: int = Field(description="jobs a worker holds")
    oldest_wait_s: float = Field(description="age of the job that waits longest; 0: none waits")


class WorkerList(View):
    """Who works, by name, and what is to do."""

    workers: list[WorkerView] = Field(description="those heard of within 15 s")
    queue: QueueView
