"""Jobs and batches as the service reports them."""

from datetime import datetime
from typing import Any

from lookalike.models.answer import Answer


class Progress(Answer):
    """How far a job or a batch is.

    Attributes:
        stage: what is being done.
        done: units done in this stage.
        total: units in this stage; 0 while that is not known.
        eta_s: estimated seconds until the stage ends; None while that is not known.
    """

    stage: str
    done: int
    total: int
    eta_s: float | None = None


class Failure(Answer):
    """Why a job failed.

    Attributes:
        code: stable, machine-readable error code.
        detail: what is wrong and what to do, for people.
        retryable: whether the same request may succeed later.
    """

    code: str
    detail: str
    retryable: bool = False


class QueuePlace(Answer):
    """Where a queued job stands.

    Attributes:
        ahead: jobs that are served before it.
        eta_s: estimated seconds until it is served; None while no pace has been measured.
    """

    ahead: int
    eta_s: float | None = None


class JobState(Answer):
    """A job as the service last reported it.

    Attributes:
        id: the job's id, 32 hexadecimal digits.
        kind: search, embed, put_image, delete_image, reindex or duplicates.
        status: queued, running or canceling; finally succeeded, failed, canceled or expired.
        priority: interactive or bulk.
        created_at: when it was accepted.
        started_at: when a worker claimed it; None before.
        finished_at: when it ended, however; None before.
        deadline_at: when it expires, if it has not ended by then.
        expires_at: until when a finished job can be read.
        attempt: how often a worker has claimed it.
        progress: None for kinds that report none.
        error: of a failed job.
        queue: of a queued job.
        result: the result as JSON; `Job.wait` returns it as a model.
    """

    id: str
    kind: str
    status: str
    priority: str = "interactive"
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    expires_at: datetime | None = None
    attempt: int = 0
    progress: Progress | None = None
    error: Failure | None = None
    queue: QueuePlace | None = None
    result: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        """Whether the job has ended, with or without a result."""
        return self.finished_at is not None


class JobPage(Answer):
    """One page of a list of jobs; `next_cursor` is None on the last page."""

    jobs: list[JobState]
    next_cursor: str | None = None


class BatchItemState(Answer):
    """One photo of a batch as the service last reported it.

    Attributes:
        custom_id: the id that the client gave the photo.
        job_id: None if the photo could not become a job; `error` says why.
        status: that of its job; `gone` if its result is no longer kept.
        result: the result as JSON.
        error: why there is no result.
    """

    custom_id: str
    job_id: str | None = None
    status: str
    result: dict[str, Any] | None = None
    error: Failure | None = None


class BatchState(Answer):
    """A batch as the service last reported it; `status` is running or ended."""

    id: str
    kind: str
    status: str
    items: list[BatchItemState]
