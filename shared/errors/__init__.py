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
│   ├── FeedbackFull           429  feedback_full
│   ├── RateLimited            429  rate_limited
│   ├── IdempotencyPending     409  idempotency_pending
│   ├── ResourcesExhausted     503  resources_exhausted  the API's host lacks room, files, processes or memory
│   └── QueueUnavailable       503  queue_unavailable
│       ├── AcceptanceUnknown  503  acceptance_unknown  it may have been accepted: ask
│       └── RecordUnreadable   503  queue_unavailable  by this process, which is of an earlier version
├── ArtifactError              an operator can repair it
│   ├── BundleMissing          503  bundle_missing
│   ├── BundleDamaged          503  bundle_damaged
│   │   └── ModelNotCompiled   503  bundle_damaged  the host may lack threads or memory: it is tried again
│   ├── IndexMissing           503  index_missing
│   ├── IndexDamaged           503  index_damaged
│   ├── IndexUnavailable       503  index_unavailable  Milvus, which has the vectors, does not answer
│   ├── FingerprintMismatch    503  fingerprint_mismatch
│   ├── EmbeddingsDiffer       503  embeddings_differ  another processor, other embeddings
│   ├── TorchMissing           503  torch_missing
│   ├── RerankerMissing        503  reranker_missing
│   ├── RerankerDamaged        503  reranker_damaged
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

from shared.errors.base import ArtifactError, InputError, InternalError, LookalikeError, Overload
from shared.errors.operations import (
    ArtifactUnwritable,
    BundleDamaged,
    BundleMissing,
    CannotStart,
    CatalogueUnusable,
    DeadlineExceeded,
    DimensionMismatch,
    EmbeddingsDiffer,
    FingerprintMismatch,
    IndexDamaged,
    IndexMissing,
    IndexUnavailable,
    JobCanceled,
    ModelNotCompiled,
    PhotoExpired,
    RerankerDamaged,
    RerankerMissing,
    ShardFailed,
    StoreUnavailable,
    TorchMissing,
    TrainingFailed,
    WeightsUnusable,
    WorkerLost,
)
from shared.errors.requests import (
    AcceptanceUnknown,
    ApiKeyInvalid,
    ApiKeyRequired,
    BatchNotFound,
    BodyIncomplete,
    ChangesFull,
    CrossSiteRefused,
    FeedbackFull,
    HostNotTrusted,
    IdempotencyConflict,
    IdempotencyPending,
    ImageMissing,
    ImageNotFound,
    InvalidRequest,
    JobFinished,
    JobGone,
    JobNotFound,
    LengthRequired,
    NotRetryable,
    PhotoTooHeavy,
    PhotoTooLarge,
    PhotoUndecodable,
    PromotionRefused,
    QueueFull,
    QueueShareFull,
    QueueUnavailable,
    RateLimited,
    RecordUnreadable,
    ReindexRunning,
    RequestTimeout,
    ResourcesExhausted,
    ScopeMissing,
    UnsupportedFormat,
    UploadTooLarge,
    VersionNotFound,
    WebhookRefused,
)

__all__ = [
    "AcceptanceUnknown",
    "ApiKeyInvalid",
    "ApiKeyRequired",
    "ArtifactError",
    "ArtifactUnwritable",
    "BatchNotFound",
    "BodyIncomplete",
    "BundleDamaged",
    "BundleMissing",
    "CannotStart",
    "CatalogueUnusable",
    "ChangesFull",
    "CrossSiteRefused",
    "DeadlineExceeded",
    "DimensionMismatch",
    "EmbeddingsDiffer",
    "FeedbackFull",
    "FingerprintMismatch",
    "HostNotTrusted",
    "IdempotencyConflict",
    "IdempotencyPending",
    "ImageMissing",
    "ImageNotFound",
    "IndexDamaged",
    "IndexMissing",
    "IndexUnavailable",
    "InputError",
    "InternalError",
    "InvalidRequest",
    "JobCanceled",
    "JobFinished",
    "JobGone",
    "JobNotFound",
    "LengthRequired",
    "LookalikeError",
    "ModelNotCompiled",
    "NotRetryable",
    "Overload",
    "PhotoExpired",
    "PhotoTooHeavy",
    "PhotoTooLarge",
    "PhotoUndecodable",
    "PromotionRefused",
    "QueueFull",
    "QueueShareFull",
    "QueueUnavailable",
    "RateLimited",
    "RecordUnreadable",
    "ReindexRunning",
    "RequestTimeout",
    "RerankerDamaged",
    "RerankerMissing",
    "ResourcesExhausted",
    "ScopeMissing",
    "ShardFailed",
    "StoreUnavailable",
    "TorchMissing",
    "TrainingFailed",
    "UnsupportedFormat",
    "UploadTooLarge",
    "VersionNotFound",
    "WebhookRefused",
    "WeightsUnusable",
    "WorkerLost",
]
