"""Every error that the client raises. `code` identifies the error for programs, `detail` explains it to people.

LookalikeError
├── PhotoUnreadable            photo_unreadable     the photo cannot be read here; nothing was sent
├── NoAnswer                   no_answer            no connection, or it broke, until `timeout_s` was over
├── UnexpectedAnswer           unexpected_answer    the answer is not that of a Lookalike service
├── TimedOut                   timed_out            the caller's `timeout_s` is over; the job goes on
│   └── DeadlineExceeded       deadline_exceeded    the job's own `deadline_s` is over; it has expired
├── InputError                 invalid_request      the request is invalid
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
├── Conflict                   conflict             not possible in the present state
│   ├── JobFinished            job_finished
│   ├── JobNotRetryable        job_not_retryable
│   ├── JobCanceled            job_canceled
│   ├── ReindexRunning         reindex_running
│   ├── PromotionRefused       promotion_refused
│   └── IdempotencyConflict    idempotency_conflict
├── Overload                   overload             try again after `retry_after_s`; the client did
│   ├── QueueFull              queue_full
│   ├── QueueShareFull         queue_share_full
│   ├── ChangesFull            changes_full
│   ├── FeedbackFull           feedback_full
│   ├── RateLimited            rate_limited
│   ├── IdempotencyPending     idempotency_pending
│   ├── ResourcesExhausted     resources_exhausted
│   ├── QueueUnavailable       queue_unavailable
│   └── AcceptanceUnknown      acceptance_unknown   `job_id` is the job's, if it was accepted
├── NotServing                 artifact_unusable    no usable model or index; its operator has to act
│   ├── BundleMissing, BundleDamaged, IndexMissing, IndexDamaged, IndexUnavailable, FingerprintMismatch,
│       EmbeddingsDiffer, TorchMissing, ArtifactUnwritable, StoreUnavailable
└── ServiceError               internal_error       the service failed
    ├── WorkerLost             worker_lost
    ├── PhotoExpired           photo_expired
    └── ShardFailed            shard_failed

An unknown code, of a newer service, becomes the family of its HTTP status and keeps its `code`.
"""

from typing import ClassVar


class LookalikeError(Exception):
    """Base class of all errors of this client: catch it to catch them all. `str(error)` is `detail`.

    Attributes:
        code: stable, machine-readable error code; the service's table of codes lists them.
        detail: what is wrong and what to do, for people.
        status: HTTP status of the answer; 0 if there was none.
        retry_after_s: seconds after which trying again makes sense; None if the service did not say.
        request_id: id of the request in the service's log, to quote to its operator; empty if there was no answer.
        job_id: the job that failed or timed out, or of `ReindexRunning` the one that runs; empty otherwise.
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
    """The photo could not be read on this machine, so nothing was sent. Check the path or file."""

    default_code = "photo_unreadable"


class NoAnswer(LookalikeError):
    """The service could not be reached, or the connection broke, until `timeout_s` was over.

    Check the address and that the service runs. A job that was sent may exist: repeat it with its idempotency key.
    """

    default_code = "no_answer"


class UnexpectedAnswer(LookalikeError):
    """The answer is not one of this API: another service, or another version of it.

    Check the address, and that client and service have the same version.
    """

    default_code = "unexpected_answer"


class TimedOut(LookalikeError):
    """The caller's `timeout_s` is over.

    The job goes on: `client.job(error.job_id).wait()` waits for it again. The open jobs of a batch are cancelled.
    """

    default_code = "timed_out"


class DeadlineExceeded(TimedOut):
    """The job did not finish within its `deadline_s` and has expired. Submit it again, with more time."""

    default_code = "deadline_exceeded"


class InputError(LookalikeError):
    """The request is invalid: an unknown option, a wrong value, an unusable photo. `detail` says what to change."""

    default_code = "invalid_request"


class ImageMissing(InputError):
    """The request had no photo, or the photo was not sent as a file. Pass a photo or `image_id=`."""

    default_code = "image_missing"


class PhotoUndecodable(InputError):
    """The photo is empty, cut short or damaged, or takes too long to decode. Save it again, or leave it out."""

    default_code = "photo_undecodable"


class UnsupportedFormat(InputError):
    """The photo is not JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC. Convert it."""

    default_code = "unsupported_format"


class PhotoTooLarge(InputError):
    """The photo has too many pixels, or is far longer than wide. Scale it down."""

    default_code = "photo_too_large"


class UploadTooLarge(InputError):
    """The request has more bytes or photos than the service takes. Send a smaller file; `batch` splits by itself."""

    default_code = "upload_too_large"


class WebhookRefused(InputError):
    """Webhooks are off, or the operator does not allow this `webhook_url`. Use another, or `job.wait()`."""

    default_code = "webhook_refused"


class AccessDenied(LookalikeError):
    """The API key is missing, is not known, or may not make this call. See the three subclasses."""

    default_code = "access_denied"


class ApiKeyRequired(AccessDenied):
    """The service has API keys and the request had none. Pass `api_key=` or set LOOKALIKE_API_KEY."""

    default_code = "api_key_required"


class ApiKeyInvalid(AccessDenied):
    """The API key is not known, or was revoked. Ask the service's operator for a new one."""

    default_code = "api_key_invalid"


class ScopeMissing(AccessDenied):
    """The API key lacks the scope (`read`, `submit`, `admin`) of this call. `detail` names it."""

    default_code = "scope_missing"


class NotFound(LookalikeError):
    """What the call names does not exist, or no longer. See the subclasses."""

    default_code = "not_found"


class JobNotFound(NotFound):
    """There is no job of that id, or it belongs to another API key. Check the id and the key."""

    default_code = "job_not_found"


class JobGone(NotFound):
    """The job has ended and its result is no longer kept. Submit it again."""

    default_code = "job_gone"


class BatchNotFound(NotFound):
    """There is no batch of that id, or it is no longer kept. Submit it again."""

    default_code = "batch_not_found"


class ImageNotFound(NotFound):
    """The index has no photo of that `image_id` or `listing_id`, or its file is gone. Search with the photo itself."""

    default_code = "image_not_found"


class VersionNotFound(NotFound):
    """The index has no such version; it may have been deleted. `client.versions()` lists those there are."""

    default_code = "version_not_found"


class Conflict(LookalikeError):
    """The call does not fit the present state of what it names. See the subclasses."""

    default_code = "conflict"


class JobFinished(Conflict):
    """The job cannot be cancelled: it has ended. `job.refresh()` shows how."""

    default_code = "job_finished"


class JobNotRetryable(Conflict):
    """The job cannot be retried: it has not failed, or its photo is no longer kept. Submit it as a new job."""

    default_code = "job_not_retryable"


class JobCanceled(Conflict):
    """The job that was waited for was cancelled, or expired, and has no result. Submit it again if it is wanted."""

    default_code = "job_canceled"


class ReindexRunning(Conflict):
    """A reindex runs already, and there is one at a time. `client.job(error.job_id).wait()` waits for it."""

    default_code = "reindex_running"


class PromotionRefused(Conflict):
    """The version was not made live: another promotion came first, it belongs to another model, or there is
    none to roll back to. Look at `client.versions()` and decide again.
    """

    default_code = "promotion_refused"


class IdempotencyConflict(Conflict):
    """The idempotency key was used for another request. Use one key for one request."""

    default_code = "idempotency_conflict"


class Overload(LookalikeError):
    """The service cannot take the request now. The client retried while `timeout_s` allowed it.

    Try again after `retry_after_s` seconds, or give the client a longer `timeout_s`.
    """

    default_code = "overload"


class QueueFull(Overload):
    """Too many jobs wait in the queue. Submit more slowly, or raise `timeout_s` so that the client retries longer."""

    default_code = "queue_full"


class QueueShareFull(Overload):
    """Too many jobs of this API key wait in the queue. Wait for some of them to end."""

    default_code = "queue_share_full"


class ChangesFull(Overload):
    """Too many photos were put or deleted since the last reindex. Run `client.reindex()`."""

    default_code = "changes_full"


class FeedbackFull(Overload):
    """Too much feedback waits to be archived; nothing was stored. Try again after `retry_after_s`."""

    default_code = "feedback_full"


class RateLimited(Overload):
    """The API key has used up its requests per minute. Try again after `retry_after_s`."""

    default_code = "rate_limited"


class IdempotencyPending(Overload):
    """The first request with this idempotency key is still being accepted. Repeat this one a moment later."""

    default_code = "idempotency_pending"


class ResourcesExhausted(Overload):
    """The service's host lacks room, files, processes or memory. Try again after `retry_after_s`."""

    default_code = "resources_exhausted"


class QueueUnavailable(Overload):
    """The service cannot reach its job queue; nothing was accepted. Try again after `retry_after_s`."""

    default_code = "queue_unavailable"


class AcceptanceUnknown(Overload):
    """The service's job queue broke off: the job may have been accepted, and `client.job(error.job_id)` finds it."""

    default_code = "acceptance_unknown"


class NotServing(LookalikeError):
    """The service has no usable model or index, or cannot read or write them. Its operator has to act."""

    default_code = "artifact_unusable"


class BundleMissing(NotServing):
    """The service has no model yet. Its operator runs `lookalike prepare`."""

    default_code = "bundle_missing"


class BundleDamaged(NotServing):
    """A file of the model is damaged. The operator runs `lookalike index build`."""

    default_code = "bundle_damaged"


class IndexMissing(NotServing):
    """The service has no index, or no worker has loaded it yet. See `client.ready().problems`."""

    default_code = "index_missing"


class IndexDamaged(NotServing):
    """A file of the index is damaged. The operator runs `lookalike index build`."""

    default_code = "index_damaged"


class IndexUnavailable(NotServing):
    """The vector database that holds the index does not answer. Try again later."""

    default_code = "index_unavailable"


class FingerprintMismatch(NotServing):
    """The index was built with another model than the one loaded. The operator rebuilds it: `lookalike index build`."""

    default_code = "fingerprint_mismatch"


class EmbeddingsDiffer(NotServing):
    """A worker's processor gives other embeddings than the model's index has. The operator builds the model again."""

    default_code = "embeddings_differ"


class TorchMissing(NotServing):
    """The model runs in torch, which the service's machine lacks. The operator installs it."""

    default_code = "torch_missing"


class ArtifactUnwritable(NotServing):
    """The service's disk is full or read-only. The live version still serves; the operator makes room."""

    default_code = "artifact_unwritable"


class StoreUnavailable(NotServing):
    """The object store with models and indexes does not answer. Try again later."""

    default_code = "store_unavailable"


class ServiceError(LookalikeError):
    """The service failed, not the request. Quote `request_id` or `job_id` to its operator."""


class WorkerLost(ServiceError):
    """The workers that took the job died, as often as the service tries. Try another photo; report `job_id`."""

    default_code = "worker_lost"


class PhotoExpired(ServiceError):
    """The job waited longer than its photo is kept. Submit it again."""

    default_code = "photo_expired"


class ShardFailed(ServiceError):
    """A part of the reindex failed, and so did the reindex. The live version stays; report `job_id`."""

    default_code = "shard_failed"
