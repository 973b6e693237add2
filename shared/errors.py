"""Every error raised on purpose: stable code, HTTP status, whether retrying helps.

LookalikeError
├── InputError                 the caller can mend it
│   ├── InvalidRequest         422  invalid_request
│   ├── ImageMissing           422  image_missing
│   ├── PhotoUndecodable       422  photo_undecodable
│   ├── UnsupportedFormat      415  unsupported_format
│   ├── PhotoTooLarge          413  photo_too_large
│   │   └── PhotoTooHeavy      413  photo_too_large    for one decoder, not for every
│   ├── UploadTooLarge         413  upload_too_large
│   ├── LengthRequired         411  length_required
│   ├── BodyIncomplete         400  body_incomplete
│   ├── RequestTimeout         408  request_timeout
│   ├── HostNotTrusted         400  host_not_trusted
│   ├── CrossSiteRefused       403  cross_site_refused
│   ├── ImageNotFound          404  image_not_found
│   ├── WebhookRefused         422  webhook_refused
│   ├── JobNotFound            404  job_not_found
│   ├── JobGone                410  job_gone
│   ├── JobFinished            409  job_finished
│   ├── NotRetryable           409  job_not_retryable
│   ├── BatchNotFound          404  batch_not_found
│   ├── ReindexRunning         409  reindex_running
│   ├── VersionNotFound        404  version_not_found
│   ├── PromotionRefused       409  promotion_refused
│   ├── IdempotencyConflict    422  idempotency_conflict
│   ├── ApiKeyRequired         401  api_key_required
│   ├── ApiKeyInvalid          401  api_key_invalid
│   └── ScopeMissing           403  scope_missing
├── Overload                   come back later
│   ├── QueueFull              429  queue_full
│   ├── QueueShareFull         429  queue_share_full
│   ├── ChangesFull            429  changes_full
│   ├── RateLimited            429  rate_limited
│   ├── IdempotencyPending     409  idempotency_pending
│   └── QueueUnavailable       503  queue_unavailable
├── ArtifactError              an operator can mend it
│   ├── BundleMissing          503  bundle_missing
│   ├── BundleDamaged          503  bundle_damaged
│   ├── IndexMissing           503  index_missing
│   ├── IndexDamaged           503  index_damaged
│   ├── FingerprintMismatch    503  fingerprint_mismatch
│   ├── ArtifactUnwritable     507  artifact_unwritable
│   └── DimensionMismatch      500  dimension_mismatch
├── CatalogueUnusable          422  catalogue_unusable
├── WeightsUnusable            422  weights_unusable
├── TrainingFailed             500  training_failed
├── CannotStart                500  cannot_start
├── PhotoExpired               410  photo_expired      the pixels of a queued job outlived their time
├── ShardFailed            500  shard_failed       part of a reindex failed, and trying again would not help
├── WorkerLost                 500  worker_lost        the job's worker died too many times
├── DeadlineExceeded           504  deadline_exceeded  the job was not finished in the time it was given
├── JobCanceled                409  job_canceled       somebody cancelled the job that was waited for
└── InternalError              500  internal_error     anything not raised on purpose
"""

from typing import ClassVar


class LookalikeError(Exception):
    """Root of the tree. `str(error)` is safe to show to the caller.

    Attributes:
        code: stable, machine-readable; part of the HTTP contract.
        http_status: status of the answer when the error reaches the front door.
        retryable: the same request may succeed later without being changed.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class InputError(LookalikeError):
    code = "invalid_request"
    http_status = 422


class InvalidRequest(InputError):
    pass


class ImageMissing(InputError):
    code = "image_missing"


class PhotoUndecodable(InputError):
    code = "photo_undecodable"


class UnsupportedFormat(InputError):
    code = "unsupported_format"
    http_status = 415


class PhotoTooLarge(InputError):
    code = "photo_too_large"
    http_status = 413


class PhotoTooHeavy(PhotoTooLarge):
    """It needs more memory than this decoder may take; another may have more."""


class UploadTooLarge(InputError):
    code = "upload_too_large"
    http_status = 413


class LengthRequired(InputError):
    code = "length_required"
    http_status = 411


class BodyIncomplete(InputError):
    code = "body_incomplete"
    http_status = 400


class RequestTimeout(InputError):
    code = "request_timeout"
    http_status = 408


class HostNotTrusted(InputError):
    code = "host_not_trusted"
    http_status = 400


class CrossSiteRefused(InputError):
    code = "cross_site_refused"
    http_status = 403


class ImageNotFound(InputError):
    code = "image_not_found"
    http_status = 404


class WebhookRefused(InputError):
    code = "webhook_refused"


class JobNotFound(InputError):
    code = "job_not_found"
    http_status = 404


class JobGone(InputError):
    code = "job_gone"
    http_status = 410


class JobFinished(InputError):
    code = "job_finished"
    http_status = 409


class NotRetryable(InputError):
    code = "job_not_retryable"
    http_status = 409


class BatchNotFound(InputError):
    code = "batch_not_found"
    http_status = 404


class ReindexRunning(InputError):
    """One reindex at a time.

    Attributes:
        job_id: the one that runs.
    """

    code = "reindex_running"
    http_status = 409

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class VersionNotFound(InputError):
    code = "version_not_found"
    http_status = 404


class PromotionRefused(InputError):
    code = "promotion_refused"
    http_status = 409


class IdempotencyConflict(InputError):
    code = "idempotency_conflict"


class ApiKeyRequired(InputError):
    code = "api_key_required"
    http_status = 401


class ApiKeyInvalid(InputError):
    code = "api_key_invalid"
    http_status = 401


class ScopeMissing(InputError):
    code = "scope_missing"
    http_status = 403


class Overload(LookalikeError):
    """The service cannot take the job now.

    Attributes:
        retry_after_s: whole seconds after which trying again makes sense.
    """

    code = "queue_unavailable"
    http_status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Overload):
    code = "queue_full"
    http_status = 429


class QueueShareFull(Overload):
    code = "queue_share_full"
    http_status = 429


class ChangesFull(Overload):
    code = "changes_full"
    http_status = 429


class IdempotencyPending(Overload):
    code = "idempotency_pending"
    http_status = 409


class RateLimited(Overload):
    code = "rate_limited"
    http_status = 429


class QueueUnavailable(Overload):
    pass


class ArtifactError(LookalikeError):
    code = "artifact_unusable"
    http_status = 503


class BundleMissing(ArtifactError):
    code = "bundle_missing"


class BundleDamaged(ArtifactError):
    code = "bundle_damaged"


class IndexMissing(ArtifactError):
    code = "index_missing"


class IndexDamaged(ArtifactError):
    code = "index_damaged"


class FingerprintMismatch(ArtifactError):
    code = "fingerprint_mismatch"


class ArtifactUnwritable(ArtifactError):
    code = "artifact_unwritable"
    http_status = 507


class DimensionMismatch(ArtifactError):
    code = "dimension_mismatch"
    http_status = 500


class CatalogueUnusable(LookalikeError):
    code = "catalogue_unusable"
    http_status = 422


class WeightsUnusable(LookalikeError):
    code = "weights_unusable"
    http_status = 422


class TrainingFailed(LookalikeError):
    code = "training_failed"


class CannotStart(LookalikeError):
    code = "cannot_start"


class PhotoExpired(LookalikeError):
    code = "photo_expired"
    http_status = 410


class ShardFailed(LookalikeError):
    code = "shard_failed"


class WorkerLost(LookalikeError):
    code = "worker_lost"
    retryable = True


class DeadlineExceeded(LookalikeError):
    code = "deadline_exceeded"
    http_status = 504
    retryable = True


class JobCanceled(LookalikeError):
    code = "job_canceled"
    http_status = 409


class InternalError(LookalikeError):
    """Stands for an exception nobody raised on purpose; carries no detail of it."""


def http_status_of(code: str) -> int:
    """The HTTP status of an error known by its code, as a job's record holds it; 500 for a code unknown here."""
    pending: list[type[LookalikeError]] = [LookalikeError]
    while pending:
        error = pending.pop()
        if error.code == code:
            return error.http_status
        pending += error.__subclasses__()
    return 500
