"""Errors that a caller gets for a request: wrong input, and overload."""

from shared.errors.base import InputError, Overload


class InvalidRequest(InputError):
    """An unknown option or value, or a body that is not what the call takes."""


class ImageMissing(InputError):
    """Not multipart, or no file in the field `image`."""

    code = "image_missing"


class PhotoUndecodable(InputError):
    """Empty, cut short or damaged, or more than 2.5 s of a core's work."""

    code = "photo_undecodable"


class UnsupportedFormat(InputError):
    """Not JPEG (MPO), PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC; `detail` names what it is. No video, sequence or RAW."""

    code = "unsupported_format"
    http_status = 415


class PhotoTooLarge(InputError):
    """More than `LOOKALIKE_MAX_PIXELS`, a side over 20,000 px, longer than 200 times its width, or over 256 MiB to
    decode (WebP over 16 Mpx, AVIF over 22, HEIC over 26).
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
    """No `Content-Length`, behind a server that does not tell where a chunked body ends; gunicorn does."""

    code = "length_required"
    http_status = 411


class BodyIncomplete(InputError):
    """Fewer bytes arrived than `Content-Length` says, or a chunked body was cut short or is malformed."""

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
    """A page of another origin had a browser send it: `LOOKALIKE_TRUSTED_ORIGINS`."""

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


class FeedbackFull(Overload):
    """`LOOKALIKE_MAX_FEEDBACK` searches have feedback that no worker has archived yet."""

    code = "feedback_full"
    http_status = 429


class IdempotencyPending(Overload):
    """The first request with this `Idempotency-Key` is still being accepted."""

    code = "idempotency_pending"
    http_status = 409


class RateLimited(Overload):
    """The API key's requests a minute are used up."""

    code = "rate_limited"
    http_status = 429


class ResourcesExhausted(Overload):
    """The API's host is short of room in its temporary directory, of open files, processes or memory; `detail` says
    which, and nothing was accepted.
    """

    code = "resources_exhausted"


class QueueUnavailable(Overload):
    """Redis cannot be reached, or is full: `detail` says which, and nothing was accepted."""


class AcceptanceUnknown(QueueUnavailable):
    """Redis broke off as the job was written: it may have been accepted, and is then found at `job`.

    Attributes:
        job_id: id that the job has if it was accepted.
    """

    code = "acceptance_unknown"

    def __init__(self, message: str, *, retry_after_s: int, job_id: str = "") -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.job_id = job_id


class RecordUnreadable(QueueUnavailable):
    """A newer version of the service wrote the record; during an upgrade another process may read it."""
