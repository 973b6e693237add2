"""The error tree: every error raised on purpose, with its stable code, HTTP status and whether a retry helps.

LookalikeError
├── InputError                 the caller can correct it
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
├── Overload                   try again later
│   ├── QueueFull              429  queue_full
│   ├── QueueShareFull         429  queue_share_full
│   ├── ChangesFull            429  changes_full
│   ├── RateLimited            429  rate_limited
│   ├── IdempotencyPending     409  idempotency_pending
│   └── QueueUnavailable       503  queue_unavailable
├── ArtifactError              an operator can repair it
│   ├── BundleMissing          503  bundle_missing
│   ├── BundleDamaged          503  bundle_damaged
│   ├── IndexMissing           503  index_missing
│   ├── IndexDamaged           503  index_damaged
│   ├── IndexUnavailable       503  index_unavailable  Milvus, which has the vectors, does not answer
│   ├── FingerprintMismatch    503  fingerprint_mismatch
│   ├── ArtifactUnwritable     507  artifact_unwritable
│   └── DimensionMismatch      500  dimension_mismatch
├── StoreUnavailable       503  store_unavailable  the object store does not answer
├── CatalogueUnusable          422  catalogue_unusable
├── WeightsUnusable            422  weights_unusable
├── TrainingFailed             500  training_failed
├── CannotStart                500  cannot_start
├── PhotoExpired               410  photo_expired      the pixels of a queued job have expired
├── ShardFailed            500  shard_failed       part of a reindex failed, and a retry would not help
├── WorkerLost                 500  worker_lost        the job's worker died in every attempt
├── DeadlineExceeded           504  deadline_exceeded  the job was not finished before its deadline
├── JobCanceled                409  job_canceled       the job that the caller waited for was cancelled
└── InternalError              500  internal_error     anything not raised on purpose
"""

from typing import ClassVar


class LookalikeError(Exception):
    """Root of the tree. `str(error)` is safe to show to the caller.

    Attributes:
        code: stable, machine-readable; part of the HTTP contract.
        http_status: status of the HTTP response when a request ends with the error.
        retryable: the same request may succeed later without being changed.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class InputError(LookalikeError):
    """The request cannot be accepted as it is; the caller can correct it."""

    code = "invalid_request"
    http_status = 422


class InvalidRequest(InputError):
    """An unknown option or value, or a body that is not what the call takes."""


class ImageMissing(InputError):
    """Not multipart, or no file in the field `image`."""

    code = "image_missing"


class PhotoUndecodable(InputError):
    """Empty, cut short or damaged, or more than 2.5 s of a core's work."""

    code = "photo_undecodable"


class UnsupportedFormat(InputError):
    """Not JPEG (MPO), PNG, WebP, GIF, BMP, TIFF or AVIF."""

    code = "unsupported_format"
    http_status = 415


class PhotoTooLarge(InputError):
    """More than `LOOKALIKE_MAX_PIXELS`, a side over 20,000 px, longer than 200 times its width, or over 256 MiB to
    decode (WebP over 16 Mpx, AVIF over 22).
    """

    code = "photo_too_large"
    http_status = 413


class PhotoTooHeavy(PhotoTooLarge):
    """It needs more memory than this decoder may take; another may have more."""


class UploadTooLarge(InputError):
    """The body exceeds `LOOKALIKE_MAX_UPLOAD_MB`, or that of a batch `LOOKALIKE_MAX_BATCH_MB`."""

    code = "upload_too_large"
    http_status = 413


class LengthRequired(InputError):
    """No `Content-Length`."""

    code = "length_required"
    http_status = 411


class BodyIncomplete(InputError):
    """Fewer bytes arrived than `Content-Length` says."""

    code = "body_incomplete"
    http_status = 400


class RequestTimeout(InputError):
    """The body did not arrive within 60 s."""

    code = "request_timeout"
    http_status = 408


class HostNotTrusted(InputError):
    """The `Host` header names another service: `LOOKALIKE_TRUSTED_HOSTS`."""

    code = "host_not_trusted"
    http_status = 400


class CrossSiteRefused(InputError):
    """Another web site's page had a browser send it."""

    code = "cross_site_refused"
    http_status = 403


class ImageNotFound(InputError):
    """The index has no photo of that id, or its file is gone."""

    code = "image_not_found"
    http_status = 404


class WebhookRefused(InputError):
    """Webhooks are off, or the URL is not one the operator allows."""

    code = "webhook_refused"


class JobNotFound(InputError):
    """No such job."""

    code = "job_not_found"
    http_status = 404


class JobGone(InputError):
    """The job ended and its result has expired."""

    code = "job_gone"
    http_status = 410


class JobFinished(InputError):
    """Too late to cancel it."""

    code = "job_finished"
    http_status = 409


class NotRetryable(InputError):
    """The job has not failed, or its photo is no longer kept."""

    code = "job_not_retryable"
    http_status = 409


class BatchNotFound(InputError):
    """No such batch."""

    code = "batch_not_found"
    http_status = 404


class ReindexRunning(InputError):
    """One reindex at a time: `job` and `Location` say where the running one is.

    Attributes:
        job_id: id of the reindex that runs.
    """

    code = "reindex_running"
    http_status = 409

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class VersionNotFound(InputError):
    """No such version of the index."""

    code = "version_not_found"
    http_status = 404


class PromotionRefused(InputError):
    """Another promotion came first, the version is of another model, or there is nothing to go back to."""

    code = "promotion_refused"
    http_status = 409


class IdempotencyConflict(InputError):
    """The `Idempotency-Key` was used for another request."""

    code = "idempotency_conflict"


class ApiKeyRequired(InputError):
    """There are API keys, and this request has none."""

    code = "api_key_required"
    http_status = 401


class ApiKeyInvalid(InputError):
    """The API key is not known, or was revoked."""

    code = "api_key_invalid"
    http_status = 401


class ScopeMissing(InputError):
    """The API key may not do this."""

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
    """Too many jobs wait; `Retry-After` says for how long, at the pace measured."""

    code = "queue_full"
    http_status = 429


class QueueShareFull(Overload):
    """Too many jobs of this API key wait."""

    code = "queue_share_full"
    http_status = 429


class ChangesFull(Overload):
    """`LOOKALIKE_MAX_CHANGES` photos were put or deleted since the last reindex: run one."""

    code = "changes_full"
    http_status = 429


class IdempotencyPending(Overload):
    """The first request with this `Idempotency-Key` is still being accepted."""

    code = "idempotency_pending"
    http_status = 409


class RateLimited(Overload):
    """The API key's requests a minute are used up."""

    code = "rate_limited"
    http_status = 429


class QueueUnavailable(Overload):
    """Redis cannot be reached; nothing was accepted."""


class ArtifactError(LookalikeError):
    """A bundle or an index cannot be used; an operator can repair it."""

    code = "artifact_unusable"
    http_status = 503


class BundleMissing(ArtifactError):
    """No model yet: `lookalike prepare`."""

    code = "bundle_missing"


class BundleDamaged(ArtifactError):
    """A file of the model is not what was written: `lookalike index build`."""

    code = "bundle_damaged"


class IndexMissing(ArtifactError):
    """No index yet: `lookalike prepare`."""

    code = "index_missing"


class IndexDamaged(ArtifactError):
    """A file of the index is not what was written: `lookalike index build`."""

    code = "index_damaged"


class IndexUnavailable(ArtifactError):
    """Milvus, which has the vectors of the index, does not answer: try again later; `/readyz` says more."""

    code = "index_unavailable"
    retryable = True


class FingerprintMismatch(ArtifactError):
    """The index was built by another model: `lookalike index build`."""

    code = "fingerprint_mismatch"


class ArtifactUnwritable(ArtifactError):
    """The disk is full or may not be written: make room and try again; what was live stays."""

    code = "artifact_unwritable"
    http_status = 507


class DimensionMismatch(ArtifactError):
    """The query's dimension is not that of the index's vectors."""

    code = "dimension_mismatch"
    http_status = 500


class StoreUnavailable(LookalikeError):
    """The object store with models and index does not answer: try again later; `/readyz` says more."""

    code = "store_unavailable"
    http_status = 503
    retryable = True


class CatalogueUnusable(LookalikeError):
    """Command line only: the catalogue cannot be used; the message says what to correct."""

    code = "catalogue_unusable"
    http_status = 422


class WeightsUnusable(LookalikeError):
    """Command line only: the weights cannot be downloaded or used; the message says why."""

    code = "weights_unusable"
    http_status = 422


class TrainingFailed(LookalikeError):
    """Command line only: a training run cannot continue; the message says why."""

    code = "training_failed"


class CannotStart(LookalikeError):
    """Command line only: a process cannot start; the message says what to correct."""

    code = "cannot_start"


class PhotoExpired(LookalikeError):
    """The job waited until its photo expired, or until the model it was preprocessed for was gone (a job's error)."""

    code = "photo_expired"
    http_status = 410


class ShardFailed(LookalikeError):
    """Part of a reindex failed, and a retry would not help (a job's error)."""

    code = "shard_failed"


class WorkerLost(LookalikeError):
    """The worker died in every attempt (a job's error)."""

    code = "worker_lost"
    retryable = True


class DeadlineExceeded(LookalikeError):
    """The job was not finished before its deadline (a job's error)."""

    code = "deadline_exceeded"
    http_status = 504
    retryable = True


class JobCanceled(LookalikeError):
    """The job that this call waited for was cancelled."""

    code = "job_canceled"
    http_status = 409


class InternalError(LookalikeError):
    """A fault of the service; the log has the `request_id`.

    Stands for an exception that was not raised on purpose, and carries no detail of it.
    """
