"""Types of the job store's arguments and results, and the conversion of jobs to and from their Redis records."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.jobs.contract import Job, JobError, JobKind, JobStatus, Submission, parse_request, unreadable
from shared.jobs.reindex_contract import Progress
from shared.photos.preprocessing import PreprocessSpec

PREFIX = "lookalike:"
# So many unread tokens bring every worker: several, so that one that has just come finds one for each of its threads.
UNREAD_ENOUGH = 16


@dataclass(frozen=True, slots=True)
class Admission:
    """Limits of the backlog, above which new jobs are refused.

    Attributes:
        max_queued: queued jobs in total.
        max_queued_per_owner: queued jobs of one owner.
    """

    max_queued: int
    max_queued_per_owner: int


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An idempotency key with the digest of its request.

    Attributes:
        key: chosen by the client, of any form; keys of different owners are independent.
        digest: of all of the request, so that another request with the same key is refused.
    """

    key: str
    digest: str


class Created(NamedTuple):
    """The outcome of a submission.

    Attributes:
        job: the new job, or the one that the idempotency key was first used for.
        is_new: false if the idempotency key was used before.
        called: whether workers are notified: an idle one was, or messages enough lie unread. If false, the caller
            dispatches a Celery message.
    """

    job: Job
    is_new: bool
    called: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to run one attempt of a job."""

    job: Job
    pixels: bytes | None  # RGB, made by `job.spec`; None: the request names photos of the index, or they have expired


class QueueName(StrEnum):
    """The queues of jobs; the values are part of Redis keys."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
    QUARANTINE = "suspect"  # jobs whose workers died; the last attempt runs while its worker holds nothing else
    REINDEX = "reindex"
    SHARD = "shard"
    DUPLICATES = "duplicates"


_OWN_QUEUE = {
    JobKind.REINDEX: QueueName.REINDEX,
    JobKind.SHARD: QueueName.SHARD,
    JobKind.DUPLICATES: QueueName.DUPLICATES,
}


class QuarantineWaits(Exception):
    """A quarantined job waits; it must be claimed by a worker that holds nothing else."""


@dataclass(frozen=True, slots=True)
class ReapReport:
    """Ids of the jobs that one run of the reaper requeued, failed or expired."""

    requeued: list[str]
    failed: list[str]
    expired: list[str]


@dataclass(frozen=True, slots=True)
class Backlog:
    """The unfinished jobs, as numbers.

    Attributes:
        queued: jobs by queue.
        running: jobs whose lease a worker holds.
        oldest_wait_s: seconds that the oldest queued job has waited; 0 if none does.
    """

    queued: dict[str, int]
    running: int
    oldest_wait_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a queued job."""

    ahead: int  # jobs that are claimed before it, by the present backlog
    eta_s: float | None  # seconds until it is claimed; None while no pace has been measured


def record_key(job_id: str) -> str:
    """Return the Redis key of a job's record."""
    return f"{PREFIX}job:{job_id}"


def record_of(job: Job) -> dict[str, str]:
    """Build the Redis hash of a new job.

    Args:
        job: queued, not yet claimed.
    """
    record = {
        "kind": job.kind.value,
        "status": job.status.value,
        "request": job.request.model_dump_json(exclude_defaults=True),
        "request_id": job.request_id,
        "owner": job.owner,
        "submission": job.submission.model_dump_json(exclude_defaults=True),
        "line": _OWN_QUEUE.get(job.kind, job.submission.priority).value,
        "created_at": repr(job.created_at),
        "deadline_at": repr(job.deadline_at),
        "attempt": "0",
        "spec": spec_text(job.spec),
    }
    if job.trace:
        record["trace"] = json.dumps(job.trace)
    if job.submission.webhook_url:
        record["webhook_url"] = job.submission.webhook_url
    return record


def spec_text(spec: PreprocessSpec) -> str:
    """The preprocessing of a photo as records have it."""
    return spec.model_dump_json(exclude_defaults=True)


def parse_record(job_id: str, record: Mapping[bytes, bytes]) -> Job:
    """Parse a job from its Redis hash.

    Args:
        job_id: of the record.
        record: the hash; of optional fields, those missing have their defaults.

    Raises:
        RecordUnreadable: its kind, its state or something else in it is of a newer version; or it is empty.
    """
    try:
        return _parse(job_id, {name.decode(): value.decode() for name, value in record.items()})
    except (ValueError, KeyError) as exc:
        raise unreadable(f"job {job_id}") from exc


def _parse(job_id: str, text: Mapping[str, str]) -> Job:
    kind = JobKind(text["kind"])
    return Job(
        id=job_id,
        kind=kind,
        status=JobStatus(text["status"]),
        request=parse_request(kind, text["request"]),
        request_id=text["request_id"],
        owner=text["owner"],
        submission=Submission.model_validate_json(text["submission"]),
        created_at=float(text["created_at"]),
        deadline_at=float(text["deadline_at"]),
        started_at=float(text["started_at"]) if "started_at" in text else None,
        finished_at=float(text["finished_at"]) if "finished_at" in text else None,
        expires_at=float(text["expires_at"]) if "expires_at" in text else None,
        attempt=int(text["attempt"]),
        spec=PreprocessSpec.model_validate_json(text.get("spec", "{}")),
        progress=Progress.model_validate_json(text["progress"]) if "progress" in text else None,
        result_json=text.get("result"),
        error=JobError.model_validate_json(text["error"]) if "error" in text else None,
        confirmed=text.get("confirmed") == "1",
        trace=json.loads(text.get("trace", "{}")),
    )
