"""What the job store takes and gives: limits, claims, reports, places; and a record as a job. Knows no client."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.jobs.contract import Job, JobError, JobKind, JobStatus, Submission, parse_request, parse_result
from shared.jobs.reindex_contract import Progress
from shared.photos.preprocessing import PreprocessSpec

PREFIX = "lookalike:"


@dataclass(frozen=True, slots=True)
class Admission:
    """How much may wait.

    Attributes:
        max_queued: jobs of everybody.
        max_queued_per_owner: jobs of one owner.
    """

    max_queued: int
    max_queued_per_owner: int


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's name for one request.

    Attributes:
        key: the client's, of any form; counts for its owner only.
        digest: of everything the request asks for.
    """

    key: str
    digest: str


class Created(NamedTuple):
    """What became of a submission.

    Attributes:
        is_new: false where an idempotency key was used again, and this is the job of its first use.
        called: workers know: one was at hand, or they wait for such jobs by themselves. Else one is to be woken.
    """

    job: Job
    is_new: bool
    called: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to run one attempt of a job."""

    job: Job
    pixels: bytes | None  # by `job.spec`; None: the request names a photo of the index, or the pixels expired


class QueueName(StrEnum):
    """Where a job waits."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
    QUARANTINE = "suspect"  # its workers died; its last attempt is made alone
    REINDEX = "reindex"
    SHARD = "shard"


_OWN_LINE = {JobKind.REINDEX: QueueName.REINDEX, JobKind.SHARD: QueueName.SHARD}


class QuarantineWaits(Exception):
    """A job whose workers died waits to be claimed alone."""


@dataclass(frozen=True, slots=True)
class ReapReport:
    """Ids of the jobs one round of the reaper moved on."""

    requeued: list[str]
    failed: list[str]
    expired: list[str]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is not finished.

    Attributes:
        queued: jobs by line.
        running: jobs a worker holds.
        oldest_wait_s: age of the job that waits longest.
    """

    queued: dict[str, int]
    running: int
    oldest_wait_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queued job stands."""

    ahead: int  # jobs served before it, as things are
    eta_s: float | None  # until it is served; None while no pace has been measured


def record_of(job: Job) -> dict[str, str]:
    """The hash of a job that nobody has claimed yet."""
    record = {
        "kind": job.kind.value,
        "status": job.status.value,
        "request": job.request.model_dump_json(exclude_defaults=True),
        "request_id": job.request_id,
        "owner": job.owner,
        "submission": job.submission.model_dump_json(exclude_defaults=True),
        "line": _OWN_LINE.get(job.kind, job.submission.priority).value,
        "created_at": repr(job.created_at),
        "deadline_at": repr(job.deadline_at),
        "attempt": "0",
        "spec": job.spec.model_dump_json(exclude_defaults=True),
    }
    if job.trace:
        record["trace"] = json.dumps(job.trace)
    if job.submission.webhook_url:
        record["webhook_url"] = job.submission.webhook_url
    return record


def parse_record(job_id: str, record: Mapping[bytes, bytes]) -> Job:
    """A job from its hash; a field that was not read is as if it had never been set.

    Raises:
        ValueError, KeyError: a record of a version too different to be read.
    """
    text = {name.decode(): value.decode() for name, value in record.items()}
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
        result=parse_result(kind, text["result"]) if "result" in text else None,
        error=JobError.model_validate_json(text["error"]) if "error" in text else None,
        trace=json.loads(text.get("trace", "{}")),
    )
