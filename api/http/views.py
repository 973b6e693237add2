"""Models of response bodies. /openapi.json is generated from the same models that are sent."""

from typing import Literal

from pydantic import Field

from shared.artifacts.versions import VersionView
from shared.feedback.contract import FeedbackEvent
from shared.jobs.contract import JobError, JobKind, JobStatus, PhotoResult
from shared.jobs.duplicates_contract import DuplicateGroup, Verdict
from shared.jobs.view import JobSummary, Timestamp, View
from shared.jobs.worker_report import WorkerReport


class Problem(View):
    """The body of every error (RFC 9457)."""

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


class DuplicatesPage(View):
    """One page of the groups that a duplicates job found, the surest first, and of those the largest."""

    groups: list[DuplicateGroup]
    next_cursor: str | None = Field(description="null when there are no more")


class PairVerdict(View):
    """What was decided of two photos. It holds while both are what they were."""

    image_ids: tuple[str, str]
    verdict: Verdict


class VerdictList(View):
    """One page of verdicts, in no order."""

    verdicts: list[PairVerdict]
    next_cursor: str | None = Field(description="null when there are no more")


class VerdictView(View):
    """A verdict that was stored, for every two of some photos."""

    image_ids: list[str]
    verdict: Verdict | None
    n_pairs: int


class FeedbackView(View):
    """An event of feedback that was stored."""

    job_id: str
    event: FeedbackEvent
    image_id: str | None
    category: str | None
    position: int | None = Field(description="of the result, 1 is the first; null with a corrected category")
    index_version: str = Field(description="that the search was answered from")


class BatchItemView(View):
    """One photo of a batch, with the result or error of its job."""

    custom_id: str
    job_id: str | None = Field(description="null when the photo never became a job")
    status: JobStatus | Literal["gone"] = Field(description="gone: it ended, and how is no longer known")
    result: PhotoResult | None
    error: JobError | None
    links: dict[str, str] = Field(description="job, where there is one")


class BatchCounts(View):
    """The photos of a batch, counted by status."""

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
    """Paths of a batch's calls."""

    self: str
    cancel: str


class BatchView(View):
    """Photos sent in one request, each with its own result or error."""

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
    """Whether the service can do jobs, and what is missing if it cannot."""

    status: Literal["ready", "unready"]
    workers: int = Field(description="workers with a loaded model and index")
    problems: list[str]


class WorkerView(WorkerReport):
    """A worker as its last heartbeat described it."""

    reported_at: Timestamp


class QueueView(View):
    """The length of the queue."""

    queued: dict[str, int] = Field(description="jobs not yet claimed, by class")
    running: int = Field(description="jobs a worker holds")
    oldest_wait_s: float = Field(description="age of the job that waits longest; 0: none waits")


class WorkerList(View):
    """The workers, by name, and the queue."""

    workers: list[WorkerView] = Field(description="those heard of within 15 s")
    queue: QueueView
