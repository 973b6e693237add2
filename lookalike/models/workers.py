"""The state of the service: readiness, workers, queue."""

from datetime import datetime

from pydantic import Field

from lookalike.models.answer import Answer
from lookalike.models.index import IndexInfo


class Worker(Answer):
    """A worker as its last heartbeat described it.

    Attributes:
        name: the worker's name.
        state: ready or unready.
        pid: its process id.
        reported_at: time of the heartbeat.
        held: jobs it is working on.
        device: what the model runs on.
        photos_per_s: throughput of the model on that device, as the worker measured it when it started.
        index: the index it searches; None while none is loaded.
        problem: why it is unready; None if it is ready.
        problem_code: code of the error behind `problem`; None if there is no error.
        installation: id of the storage whose artifacts it serves; empty: not known.
    """

    name: str
    state: str
    pid: int = 0
    reported_at: datetime
    held: int = 0
    device: str = ""
    photos_per_s: float | None = None
    index: IndexInfo | None = None
    problem: str | None = None
    problem_code: str | None = None
    installation: str = ""


class QueueState(Answer):
    """How long the queue is.

    Attributes:
        queued: jobs that no worker has claimed yet, by class.
        running: jobs that a worker holds.
        oldest_wait_s: age in seconds of the job that has waited longest; 0 if none waits.
    """

    queued: dict[str, int]
    running: int
    oldest_wait_s: float


class WorkerList(Answer):
    """The workers that reported within the last seconds, and the queue."""

    workers: list[Worker]
    queue: QueueState


class Readiness(Answer):
    """Whether the service can do jobs.

    Attributes:
        status: ready or unready.
        workers: workers with a loaded model and index.
        problems: what is missing.
    """

    status: str
    workers: int = 0
    problems: list[str] = Field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether the service can do jobs."""
        return self.status == "ready"
