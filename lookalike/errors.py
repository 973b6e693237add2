"""Every error of the client. `code` is the service's, so a program can tell errors apart, and `detail` is for people.

LookalikeError
├── PhotoUnreadable            photo_unreadable     here, before anything was sent
├── NoAnswer                   no_answer            nobody answered, or the connection broke, until time was up
├── UnexpectedAnswer           unexpected_answer    whoever answered is no Lookalike service
├── TimedOut                   timed_out            you waited long enough; the job goes on
│   └── DeadlineExceeded       deadline_exceeded    the job itself had a deadline, and is over
├── InputError                 invalid_request      what you sent cannot be taken
│   ├── ImageMissing           image_missing
│   ├── PhotoUndecodable       photo_undecodable
│   ├── UnsupportedFormat      unsupported_format
│   ├── PhotoTooLarge          photo_too_large
│   ├── UploadTooLarge         upload_too_large
│   └── WebhookRefused         webhook_refused
├── AccessDenied               access_denied
│   ├── ApiKeyRequired         api_key_required
│   ├── ApiKeyInvalid          api_key_invalid
│   └── ScopeMissing           scope_missing
├── NotFound                   not_found
│   ├── JobNotFound            job_not_found
│   ├── JobGone                job_gone
│   ├── BatchNotFound          batch_not_found
│   ├── ImageNotFound          image_not_found
│   └── VersionNotFound        version_not_found
├── Conflict                   conflict             what it is about is not in the state for that
│   ├── JobFinished            job_finished
│   ├── JobNotRetryable        job_not_retryable
│   ├── JobCanceled            job_canceled
│   ├── ReindexRunning         reindex_running
│   ├── PromotionRefused       promotion_refused
│   └── IdempotencyConflict    idempotency_conflict
├── Overload                   overload             come back after `retry_after_s`; the client did, until time was up
│   ├── QueueFull              queue_full
│   ├── QueueShareFull         queue_share_full
│   ├── ChangesFull            changes_full
│   ├── RateLimited            rate_limited
│   ├── IdempotencyPending     idempotency_pending
│   └── QueueUnavailable       queue_unavailable
├── NotServing                 artifact_unusable    its operator has to mend the model or the index
│   ├── BundleMissing, BundleDamaged, IndexMissing, IndexDamaged, IndexUnavailable, FingerprintMismatch,
│       ArtifactUnwritable, StoreUnavailable
└── ServiceError               internal_error       the service's fault
    ├── WorkerLost             worker_lost
    ├── PhotoExpired           photo_expired
    └── ShardFailed            shard_failed

A code this client does not know becomes the family that its HTTP status belongs to, and keeps its code.
"""

from collections.abc import Iterator
from typing import ClassVar


class LookalikeError(Exception):
    """Root of the tree; `str(error)` is `detail`.

    Attributes:
        code: stable, machine-readable.
        status: of the answer, if there was one; 0 otherwise.
        retry_after_s: seconds after which trying again makes sense; None where nobody said so.
        request_id: what to quote to the service's operator.
        job_id: the job that failed, or runs already; empty where the error is not about one.
    """

    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        status: int = 0,
        retry_after_s: float | None = None,
        request_id: str = "",
        job_id: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.status = status
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.job_id = job_id


class PhotoUnreadable(LookalikeError):
    default_code = "photo_unreadable"


class NoAnswer(LookalikeError):
    default_code = "no_answer"


class UnexpectedAnswer(LookalikeError):
    default_code = "unexpected_answer"


class TimedOut(LookalikeError):
    default_code = "timed_out"


class DeadlineExceeded(TimedOut):
    default_code = "deadline_exceeded"


class InputError(LookalikeError):
    default_code = "invalid_request"


class ImageMissing(InputError):
    default_code = "image_missing"


class PhotoUndecodable(InputError):
    default_code = "photo_undecodable"


class UnsupportedFormat(InputError):
    default_code = "unsupported_format"


class PhotoTooLarge(InputError):
    default_code = "photo_too_large"


class UploadTooLarge(InputError):
    default_code = "upload_too_large"


class WebhookRefused(InputError):
    default_code = "webhook_refused"


class AccessDenied(LookalikeError):
    default_code = "access_denied"


class ApiKeyRequired(AccessDenied):
    default_code = "api_key_required"


class ApiKeyInvalid(AccessDenied):
    default_code = "api_key_invalid"


class ScopeMissing(AccessDenied):
    default_code = "scope_missing"


class NotFound(LookalikeError):
    default_code = "not_found"


class JobNotFound(NotFound):
    default_code = "job_not_found"


class JobGone(NotFound):
    default_code = "job_gone"


class BatchNotFound(NotFound):
    default_code = "batch_not_found"


class ImageNotFound(NotFound):
    default_code = "image_not_found"


class VersionNotFound(NotFound):
    default_code = "version_not_found"


class Conflict(LookalikeError):
    default_code = "conflict"


class JobFinished(Conflict):
    default_code = "job_finished"


class JobNotRetryable(Conflict):
    default_code = "job_not_retryable"


class JobCanceled(Conflict):
    default_code = "job_canceled"


class ReindexRunning(Conflict):
    """`job_id` is the one that runs."""

    default_code = "reindex_running"


class PromotionRefused(Conflict):
    default_code = "promotion_refused"


class IdempotencyConflict(Conflict):
    default_code = "idempotency_conflict"


class Overload(LookalikeError):
    default_code = "overload"


class QueueFull(Overload):
    default_code = "queue_full"


class QueueShareFull(Overload):
    default_code = "queue_share_full"


class ChangesFull(Overload):
    default_code = "changes_full"


class RateLimited(Overload):
    default_code = "rate_limited"


class IdempotencyPending(Overload):
    default_code = "idempotency_pending"


class QueueUnavailable(Overload):
    default_code = "queue_unavailable"


class NotServing(LookalikeError):
    default_code = "artifact_unusable"


class BundleMissing(NotServing):
    default_code = "bundle_missing"


class BundleDamaged(NotServing):
    default_code = "bundle_damaged"


class IndexMissing(NotServing):
    default_code = "index_missing"


class IndexDamaged(NotServing):
    default_code = "index_damaged"


class IndexUnavailable(NotServing):
    default_code = "index_unavailable"


class FingerprintMismatch(NotServing):
    default_code = "fingerprint_mismatch"


class ArtifactUnwritable(NotServing):
    default_code = "artifact_unwritable"


class StoreUnavailable(NotServing):
    default_code = "store_unavailable"


class ServiceError(LookalikeError):
    pass


class WorkerLost(ServiceError):
    default_code = "worker_lost"


class PhotoExpired(ServiceError):
    default_code = "photo_expired"


class ShardFailed(ServiceError):
    default_code = "shard_failed"


_FAMILY_OF_STATUS: dict[int, type[LookalikeError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: UploadTooLarge,
    415: UnsupportedFormat,
    429: Overload,
    502: Overload,
    503: Overload,
    504: Overload,
    507: NotServing,
}


def error_class(code: str, status: int) -> type[LookalikeError]:
    """The class of a code; of one that is not known here, the family of its HTTP status."""
    for known in _tree(LookalikeError):
        if known.default_code == code:
            return known
    return _FAMILY_OF_STATUS.get(status, InputError if 400 <= status < 500 else ServiceError)


def _tree(root: type[LookalikeError]) -> Iterator[type[LookalikeError]]:
    """Children before their parents: `internal_error` is ServiceError's before it is the root's."""
    for child in root.__subclasses__():
        yield from _tree(child)
    yield root
