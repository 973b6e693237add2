"""Jobs in a store, moved along by hand."""

from shared.jobs.answers_contract import EmbedResult
from shared.jobs.contract import (
    EmbedRequest,
    Job,
    JobKind,
    Submission,
)
from shared.jobs.records import Admission, QueueName
from shared.jobs.store import JobStore

RESULT = EmbedResult.model_validate(
    {
        "category": {"name": "Appliances", "index": 9, "probability": 0.5, "top": []},
        "scores": [0.0] * 13,
        "embedding": [1.0, 0.0],
        "dimension": 2,
        "model_fingerprint": "f" * 64,
    }
)


def create(
    store: JobStore, pixels: bytes | None = b"pixels", max_queued: int = 100, owner: str = "", **submission: object
) -> Job:
    """A new job that waits."""
    job, is_new, _ = store.create(
        JobKind.EMBED,
        EmbedRequest(),
        pixels,
        admission=Admission(max_queued, max_queued),
        owner=owner,
        submission=Submission.model_validate(submission),
        request_id="r1",
    )
    assert is_new
    return job


def claim(store: JobStore, job: Job | None = None, worker: str = "w1", *, suspects: bool = False) -> Job:
    """Claim whatever is next, which must be `job` when one is given."""
    taken = store.claim(worker, lease_s=15, only=QueueName.QUARANTINE if suspects else None)
    assert taken is not None
    assert job is None or taken.job.id == job.id
    return taken.job


def reap(store: JobStore) -> list[str]:
    """One round of the reaper; the ids of jobs that are queued again."""
    return store.reap(max_attempts=3).requeued
